"""Steps in child processes: a fresh interpreter each, a clean environment, limits, and an end that is certain."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import replace
from typing import IO, Any, Protocol

import msgspec

from everloop.core import errors
from everloop.core.errors import Cancelled, EverloopError, StepFailed, Unavailable
from everloop.core.ports import Job, Observer, Outcome, Use
from everloop.flows.child import outcome_from_json, write_job
from everloop.flows.executors.limits import Limits, group_of
from everloop.flows.executors.prints import Prints
from everloop.flows.identity.runtime import thread_environment
from everloop.store import access


class Child(Protocol):
    """A child process, as `subprocess` has it, whoever made it."""

    pid: int
    returncode: int | None
    stdin: IO[bytes] | None
    stdout: IO[bytes] | None
    stderr: IO[bytes] | None

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code, once it has ended; raises `subprocess.TimeoutExpired`."""
        ...


_PASSED_ON = (
    "PATH",
    "HOME",
    "TMPDIR",
    "LD_LIBRARY_PATH",
    "VIRTUAL_ENV",
    "SSL_CERT_FILE",
    "CUDA_VISIBLE_DEVICES",
    "PYTHONDONTWRITEBYTECODE",  # theirs to say: an installer that compiles nothing leaves it to the first import,
    "PYTHONPYCACHEPREFIX",  # and a child that kept nothing would compile its libraries anew at every step
)

_FIXED = {
    "PYTHONHASHSEED": "0",
    "PYTHONSAFEPATH": "1",
    "PYTHONUNBUFFERED": "1",
    "TZ": "UTC",
    "LC_ALL": "C.UTF-8",
    "SOURCE_DATE_EPOCH": "0",
}


class ProcessExecutor:
    """Runs each job in `python -m everloop.flows.child`, alone in its process group.

    The child's environment holds the few variables that programs need to start, fixed ones (hash seed, time zone,
    locale, threads of the numeric libraries) and the job's own; nothing else of this process.
    """

    isolated = True
    """Steps may run beside each other."""

    def __init__(self, python: str = sys.executable) -> None:
        """Use this interpreter."""
        self._python = python
        self._running: dict[str, Child] = {}
        self._cancelled: set[str] = set()
        self._lock = threading.Lock()
        self._closed = False

    def run(self, job: Job, observer: Observer | None = None) -> Outcome:
        """Run it; raises `StepFailed` for user code and limits, `Unavailable` when the child died, `Cancelled`."""
        reading, writing = os.pipe()
        with ExitStack() as made:
            answer = made.enter_context(os.fdopen(reading, "rb"))
            group = group_of(job)
            if group is not None:
                made.callback(group.remove)
                job = replace(job, facts={**job.facts, "groups": group.files})
            try:
                child = self._start(job, writing)
            finally:
                os.close(writing)
            if observer is not None:
                observer.began(child.pid)
            prints = Prints(child.stdout, child.stderr, observer)
            limits = Limits(job, child.pid, lambda: _kill(child), group)
            try:
                said = self._converse(child, answer)
            finally:
                limits.finish()
                _kill(child)
                prints.finish()
                with self._lock:
                    self._running.pop(job.recipe or job.step, None)
            if observer is not None:
                with suppress(msgspec.DecodeError):
                    observer.used(Use(*msgspec.json.decode(said)["used"]))
            return self._outcome(job, child, said, prints.tail(), limits)

    def environ(self, _step: str) -> Mapping[str, str]:
        """The variables that a step would see if it ran now, those of its own job aside."""
        return given_variables()

    def cancel(self, recipe: str) -> bool:
        """Kill the child of a job, by its recipe key; False when there is none."""
        with self._lock:
            child = self._running.get(recipe)
            if child is not None:
                self._cancelled.add(recipe)
        if child is not None:
            _kill(child)
        return child is not None

    def close(self) -> None:
        """Kill every child; jobs that come later are refused."""
        with self._lock:
            self._closed = True
            running = list(self._running.items())
            self._cancelled.update(key for key, _ in running)
        for _, child in running:
            _kill(child)

    def _start(self, job: Job, answer_to: int) -> Child:
        with self._lock:
            self._usable()
            child = subprocess.Popen(  # noqa: S603 - our own module, no shell
                [self._python, "-P", "-m", "everloop.flows.child", str(answer_to)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd=job.root,
                env=clean_environment(job),
                pass_fds=(answer_to,),
                start_new_session=True,
            )
            self._running[job.recipe or job.step] = child
        assert child.stdin is not None
        with suppress(BrokenPipeError):
            child.stdin.write(write_job(job))
            child.stdin.flush()
        return child

    def _usable(self) -> None:
        if self._closed:
            raise Unavailable("the executor is closed", hint="make another one")

    def _converse(self, child: Child, answer: IO[bytes]) -> bytes:
        assert child.stdin is not None
        try:
            said = answer.readline()  # one line; a process that the step left behind may hold the pipe open
            child.wait()
        finally:
            with suppress(BrokenPipeError):
                child.stdin.close()
        return said

    def _outcome(self, job: Job, child: Child, said: bytes, output: str, limits: Limits) -> Outcome:
        with suppress(msgspec.DecodeError):
            raw = msgspec.json.decode(said)
            if "outcome" in raw:
                return outcome_from_json(raw["outcome"], output)
            raise error_of(raw["error"], output)
        code = child.returncode
        key = job.recipe or job.step
        if key in self._cancelled:
            self._cancelled.discard(key)
            raise Cancelled(f"{job.step} was cancelled", hint="run it again: finished steps are reused")
        died = signal.Signals(-code).name if code is not None and code < 0 else ""
        over = limits.error(output, cpu=code == -signal.SIGXCPU, died=died)
        if over is not None:
            raise over
        if code is not None and code < 0:
            raise Unavailable(
                f"the process of {job.step} was ended by {died}",
                hint="it may have run out of memory"
                if died == "SIGKILL"
                else "the last lines of its output may say why",
                step=job.step,
                output=output[-4000:],
            )
        raise Unavailable(
            f"the process of {job.step} ended (exit code {code}) without an answer",
            hint="the last lines of its output may say why",
            step=job.step,
            output=output[-4000:],
        )


def clean_environment(job: Job) -> dict[str, str]:
    """Every variable that the child of `job` sees: those that open the object store are among them."""
    return {
        **access(job.blobs, os.environ),
        **given_variables(),
        **thread_environment(int(job.resources.cores)),
        **job.env,
    }


def given_variables() -> dict[str, str]:
    """What every child sees, whatever its job."""
    return {**{name: os.environ[name] for name in _PASSED_ON if name in os.environ}, **_FIXED}


def error_of(raw: Mapping[str, Any], output: str) -> EverloopError:
    """The error that a child told, with the end of what it printed."""
    kind = getattr(errors, raw["type"], StepFailed)
    details = dict(raw["details"])
    details["output"] = output[-4000:]
    error: EverloopError = kind(raw["message"], hint=raw["hint"], **details)
    return error


def _kill(child: Child) -> None:
    """End the child's whole group, whatever it started, and collect it."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    with suppress(subprocess.TimeoutExpired):
        child.wait(timeout=5)
