"""`python -m everloop.server.worker NAME`: does tasks, each in a child, and the duties that keep the loop turning.

Duties are short and safe to do twice: sealing facts, reading the prediction log, stepping rollouts, asking
monitors and retrain rules to look. On one machine one worker does them, the one that holds `run/duties.lock`.
"""

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import IO, Any

from everloop.catalog import chain, refs, tasks
from everloop.catalog.tasks import Task
from everloop.core.clock import SECOND
from everloop.core.errors import Conflict, EverloopError
from everloop.core.settings import load
from everloop.serving.controller import Controller
from everloop.serving.ingest import ingest
from everloop.workspace.opened import Workspace

KINDS = ("checks.run", "flow.retrain", "data.refresh", "watch.tick")
LEASE_SECONDS = 30.0
_TICK = 0.04
_WATCH_SECONDS = 60.0


@dataclass
class Duty:
    """Something to do every so often."""

    name: str
    every: float
    act: Callable[[], Any]
    due: float = 0.0
    failing: str = ""


@dataclass
class Running:
    """A task in its child."""

    task: Task
    child: subprocess.Popen[bytes]
    renewed: float
    output: bytes = field(default=b"")


class Worker:
    """The state of one worker process."""

    def __init__(self, workspace: Workspace, name: str) -> None:
        """Start with nothing running; duties only if no other worker of this machine does them."""
        self.workspace, self.name = workspace, f"{name}@{os.uname().nodename}:{os.getpid()}"
        self.running: Running | None = None
        self.stopping = False
        self.controller = Controller(workspace.home, workspace.key, replay=workspace.settings.replay)
        self._lock: IO[str] = (workspace.home / "run" / "duties.lock").open("w")
        self._leads = False
        self.duties = [
            Duty("seal", 0.05, lambda: chain.seal(workspace.catalog, workspace.clock)),
            Duty("ingest", 0.5, lambda: ingest(workspace.catalog, workspace.home)),
            Duty("rollout", 0.25, self._roll),
            Duty("watch", _WATCH_SECONDS, self._watch),
        ]

    def run(self) -> None:
        """Work until told to stop; the task in hand is handed back."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        while not self.stopping:
            now = time.monotonic()
            if self._lead():
                for duty in self.duties:
                    self._do(duty, now)
            self._tend(now)
            time.sleep(_TICK)
        if self.running is not None:
            self._end_child(self.running.child)

    def _stop(self, _number: int, _frame: Any) -> None:
        self.stopping = True

    def _lead(self) -> bool:
        if not self._leads:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._leads = True
        return self._leads

    def _do(self, duty: Duty, now: float) -> None:
        if now < duty.due:
            return
        duty.due = now + duty.every
        try:
            duty.act()
            duty.failing = ""
        except Exception as error:  # noqa: BLE001 - a duty that fails must not end the others
            if duty.failing != str(error):
                say(f"{duty.name}: {type(error).__name__}: {error}")
            duty.failing, duty.due = str(error), now + max(1.0, duty.every)

    def _roll(self) -> None:
        with self.workspace.catalog.read() as tx:
            projects = refs.projects(tx)
        for event in self.controller.reconcile([self.workspace.system(name) for name in projects]):
            say(f"rollout: {event}")

    def _watch(self) -> None:
        if self.workspace.settings.replay:
            return  # the replayer says when
        ctx = self.workspace.system()
        with self.workspace.catalog.read() as tx:
            projects = refs.projects(tx)
        for project in projects:
            with self.workspace.catalog.write() as tx:
                payload = {"environment": "production"}
                tasks.enqueue(tx, project, "watch.tick", payload, actor=ctx.actor.name, now=ctx.wall(), dedupe="watch")

    def _tend(self, now: float) -> None:
        """Take a task when idle; renew the lease of the one in hand; record what came out of it."""
        if self.running is None:
            task = tasks.claim(self.workspace.catalog, self.name, KINDS, LEASE_SECONDS, self.workspace.clock.wall())
            if task is not None:
                self.running = Running(task, self._start(task), now)
            return
        held = self.running
        if held.child.poll() is None:
            if now - held.renewed > LEASE_SECONDS / 3:
                self._renew(held, now)
            return
        self.running = None
        assert held.child.stdout is not None
        self._record(held.task, held.child.stdout.read(), held.child.returncode)

    def _start(self, task: Task) -> subprocess.Popen[bytes]:
        return subprocess.Popen(  # noqa: S603 - our own interpreter and module, ids from the catalog
            [sys.executable, "-m", "everloop.server.task", task.id, task.project],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            process_group=0,
        )

    def _renew(self, held: Running, now: float) -> None:
        held.renewed = now
        try:
            with self.workspace.catalog.write() as tx:
                tasks.heartbeat(tx, held.task, lease_seconds=LEASE_SECONDS, now=self.workspace.clock.wall())
        except Conflict:  # cancelled, or somebody else has it
            self._end_child(held.child)
            self.running = None

    def _record(self, task: Task, output: bytes, status: int) -> None:
        wall = self.workspace.clock.wall()
        try:
            answer = json.loads(output.splitlines()[-1]) if output.strip() else {}
        except ValueError:
            answer = {}
        with contextlib.suppress(Conflict), self.workspace.catalog.write() as tx:
            if "result" in answer:
                tasks.finish(tx, task, answer["result"], now=wall)
            elif "error" in answer:
                tasks.fail(tx, task, json.dumps(answer["error"]), now=wall)
                say(f"task {task.kind}: {answer['error'].get('detail')}")
            else:
                retry = wall + int(2**task.attempt * SECOND)
                tasks.fail(tx, task, f"its process ended with status {status}", now=wall, retry_at=retry)

    def _end_child(self, child: subprocess.Popen[bytes]) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGTERM)
        try:
            child.wait(5)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()


def say(text: str) -> None:
    """A line in the worker's log."""
    sys.stderr.write(f"{time.strftime('%Y-%m-%dT%H:%M:%S')} {text}\n")
    sys.stderr.flush()


def main(arguments: list[str]) -> int:
    """Work; the exit code is 2 when the workspace does not open."""
    try:
        workspace = Workspace.open(load({}, os.environ))
    except EverloopError as error:
        say(f"worker: {error.message} ({error.hint})")
        return 2
    with workspace:
        Worker(workspace, arguments[0] if arguments else "worker").run()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
