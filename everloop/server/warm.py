"""Tasks in processes forked from one that has imported already what tasks need.

An interpreter that has imported the operations, Polars, PyArrow and scikit-learn costs one to three seconds of CPU,
more than most tasks. So a worker asks a warm process, which runs nothing itself: for each task it forks a child, waits
for it and tells its status. From its children it learns which libraries tasks use, and imports them too. It ends after
a while without work, so that an idle workspace holds no memory for it.

It forks before any thread of Python's exists and imports only libraries that start none; nothing is opened before the
fork, so that no connection, lock or key is shared.
"""

import contextlib
import gc
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from importlib import import_module
from typing import IO

from everloop.flows.executors.parent import die_with_parent

LIBRARIES = frozenset({"duckdb", "numpy", "pandas", "polars", "pyarrow", "scipy", "sklearn", "sqlglot"})
"""What may be imported ahead: their threads begin with the first call, not with the import."""
IDLE_SECONDS = 60.0
_TOOK = b"took\n"


class Warm:
    """A worker's end of its warm process: one task at a time."""

    def __init__(self, module: str, idle_seconds: float = IDLE_SECONDS) -> None:
        """`python -m module --warm FD SECONDS` must call `serve`; it is started by the first task."""
        self._module, self._idle = module, idle_seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._line: socket.socket | None = None
        self._asked: tuple[Sequence[str], IO[bytes]] | None = None
        self._heard, self._again = b"", False

    def start(self, arguments: Sequence[str], output: IO[bytes]) -> None:
        """Have a child do the task; what it writes to its standard output goes into the file `output`."""
        self._asked, self._heard, self._again = (arguments, output), b"", True
        if self._line is None:
            self._begin()
        self._ask()

    def poll(self) -> int | None:
        """The status of the task's child once it has ended: negative for a signal, as in `subprocess`."""
        if self._line is None:
            return -signal.SIGKILL
        while True:
            try:
                part = self._line.recv(64, socket.MSG_DONTWAIT)
            except BlockingIOError:
                break
            except OSError:
                part = b""
            if not part:
                return self._lost()
            self._heard += part
        said = self._heard.removeprefix(_TOOK)
        return int(said) if said.endswith(b"\n") and self._heard != said else None

    def end(self) -> None:
        """End the warm process and its child, at once if they do not go by themselves."""
        held, self._process = self._process, None
        if self._line is not None:
            self._line.close()
            self._line = None
        if held is None:
            return
        for number, seconds in ((signal.SIGTERM, 5.0), (signal.SIGKILL, None)):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(held.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                held.wait(seconds)
                return

    def _begin(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
                [sys.executable, "-P", "-m", self._module, "--warm", str(theirs.fileno()), str(self._idle)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                process_group=0,
                preexec_fn=die_with_parent,  # noqa: PLW1509 - one system call, before any thread exists
            )
        self._line = ours

    def _ask(self) -> None:
        assert self._line is not None
        assert self._asked is not None
        arguments, output = self._asked
        with contextlib.suppress(OSError):  # it ended in this moment: `poll` hears of it and asks another
            socket.send_fds(self._line, [json.dumps(arguments).encode() + b"\n"], [output.fileno()])

    def _lost(self) -> int | None:
        """It is gone: with the task, or before it took it, as one does that was idle for long; then ask one more."""
        took = self._heard.startswith(_TOOK)
        status = self._process.wait() if self._process is not None else -signal.SIGKILL
        self.end()
        if took or not self._again:
            return status or -signal.SIGKILL
        self._again = False
        self._begin()
        self._ask()
        return None


def serve(main: Callable[[list[str]], int], arguments: Sequence[str]) -> int:
    """Fork a child for each task that is asked for; in a child this returns `main`'s exit code, and the caller exits.

    `arguments` are `--warm FD SECONDS`. Returns 0 when the worker has gone or nothing was asked for SECONDS.
    """
    line = socket.socket(fileno=int(arguments[1]))
    line.settimeout(float(arguments[2]))
    while True:
        try:
            text, fds, _, _ = socket.recv_fds(line, 65536, 1)
        except (TimeoutError, OSError):
            return 0
        if not text:
            return 0
        line.sendall(_TOOK)
        reading, writing = os.pipe()
        gc.freeze()  # what is there already is not looked at again, so that the child's pages stay shared
        child = os.fork()
        if child == 0:
            line.close()
            os.close(reading)
            return _child(main, json.loads(text), fds[0], writing)
        os.close(fds[0])
        os.close(writing)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        os.set_blocking(reading, False)
        with os.fdopen(reading, "rb") as pipe:  # a process that the task left behind may hold the other end
            used = (pipe.read() or b"").decode().split()
        with contextlib.suppress(OSError):
            line.sendall(f"{status}\n".encode())
        _learn(used)


def _child(main: Callable[[list[str]], int], arguments: list[str], output: int, learned: int) -> int:
    die_with_parent()
    os.dup2(output, 1)
    os.close(output)
    if "numpy" in sys.modules:
        import_module("numpy.random").seed()  # its global state is the parent's: every child would draw the same
    known = set(sys.modules)
    try:
        return main(arguments)
    finally:
        fresh = [name for name in sys.modules if name not in known and name.partition(".")[0] in LIBRARIES]
        os.write(learned, " ".join(fresh).encode()[:60_000])
        os.close(learned)


def _learn(names: Iterable[str]) -> None:
    for name in sorted(names):
        with contextlib.suppress(ImportError, AttributeError):
            import_module(name)
