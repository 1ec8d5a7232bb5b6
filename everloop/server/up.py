"""`python -m everloop.server.up`: the supervisor's process of `everloop up`, with settings from the environment.

`everloop up` prepares the workspace (folders, migrations, a sign-in link) and then becomes this process, which
loads next to nothing.
"""

import http.client
import os
import secrets
import sys
import time
from pathlib import Path

from everloop.core.errors import EverloopError
from everloop.core.settings import SERVING_RAY, Settings, load
from everloop.server.supervisor import Child, bind, pids_file, supervise
from everloop.serving.gateway.passing.hand import VARIABLE as HAND

LINK = "EVERLOOP_LINK"
"""The sign-in link to print once everything answers; taken out of the environment before children start."""
MEMORY = "EVERLOOP_SERVING_MEMORY"
"""MiB that the gateway's model workers may take together."""
_READY_WITHIN = 60.0


def main() -> int:
    """Bind, start, wait until `/health` answers, print the link, and look after the children until a signal."""
    link = os.environ.pop(LINK, "")
    settings = load({}, os.environ)
    try:
        listener = bind(settings.host, settings.port)
    except EverloopError as error:
        sys.stderr.write(f"error: {error.message}\nhint:  {error.hint}\n")
        return 6
    port = listener.getsockname()[1]
    run = settings.home / "run"
    children = processes(settings, listener.fileno(), port)
    began = time.monotonic()
    warned: list[bool] = []

    def ready() -> bool:
        if not healthy(settings.host, port):
            if not warned and time.monotonic() - began > _READY_WITHIN:
                warned.append(True)
                say(f"not answering after {_READY_WITHIN:.0f} s; see the logs in {run}")
            return False
        say(f"Everloop answers at http://{_shown(settings.host)}:{port} after {time.monotonic() - began:.1f} s")
        if link:
            say(f"sign in (once): http://{_shown(settings.host)}:{port}{link}")
        return True

    try:
        return supervise(children, say, ready, lambda: pids_file(run / "pids", children))
    finally:
        (run / "pids").unlink(missing_ok=True)
        listener.close()


def processes(settings: Settings, listener: int, port: int) -> list[Child]:
    """Gateway, server and workers, in the order in which they are stopped."""
    home = settings.home
    run = home / "run"
    socket_path = server_socket(home)
    env = {
        **os.environ,
        "EVERLOOP_HOME": str(home),
        "EVERLOOP_PORT": str(port),
        # small heaps: glibc gives each thread an arena of its own otherwise
        "MALLOC_ARENA_MAX": "2",
    }
    gateway = [
        "-P",  # the folder we were started in is no place for modules: a project's queue.py would hide Python's
        "-m",
        "everloop.serving.gateway",
        "--home",
        str(home),
        "--fd",
        str(listener),
        "--server",
        str(socket_path),
    ]
    if settings.fsync:
        gateway.append("--fsync")
    if memory := os.environ.get(MEMORY, ""):
        gateway += ["--memory", memory]
    if cluster := os.environ.get(SERVING_RAY, ""):
        gateway += ["--ray", cluster]
    serve = ["-P", "-m", "everloop.server.serve", str(socket_path)]
    trusting = {**env, HAND: secrets.token_hex(32)}  # these two alone take each other at their word
    made = [
        Child("gateway", [sys.executable, *gateway], trusting, run / "gateway.log", (listener,)),
        Child("server", [sys.executable, *serve], trusting, run / "server.log"),
    ]
    for number in range(settings.workers):
        name = f"worker-{number}"
        made.append(Child(name, [sys.executable, "-P", "-m", "everloop.server.worker", name], env, run / f"{name}.log"))
    return made


def server_socket(home: Path) -> Path:
    """The server's UNIX socket; a short path, for the kernel allows 107 bytes."""
    path = home / "run" / "server.sock"
    if len(str(path)) < 100:
        return path
    return Path(os.environ.get("XDG_RUNTIME_DIR", "/tmp")) / f"everloop-{os.getpid()}.sock"  # noqa: S108 - see above


def healthy(host: str, port: int) -> bool:
    """Whether `/health` answers 200, through the gateway and the server behind it."""
    target = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - asked, not bound
    connection = http.client.HTTPConnection(target, port, timeout=1)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def say(text: str) -> None:
    """A line for the person at the terminal."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _shown(host: str) -> str:
    return f"[{host}]" if ":" in host else host


if __name__ == "__main__":
    sys.exit(main())
