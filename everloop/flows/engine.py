"""Run a plan: reuse what was made from the same recipe, execute the rest, record each step as it ends.

Downstream keys are made of output ids, never of upstream keys: an edit that gives the same output stops there. What
a killed run had finished is in the catalog, so a new run repeats only the step that was in flight.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from everloop.catalog import facts, placements, steps, versions
from everloop.catalog.context import Context
from everloop.catalog.engine import Tx
from everloop.catalog.making import leaks, recipes
from everloop.catalog.making.leaks import Leak
from everloop.catalog.making.recipes import Ingredients
from everloop.catalog.steps import StepRow
from everloop.catalog.trees import packs
from everloop.core.errors import EverloopError, InvalidInput
from everloop.core.ports import Executor, Job, Outcome, RunSink
from everloop.core.version import Version
from everloop.flows import witness
from everloop.flows.assets import Asset, suggest
from everloop.flows.flight import alone
from everloop.flows.identity import Runtime, closure_hash, project_tree, recipe, runner_identity, runtime
from everloop.flows.identity.recipe import plain_text
from everloop.flows.observation.console import secrets_of
from everloop.flows.observation.observed import Observed, Said

HOST = ("python", "implementation", "platform", "machine", "threads")
"""What of the machine is in a recipe."""

State = Literal["waiting", "running", "done", "reused", "failed"]
Progress = Callable[[str, State, float], None]
"""Called with a step's key, its state and its seconds (0 until it ended), from the thread that runs the step."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where the project is: its folder, and the module that defines it (`module` or `module:attribute`)."""

    root: Path
    module: str
    name: str = "project"


@dataclass(frozen=True, slots=True)
class Done:
    """A step that has its output."""

    step: str
    recipe: str
    output: str
    """The version's id."""
    reused: bool
    seconds: float
    run: str
    """The tracking run that made it; empty for steps that are not tracked."""
    leaks: tuple[str, ...] = ()
    """What it read that nobody had declared (`file:rates.csv`); the output is reused while all of it is the same."""


@dataclass(frozen=True, slots=True)
class Results:
    """What a run made, in the order of the plan."""

    steps: tuple[Done, ...]
    outputs: Mapping[str, str]
    """Version id of every asset of the plan, given ones too."""
    code: str
    runtime: str


@dataclass(frozen=True, slots=True)
class Options:
    """How to run; everything has a sensible default."""

    given: Mapping[str, str] = field(default_factory=dict)
    """Version id of every asset that has no function."""
    params: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Values for tunable parameters, by step's key or bare name."""
    cached: bool = True
    """Whether outputs may be reused. What runs is recorded either way."""
    workers: int = 1
    """How many steps may run beside each other, where the executor isolates them."""
    tracked: frozenset[str] = frozenset({"model"})
    """Kinds of assets whose execution is a tracking run."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """More for the codecs of all steps, outside the recipe."""
    bound: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """More facts of single steps, by key, inside the recipe: ids of the definitions that they belong to
    (`{"model/delay": {"service_id": …, "trainer_id": …}}`), which must be in the catalog."""
    environ: Callable[[str, str], Mapping[str, str]] | None = None
    """Environment variables of a step, from its key and its tracking run."""
    code: Version | None = None
    """The code version to record; None: the working tree of the project."""
    seed: int | None = None
    """Seeds `random` and numpy in every step, inside the recipe; None: each step's seed comes from its recipe."""


def run(
    ctx: Context,
    plan: Sequence[Asset],
    *,
    origin: Origin,
    executor: Executor,
    codecs: Mapping[str, str],
    runs: RunSink | None = None,
    options: Options | None = None,
    progress: Progress | None = None,
    said: Said | None = None,
) -> Results:
    """Make every asset of `plan` (see `assets.plan`) and return the outputs' ids.

    `codecs` names a codec (`module:attribute`) for each kind of version. `said` shows the lines that steps print.
    Each finished step is recorded in one transaction. Raises `StepFailed` for user code, after the steps that ran
    beside it have ended and were recorded; `InvalidInput` for a given asset without a version, or a parameter that no
    step has.
    """
    chosen = options or Options()
    engine = _Run(ctx, origin, executor, codecs=codecs, runs=runs, options=chosen, progress=progress, said=said)
    engine.check(plan)
    try:
        engine.make(plan)
    finally:
        engine.record_reused()
    done = tuple(engine.done[asset.key] for asset in plan if asset.key in engine.done)
    return Results(done, engine.outputs, engine.code.id, engine.runtime(1, isolated=engine.isolated).version.id)


class _Run:
    """The state of one run: what has its output, and what is recorded of it."""

    def __init__(
        self,
        ctx: Context,
        origin: Origin,
        executor: Executor,
        *,
        codecs: Mapping[str, str],
        runs: RunSink | None,
        options: Options,
        progress: Progress | None,
        said: Said | None,
    ) -> None:
        self.ctx, self.origin, self.executor, self.codecs, self.runs = ctx, origin, executor, codecs, runs
        self.options, self.said = options, said
        self.progress: Progress = progress or (lambda _step, _state, _seconds: None)
        self.code = options.code or project_tree(origin.root, ctx.store, origin.name).version
        self.outputs: dict[str, str] = {}
        self.done: dict[str, Done] = {}
        self._reused: list[StepRow] = []
        self._put: set[str] = set()
        self._made_of: dict[str, Ingredients] = {}
        self._runtimes: dict[int | None, Runtime] = {}
        self.isolated = bool(getattr(executor, "isolated", True))

    def check(self, plan: Sequence[Asset]) -> None:
        """Refuse before anything runs what would fail later."""
        names = {asset.key for asset in plan} | {asset.name for asset in plan}
        for wanted, values in self.options.params.items():
            if wanted not in names:
                raise InvalidInput(f"parameters for {wanted!r}, which is not in the plan", hint=suggest(wanted, names))
            asset = next(asset for asset in plan if wanted in (asset.key, asset.name))
            unknown = next((name for name in values if name not in asset.params), None)
            if unknown is not None:
                raise InvalidInput(f"{asset.key} has no parameter {unknown!r}", hint=suggest(unknown, asset.params))
        for asset in plan:
            plain_text(self.params(asset))
            if asset.function is None and asset.key not in self.options.given:
                raise InvalidInput(
                    f"{asset.key} has no version yet", hint=f"capture it: everloop data capture {asset.name}"
                )
        self.outputs.update({asset.key: self.options.given[asset.key] for asset in plan if asset.function is None})

    def make(self, plan: Sequence[Asset]) -> None:
        """Make everything, beside each other where that is allowed."""
        waiting = [asset for asset in plan if asset.key not in self.outputs]
        if self.options.workers <= 1 or not self.isolated or len(waiting) == 1:
            for asset in waiting:
                self._finish(self._step(asset))
            return
        with ThreadPoolExecutor(self.options.workers, thread_name_prefix="step") as pool:
            running: dict[Future[Done], Asset] = {}
            try:
                while waiting or running:
                    ready = [a for a in waiting if all(u in self.outputs for u in a.upstream.values())]
                    for asset in ready[: self.options.workers - len(running)]:
                        waiting.remove(asset)
                        running[pool.submit(self._step, asset)] = asset
                    ended, _ = wait(running, return_when=FIRST_COMPLETED)
                    for future in ended:
                        running.pop(future)
                        self._finish(future.result())  # on an error the pool waits: steps beside it are recorded
            except (KeyboardInterrupt, SystemExit):
                self.executor.close()  # end the children instead of waiting for them
                raise

    def record_reused(self) -> None:
        """Write down what was reused, all at once: it may be every step of a large plan."""
        if self._reused:
            with self.ctx.write() as tx:
                steps.record_many(tx, self.ctx.project, self._reused)
            self._reused.clear()

    def runtime_of(self, asset: Asset) -> Runtime:
        """The runtime that a step sees: of its own threads in a process of its own, else of this process."""
        chooses = getattr(self.executor, "isolates", None)
        isolated = chooses(asset.key) if chooses is not None else self.isolated
        return self.runtime(asset.resources.cores, isolated=isolated)

    def runtime(self, cores: float, *, isolated: bool) -> Runtime:
        """A runtime; read once a run."""
        threads = max(1, int(cores)) if isolated else None
        if threads not in self._runtimes:
            sees = getattr(self.executor, "runtime", None)  # another interpreter has other packages
            self._runtimes[threads] = sees(threads) if sees is not None else runtime(threads)
        return self._runtimes[threads]

    def params(self, asset: Asset) -> dict[str, Any]:
        """The asset's parameters with what the run sets."""
        chosen = self.options.params
        return {**asset.params, **chosen.get(asset.name, {}), **chosen.get(asset.key, {})}

    def recipe(self, asset: Asset, inputs: Mapping[str, str]) -> str:
        """The step's key; see `identity.recipe`."""
        assert asset.function is not None
        closure = closure_hash(asset.function, self.origin.root)
        runner = runner_identity(asset.runner)
        environment = self.runtime_of(asset)
        manifest = environment.version.manifest
        made_of = Ingredients(
            asset.key,
            closure.parts,
            environment.restricted({*closure.packages, *runner.packages}),
            {name: manifest[name] for name in HOST},
            {**asset.facts, **self.options.bound.get(asset.key, {}), **self._seed()},
            {
                "step": asset.key,
                "runner": f"{asset.runner} {runner.digest}",
                "codec": asset.codec or self.codecs.get(asset.kind, ""),
            },
            closure.opaque,
        )
        key = recipe(
            closure=closure.hash,
            packages=made_of.packages,
            host=made_of.host,
            params=self.params(asset),
            inputs=inputs,
            facts=made_of.facts,
            how=made_of.how,
        )
        self._made_of[key] = made_of
        return key

    def _seed(self) -> dict[str, int]:
        return {} if self.options.seed is None else {"seed": self.options.seed}

    def _finish(self, done: Done) -> None:
        self.done[done.step] = done
        self.outputs[done.step] = done.output

    def _step(self, asset: Asset) -> Done:
        inputs = {parameter: self.outputs[key] for parameter, key in asset.upstream.items()}
        key = self.recipe(asset, inputs)
        if self.options.cached and (found := self._reuse(asset, key)):
            return found
        self.progress(asset.key, "waiting", 0.0)
        with alone(self.ctx.home / "flights", f"{self.ctx.project}-{key}"):
            if self.options.cached and (found := self._reuse(asset, key)):  # somebody else made it meanwhile
                return found
            return self._execute(asset, key, inputs)

    def _reuse(self, asset: Asset, key: str) -> Done | None:
        with self.ctx.read() as tx:
            row = steps.lookup(tx, self.ctx.project, key)
            found = leaks.of(tx, self.ctx.project, key) if row is None else ()
        leak = next((one for one in found if self._still(asset, one)), None)
        with self.ctx.read() as tx:
            if row is None and leak is not None:
                row = steps.made(tx, self.ctx.project, [leak.output]).get(leak.output)
            if row is None or row.output is None:
                return None
            manifest = versions.manifests(tx, self.ctx.project, [row.output]).get(row.output)
            if manifest is None:
                return None
            placed = _placed(tx, self.ctx.project, [manifest])
        if not all(self.ctx.store.has(identity) for identity in objects_of(manifest, placed)):
            return None
        self._made_of.pop(key, None)
        self._reused.append(
            replace(row, cached=True, code=self.code.id, at=self.ctx.now(), seconds=0.0, cpu_seconds=0.0, peak_memory=0)
        )
        self._put_code(asset)
        self.progress(asset.key, "reused", 0.0)
        return Done(asset.key, key, row.output, True, 0.0, row.run, tuple(leak.reads) if leak else ())

    def _still(self, asset: Asset, leak: Leak) -> bool:
        """Whether everything that an execution read beside its recipe is as it was."""
        variables = dict(self.executor.environ(asset.key) if hasattr(self.executor, "environ") else os.environ)
        variables |= self.options.environ(asset.key, "") if self.options.environ else {}
        return witness.now(leak.reads, self.origin.root, variables) == leak.reads

    def _execute(self, asset: Asset, key: str, inputs: Mapping[str, str]) -> Done:
        self._put_code(asset)
        tracking = self.runs is not None and asset.kind in self.options.tracked
        params = self.params(asset)
        run = self.runs.start(asset.key, params, {"everloop.recipe": key}) if self.runs and tracking else ""
        self.progress(asset.key, "running", 0.0)
        row = self._row(asset, key, inputs, run)
        job = self._job(asset, key, inputs, run)
        observed = Observed(
            asset.key,
            recipe=key,
            run=run,
            sink=self.runs,
            now=self.ctx.now,
            secrets=secrets_of(self.ctx.bindings, job.env),
            said=self.said,
        )
        try:
            outcome = self.executor.run(job, observed)
        except EverloopError as error:
            observed.ended()
            observed.cover(error)
            with self.ctx.write() as tx:
                steps.record(tx, self.ctx.project, replace(row, status="failed", at=self.ctx.now()))
            self.progress(asset.key, "failed", 0.0)
            self._end_run(run, "FAILED", {})
            raise
        except (KeyboardInterrupt, SystemExit):
            observed.ended()
            self._end_run(run, "KILLED", {})
            raise
        observed.ended(outcome)
        read = self._record(replace(row, at=self.ctx.now()), outcome)
        self.progress(asset.key, "done", outcome.seconds)
        return Done(asset.key, key, outcome.saved.version.id, False, outcome.seconds, run, tuple(read))

    def _end_run(self, run: str, status: str, metrics: Mapping[str, float], tx: Any = None) -> None:
        if self.runs is not None and run:
            self.runs.finish(run, status=status, metrics=metrics, tx=tx)

    def _job(self, asset: Asset, key: str, inputs: Mapping[str, str], run: str) -> Job:
        with self.ctx.read() as tx:
            manifests = versions.manifests(tx, self.ctx.project, list(inputs.values()))
            placed = _placed(tx, self.ctx.project, manifests.values())
            before = _before(tx, self.ctx.project, asset)
        facts = {
            **self.options.facts,
            **self.options.bound.get(asset.key, {}),
            "run": run,
            "code": self.code.id,
            "runtime": self.runtime_of(asset).version.id,
            "recipe": key,
            "before": before,
            **self._seed(),
        }
        return Job(
            step=asset.key,
            root=self.origin.root,
            module=self.origin.module,
            inputs=inputs,
            manifests=manifests,
            placements=placed,
            params=self.params(asset),
            blobs=str(getattr(self.ctx.store, "url", "")),
            env=dict(self.options.environ(asset.key, run)) if self.options.environ else {},
            resources=asset.resources,
            facts=facts,
            codecs=self.codecs,
            recipe=key,
        )

    def _row(self, asset: Asset, key: str, inputs: Mapping[str, str], run: str) -> StepRow:
        return StepRow(
            recipe=key,
            step=asset.key,
            output=None,
            code=self.code.id,
            runtime=self.runtime_of(asset).version.id,
            params=self.params(asset),
            inputs=inputs,
            at=0,
            run=run,
        )

    def _record(self, row: StepRow, outcome: Outcome) -> Mapping[str, str]:
        """One transaction: the version with its lineage, its placements, step and end of the run, or none of them.

        Returns what the step read that its recipe does not hold; it is then marked, and keyed on that too.
        """
        made_of = self._made_of.pop(row.recipe)
        read = witness.undeclared(outcome.reads, made_of.parts)
        made = outcome.saved.version
        lineage = dict.fromkeys([*made.inputs, *row.inputs.items(), ("code", row.code), ("runtime", row.runtime)])
        version = Version(made.kind, made.name, made.manifest, tuple(lineage))
        finished = replace(
            row,
            output=version.id,
            status="leaky" if read else "done",
            digest=str(made.manifest.get("digest", "")),
            seconds=outcome.seconds,
            cpu_seconds=outcome.cpu_seconds,
            peak_memory=outcome.peak_memory,
        )
        with self.ctx.write() as tx:
            numbered = versions.put(tx, self.ctx.project, version, actor=self.ctx.actor.name, at=row.at)
            if version.kind == "model" and numbered.new:
                self._tell(tx, version.name, numbered.number, row.run)
            placements.put(tx, self.ctx.project, outcome.saved.placements)
            placements.rest(tx, self.ctx.project, outcome.saved.rests)
            recipes.put(tx, self.ctx.project, row.recipe, made_of)
            if read:
                leaks.put(tx, self.ctx.project, row.recipe, Leak(read, version.id), at=self.ctx.wall())
            steps.record(tx, self.ctx.project, finished)
            self._end_run(row.run, "FINISHED", outcome.saved.metrics, tx)
        return read

    def _tell(self, tx: Tx, name: str, number: int, run: str) -> None:
        """Facts of a model's new version, and of its name when it is the first, as webhooks hear them."""
        about = {"name": name, "tags": {}, "description": ""}
        if number == 1:
            facts.append(
                tx, self.ctx.project, self.ctx.fact("registry.registered_model.created", f"model/{name}", about)
            )
        told = {**about, "version": str(number), "source": "", "run_id": run}
        facts.append(tx, self.ctx.project, self.ctx.fact("registry.model_version.created", f"model/{name}", told))

    def _put_code(self, asset: Asset) -> None:
        """Make sure that code and runtime are in the catalog before a row names them."""
        many = [v for v in (self.code, self.runtime_of(asset).version) if v.id not in self._put]
        if many:
            with self.ctx.read() as tx:  # writing a runtime's hundred packages down costs more than a look
                there = versions.labels(tx, self.ctx.project, [version.id for version in many])
            if missing := [version for version in many if version.id not in there]:
                with self.ctx.write() as tx:
                    versions.put_many(tx, self.ctx.project, missing, actor=self.ctx.actor.name, at=self.ctx.now())
            self._put.update(version.id for version in many)


def objects_of(manifest: Mapping[str, Any], placed: Mapping[str, str]) -> list[str]:
    """The objects that hold a version's bytes: single ones, trees of files, and parts by their placements.

    A part that has no placement stands for itself, so that looking for it fails.
    """
    found = [str(manifest[name]) for name in ("object", "profile") if manifest.get(name)]
    files = manifest.get("files")
    if isinstance(files, Mapping):
        found += [str(identity) for identity in files.values()]
    return found + [placed.get(logical, logical) for logical in logicals(manifest)]


def logicals(manifest: Mapping[str, Any]) -> list[str]:
    """The logical ids of a table's parts, which placements resolve; none for other kinds."""
    parts = manifest.get("parts")
    return [str(part["logical"]) for part in parts if "logical" in part] if isinstance(parts, list) else []


def _before(tx: Any, project: str, asset: Asset) -> dict[str, Any] | None:
    """The newest table that the asset gave: the codec shares its parts, and lays on them what differs little."""
    newest = next(iter(versions.history(tx, project, asset.kind, asset.name, limit=1)), None)
    if newest is None or not logicals(newest.manifest):
        return None
    return {"manifest": newest.manifest, "placements": _placed(tx, project, [newest.manifest])}


def _placed(tx: Any, project: str, manifests: Any) -> dict[str, str]:
    """Where the parts of tables lie; for a folder of files also the packs that may hold them, as `pack:<object>`."""
    held = list(manifests)
    wanted = [logical for manifest in held for logical in logicals(manifest)]
    found = placements.resolve(tx, project, wanted) if wanted else {}
    if any("media_type" in dict(manifest.get("schema_fields", ())) for manifest in held):
        found |= {f"pack:{row.object}": row.object for row in packs.of(tx, project)}
    return found
