"""Bisect two versions: load each side's code in each side's environment, run every mixture, keep the answer."""

import importlib
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from everloop.catalog import versions
from everloop.catalog.context import Context
from everloop.catalog.operation import invoke
from everloop.core.errors import InvalidInput
from everloop.core.ids import short
from everloop.core.ports import Executor
from everloop.core.version import Version
from everloop.flows.bisect import answer, operations
from everloop.flows.bisect.game import Attribution, attribute
from everloop.flows.bisect.history import Place
from everloop.flows.bisect.inside import narrowed
from everloop.flows.bisect.narrow import Narrowed
from everloop.flows.bisect.operations import Question, RecordAnswer, Recorded
from everloop.flows.bisect.running import Budget, Loaded, Runs
from everloop.flows.bisect.settings import Sides, sides
from everloop.flows.engine import Origin
from everloop.flows.executors.elsewhere import Elsewhere
from everloop.flows.executors.forked import ForkedExecutor
from everloop.flows.identity import Tree
from everloop.project import Project
from everloop.project.loading import load_project
from everloop.workspace.build import data_files
from everloop.workspace.code import written
from everloop.workspace.codecs import CODECS
from everloop.workspace.flows.computing import profiles_for
from everloop.workspace.work.executors import executor_of
from everloop.workspace.work.reproducing import interpreter, module_of

Told = Callable[[str], None]


def bisect(
    ctx: Context,
    asked: Question,
    *,
    budget: Budget | None = None,
    inside: bool = True,
    root: Path | None = None,
    cluster: str = "",
    told: Told = lambda _text: None,
) -> Recorded:
    """Run every mixture of two versions, put the change of the metric down to factors, and keep that as evidence.

    What was run is cached: after a stop, or a spent budget (`Conflict`), asking again goes on. `inside` narrows the
    largest factor that is not noise; `root` is the project's folder, whose git history code is narrowed by. `cluster`
    is the Ray cluster that runs what runs in the environment of this process. Raises what `settings.sides` raises.
    """
    found = sides(ctx, asked.good, asked.bad)
    operations.plan_of(ctx, asked, found)
    loader = _loader(ctx, found, cluster)
    runs = Runs(ctx, found.step, asked.metric, loader, codecs=CODECS, budget=budget)
    narrow: dict[str, Narrowed] = {}
    try:
        attribution = _attributed(found, runs, asked.seeds, told)
        if inside and attribution.state == "explained":
            place = Place(root, tuple(sorted(loader.leave_out))) if root is not None else None
            narrow = _narrowed(ctx, found, attribution, runs, place=place, told=told)
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


def _narrowed(
    ctx: Context, found: Sides, attribution: Attribution, runs: Runs, *, place: Place | None, told: Told
) -> dict[str, Narrowed]:
    guilty = next((one for one in attribution.contributions if not one.noise and len(one.factors) == 1), None)
    if guilty is None:
        return {}
    factor = guilty.factors[0]
    told(f"narrowing inside {factor}")
    total = guilty.swapped_in.mean if guilty.swapped_in is not None else guilty.value.mean
    return narrowed(ctx, found, factor, runs, total, place=place) if total else {}


@dataclass
class _Loader:
    """Loads the code of one side in the environment of another."""

    ctx: Context
    module: str
    sides: Sides
    cluster: str
    leave_out: set[str] = field(default_factory=set)
    """Globs of what the sources of the projects read: data, no code."""

    def __call__(self, code: str, identity: str) -> Loaded:
        ctx = self.ctx
        with ctx.read() as tx:
            row = versions.get(tx, ctx.project, code)
            recorded = versions.get(tx, ctx.project, identity).manifest
        folder = written(ctx, row.manifest, ctx.home / "code" / short(code))
        _forget(ctx.home / "code")
        project = load_project(folder, self.module)
        self.leave_out.update(data_files(project))
        origin = Origin(folder, self.module, row.name)
        packages = recorded["packages"]
        needed = self.sides.needed if self.sides.needed is not None else packages
        wanted = {one: f"{packages[one]['version']} {packages[one]['digest']}" for one in needed if one in packages}
        python = interpreter(ctx, wanted, recorded, exact=True)
        executor = self._executor(project, Tree(Version("code", row.name, row.manifest), "", ""), python)
        return Loaded(project.assets(), origin, executor, profiles_for(ctx, project.profiles))

    def _executor(self, project: Project, code: Tree, python: str) -> Executor:
        """Where mixtures run. Two environments have the same threads and hash seed: each step has its own process."""
        if python != sys.executable:
            return Elsewhere(python)
        if "environment" in self.sides.players:
            return ForkedExecutor()
        return executor_of(self.ctx, project.assets(), code, self.cluster)


def _loader(ctx: Context, found: Sides, cluster: str) -> _Loader:
    with ctx.read() as tx:
        module = module_of(tx, ctx.project, found.step)
    if "environment" in found.players and cluster:
        raise InvalidInput(
            "the environment is one of the factors, and the nodes of a cluster have one",
            hint="bisect without a cluster",
        )
    return _Loader(ctx, module, found, cluster)


def _forget(folder: Path) -> None:
    """Forget every module of a checkout: modules of one name in two of them are two modules."""
    inside = str(folder.resolve())
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if file and str(Path(file).resolve()).startswith(inside):
            del sys.modules[name]
    importlib.invalidate_caches()
