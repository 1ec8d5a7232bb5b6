"""Feast as the peer of the features benchmarks: one environment of its own in the cache folder, for all of them."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

RELEASE = "0.67.0"
FEAST = f"feast[duckdb,redis]=={RELEASE}"


def feast_python() -> Path | None:
    """The Python of an environment with Feast, made when it is not there; None where it cannot be installed."""
    folder = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "everloop-bench" / RELEASE
    python = folder / "bin" / "python"
    if not (folder / "ready").exists():
        uv = shutil.which("uv")
        make = [uv, "venv", "-q", "--clear"] if uv else [sys.executable, "-m", "venv", "--clear"]
        install = [uv, "pip", "install", "-q", "-p", python] if uv else [python, "-m", "pip", "install", "-q"]
        try:
            subprocess.run([*make, folder], check=True)
            subprocess.run([*install, FEAST], check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            sys.stderr.write(f"Feast cannot be installed: {error}\n")
            return None
        (folder / "ready").touch()
    return python


def quiet() -> dict[str, str]:
    """The environment of its processes: nothing is sent anywhere, and warnings are not ours."""
    return {**os.environ, "FEAST_USAGE": "False", "PYTHONWARNINGS": "ignore"}
