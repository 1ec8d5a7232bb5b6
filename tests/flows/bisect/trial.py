"""A trial: a small flow with planted regressions, and what the bisection says of it. Everything really runs."""

import importlib
import random
import sys

import numpy as np
import polars as pl

from everloop.catalog import placements, versions
from everloop.data.codec import DataCodec
from everloop.flows.assets import plan
from everloop.flows.bisect.game import attribute
from everloop.flows.bisect.running import Loaded, Runs
from everloop.flows.bisect.settings import sides
from everloop.flows.engine import Options, Origin, run
from everloop.flows.executors.local import LocalExecutor
from everloop.workspace.codecs import CODECS

SEEDS = 6
LIBRARY = "def price(amount):\n    return amount{power}\n\n\ndef unused():\n    return {number}\n"
CODE = '''
import numpy as np
import polars as pl
from types import SimpleNamespace
from everloop.flows.assets import Asset, define, wire
import {package}
import rules


def frame(rows: pl.DataFrame):
    return rows.select(*rules.columns(), "label")


def holdout(judged: pl.DataFrame):
    return judged


def model(frame: pl.DataFrame, holdout: pl.DataFrame, threshold: float = 0.0, note: str = "", seed: int = 0):
    """Weights of a regularised regression on a bootstrap sample; its accuracy on the holdout."""
    chance = np.random.default_rng(seed)
    names = [name for name in frame.columns if name != "label"]
    chosen = frame[chance.integers(0, frame.height, frame.height)]
    x, y = rules.prepared(chosen.select(names).to_numpy()), chosen["label"].to_numpy() * 2.0 - 1
    x = {package}.price(x)
    weights = np.linalg.solve(x.T @ x + np.eye(x.shape[1]), x.T @ y)
    z = {package}.price(rules.prepared(holdout.select(names).to_numpy()))
    return {{"accuracy": float(np.mean((z @ weights > threshold) == (holdout["label"].to_numpy() > 0)))}}


project = SimpleNamespace(assets=lambda: wire([Asset("data/rows", None), Asset("data/judged", None),
    define(frame, kind="frame"), define(holdout, kind="frame"), define(model)]))
'''
RULES = "def columns():\n    return {columns}\n\n\ndef prepared(x):\n    return x{spoiled}\n"
PLANTED = ("label noise", "dropped column", "changed helper", "changed parameter", "older package")
FACTOR = {
    "label noise": "data",
    "dropped column": "code",
    "changed helper": "code",
    "changed parameter": "parameters",
    "older package": "environment",
}


def table(chance, rows):
    """Six columns and a label that they nearly give."""
    x = chance.normal(size=(rows, 6))
    label = (x @ np.array([2.0, 1.0, 1.0, 0.7, 0.5, 0.3]) + 0.8 * chance.normal(size=rows) > 0).astype(np.int8)
    return pl.DataFrame({f"c{n}": x[:, n] for n in range(6)} | {"label": label})


class World:
    """One project whose good and bad side are made as people make them, with distractors in every factor."""

    def __init__(self, context, folder, number, planted):
        self.ctx, self.folder, self.planted, self.number = context, folder, frozenset(planted), number
        self.package = f"pricing{number}"
        self.roots = {side: folder / f"{number}-{side}" for side in ("good", "bad")}
        self.sites = {side: folder / f"{number}-site-{side}" for side in ("good", "bad")}
        self.codes, self.runtimes = {}, {}

    def make(self):
        """Record both sides; the ids of what came out."""
        chance = np.random.default_rng(self.number)
        judged = self.captured("judged", table(chance, 1500))
        rows = table(chance, 400)
        made = {}
        for side in ("good", "bad"):
            bad = self.planted if side == "bad" else frozenset()
            self._write(side, bad)
            shown = rows if side == "good" else self._rows(rows, bad, chance)
            given = {"data/rows": self.captured("rows", shown), "data/judged": judged}
            loaded = self._loaded(side)
            params = {"threshold": 0.5 if "changed parameter" in bad else 0.0, "note": side}
            done = run(
                self.ctx,
                plan(loaded.assets, ["model"]),
                origin=loaded.origin,
                executor=loaded.executor,
                codecs=CODECS,
                options=Options(given=given, params={"value/model": params}),
            )
            self.codes[done.code], self.runtimes[done.runtime] = side, side
            made[side] = done.outputs["value/model"]
        return made["good"], made["bad"]

    def captured(self, name, frame):
        """A table as a version that no step made."""
        saved = DataCodec().save(frame, name, self.ctx.store, {})
        with self.ctx.write() as tx:
            versions.put(tx, self.ctx.project, saved.version, actor="ada", at=1)
            placements.put(tx, self.ctx.project, saved.placements)
        return saved.version.id

    def _rows(self, rows, bad, chance):
        more = rows.sample(fraction=1.0, shuffle=True, seed=int(chance.integers(1 << 30)))  # other order: no cause
        if "label noise" not in bad:
            return more
        wrong = (pl.col("c0") > 0.2) & (pl.Series(chance.random(more.height)) < 0.9)
        return more.with_columns(label=pl.when(wrong).then(0).otherwise(pl.col("label")).cast(pl.Int8))

    def _write(self, side, bad):
        root, site = self.roots[side], self.sites[side]
        package, info = site / self.package, site / f"{self.package}-{1 if side == 'good' else 2}.0.dist-info"
        for one in (root, package, info):
            one.mkdir(parents=True)
        columns = [f"c{n}" for n in range(6) if n or "dropped column" not in bad]
        spoiled = " * [-1, 1, 1, 1, 1, 1][-x.shape[1] :] if len(x) == 1500 else x" if "changed helper" in bad else ""
        number = 0 if side == "good" else 1
        (root / "rules.py").write_text(
            RULES.format(columns=columns, spoiled=spoiled).replace("columns():\n", f"columns():\n    {number}\n")
        )
        (root / "flow.py").write_text(CODE.format(package=self.package))
        text = LIBRARY.format(
            power=" * abs(amount) ** 3 * -1 if len(amount) == 1500 else amount" if "older package" in bad else "",
            number=number,
        )
        (package / "__init__.py").write_text(text)
        (info / "METADATA").write_text(f"Name: {self.package}\n")
        (info / "RECORD").write_text(
            f"{self.package}/__init__.py,sha256={number}{'x' if 'older package' in bad else ''},1\n"
        )

    def _loaded(self, code, environment=None):
        """A side's code with a side's package, as a process of its own would import them."""
        for name in ("flow", "rules", self.package):
            sys.modules.pop(name, None)
        ours = {str(one) for one in (*self.roots.values(), *self.sites.values())}
        sys.path[:] = [
            str(self.roots[code]),
            str(self.sites[environment or code]),
            *(p for p in sys.path if p not in ours),
        ]
        importlib.invalidate_caches()
        assets = importlib.import_module("flow").project.assets()
        return Loaded(assets, Origin(self.roots[code], "flow"), LocalExecutor(assets, self.ctx.store))

    def load(self, code, runtime):
        if code not in self.codes:  # a mixture of files
            with self.ctx.read() as tx:
                files = versions.get(tx, self.ctx.project, code).manifest["files"]
            self.codes[code] = code
            self.roots[code] = self.folder / f"{self.number}-{len(self.roots)}"
            self.roots[code].mkdir()
            for name, identity in files.items():
                (self.roots[code] / name).write_bytes(self.ctx.store.get(identity))
        return self._loaded(self.codes[code], self.runtimes[runtime])

    def explain(self):
        """What the bisection says of the two sides, and how often it ran."""
        good, bad = self.make()
        found = sides(self.ctx, good, bad)
        runs = Runs(self.ctx, found.step, "accuracy", self.load, codecs=CODECS)
        values = runs.values(found, range(1, SEEDS + 1))
        return attribute(values, found.players), found, runs, values

    def close(self):
        for name in ("flow", "rules", self.package):
            sys.modules.pop(name, None)
        ours = {str(one) for one in (*self.roots.values(), *self.sites.values())}
        sys.path[:] = [p for p in sys.path if p not in ours]


def strength(values, players):
    """The whole effect in standard deviations of the good side's noise."""
    good, bad = values[frozenset()], values[frozenset(players)]
    spread = float(np.std([*np.subtract(good, np.mean(good)), *np.subtract(bad, np.mean(bad))], ddof=2))
    return abs(float(np.mean(bad) - np.mean(good))) / spread if spread else float("inf")


def planted(number):
    """What a trial plants: one regression, or two of different factors."""
    chance = random.Random(number)
    if number % 2:
        return (chance.choice(PLANTED),)
    while True:
        pair = chance.sample(PLANTED, 2)
        if FACTOR[pair[0]] != FACTOR[pair[1]]:
            return tuple(pair)
