"""Bisect two versions: load each side's code in each side's environment, run every mixture, keep the answer."""

import importlib
import sys
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path

from everloop.catalog import versions
from everloop.catalog.context import Context
from everloop.catalog.operation import invoke
from everloop.core.ids import short
from everloop.flows.bisect import answer, operations
from everloop.flows.bisect.game import Attribution, attribute
from everloop.flows.bisect.inside import narrowed
from everloop.flows.bisect.narrow import Narrowed
from everloop.flows.bisect.operations import Question, RecordAnswer, Recorded
from everloop.flows.bisect.running import Budget, Loaded, Runs
from everloop.flows.bisect.settings import Sides, sides
from everloop.flows.engine import Origin
from everloop.flows.executors.process import ProcessExecutor
from everloop.flows.identity import Runtime, runtime
from everloop.flows.reproducing import environment
from everloop.project.loading import load_project
from everloop.workspace.code import written
from everloop.workspace.codecs import CODECS
from everloop.workspace.flows.computing import profiles_for
from everloop.workspace.work.executors import ByKind
from everloop.workspace.work.reproducing import module_of

Told = Callable[[str], None]


class Elsewhere(ProcessExecutor):
    """Runs every step in another environment, and knows what that environment holds."""

    def __init__(self, python: str) -> None:
        """Use this interpreter."""
        super().__init__(python)
        self._interpreter = python

    def runtime(self, threads: int | None) -> Runtime:
        """What its steps see."""
        return environment.seen_by(self._interpreter, threads or 1)


def bisect(
    ctx: Context, asked: Question, *, budget: Budget | None = None, inside: bool = True, told: Told = lambda _text: None
) -> Recorded:
    """Run every mixture of two versions, put the change of the metric down to factors, and keep that as evidence.

    What was run is cached: after a stop, or a spent budget (`Conflict`), asking again goes on. `inside` narrows the
    largest factor that is not noise. Raises what `settings.sides` raises.
    """
    found = sides(ctx, asked.good, asked.bad)
    operations.plan_of(ctx, asked, found)
    runs = Runs(ctx, found.step, asked.metric, _loader(ctx, found), codecs=CODECS, budget=budget)
    try:
        attribution = _attributed(found, runs, asked.seeds, told)
        narrow = _narrowed(ctx, found, attribution, runs, told) if inside and attribution.state == "explained" else {}
    finally:
        runs.close()
    with ctx.read() as tx:
        ids = [versions.find(tx, ctx.project, spec).id for spec in (asked.good, asked.bad)]
    question = answer.Asked(ids[0], ids[1], asked.metric, asked.seeds)
    manifest = answer.manifest(question, found, attribution, narrow, runs.count)
    return invoke(ctx, operations.record, RecordAnswer(name=found.step.replace("/", "."), found=manifest))


def _attributed(found: Sides, runs: Runs, seeds: int, told: Told) -> Attribution:
    """The noise floor first: when the two ends do not differ beyond it, no mixture is run."""
    numbers = range(1, seeds + 1)
    ends = replace(found, players=())
    told("running both sides")
    good = runs.values(ends, numbers)[frozenset()]
    bad = runs.values(replace(ends, good=found.bad), numbers)[frozenset()]
    first = attribute({frozenset(): good, frozenset(["all"]): bad}, ["all"])
    if first.state == "nothing" or not found.players:
        return replace(first, state="nothing", contributions=(), interactions=(), undefined=())
    values = runs.values(found, numbers, lambda done, of: told(f"mixture {done} of {of}"))
    return attribute(values, found.players)


def _narrowed(ctx: Context, found: Sides, attribution: Attribution, runs: Runs, told: Told) -> dict[str, Narrowed]:
    guilty = next((one for one in attribution.contributions if not one.noise and len(one.factors) == 1), None)
    if guilty is None:
        return {}
    factor = guilty.factors[0]
    told(f"narrowing inside {factor}")
    total = guilty.swapped_in.mean if guilty.swapped_in is not None else guilty.value.mean
    inside = narrowed(ctx, found, factor, runs, total) if total else None
    return {factor: inside} if inside is not None else {}


@dataclass(frozen=True, slots=True)
class _Environments:
    """Which interpreter has which recorded environment."""

    ctx: Context
    needed: Collection[str] | None

    def python(self, identity: str) -> str:
        with self.ctx.read() as tx:
            recorded = versions.get(tx, self.ctx.project, identity).manifest
        packages = recorded["packages"]
        names = [n for n in (self.needed if self.needed is not None else packages) if n in packages]
        wanted = {name: f"{packages[name]['version']} {packages[name]['digest']}" for name in names}
        if not environment.differs(wanted, runtime(), recorded["python"]):
            return sys.executable
        lock = environment.lock_of(names, recorded)
        return str(environment.rebuild(self.ctx.home, recorded["python"], lock))


def _loader(ctx: Context, found: Sides) -> Callable[[str, str], Loaded]:
    with ctx.read() as tx:
        module = module_of(tx, ctx.project, found.step)
    environments = _Environments(ctx, found.needed)

    def load(code: str, identity: str) -> Loaded:
        with ctx.read() as tx:
            row = versions.get(tx, ctx.project, code)
        folder = written(ctx, row.manifest, ctx.home / "code" / short(code))
        _forget(ctx.home / "code")
        project = load_project(folder, module)
        assets = project.assets()
        python = environments.python(identity)
        executor = ByKind(assets, ctx.store) if python == sys.executable else Elsewhere(python)
        held = profiles_for(ctx, project.profiles)
        return Loaded(assets, Origin(folder, module, row.name), executor, held)

    return load


def _forget(folder: Path) -> None:
    """Forget every module of a checkout: modules of one name in two of them are two modules."""
    inside = str(folder.resolve())
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if file and str(Path(file).resolve()).startswith(inside):
            del sys.modules[name]
    importlib.invalidate_caches()
