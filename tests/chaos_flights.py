"""`kill -9` at random moments while the flights demo is told: its own stage, turn, replay and story, under fire.

The story is the demo's. Only its people are patient: where a server is away they ask again, where a reply was lost they
look whether what they asked for has happened, and a build that was killed they start again.
"""

import contextlib
import json
import os
import random
import shutil
import socket
import subprocess
import sys
import threading
import time
from http.client import HTTPException
from urllib.parse import urlsplit

import chaos_invariants
import psutil
from chaos_hands import Killer, Told, calm, guarded
from shop_house import CHECKED

from everloop.catalog import tasks
from everloop.client import Client
from everloop.core.errors import EverloopError, StepFailed, Unavailable
from everloop.core.settings import to_environment
from everloop.demo import mishaps
from everloop.demo.arrivals import Arrivals
from everloop.demo.replay import Asking, Player
from everloop.demo.stage import PROJECT, Stage
from everloop.demo.story import Year
from everloop.demo.telling import Teller
from everloop.demo.turn import Turn
from everloop.workspace.operations import load_operations

VICTIMS = ("server", "worker-0", "worker-1", "gateway")
CHILDREN = {
    "task": "everloop.server.task",
    "step": "everloop.flows.child",
    "model": "everloop.serving.modelworker",
    "builder": "everloop run",
}
"""Whose death is more than was asked for: children of a worker, of the gateway, and a person's build."""
WORK = frozenset({"task", "step", "builder"})
PATIENCE = 90.0
SPARED = 30.0
"""Seconds between two blows at a child: on a busy machine a build would never come to its end otherwise."""


class PatientClient:
    """The demo's client, in the hands of somebody who asks again."""

    def __init__(self, client: Client, told: Told) -> None:
        self._client, self._told = client, told

    def call(self, name, /, **fields):
        until = time.monotonic() + PATIENCE
        lost = False
        while True:
            if lost and (landed := self._landed(name, fields)) is not None:
                return landed
            try:
                answer = self._client.call(name, **fields)
            except Unavailable as error:
                if time.monotonic() > until:
                    raise
                self._told.did[f"{name} again after {type(error.__cause__ or error).__name__}"] += 1
                lost = True
                time.sleep(0.2)
            else:
                if name == "labels.add":
                    self._told.labels |= {label["prediction"]: label["value"] for label in fields["labels"]}
                return answer

    def _landed(self, name, fields):
        """What was asked for, when it happened and only the reply was lost."""
        with contextlib.suppress(Unavailable):
            if name == "changes.propose":
                opened = self._client.call("changes.list", state="open").changes
                same = [c for c in opened if (c.source, c.target) == (fields["source"], fields["target"])]
                return same[0] if same else None
            if name in ("changes.merge", "changes.close"):
                change = self._client.call("changes.show", number=fields["number"])
                return change if change.state != "open" else None
        return None


class PatientStage(Stage):
    """The demo's stage, with patient people on it."""

    def __init__(self, folder, port, told):
        super().__init__(folder, port)
        self.told, self.clients = told, []

    def sign_in(self, user):
        client = super().sign_in(user)
        self.clients.append(client)
        return PatientClient(client, self.told)

    def __exit__(self, *error):
        for client in self.clients:
            client.close()
        super().__exit__(*error)

    def living(self):
        """Ids of everybody who may be killed, by name; the first of those who are many."""
        found = dict(self.processes)
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):
                line = " ".join(process.cmdline())
                for name, words in CHILDREN.items():
                    if words in line and process.status() != psutil.STATUS_ZOMBIE:
                        found.setdefault(name, process.pid)
        return found


class PatientYear(Year):
    """A year whose retraining is asked for once more when it was killed as often as a task is begun again."""

    def _act(self, ticked):
        told = self.stage.told
        while True:
            try:
                super()._act(ticked)
            except EverloopError as error:
                if not any(end in error.message for end in chaos_invariants.KILLED):
                    raise
                ada = self.turn.ada
                task = next(t for t in ada.call("tasks.list").tasks if t.kind == "flow.retrain")
                told.did["retraining asked for again"] += 1
                again = f"again/{told.did['retraining asked for again']}"
                with self.stage.workspace.catalog.read() as tx:
                    payload = dict(tasks.get(tx, PROJECT, task.id).payload)
                ada.call("tasks.enqueue", kind="flow.retrain", payload=payload, dedupe=again)
            else:
                return


class PatientTurn(Turn):
    """Ada builds by `everloop run`, a process that may be killed, until one of them comes to its end."""

    def build(self, sandbox, *, project=None, origin=None, message="", params=None):
        place = origin or self.origin
        if place.root != self.stage.folder:  # another checkout has what arrived beside it, too
            shutil.copytree(self.stage.folder / "data", place.root / "data", dirs_exist_ok=True)
        told, until = self.stage.told, time.monotonic() + 10 * PATIENCE
        values = [f"--set=delay.{name}={value}" for name, value in (params or {}).items()]
        while True:
            done = subprocess.run(
                [sys.executable, "-P", "-m", "everloop", "run", "--on", sandbox, *values],
                env={**os.environ, **to_environment(self.stage.settings), "LOGNAME": "ada"},
                cwd=place.root,
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode == 0:
                break
            assert done.returncode == -9 or "StepFailed" in done.stdout or done.returncode in (1, 6), done.stderr
            told.did[f"build again after {done.returncode}"] += 1
            assert time.monotonic() < until, done.stderr
        while True:
            try:
                built = super().build(sandbox, project=project, origin=origin, message=message, params=params)
            except (Unavailable, StepFailed) as error:
                told.did[f"build again after {type(error).__name__}"] += 1
                if time.monotonic() > until:
                    raise
            else:
                told.builds.append(built)
                return built

    def checked(self, number):
        """Ask again for checks that were killed as often as a task is begun again."""
        until = time.monotonic() + 10 * PATIENCE
        while time.monotonic() < until:
            change = self.grace.call("changes.show", number=number)
            if all(check.state in CHECKED for check in change.checks):
                return change
            if any(check.state == "missing" for check in change.checks):
                self.stage.told.did["checks asked for again"] += 1
                self.ada.call("changes.check", number=number)
            time.sleep(0.2)
        raise AssertionError(f"no checks of change {number}: {change.checks}")

    def land(self, change):
        super().land(change)
        self.stage.told.merged.append(change.number)


class PatientPlayer(Player):
    """Asks again when nobody answered; keeps what was acknowledged."""

    def asking(self):
        return PatientAsking(urlsplit(self._stage.url).netloc, self._stage.told)


class PatientAsking(Asking):
    def __init__(self, address, told):
        super().__init__(address)
        self._told = told

    def answer(self, question):
        until = time.monotonic() + PATIENCE
        while True:
            try:
                status, body = super().answer(question)
            except (OSError, HTTPException) as error:
                self._told.replies[type(error).__name__] += 1
                if time.monotonic() > until:
                    raise
                continue
            self._told.replies[str(status)] += 1
            if status == 200:
                self._told.predictions[json.loads(body)["prediction_id"]] = {}
            return status, body


class Fire:
    """The story on one thread, the killer on another."""

    def __init__(self, folder, seed, kills, pause):
        load_operations()
        self.told = Told()
        self.kills, self.pause = kills, pause
        self.dice = random.Random(seed)
        self.over = threading.Event()
        self.stage = PatientStage(folder, free_port(), self.told)

    def rage(self, questions):
        """Tell the year until the last kill; returns the story, calm, its processes still up."""
        year = PatientYear(self.stage, Teller(), Arrivals(self.stage.folder))
        year.turn = PatientTurn(self.stage, year.teller)
        year.player = PatientPlayer(self.stage, year.turn.ada)
        killer = guarded(self.told, self._kill)
        killer.start()
        try:
            self._tell(year, questions)
        finally:
            self.over.set()
            killer.join(60)
        calm(self.stage.url, year.turn.ada, self.told)
        return year

    def _tell(self, year, questions):
        year.first_model()
        for month in range(5, 13):
            if self.over.is_set() and self.told.predictions:
                return
            year.month(month, questions)
            self._retrained(year, month)
            if month == 6:
                mishaps.wrong_unit(year.turn)
            if self.over.is_set():
                return
            self._tuned(year, month)
        while not self.over.is_set():
            month += 1
            self._retrained(year, month)
            self._tuned(year, month)

    def _retrained(self, year, month):
        """The system retrains, whether or not an alarm wanted it."""
        number = 1000 + month
        payload = {
            "model": "delay",
            "reason": "chaos",
            "environment": f"sandbox/auto/{number}",
            "number": number,
        }
        year.turn.ada.call("tasks.enqueue", kind="flow.retrain", payload=payload, dedupe=f"chaos/{number}")
        year._act({"fired": ["chaos"]})
        self.told.did["retrained"] += 1

    def _tuned(self, year, month):
        """Ada builds with another parameter, and what passes the checks goes live."""
        turn = year.turn
        turn.build(f"sandbox/ada/m{month}", params={"max_iter": 30 + month}, message=f"Tuned in month {month}")
        change = turn.propose(f"sandbox/ada/m{month}", f"Tuned in month {month}")
        if all(check.state == "passed" for check in change.checks):
            turn.land(change)
        else:
            turn.ada.call("changes.close", number=change.number)
        self.told.did["tuned"] += 1

    def _kill(self):
        """So many kills of server, workers and gateway; many blows wait until somebody builds."""
        killer = Killer(self.told, self.dice, self.stage.living)
        spared = 0.0
        try:
            while sum(self.told.kills[name] for name in VICTIMS) < self.kills and not self.over.is_set():
                time.sleep(self.dice.uniform(*self.pause))
                if self.dice.random() < 0.4:
                    self._wait_for_work()
                living = self.stage.living()
                chosen = self.dice.choice(VICTIMS)
                if self.dice.random() < 0.15 and time.monotonic() > spared:
                    chosen = self.dice.choice([name for name in CHILDREN if name in living] or VICTIMS)
                    spared = time.monotonic() + SPARED
                self._strike(killer, chosen, living)
        finally:
            self.over.set()

    def _strike(self, killer, name, living):
        with contextlib.suppress(AssertionError) if name in CHILDREN else contextlib.nullcontext():
            killer.kill(name, within=0.1 if name in CHILDREN else 30)
            for work in sorted(WORK & set(living)) or ["nothing but requests"]:
                self.told.struck[f"{name} during {work}"] += 1
            self.told.did["kills during builds, checks and retraining"] += bool(WORK & set(living))

    def _wait_for_work(self):
        until = time.monotonic() + 10
        while time.monotonic() < until and not WORK & set(self.stage.living()):
            time.sleep(0.05)
        time.sleep(self.dice.uniform(0, 3))


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
