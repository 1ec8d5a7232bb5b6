"""The same script with every client that people have: the installed one always, older and whole ones when asked."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCENARIO = Path(__file__).with_name("scenario.py")
CHAPTERS = ("fluent", "artifacts", "models", "inputs", "evaluation", "tracing")
OLDER = (
    *("scikit-learn<1.7", "pandas<3", "numpy<2.3", "scipy<1.16", "setuptools<81"),
    "opentelemetry-sdk<1.34",  # with a newer one these clients' tracing sends nothing, to any server
)
CLIENTS = {
    "the last 2.x": ("mlflow>=2.22,<2.23", *OLDER),
    "an early 3.x": ("mlflow-skinny>=3.1,<3.2", *OLDER),
    "the whole package": ("mlflow>=3.17,<4", "scikit-learn"),
}
"""What people install, and the libraries of that client's time."""


SETTINGS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",  # a 5xx that would only repeat itself shows at once
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "GIT_PYTHON_REFRESH": "quiet",
}


def told(python, url, folder, chapters):
    """Run the script as a user would, in a folder of its own, and return what it printed."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
    done = subprocess.run(
        [python, "-P", "-W", "ignore", str(SCENARIO), *chapters],
        cwd=folder,
        env={**kept, **SETTINGS, "MLFLOW_TRACKING_URI": url, "MPLCONFIGDIR": str(folder)},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout.splitlines()


def test_the_installed_client(served, tmp_path):
    lines = told(sys.executable, served.url, tmp_path, CHAPTERS)
    assert [line for line in lines if line.endswith(" ok")] == [f"{name} ok" for name in CHAPTERS]


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("client", CLIENTS)
def test_clients_of_other_versions(served, tmp_path, client):
    place = tmp_path / "venv"
    if uv := shutil.which("uv"):
        subprocess.run([uv, "venv", "-q", "--python", sys.executable, str(place)], check=True)
        install = [uv, "pip", "install", "-q", "-p", str(place)]
    else:
        subprocess.run([sys.executable, "-m", "venv", str(place)], check=True)
        install = [str(place / "bin" / "pip"), "install", "-q"]
    subprocess.run([*install, "matplotlib", *CLIENTS[client]], check=True)
    lines = told(str(place / "bin" / "python"), served.url, tmp_path, CHAPTERS)
    assert [line for line in lines if line.endswith(" ok")] == [f"{name} ok" for name in CHAPTERS]
