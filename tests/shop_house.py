"""The tiny project on a stage of real processes: `everloop up`, people signed in over HTTP, orders that keep coming."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx2
import numpy as np
import polars as pl

from everloop.catalog.context import Actor
from everloop.changes.access import OWNER_ROLES, link
from everloop.client import connect
from everloop.core.clock import DAY, HOUR, iso, parse_time
from everloop.core.errors import EverloopError, NotFound
from everloop.core.settings import load
from everloop.flows.engine import Origin
from everloop.project.loading import load_project
from everloop.workspace.build import Request, build, refresh
from everloop.workspace.opened import Workspace
from everloop.workspace.work.executors import ByKind

PROJECT_FILE = Path(__file__).parent / "projects" / "tiny" / "shop.py"
BEGIN = parse_time("2024-01-01T00:00:00Z")
A_DAY = 60
"""Orders a day."""
CHECKED = {"passed", "failed", "error"}


def orders_of(day, *, shift=0.0, dear=0.0):
    """The orders of one day; the same day is always the same. `shift` turns the rule, `dear` raises amounts."""
    rng = np.random.default_rng(day)
    at = BEGIN + day * DAY + np.sort(rng.integers(0, DAY, A_DAY))
    place = rng.choice(["a", "b", "c"], A_DAY)
    amount = np.round(rng.gamma(2.0, 20.0, A_DAY) + dear, 2)
    items = rng.integers(1, 9, A_DAY)
    bent = (amount - dear - 40) / 20 + (place == "c") * 1.0 - 0.2 * items + shift
    returned = (rng.random(A_DAY) < 1 / (1 + np.exp(-bent))).astype(int)
    return pl.DataFrame(
        {
            "number": np.arange(A_DAY) + day * 10_000,
            "at": pl.Series(at).cast(pl.Datetime("us", "UTC")),
            "place": place,
            "amount": amount,
            "items": items.astype(float),
            "returned": returned,
        }
    )


class Shop:
    """A folder with the project, its workspace, and the processes of `everloop up` over it."""

    def __init__(self, folder, *, policy="team", days=20, text=None, host="127.0.0.1", elsewhere=None):
        """Write project and first days, and make the workspace through the command line, as ada.

        `elsewhere` holds environment variables of every process: where the catalog and the objects are, say.
        """
        self.elsewhere = elsewhere or {}
        self.folder, self.home, self.host = Path(folder), Path(folder) / ".everloop", host
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "shop.py").write_text(text or PROJECT_FILE.read_text())
        self.deliver(range(days))
        self.replay, self.running, self.url = True, None, ""
        self.cli("init", "--policy", policy, check=True)
        settings = load({"home": self.home, "project": "shop", "module": "shop", "replay": True}, self.elsewhere)
        self.workspace = Workspace.open(settings)
        self.set_time(BEGIN + days * DAY)
        self.project = load_project(self.folder, "shop")
        self.origin = Origin(self.folder, "shop", "shop")
        self.tokens, self.people, self.waiting = {}, {}, []

    # -- processes ---------------------------------------------------------------------------------------

    def environ(self, **more):
        """What a person's shell holds; warnings are errors in every process of ours."""
        mine = {"HOME", "PATH", "LANG", "LD_LIBRARY_PATH", "VIRTUAL_ENV", "XDG_RUNTIME_DIR", "TMPDIR", "PYTHONPATH"}
        kept = {k: v for k, v in os.environ.items() if k in mine}
        own = {"LOGNAME": "ada", "EVERLOOP_PROJECT": "shop", "EVERLOOP_MODULE": "shop", "COLUMNS": "200"}
        return kept | own | self.elsewhere | more

    def cli(self, *words, check=False, timeout=120, **environ):
        """The command line as a process of its own, in the project's folder."""
        done = subprocess.run(
            [sys.executable, "-m", "everloop", *words],
            cwd=self.folder,
            env=self.environ(**environ),
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done

    def up(self, *words, port=0, within=60.0, **environ):
        """Start `everloop up` and wait for the line that says where it answers; returns the shop."""
        replay = ["--replay"] if self.replay else []
        log = self.folder.with_suffix(".log")
        with log.open("ab") as output:
            began = output.tell()
            self.running = subprocess.Popen(
                [sys.executable, "-m", "everloop", "up", *replay, "--host", self.host, "--port", str(port), *words],
                cwd=self.folder,
                env=self.environ(**environ),
                stdout=output,
                stderr=output,
                process_group=0,
            )

        def answers():
            assert self.running.poll() is None, log.read_text()
            return re.search(r"answers at (http://\S+)", log.read_bytes()[began:].decode())

        self.url = wait_for(answers, within, "everloop up answers").group(1).replace("0.0.0.0", "127.0.0.1")
        return self

    def down(self):
        """Stop by SIGTERM; returns the exit status."""
        self.forget_people()
        if self.running is None:
            return None
        self.running.send_signal(signal.SIGTERM)
        status = self.running.wait(30)
        self.running = None
        return status

    def forget_people(self):
        """Close everybody's connections."""
        for client in self.people.values():
            client.close()
        self.people.clear()

    def close(self):
        """End everything."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.down()
        if self.running is not None:
            self.running.kill()
        self.workspace.close()

    @property
    def pids(self):
        """Process ids by name, as the supervisor wrote them."""
        lines = (self.home / "run" / "pids").read_text().splitlines()
        return {name: int(number) for name, number in (line.split() for line in lines)}

    # -- people ------------------------------------------------------------------------------------------

    def token(self, user):
        """A token of `user`, made in a session that the one-time link opened."""
        if user not in self.tokens:
            with self.workspace.catalog.write() as tx:
                path = link(tx, user, at=self.workspace.clock.wall()).path
            with httpx2.Client(base_url=self.url, headers={"Origin": self.url}, timeout=30) as browser:
                assert browser.get(path).status_code == 303
                made = browser.post("/rest/v1/shop/access.create_token", json={"label": "test"})
                assert made.status_code == 200, made.text
            self.tokens[user] = made.json()["secret"]
        return self.tokens[user]

    def person(self, user):
        """A client of the running server by the token of `user`."""
        if user not in self.people:
            self.people[user] = connect(self.url, token=self.token(user), project="shop")
        return self.people[user]

    def hire(self, name, *roles):
        """Add a person."""
        self.person("ada").call("access.create_user", name=name, roles=roles)
        return name

    def context(self, environment="", user="ada"):
        """What ada's own machine works with when she builds."""
        roles = OWNER_ROLES if user == "ada" else ("contributor",)
        return self.workspace.context(Actor.of(user, *roles), "shop", environment=environment)

    # -- work --------------------------------------------------------------------------------------------

    def deliver(self, days, **how):
        """Write the files of these days, whole files only."""
        data = self.folder / "data" / "till"
        data.mkdir(parents=True, exist_ok=True)
        for day in days:
            fresh = data / f"{day:03}.part"
            orders_of(day, **how).write_csv(fresh)
            fresh.rename(data / f"{day:03}.csv")

    def set_time(self, at):
        """Move the replay's clock."""
        self.workspace.clock.advance(at)

    def build(self, sandbox="sandbox/ada/main", **more):
        """Ada builds in a sandbox, on this machine."""
        executor = ByKind(self.project.assets(), self.workspace.store)
        request = Request(sandbox, tracking_uri=self.url, **more)
        try:
            return build(self.context(sandbox), self.project, self.origin, request, executor=executor)
        finally:
            executor.close()

    def refresh(self):
        """Production's data by its standing grant."""
        executor = ByKind(self.project.assets(), self.workspace.store)
        return refresh(self.context("production"), self.project, self.origin, "production", executor=executor)

    def checked(self, number, within=90):
        """The change once the worker ran every check."""

        def probe():
            change = self.person("grace").call("changes.show", number=number)
            return change if change.checks and all(c.state in CHECKED for c in change.checks) else None

        return wait_for(probe, within, f"the checks of change {number}")

    def land(self, number):
        """Grace approves and merges."""
        grace = self.person("grace")
        grace.call("changes.approve", number=number)
        return grace.call("changes.merge", number=number)

    def endpoint(self):
        """The endpoint, wanted and observed; None before there is one."""
        with contextlib.suppress(EverloopError):
            return self.person("ada").call("endpoints.show", name="comeback")

    def settled(self, *phases, within=60):
        """The endpoint once it is in one of these phases."""

        def probe():
            found = self.endpoint()
            return found if found is not None and found.phase in phases else None

        return wait_for(probe, within, f"the endpoint is {' or '.join(phases)} (it is {self.endpoint()})")

    def ask(self, http, row, at):
        """One question at its time; returns the whole reply."""
        asked = {name: row[name] for name in ("place", "amount", "items")}
        return http.post("/endpoints/shop/comeback/predict", json=asked, headers={"Everloop-Time": iso(at)})

    def http(self):
        """An ordinary HTTP client of the running address."""
        return httpx2.Client(base_url=self.url, timeout=30)

    def play(self, day, **how):
        """A day of questions; what is known by its end goes to features and labels. Returns [(reply, row)]."""
        rows = orders_of(day, **how).with_columns(pl.col("at").dt.epoch("us")).to_dicts()
        with self.http() as http:
            answers = [(self.ask(http, row, row["at"]), row) for row in rows]
        self._logged(answers)
        self.set_time(BEGIN + (day + 1) * DAY)
        self.waiting += [{**row, "known_at": row["at"] + 6 * HOUR, "reply": reply} for reply, row in answers]
        self.tell(BEGIN + (day + 1) * DAY)
        return answers

    def _logged(self, answers):
        """Wait until what was answered is read from the log: a monitor looks only at what it finds there."""
        last = next((reply for reply, _ in reversed(answers) if reply.status_code == 200), None)

        def known():
            with contextlib.suppress(NotFound):
                return self.person("ada").call("predictions.get", id=last.json()["prediction_id"])

        if last is not None:
            wait_for(known, 60, "the prediction log is read")

    def tell(self, now):
        """Push the outcomes that are known by now, and label what was answered."""
        known = [row for row in self.waiting if row["known_at"] <= now]
        self.waiting = [row for row in self.waiting if row["known_at"] > now]
        ada = self.person("ada")
        rows = [{k: row[k] for k in ("number", "at", "place", "returned", "known_at")} for row in known]
        ada.call("features.push", environment="production", dataset="outcomes", rows=rows)
        labels = [
            {"prediction": row["reply"].json()["prediction_id"], "value": row["returned"], "at": iso(row["known_at"])}
            for row in known
            if row["reply"].status_code == 200
        ]
        ada.call("labels.add", endpoint="comeback", labels=labels)

    def task(self, kind, payload, within=90):
        """Have the worker do something; returns the task when it ended."""
        ada = self.person("ada")
        made = ada.call("tasks.enqueue", kind=kind, payload=payload)

        def ended():
            view = ada.call("tasks.show", task=made.id)
            return view if view.state in ("done", "failed", "cancelled") else None

        return wait_for(ended, within, f"task {kind}")


def wait_for(probe, within, what):
    """Ask `probe` until it gives something."""
    until = time.monotonic() + within
    while time.monotonic() < until:
        found = probe()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError(f"waited {within:.0f} s for: {what}")


def processes_of(home):
    """Ids of living processes whose environment or command line names this workspace."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            told = (folder / "environ").read_bytes() + (folder / "cmdline").read_bytes()
            state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
            if str(home).encode() in told and state != "Z":
                found.append(int(folder.name))
    return [pid for pid in found if pid != os.getpid()]


def forget(folder):
    """Remove what a shop left behind."""
    shutil.rmtree(folder, ignore_errors=True)
