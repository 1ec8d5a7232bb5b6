"""Steps in child processes that are forked from a warm one: isolated as well, without a start-up for each.

One server (`serving`) for each project folder and number of threads, for those are set before an interpreter starts.
Where it may not fork, because what the project imports has started threads, steps get an interpreter each.
"""

import os
import socket
import subprocess
import sys
import threading
from contextlib import ExitStack, suppress
from dataclasses import replace
from typing import IO, Any

import msgspec

from everloop.core.ports import Job
from everloop.flows.child import write_job
from everloop.flows.executors.process import Child, ProcessExecutor, clean_environment

_START_SECONDS = 120.0


class ForkedExecutor(ProcessExecutor):
    """Runs each job in a child of a process that has imported the project, its codecs and runners."""

    def __init__(self, python: str = sys.executable) -> None:
        """Use this interpreter; a server starts with the first job that needs it."""
        super().__init__(python)
        self._servers: dict[tuple[str, str, int, str], _Server] = {}
        self._starting = threading.Lock()
        self.refused: set[str] = set()
        """Modules of projects that cannot be forked."""

    def close(self) -> None:
        """Kill every child and the servers; jobs that come later are refused."""
        super().close()
        with self._starting:
            for server in self._servers.values():
                server.end()
            self._servers.clear()

    def _start(self, job: Job, answer_to: int) -> Child:
        with self._lock:
            self._usable()
        for _ in range(2):
            if job.module in self.refused:
                break
            server = self._server(job)
            child, refused = server.fork(job, answer_to)
            if child is not None:
                with self._lock:
                    self._running[job.recipe or job.step] = child
                    closed = self._closed
                if closed:  # meanwhile: nobody else ends it
                    child.kill()
                return child
            self._leave(server)
            if refused == "threads":
                self.refused.add(job.module)
        return super()._start(job, answer_to)

    def _server(self, job: Job) -> "_Server":
        key = (str(job.root), job.module, int(job.resources.cores), job.blobs)
        with self._starting:
            if key not in self._servers:
                self._servers[key] = _Server(self._python, job)
            return self._servers[key]

    def _leave(self, server: "_Server") -> None:
        """It cannot be used any more; its children end by themselves."""
        with self._starting:
            self._servers = {key: one for key, one in self._servers.items() if one is not server}
        server.end()


class _Server:
    """This side of one server: asks for children, and hears how they ended."""

    def __init__(self, python: str, job: Job) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603 - our own module, no shell
                [python, "-P", "-m", "everloop.flows.executors.serving", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd=job.root,
                env=clean_environment(replace(job, env={})),
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )
        self._line = ours
        self._asking = threading.Lock()
        self._news = threading.Condition()
        self._said: dict[int, dict[str, Any]] = {}
        self._waiting: dict[int, _Forked] = {}
        self._count = 0
        self._gone = False
        threading.Thread(target=self._listen, name="forks", daemon=True).start()

    def fork(self, job: Job, answer_to: int) -> tuple["_Forked | None", str]:
        """A child that waits for its job on its standard input; or None, and why not."""
        with ExitStack() as theirs, ExitStack() as ours:
            ends = [os.pipe() for _ in range(3)]
            (reading, to_child), (from_out, out_end), (from_err, err_end) = ends
            for one in (reading, out_end, err_end):
                theirs.callback(os.close, one)
            stdin = ours.enter_context(os.fdopen(to_child, "wb"))
            out = ours.enter_context(os.fdopen(from_out, "rb", buffering=0))
            err = ours.enter_context(os.fdopen(from_err, "rb", buffering=0))
            content = write_job(job)
            with self._asking:
                self._count += 1
                number = self._count
                asked = msgspec.json.encode({"number": number, "size": len(content)})
                try:
                    socket.send_fds(self._line, [asked], [reading, out_end, err_end, answer_to])
                    stdin.write(content)
                    stdin.flush()
                except OSError:
                    return None, "gone"
            said = self._hear(number)
            if "pid" not in said:
                return None, str(said.get("refused", "gone"))
            child = _Forked(int(said["pid"]), (stdin, out, err), self, number)
            ours.pop_all()
            return child, ""

    def ended(self, number: int, timeout: float | None) -> int | None:
        """How a child ended; None when it has not within `timeout` seconds."""
        with self._news:
            self._news.wait_for(lambda: self._gone or "code" in self._said.get(number, {}), timeout)
            code = self._said.get(number, {}).get("code")
            return -9 if code is None and self._gone else code

    def end(self) -> None:
        """End the server; children that run go with it, for their standard input is closed by who asked for them."""
        with suppress(OSError):
            self._line.shutdown(socket.SHUT_RDWR)
        self._process.kill()
        self._process.wait()
        with suppress(OSError):
            self._line.close()

    def _hear(self, number: int) -> dict[str, Any]:
        with self._news:
            self._news.wait_for(lambda: self._gone or number in self._said, _START_SECONDS)
            return dict(self._said.get(number, {}))

    def _listen(self) -> None:
        while True:
            try:
                text = self._line.recv(65536)
            except OSError:
                text = b""
            with self._news:
                if not text:
                    self._gone = True
                    self._news.notify_all()
                    return
                said = msgspec.json.decode(text)
                self._said.setdefault(int(said.pop("number")), {}).update(said)
                self._news.notify_all()


class _Forked:
    """A child of a server, as `subprocess.Popen` would show it."""

    def __init__(self, pid: int, streams: tuple[Any, Any, Any], server: _Server, number: int) -> None:
        self.pid, self.returncode = pid, None
        self.stdin: IO[bytes] | None
        self.stdout: IO[bytes] | None
        self.stderr: IO[bytes] | None
        self.stdin, self.stdout, self.stderr = streams
        self._server, self._number = server, number

    returncode: int | None

    def wait(self, timeout: float | None = None) -> int:
        code = self._server.ended(self._number, timeout)
        if code is None:
            raise subprocess.TimeoutExpired("a forked step", timeout or 0.0)
        self.returncode = code
        return code

    def kill(self) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, 9)
