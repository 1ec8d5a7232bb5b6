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
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Any

from everloop.catalog import chain, refs, tasks
from everloop.catalog.making import uses
from everloop.catalog.operating import rollouts
from everloop.catalog.tasks import Task
from everloop.core.clock import DAY, HOUR
from everloop.core.errors import Conflict, EverloopError
from everloop.core.settings import load
from everloop.flows.compute.profiles import Profile
from everloop.flows.compute.working import Workers
from everloop.flows.executors.parent import die_with_parent
from everloop.models.webhooks import delivery
from everloop.server.mlflow.genai import spooled
from everloop.server.warm import Warm
from everloop.serving.controller import Controller
from everloop.serving.ingest import ingest
from everloop.serving.rollout import filling
from everloop.serving.rollout.observe import gateways
from everloop.workspace.flows.computing import profile_of_endpoint
from everloop.workspace.opened import Workspace
from everloop.workspace.work.feeding import wanted_feeds

KINDS = (
    "checks.run",
    "flow.go_on",
    "flow.retrain",
    "data.refresh",
    "endpoints.score",
    "predictions.seal",
    "store.sweep",
    "watch.tick",
    "features.parity",
    delivery.TASK,
    filling.TASK,
)
LEASE_SECONDS = 30.0
_TICK = 0.05
_CLAIM_SECONDS = 0.2
_WATCH_SECONDS = 60.0
_CHECKPOINT_SECONDS = 600.0
_LOOK_SECONDS = 5.0
_USE_SECONDS = 300.0


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
    """A task in its process."""

    task: Task
    output: IO[bytes]
    """Where the child writes its answer; a file, so that a long one never waits for a reader."""
    renewed: float


class Worker:
    """The state of one worker process."""

    def __init__(self, workspace: Workspace, name: str) -> None:
        """Start with nothing running; duties only if no other worker of this machine does them."""
        self.workspace, self.name = workspace, f"{name}@{os.uname().nodename}:{os.getpid()}"
        self.running: Running | None = None
        self.warm = Warm("everloop.server.task")
        self.stopping = False
        self.controller = Controller(workspace.home, workspace.key, replay=workspace.settings.replay)
        self._lock: IO[str] = (workspace.home / "run" / "duties.lock").open("w")
        self._leads = False
        self.duties = [
            Duty("seal", 0.1, lambda: chain.seal(workspace.catalog, workspace.clock)),
            Duty("ingest", 0.5, lambda: ingest(workspace.catalog, workspace.home)),
            Duty("traces", 1.0, self._traces),
            Duty("rollout", 0.25, self._roll),
            Duty("webhooks", 0.5, lambda: delivery.dispatch(workspace.catalog, workspace.clock)),
            Duty("feeds", 0.25, self._feed),
            Duty("watch", _WATCH_SECONDS, self._watch),
            Duty("checkpoint", _CHECKPOINT_SECONDS, self._checkpoint),
            Duty("sweep", _CHECKPOINT_SECONDS, self._sweep),
            Duty("look", _LOOK_SECONDS, self._look),
            Duty("use", _USE_SECONDS, self._use, due=time.monotonic() + _USE_SECONDS),
        ]
        self.workers = Workers()
        self._compared = workspace.clock.wall() // HOUR
        self.feeder: subprocess.Popen[bytes] | None = None
        self._asks = Duty("claim", _CLAIM_SECONDS, lambda: None)

    def run(self) -> None:
        """Work until told to stop; the task in hand is handed back."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        self._take_over()
        while not self.stopping:
            now = time.monotonic()
            if self._lead():
                for duty in self.duties:
                    self._do(duty, now)
            self._tend(now)
            time.sleep(_TICK)
        self.warm.end()
        if self._leads:
            self._use()
        if self.feeder is not None:
            self._end_child(self.feeder)

    def _take_over(self) -> None:
        """Do not wait for the leases of workers of this machine that are dead."""
        with self.workspace.catalog.read() as tx:
            dead = [owner for owner in tasks.owners(tx) if tasks.is_dead(owner)]
        for owner in dead:
            with self.workspace.catalog.write() as tx:
                tasks.release(tx, owner)

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

    def _traces(self) -> None:
        spooled.ingest(self.workspace.catalog, self.workspace.store, self.workspace.home, self.workspace.clock.now())

    def _roll(self) -> None:
        with self.workspace.catalog.read() as tx:
            projects = refs.projects(tx)
        for event in self.controller.reconcile([self.workspace.system(name) for name in projects]):
            say(f"rollout: {event}")

    def _feed(self) -> None:
        """Have a process of its own read live feeds, while there are any: it loads engines, and may die."""
        if self.feeder is not None and self.feeder.poll() is None:
            return
        if self.feeder is not None and self.feeder.returncode:
            say(f"the reader of feeds ended with status {self.feeder.returncode}")
        self.feeder = None
        if not wanted_feeds(self.workspace):
            return
        self.feeder = subprocess.Popen(
            [sys.executable, "-P", "-m", "everloop.server.feeds.reader"],
            stdin=subprocess.DEVNULL,
            process_group=0,
            preexec_fn=die_with_parent,  # noqa: PLW1509 - one system call, before any thread exists
        )

    def _watch(self) -> None:
        """Have monitors look, past hours sealed and, each hour, features compared with batch, if something serves."""
        if self.workspace.settings.replay:
            return  # the replayer says when
        ctx = self.workspace.system()
        hour = ctx.wall() // HOUR
        with self.workspace.catalog.read() as tx:
            served = [name for name in refs.projects(tx) if rollouts.of(tx, name, "production")]
        for project in served:
            wanted: tuple[tuple[str, dict[str, str], str], ...] = (
                ("watch.tick", {"environment": "production"}, "watch"),
                ("predictions.seal", {}, f"seal/{hour}"),
                *([("features.parity", {"environment": "production"}, "parity")] if hour != self._compared else []),
            )
            with self.workspace.catalog.write() as tx:
                for kind, payload, dedupe in wanted:
                    tasks.enqueue(tx, project, kind, payload, actor=ctx.actor.name, now=ctx.wall(), dedupe=dedupe)
        self._compared = hour

    def _sweep(self) -> None:
        """Have the store swept a day from now, unless that is planned already: so a day after the last time, too."""
        if self.workspace.settings.replay:
            return
        ctx = self.workspace.system()
        with self.workspace.catalog.write() as tx:
            now = ctx.wall()
            tasks.enqueue(
                tx, ctx.project, "store.sweep", {}, actor=ctx.actor.name, now=now, dedupe="daily", not_before=now + DAY
            )

    def _look(self) -> None:
        wall = self.workspace.clock.wall()
        self.workers.look(gateways(self.workspace.home, wall), wall)

    def _use(self) -> None:
        """Write down what the workers of endpoints used."""
        rows = self.workers.rows(self.workspace.clock.wall(), self._paid_by)
        for project, used in rows.items():
            with self.workspace.catalog.write() as tx:
                uses.record(tx, project, used)

    def _paid_by(self, project: str, endpoint: str) -> Profile | None:
        return profile_of_endpoint(self.workspace.system(project), endpoint)

    def _checkpoint(self) -> None:
        """Sign the heads of the chains of facts, so that a tail that is cut off later shows."""
        with self.workspace.catalog.read() as tx:
            projects = refs.projects(tx)
        for project in projects:
            with self.workspace.catalog.write() as tx:
                chain.checkpoint(tx, project, self.workspace.key, at=self.workspace.clock.wall())

    def _tend(self, now: float) -> None:
        """Take a task when idle; renew the lease of the one in hand; record what came out of it."""
        if self.running is None:
            if now < self._asks.due:
                return
            self._asks.due = now + self._asks.every
            task = tasks.claim(self.workspace.catalog, self.name, KINDS, LEASE_SECONDS, self.workspace.clock.wall())
            if task is not None:
                self.running = self._start(task, now)
            return
        held = self.running
        status = self.warm.poll()
        if status is None:
            if now - held.renewed > LEASE_SECONDS / 3:
                self._renew(held, now)
            return
        self.running, self._asks.due = None, now
        with held.output as output:
            output.seek(0)
            said = output.read()
        self._record(held.task, said, status)

    def _start(self, task: Task, now: float) -> Running:
        output = tempfile.TemporaryFile(dir=self.workspace.home / "run")  # noqa: SIM115 - closed when the task ended
        self.warm.start((task.id, task.project), output)
        return Running(task, output, now)

    def _renew(self, held: Running, now: float) -> None:
        held.renewed = now
        try:
            with self.workspace.catalog.write() as tx:
                tasks.heartbeat(tx, held.task, lease_seconds=LEASE_SECONDS, now=self.workspace.clock.wall())
        except Conflict:  # cancelled, or somebody else has it
            self.warm.end()
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
                # what is not there now may be there later; everything else would fail again
                later = tasks.back_off(task.attempt, wall) if answer["error"].get("status") == 503 else None
                tasks.fail(tx, task, json.dumps(answer["error"]), now=wall, retry_at=later)
                say(f"task {task.kind}: {answer['error'].get('detail')}")
            else:
                later = tasks.back_off(task.attempt, wall)
                tasks.fail(tx, task, f"its process ended with status {status}", now=wall, retry_at=later)

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
