"""`python -m everloop.flows.executors.serving FD`: a process that has imported what a flow needs, and forks.

It runs no step itself. For each job it gets over its socket, with four descriptors, it forks a child, which becomes
what `everloop.flows.child` is otherwise: alone in its group, its streams and its answer on the descriptors. The server
waits for its children and tells how they ended.

It forks only while it may: threads of compiled libraries do not survive a fork, nor do locks that they hold. When what
a project imports starts a thread, the server says so, and such a project's steps get an interpreter each. OpenBLAS is
the exception: it ends its threads before a fork and makes new ones after. Nothing is opened before a fork.
"""

import gc
import os
import selectors
import signal
import socket
import sys
import threading
from contextlib import suppress
from pathlib import Path

import msgspec

from everloop.core.errors import EverloopError
from everloop.core.ports import Job
from everloop.flows import child
from everloop.flows.perform import resolve, warm

_LINE = 1 << 20


class Server:
    """The state of one server: its socket, and which child is which job."""

    def __init__(self, line: socket.socket) -> None:
        """Serve over `line`."""
        self._line = line
        self._children: dict[int, int] = {}
        self._warm = ""
        self._files: dict[str, tuple[int, int]] = {}
        self._reading, self._writing = os.pipe()
        os.set_blocking(self._writing, False)
        os.set_blocking(self._reading, False)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        signal.set_wakeup_fd(self._writing)

    def serve(self) -> int:
        """Serve until the other side is gone; 0."""
        with selectors.DefaultSelector() as ready:
            ready.register(self._line, selectors.EVENT_READ)
            ready.register(self._reading, selectors.EVENT_READ)
            while True:
                for key, _ in ready.select():
                    if key.fileobj is not self._line:
                        self._reap()
                    elif not self._hear():
                        return 0

    def _hear(self) -> bool:
        try:
            text, fds, _, _ = socket.recv_fds(self._line, _LINE, 4)
        except OSError:
            text, fds = b"", []
        if not text:
            return False
        asked = msgspec.json.decode(text)
        number, size = int(asked["number"]), int(asked["size"])
        content = _exactly(fds[0], size) if fds else b""
        job = child.job_of(content)
        refused = self._prepared(job)
        if refused:
            self._say({"number": number, "refused": refused})
        else:
            self._fork(number, job, fds)
        for descriptor in fds:
            os.close(descriptor)
        return True

    def _prepared(self, job: Job) -> str:
        """Import what the job needs, once; why this process may not fork for it, or nothing."""
        if not self._warm:
            self._warm = job.module
            with suppress(Exception):  # the child meets it again, and tells
                child.find_asset(job)
            for codec in job.codecs.values():
                with suppress(EverloopError):
                    resolve(codec)
            warm(job)
            self._files = _files_of(job.root)
            gc.collect()
            gc.freeze()
        if _files_of(job.root) != self._files:
            return "changed"
        return "threads" if _threads() else ""

    def _fork(self, number: int, job: Job, fds: list[int]) -> None:
        pid = os.fork()
        if pid:
            with suppress(OSError):  # both sides do it: whoever hears of the child may end its group at once
                os.setpgid(pid, pid)
            self._children[pid] = number
            self._say({"number": number, "pid": pid})
            return
        status = 1
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            with suppress(OSError):
                os.setpgid(0, 0)
            for target, descriptor in enumerate(fds[:3]):
                os.dup2(descriptor, target)
            self._line.close()
            status = child.answer(job, fds[3])
        finally:
            os._exit(status)  # nothing of the server's is to run in its child

    def _reap(self) -> None:
        with suppress(BlockingIOError):
            os.read(self._reading, 4096)
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            number = self._children.pop(pid, None)
            if number is not None:
                self._say({"number": number, "code": os.waitstatus_to_exitcode(status)})

    def _say(self, said: dict[str, object]) -> None:
        with suppress(OSError):
            self._line.send(msgspec.json.encode(said))


def _exactly(descriptor: int, size: int) -> bytes:
    """The job, which waits in the pipe that becomes the child's standard input."""
    found = b""
    while len(found) < size:
        piece = os.read(descriptor, size - len(found))
        if not piece:
            break
        found += piece
    return found


def _files_of(root: Path) -> dict[str, tuple[int, int]]:
    """The project's modules that are loaded, with their times and sizes: code that changed is imported anew."""
    inside = str(root.resolve()) + os.sep
    found = {}
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None)
        if file and str(file).startswith(inside):
            with suppress(OSError):
                state = Path(file).stat()
                found[str(file)] = (state.st_mtime_ns, state.st_size)
    return found


_HARMLESS = frozenset({"jemalloc_bg_thd", "polars-ooc-clea"})
"""Threads that importing Arrow, pandas, scikit-learn or Polars starts, and a child can be without.

jemalloc starts its own again by handlers of its own; the other removes files of spilled queries, at which nobody is.
"""


def _threads() -> bool:
    """Whether a thread runs that would be missing after a fork."""
    if threading.active_count() > 1:
        return True
    own = Path("/proc/self/comm")
    if not own.exists():  # no way to know: do not
        return True
    name = own.read_text()
    names = []
    for task in Path("/proc/self/task").iterdir():
        with suppress(OSError):
            names.append((task / "comm").read_text())
    return any(one != name and one.strip() not in _HARMLESS for one in names)


def main(descriptor: int) -> int:
    """Serve over an inherited socket."""
    os.set_inheritable(descriptor, False)
    return Server(socket.socket(fileno=descriptor)).serve()


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
