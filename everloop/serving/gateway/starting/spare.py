"""Processes of model workers, and one that is started before the gateway itself is loaded.

What a worker imports takes longer than anything else until the first answer. So while the gateway imports what it
needs, a worker imports the libraries that the first awake model of the routing table names in its requirements. The
table is only peeked at here, unverified: all that follows from it is which of `LIBRARIES` are imported.
"""

import base64
import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from everloop.core.errors import NotFound
from everloop.serving.gateway.passing import hand

LIBRARIES = {"scikit-learn": "sklearn.ensemble", "xgboost": "xgboost", "lightgbm": "lightgbm"}
"""What may be imported ahead, by the requirement that asks for it."""
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS", "POLARS_MAX_THREADS")
"""What says how many threads libraries use: one, or else a lone row waits for all of them."""
_CLUSTER_TOKEN = "RAY_AUTH_TOKEN"  # noqa: S105 - a name: `settings.RAY_TOKEN`, which is not imported here either
_WITHIN = "everloop.models.compiled.loader:load_compiled"
"""`table.INLINE`, which is not imported here: nothing slow may be."""
_MOST_BYTES = 1 << 20
"""A table larger than that is not peeked at: reading it takes longer than it saves."""
PYTHONS = "EVERLOOP_SERVING_PYTHONS"
"""`name=/path/to/bin/python`, several with the separator of paths: where named environments are on this machine."""
_OWN_PACKAGES = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
Started = tuple[subprocess.Popen[bytes], socket.socket]
"""A worker's process, and our end of its connection."""
_spare: list[Started] = []


def started(ahead: Sequence[str] = (), threads: int = 1, *, many: bool = False, python: str = "") -> Started:
    """A new worker process, which waits for its setup; it imports `ahead` meanwhile. Its libraries use `threads`.

    One for `many` models waits for connections, each of which brings a setup. `python` is the interpreter of another
    environment, which finds nothing of this one's packages.
    """
    ours, theirs = socket.socketpair()
    environment = {**os.environ, **dict.fromkeys(_THREADS, str(threads)), "PYTHONUNBUFFERED": "1"}
    mode = ["--many"] if many else []
    for secret in (hand.VARIABLE, _CLUSTER_TOKEN, *(_OWN_PACKAGES if python else ())):
        environment.pop(secret, None)
    with theirs:
        process = subprocess.Popen(  # noqa: S603 - our own interpreter; a fork of a small process
            [
                python or sys.executable,
                "-P",
                "-m",
                "everloop.serving.modelworker",
                "--fd",
                str(theirs.fileno()),
                *mode,
                *ahead,
            ],
            pass_fds=(theirs.fileno(),),
            stdin=subprocess.DEVNULL,
            env=environment,
        )
    return process, ours


def begin(words: Sequence[str]) -> None:
    """Start the spare, if the command line `words` names a home whose first model is worth it."""
    if (
        "--home" in words[:-1]
        and "--ray" not in words
        and (ahead := _libraries(Path(words[words.index("--home") + 1])))
    ):
        _spare.append(started(ahead))


def taken(threads: int = 1, environment: str = "") -> Started:
    """The spare, or a new process; the spare's libraries use one thread. Raises what `python_of` raises, `OSError`."""
    if environment:
        return started(threads=threads, python=python_of(environment))
    return _spare.pop() if _spare and threads == 1 else started(threads=threads)


def python_of(environment: str) -> str:
    """The interpreter of a named environment, as this process was told; raises `NotFound`."""
    for entry in os.environ.get(PYTHONS, "").split(os.pathsep):
        name, _, path = entry.partition("=")
        if name.strip() == environment and path:
            return path
    raise NotFound(
        f"no Python environment {environment!r} is known here",
        hint=f"start the gateway with {PYTHONS}={environment}=/path/to/bin/python",
    )


def dismiss() -> None:
    """End a spare that nobody took."""
    while _spare:
        process, ours = _spare.pop()
        ours.close()
        process.kill()
        process.wait()


def _libraries(home: Path) -> list[str]:
    """What the first model that is awake from the start needs; nothing where the table does not tell."""
    try:
        path = home / "serving" / "routes.json"
        if path.stat().st_size > _MOST_BYTES:
            return []
        statement = json.loads(base64.b64decode(json.loads(path.read_bytes())["payload"]))
        folder = next(_folders(statement["predicate"]["routes"]), None)
        lines = [] if folder is None else Path(folder, "requirements.txt").read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []
    named = {line.partition("=")[0].strip() for line in lines}
    return [module for requirement, module in LIBRARIES.items() if requirement in named]


def _folders(routes: Sequence[Mapping[str, Any]]) -> Any:
    for route in routes:
        if route.get("least", 1):
            for revision in route["revisions"]:
                for part in revision.get("parts", {}).values() or (revision,):
                    if part.get("loader") != _WITHIN:
                        yield part["folder"]
