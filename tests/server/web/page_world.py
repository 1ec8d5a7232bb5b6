"""A small project with something on every page, made through operations and the catalog's own functions."""

import csv
import json
import math
import struct
import zlib
from dataclasses import dataclass

import numpy as np

from everloop.catalog import chain, facts, versions
from everloop.catalog.context import Actor
from everloop.catalog.facts import Fact
from everloop.catalog.governance import access
from everloop.catalog.operating import alarms, predictions, rollouts
from everloop.catalog.operating.alarms import Alarm, Evaluation
from everloop.catalog.operation import find_operation, invoke
from everloop.catalog.tracking import artifacts, experiments, points, runs
from everloop.catalog.tracking.rows import Point
from everloop.changes.reviewing import pending_checks
from everloop.checks.definitions import CheckDef
from everloop.checks.record import record_finding
from everloop.checks.request import Finding
from everloop.core.clock import DAY, HOUR
from everloop.core.settings import Settings
from everloop.core.version import Version
from everloop.data.definitions import Files, SourceDef
from everloop.features.definitions import FeatureServiceDef, FeatureViewDef, any_of, count, last, last_k, mean, ratio
from everloop.serving import log
from everloop.serving.columns import Layout, Output, pack_answer
from everloop.serving.definitions import Canary, EndpointDef, Guardrails
from everloop.serving.graph.nodes import Lookup, Sequence
from everloop.serving.ingest import ingest
from everloop.serving.rollout.declared import Business, Drift
from everloop.serving.rollout.experiments import Arm, Trial
from everloop.serving.rollout.state import Rollout
from everloop.watch.definitions import MonitorDef
from everloop.workspace.initial import initialise
from everloop.workspace.opened import Workspace
from everloop.workspace.operations import load_operations

ATTACK = '<script>document.title="pwned"</script><img src=x onerror="document.title=\'pwned\'">'
"""Put wherever people may write; shown as text everywhere, or a test fails."""
PEOPLE = {"bob": ("approver", "deployer", "contributor"), "eve": ("viewer",)}
CODE = (
    "import everloop as el\n\nproject = el.Project('shop')\nRATE = 0.1\n",
    "import everloop as el\n\nproject = el.Project('shop')\nRATE = 0.3  # " + ATTACK + "\n",
)


def good_enough(delay):
    """A check that the policy asks for."""
    return delay


@dataclass
class World:
    """An opened workspace and where things are in it."""

    workspace: Workspace
    run: str = ""
    other_run: str = ""
    alarm: str = ""
    prediction: str = ""

    def by(self, name, project=""):
        with self.workspace.catalog.read() as tx:
            return self.workspace.context(access.user(tx, name).actor(), project)

    def ask(self, person, name, /, **fields):
        op = find_operation(name)
        return invoke(self.by(person), op, op.command(**fields))

    def session(self, person):
        """The secret of a new session, as the browser's cookie holds it."""
        now = self.workspace.clock.wall()
        with self.workspace.catalog.write() as tx:
            return access.open_session(tx, person, at=now, expires=now + DAY)

    def seal(self):
        while chain.seal(self.workspace.catalog, self.workspace.clock):
            pass

    def propose(self, topic, title, **entries):
        """A change of ada's into production, with these entries."""
        name = f"sandbox/ada/{topic}"
        self.ask("ada", "environments.create_sandbox", environment=name)
        self.ask("ada", "environments.commit", environment=name, entries=entries, message=title)
        return self.ask("ada", "changes.propose", source=name, target="production", title=title, enqueue=False).number

    def check(self, number, state="passed"):
        ctx = self.workspace.system()
        for request in pending_checks(ctx, number):
            figures = {"roc_auc": "0.761234", "roc_auc_low": "0.7402", "roc_auc_high": "0.7811", "rows": "12766"}
            record_finding(ctx, request, Finding(state, f"roc_auc 0.761 meets the bound {ATTACK}", figures))

    def put(self, *made):
        with self.workspace.catalog.write() as tx:
            versions.put_many(tx, "shop", made, actor="ada", at=self.workspace.clock.now())
        return [one.id for one in made]


def make_world(folder, policy="team"):
    """Fill a workspace in `folder`; takes about two seconds."""
    load_operations()
    settings = Settings(home=folder / ".everloop", project="shop")
    initialise(settings, "ada", policy, folder)
    world = World(Workspace.open(settings))
    now = world.workspace.clock.wall()
    with world.workspace.catalog.write() as tx:
        for name, roles in PEOPLE.items():
            access.create_user(tx, name, kind="person", roles=roles, actor="ada", at=now)
    data = _data(world, folder)
    _runs(world)
    definitions, models = _definitions(world, data)
    first = world.propose("first", "First model", **definitions)
    world.check(first)
    world.ask("bob", "changes.approve", number=first, comment="fine")
    world.ask("bob", "changes.merge", number=first)
    _serving(world, definitions)
    code = Version("code", "shop", {"files": {"shop.py": world.workspace.store.put(CODE[1].encode())}})
    world.put(code)
    for number, topic in enumerate(("second", "third", "fourth"), 2):
        title = f"Learn faster {ATTACK}" if number == 2 else f"Learn faster still, {topic} try"
        made = {"model/delay": models[number - 1], "code/shop": code.id}
        if number == 4:  # touches what the others leave alone, so that it stays open whatever is merged
            (other,) = world.put(Version("dataset", "landings", {"function": "shop:landings", "upstream": {}}))
            made = {"dataset/landings": other}
        world.check(world.propose(topic, title, **made), "passed" if number < 4 else "failed")
    world.ask("ada", "changes.comment", number=2, text=f"Look at this: {ATTACK}")
    _watch(world, now)
    world.seal()
    return world


def _data(world, folder):
    source = SourceDef(
        "flights",
        Files(str(folder / "flights.csv")),
        key="id",
        event_time="at",
        tags={"tail": "pseudonymous"},
        expect=(),
    )
    world.put(source.version())
    rng = np.random.default_rng(7)
    for rows in (400, 460):
        with (folder / "flights.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["id", "at", "origin", "tail", "distance", "note"])
            for number in range(rows):
                at = f"2026-01-{1 + number % 28:02d}T{number % 24:02d}:00:00Z"
                origin, note = ("EWR", "JFK", "LGA")[number % 3], ATTACK if number % 5 == 0 else "calm"
                writer.writerow([number, at, origin, f"N{number % 40}", round(rng.gamma(2, 500)), note])
        found = world.ask("ada", "data.capture", source="flights", environment="production")
    return source, found.id


def _runs(world):
    now = world.workspace.clock.wall()
    with world.workspace.catalog.write() as tx:
        experiment = experiments.create(tx, "shop", "delay study", at=now)
    made = []
    for number, rate in enumerate((0.05, 0.1, 0.3)):
        with world.workspace.catalog.write() as tx:
            start = now - (number + 1) * HOUR
            name = ATTACK if number == 2 else f"try-{number}"
            run = runs.create(tx, "shop", experiment=experiment, actor="ada", at=start, name=name)
            runs.log_params(tx, run, [("learning_rate", str(rate)), ("depth", "6"), ("note", ATTACK)])
            curve = [
                Point(key, value, start + step * 1_000_000, step)
                for step in range(40)
                for key, value in (
                    ("loss", math.exp(-rate * step) + 0.02 * number),
                    ("roc_auc", 0.8 - 0.2 / (step + 1)),
                )
            ]
            points.log(tx, "shop", run.number, curve)
            for path, content in _files().items():
                identity = world.workspace.store.put(content)
                artifacts.put(tx, "shop", run.id, path, identity=identity, size=len(content), at=start)
            runs.finish(tx, "shop", run.id, status="FINISHED", at=start + 95_000_000)
            made.append(run.id)
    world.run, world.other_run = made[0], made[1]


def _files():
    return {
        "report/note.txt": f"plain text {ATTACK}\n".encode(),
        "report/figures.json": json.dumps({"roc_auc": 0.76, "text": ATTACK}).encode(),
        "plot.png": picture(),
        "page.html": f"<html><body>{ATTACK}</body></html>".encode(),
        "drawing.svg": b'<svg xmlns="http://www.w3.org/2000/svg"><script>document.title="pwned"</script></svg>',
        "model.bin": bytes(range(256)) * 8,
    }


def picture():
    """A PNG of 64 by 40 pixels."""

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    lines = b"".join(b"\0" + bytes((60 + y * 4, 150, 120)) * 64 for y in range(40))
    head = struct.pack(">IIBBBBB", 64, 40, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")


def _definitions(world, data):
    source, rows = data
    dataset = Version("dataset", "flights", {"function": "shop:flights", "upstream": {}, "event_time": "at"})
    view = FeatureViewDef("origin_load", "flights", ("origin",), (count(over="1h"), mean("distance", over="7d")), "at")
    calm = any_of(("note", "==", "calm"), ("note", "==", ATTACK))
    listed = (
        last_k("distance", 2),
        last("note", kind="text"),
        ratio(count(over="1d", where=calm), count(over="1d"), name="calm"),
    )
    notes = FeatureViewDef("origin_notes", "flights", ("origin",), listed, "at")
    service = FeatureServiceDef("delay_inputs", (view,), request=("distance",))
    seen = Version("view", view.name, view.manifest())
    served = Version("service", service.name, service.manifest({view.name: seen.id}), (("view", seen.id),))
    code = Version("code", "shop", {"files": {"shop.py": world.workspace.store.put(CODE[0].encode())}})
    frame = Version("frame", "delay_training", {"rows": 460}, (("data", rows), ("service", served.id)))
    models = [
        Version(
            "model",
            "delay",
            {
                "flavor": "sklearn",
                "estimator": "sklearn.linear_model.LogisticRegression",
                "files": {"model.pkl": world.workspace.store.put(f"model {n}".encode())},
                "metrics": {"roc_auc": f"0.7{n}5", "brier": f"0.1{9 - n}"},
                "service": served.id,
                "frame": frame.id,
                "label": "late",
                "run": world.run,
                "params": {"learning_rate": f"0.{n}", "note": ATTACK},
            },
            (("frame", frame.id), ("code", code.id)),
        )
        for n in (1, 4, 6, 7)
    ]
    check = CheckDef("good_enough", good_enough, blocks=("production",))
    also = [Drift(least=5), Business("revenue", least=5)]
    rails = Guardrails(also=also)
    endpoint = EndpointDef("delay", Sequence(Lookup(service), "delay"), Canary([10, 100], "10m"), guardrails=rails)
    monitor = MonitorDef("delay", "delay", window="1d")
    gate = Version("check", check.name, check.manifest())
    shown = Version("endpoint", endpoint.name, endpoint.manifest())
    told = Version("view", notes.name, notes.manifest())
    made = [dataset, seen, told, served, code, gate, shown, monitor.version(), source.version()]
    world.put(*made, frame, *models)
    entries = {version.key: version.id for version in made} | {"model/delay": models[0].id}
    return entries, [model.id for model in models]


def _serving(world, entries):
    pins = {"models": {"champion": entries["model/delay"]}, "service": entries["service/delay_inputs"]}
    views, code = {"origin_load": entries["view/origin_load"]}, entries["code/shop"]
    body = {"endpoint": entries["endpoint/delay"], **pins, "views": views, "code": code}
    inputs = (("endpoint", entries["endpoint/delay"]), ("model:champion", entries["model/delay"]))
    old, new = (Version("revision", "delay", {**body, "turn": n}, inputs) for n in (1, 2))
    world.put(old, new)
    now = world.workspace.clock.wall()
    state = Rollout(new.id, old.id, "canary", since=now - 4 * 60_000_000, entered=now - DAY)
    course = tuple((now - DAY + n * 3.6e9, 90.0 * n, 10.0 * n, 0.1 - 3 / n, 0.1, 0.1 + 3 / n) for n in range(2, 24))
    arms = {"deep": Arm(new.id, 20, "running", course=course), "plain": Arm(old.id, 0, "lost", "worse by 0.1 to 0.3")}
    compared = Rollout(old.id, "", "settled", experiment=Trial(old.id, arms, began=now - DAY).told())
    with world.workspace.catalog.write() as tx:
        rollouts.save(tx, "shop", "production", "delay", state.told(), updated=now)
        rollouts.save(tx, "shop", "production", "compared", compared.told(), updated=now)
        turned = {"environment": "production", "revision": new.id, "serving": old.id, "requests": 9, "errors": 9}
        drifted = {"rows": 70, "champion_rows": 600, "window": ["2026-01-02", "2026-01-03"], "predictions": ["p0001"]}
        for payload in (
            {**turned, "reason": "9 of 9 requests failed"},
            {**turned, "reason": "its answers drift", "errors": 0, "guardrail": drifted},
        ):
            facts.append(tx, "shop", Fact("rollout.reverted", "delay", "controller", now - DAY, payload))
    layout, outputs = (
        Layout.from_pairs([["distance", "FP64"], ["origin_load__count_1h", "FP64"]]),
        (Output("late", "FP64"),),
    )
    appender = log.Appender(world.workspace.home / "serving" / "log" / "g0")
    for number in range(60):
        at = now - number * 20 * 60_000_000
        question = layout.pack({"distance": [700.0 + number], "origin_load__count_1h": [float("nan")]}, 1)
        answer = pack_answer(outputs, {"late": np.array([0.2 + number / 200])})
        revision = (old, new)[number % 7 == 0].id
        appender.append(
            log.Entry(
                f"p{number:04d}",
                at,
                at,
                "shop",
                "delay",
                revision,
                1,
                log.raw(layout.pairs()),
                question,
                log.raw([outputs[0].listed()]),
                answer,
                {"origin": [ATTACK if number == 0 else "EWR"]},
                2500 + number,
                "",
                "predict",
            )
        )
    appender.close()
    ingest(world.workspace.catalog, world.workspace.home)
    with world.workspace.catalog.read() as tx:
        world.prediction = predictions.newest(tx, "shop", "delay", 1)[0].id


def _watch(world, now):
    body = {
        "start": now - DAY,
        "until": now,
        "rows": 1800,
        "state": "drift",
        "summary": "1 of 2 columns moved",
        "columns": [
            {
                "column": "origin_load__count_1h",
                "state": "drift",
                "severity": 2.31,
                "text": "0.31 further right than in training",
                "fault": None,
                "tests": [{"what": "shift", "text": f"p = 3e-9, effect 0.31 {ATTACK}"}],
            },
            {
                "column": "distance",
                "state": "ok",
                "severity": 0.1,
                "text": "as in training",
                "fault": None,
                "tests": [],
            },
        ],
        "performance": {"roc_auc": 0.71},
    }
    identity = world.workspace.store.put(json.dumps(body).encode())
    evidence = Version("evidence", "watch.delay", {"about": "window", "object": identity, "state": "drift"})
    world.put(evidence)
    world.alarm = "alarm-000000000001"
    title = f"origin_load__count_1h: 0.31 further right than in training {ATTACK}, since 2026-01-02"
    with world.workspace.catalog.write() as tx:
        for day in range(30):
            start = now - (30 - day) * DAY
            figures = {"roc_auc": 0.76 - day * 0.002, "flagged": float(day > 25), "severity": day / 12, "rows": 1800.0}
            state = "drift" if day > 25 else "ok"
            row = Evaluation("delay", start, start + DAY, now, now, state, evidence.id, f"window {day}", figures)
            alarms.record_evaluation(tx, "shop", row)
        for number, state in enumerate(("alarm", "suspect", "resolved"), 1):
            alarms.save(
                tx,
                "shop",
                Alarm(
                    id=f"alarm-{number:012d}",
                    monitor="delay",
                    endpoint="delay",
                    kind="drift",
                    state=state,
                    title=title if number == 1 else f"distance: moved, case {number}",
                    columns=("origin_load__count_1h",),
                    history="0111",
                    severity=2.31,
                    blocks_retraining=number == 1,
                    onset=now - 3 * DAY,
                    last_window=now,
                    updated=now,
                    evidence=evidence.id,
                    opened=None if state == "suspect" else now - 2 * DAY,
                    resolved=now if state == "resolved" else None,
                ),
            )


def other_project(world, actor="ada"):
    """A second project in the same workspace, which some may not read."""
    settings = world.workspace.settings
    values = {name: getattr(settings, name) for name in Settings.__slots__}
    initialise(Settings(**{**values, "project": "secret"}), actor, "team")
    return Actor.of(actor)
