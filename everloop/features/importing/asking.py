"""Asking Feast what a repository defines: its own library, under the user's interpreter, in a child."""

import json
import subprocess
from pathlib import Path
from typing import Any

from everloop.core.errors import InvalidInput, NotFound

_SCRIPT = Path(__file__).with_name("described.py")
_SECONDS = 300


def described(repo: Path, python: str) -> dict[str, Any]:
    """The definitions of the repository, by `python`, which must have Feast. Raises `NotFound`, `InvalidInput`."""
    if not (repo / "feature_store.yaml").is_file():
        raise NotFound(f"{repo} is no Feast repository", hint="it has a file feature_store.yaml")
    try:
        done = subprocess.run(  # noqa: S603 - the interpreter that the user named
            [python, "-I", str(_SCRIPT), str(repo)], capture_output=True, text=True, timeout=_SECONDS, check=False
        )
    except OSError as error:
        raise InvalidInput(f"{python} does not run: {error}", hint="--python: an interpreter that has Feast") from None
    except subprocess.TimeoutExpired:
        raise InvalidInput(f"reading {repo} took more than {_SECONDS} s") from None
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or ["no message"]
        raise InvalidInput(
            f"Feast cannot read {repo}: {last[0][:300]}", hint="--python: an interpreter that has Feast (feast version)"
        )
    found: dict[str, Any] = json.loads(done.stdout)
    return found
