"""One unit of a run: reuse what its recipe made before, or execute it, again after errors that its step says.

Downstream keys are made of output ids, never of upstream keys: an edit that gives the same output stops there.
"""

import os
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, nullcontext
from dataclasses import replace
from typing import Any

from everloop.catalog import facts
from everloop.catalog.context import Context
from everloop.catalog.engine import Tx
from everloop.catalog.making.flows import FlowStep
from everloop.catalog.making.leaks import Leak
from everloop.catalog.making.recipes import Ingredients
from everloop.catalog.steps import StepRow
from everloop.catalog.versions import Numbered
from everloop.core.clock import Micros
from everloop.core.errors import Cancelled, EverloopError, OverBudget
from everloop.core.ports import Executor, Job, Outcome, RunSink
from everloop.core.version import Version
from everloop.flows import witness
from everloop.flows.assets import Asset
from everloop.flows.compute.accounts import Accounts
from everloop.flows.flight import Flight
from everloop.flows.observation.console import secrets_of
from everloop.flows.observation.observed import Observed, Said
from everloop.flows.running.finding import before, objects_of
from everloop.flows.running.interrupting import Interrupts
from everloop.flows.running.keys import Keys
from everloop.flows.running.known import Known
from everloop.flows.running.ledger import Ledger, Record
from everloop.flows.running.settings import Done, Ended, Options, Origin, Progress
from everloop.flows.running.unit import Unit

_SHORT = 0.05
"""Seconds: what took longer is written down at once."""


class Attempts:
    """Does the units of one run; safe for its threads."""

    def __init__(
        self,
        ctx: Context,
        origin: Origin,
        executor: Executor,
        *,
        codecs: Mapping[str, str],
        runs: RunSink | None,
        options: Options,
        progress: Progress,
        said: Said | None,
        keys: Keys,
        known: Known,
        ledger: Ledger,
        code: Version,
        interrupts: Interrupts,
        accounts: Accounts,
    ) -> None:
        """Work for a run whose other parts are given."""
        self._ctx, self._origin, self._executor, self._codecs, self._runs = ctx, origin, executor, codecs, runs
        self._options, self._progress, self._said = options, progress, said
        self._apart = not options.recorded and options.seed is not None
        self._keys, self._known, self._ledger, self._code = keys, known, ledger, code
        self._interrupts, self._stopping = interrupts, interrupts.stopping
        self._accounts = accounts
        self._flights = ctx.home
        self._elsewhere = bool(getattr(executor, "unseen", False))
        self._ahead: dict[str, tuple[str, Ingredients]] = {}

    def do(self, unit: Unit) -> Done:
        """The unit's output, reused or made. Raises what the last attempt raised, and `Cancelled`."""
        ready = self._ahead.pop(unit.step) if unit.step in self._ahead else None
        key, made_of = ready or self._keys.recipe(unit.asset, unit.inputs)
        cached = self._options.cached and not unit.again
        if cached and (found := self.reuse(unit, key)):
            return found
        self._progress(unit.step, "waiting", 0.0)
        with ExitStack() as held:
            flight = Flight(self._flights, f"{self._ctx.project}-{key}")
            held.callback(flight.release)
            # somebody else may have made it meanwhile
            if cached and flight.waited and (found := self.reuse(unit, key, anew=True)):
                return found
            done, record, now = self._execute(unit, key, made_of)
            held.pop_all()
            self._ledger.finished(record, now=now, written=flight.release)
        self._progress(unit.step, "done", done.seconds)
        return done

    def expect(self, units: list[Unit]) -> None:
        """Compute the recipes of many units, and read together what is known of them."""
        self._ahead |= {unit.step: self._keys.recipe(unit.asset, unit.inputs) for unit in units}
        if self._options.cached:
            self._known.ask([self._ahead[unit.step][0] for unit in units])

    def reuse(self, unit: Unit, key: str, *, anew: bool = False) -> Done | None:
        """What the recipe `key` made before, where all of it is still there; None: it has to be made."""
        row, read = self._known.find(key, unit.asset.key, anew=anew)
        output, run, leak = (row.output, row.run, None) if row is not None else ("", "", None)
        if row is None:
            leak = next((one for one in read if self._still(unit.asset, one)), None)
            output = leak.output if leak is not None else ""
        if not output:
            return None
        manifest = self._known.manifest(output)
        if manifest is None:
            return None
        placed = self._known.placed(output, manifest)
        if not all(self._ctx.store.has(identity) for identity in objects_of(manifest, placed)):
            self._known.forget_places(output)
            return None
        now = self._ctx.now()
        self._base(unit.asset)
        self._ledger.row(self._row(unit, key, run, output=output, cached=True, at=now))
        wall = self._ctx.wall()
        why = "cached" if leak is None else "cached: what it read is the same"
        self._ledger.state(FlowStep(unit.step, unit.place, "reused", key, output, run, why=why, began=wall, ended=wall))
        self._progress(unit.step, "reused", 0.0)
        return Done(unit.step, key, output, True, 0.0, run, tuple(leak.reads) if leak else ())

    def _still(self, asset: Asset, leak: Leak) -> bool:
        """Whether everything that an execution read beside its recipe is as it was."""
        variables = dict(self._executor.environ(asset.key) if hasattr(self._executor, "environ") else os.environ)
        variables |= self._options.environ(asset.key, "") if self._options.environ else {}
        return witness.now(leak.reads, self._origin.root, variables) == leak.reads

    def _execute(self, unit: Unit, key: str, made_of: Ingredients) -> tuple[Done, Record, bool]:
        """What came of it, what to write down, and whether to do that at once."""
        failed = 0
        while True:
            try:
                return self._attempt(unit, key, made_of, failed + 1)
            except EverloopError as error:
                failed += 1
                retry = unit.asset.retry
                if failed > retry.times or not _named(error, retry.on) or self._stopping.is_set():
                    raise
                seconds = retry.seconds(failed)
                why = f"attempt {failed} failed: {error.message}; again in {seconds:g} s"
                self._ledger.state(FlowStep(unit.step, unit.place, "waiting", key, why=why, attempt=failed))
                self._progress(unit.step, "waiting", seconds)
                if self._stopping.wait(seconds):
                    self._ledger.check()
                    raise Cancelled(f"{unit.step} was waiting to be tried again when the run ended") from error

    def _attempt(self, unit: Unit, key: str, made_of: Ingredients, attempt: int) -> tuple[Done, Record, bool]:
        asset = unit.asset
        self._accounts.admit(unit.step)
        self._base(asset)
        tracking = self._runs is not None and asset.kind in self._options.tracked
        params = self._keys.params(asset)
        run = unit.run or (
            self._runs.start(asset.key, params, {"everloop.recipe": key}) if self._runs and tracking else ""
        )
        job = self._job(unit, key, run)
        at = FlowStep(unit.step, unit.place, "running", key, run=run, attempt=attempt, began=self._ctx.wall())
        self._ledger.state(at)
        self._progress(unit.step, "running", 0.0)
        observed = Observed(
            unit.step,
            recipe=key,
            run=run,
            sink=self._runs,
            now=self._ctx.now,
            secrets=secrets_of(self._ctx.bindings, job.env),
            said=self._said,
            resources=asset.resources,
            unseen=self._elsewhere,
        )
        began = time.perf_counter()
        used = self._accounts.began(unit, observed.meter, attempt, key, run)
        try:
            apart = self._keys.isolates(asset)
            with nullcontext() if apart else self._interrupts.inside():
                outcome = self._executor.run(job, observed)
        except EverloopError as error:
            observed.ended()
            observed.cover(error)
            state = self._failed(unit, key, at, error)
            self._accounts.ended(used, time.perf_counter() - began, state)
            raise
        except (KeyboardInterrupt, SystemExit, Ended):
            self._accounts.ended(used, time.perf_counter() - began, self._accounts.stopping)
            observed.ended()
            self._end_run(run, "KILLED", {})
            raise
        observed.ended(outcome)
        record = self._record(unit, key, made_of, outcome, run)
        self._accounts.ended(used, time.perf_counter() - began, "done", record.version.id)
        ended = replace(
            at,
            state="done",
            output=record.version.id,
            ended=self._ctx.wall(),
            cpu_seconds=outcome.cpu_seconds,
            peak_memory=outcome.peak_memory,
        )
        self._ledger.state(ended)
        self._known.made(record.version.id, record.version.manifest, record.row)
        read = tuple(record.leak.reads) if record.leak else ()
        now = bool(run or record.placed or "parts" in record.version.manifest)
        took = outcome.seconds if self._elsewhere else time.perf_counter() - began  # elsewhere steps wait for a place
        now = now or took > _SHORT
        return Done(unit.step, key, record.version.id, False, outcome.seconds, run, read), record, now

    def _failed(self, unit: Unit, key: str, at: FlowStep, error: EverloopError) -> str:
        """Write down that it did not end well; how it ended."""
        ended = isinstance(error, Cancelled) or self._stopping.is_set()
        state = self._accounts.stopping if ended else "failed"
        self._ledger.state(replace(at, state=state, ended=self._ctx.wall(), why=error.message))
        if state == "failed":
            self._ledger.row(replace(self._row(unit, key, at.run), status="failed", at=self._ctx.now()), now=True)
        self._progress(unit.step, state, 0.0)
        self._end_run(at.run, "FAILED" if state == "failed" else "KILLED", {})
        return state

    def _end_run(self, run: str, status: str, metrics: Mapping[str, float], tx: Any = None) -> None:
        if self._runs is not None and run:
            self._runs.finish(run, status=status, metrics=metrics, tx=tx)

    def _job(self, unit: Unit, key: str, run: str) -> Job:
        asset = unit.asset
        manifests: dict[str, Mapping[str, Any]] = dict(unit.manifests)
        where: dict[str, str] = {}
        for identity in unit.inputs.values():
            manifest = manifests.get(identity) or self._known.manifest(identity)
            if manifest is not None:
                manifests[identity] = manifest
                where |= self._known.placed(identity, manifest)
        earlier = None
        if asset.kind not in ("value", "model"):  # tables only have parts to share
            with self._ctx.read() as tx:
                earlier = before(tx, self._ctx.project, asset)
        more = {
            **self._options.facts,
            **self._options.bound.get(asset.key, {}),
            "run": run,
            "code": self._code.id,
            "runtime": self._keys.runtime_of(asset).version.id,
            "recipe": key,
            "before": earlier,
            **({"absent": list(unit.absent)} if unit.absent else {}),
            **self._keys.seed(),
            **unit.facts,
        }
        return Job(
            step=asset.key,
            root=self._origin.root,
            module=self._origin.module,
            inputs=unit.inputs,
            manifests=manifests,
            placements=where,
            params=self._keys.params(asset),
            blobs=str(getattr(self._ctx.store, "url", "")),
            env=dict(self._options.environ(asset.key, run)) if self._options.environ else {},
            resources=asset.resources,
            facts=more,
            codecs=self._codecs,
            recipe=key,
        )

    def _base(self, asset: Asset) -> None:
        """Code and runtime must be in the catalog before a row names them."""
        self._ledger.base(self._code, self._keys.runtime_of(asset).version)

    def _row(
        self, unit: Unit, key: str, run: str, *, output: str | None = None, cached: bool = False, at: Micros = 0
    ) -> StepRow:
        return StepRow(
            recipe=key,
            step=unit.asset.key,
            output=output,
            cached=cached,
            code=self._code.id,
            runtime=self._keys.runtime_of(unit.asset).version.id,
            params=self._keys.params(unit.asset),
            inputs=unit.lineage,
            at=at,
            run=run,
        )

    def _record(self, unit: Unit, key: str, made_of: Ingredients, outcome: Outcome, run: str) -> Record:
        """The version with its lineage, its placements, step and end of the run: all or nothing of it is written."""
        read = witness.undeclared(outcome.reads, made_of.parts)
        made, row = outcome.saved.version, self._row(unit, key, run)
        lineage = dict.fromkeys([*made.inputs, *unit.lineage.items(), ("code", row.code), ("runtime", row.runtime)])
        name = f"{unit.name}.experiment" if self._apart else unit.name
        version = Version(made.kind, name, made.manifest, tuple(lineage))
        finished = replace(
            row,
            output=version.id,
            status="leaky" if read else "done",
            digest=str(made.manifest.get("digest", "")),
            seconds=outcome.seconds,
            cpu_seconds=outcome.cpu_seconds,
            peak_memory=outcome.peak_memory,
            at=self._ctx.now(),
        )
        saved = outcome.saved
        return Record(
            finished,
            version,
            made_of,
            saved.placements,
            saved.rests,
            Leak(read, version.id) if read else None,
            self._ending(version, run, saved.metrics) if run or version.kind == "model" else None,
        )

    def _ending(self, version: Version, run: str, metrics: Mapping[str, float]) -> Callable[[Tx, Numbered], None]:
        def end(tx: Tx, numbered: Numbered) -> None:
            if version.kind == "model" and numbered.new and not self._apart:
                self._tell(tx, version.name, numbered.number, run)
            self._end_run(run, "FINISHED", metrics, tx)

        return end

    def _tell(self, tx: Tx, name: str, number: int, run: str) -> None:
        """Facts of a model's new version, and of its name when it is the first, as webhooks hear them."""
        about: dict[str, Any] = {"name": name, "tags": {}, "description": ""}
        ctx = self._ctx
        if number == 1:
            facts.append(tx, ctx.project, ctx.fact("registry.registered_model.created", f"model/{name}", about))
        told = {**about, "version": str(number), "source": "", "run_id": run}
        facts.append(tx, ctx.project, ctx.fact("registry.model_version.created", f"model/{name}", told))


def _named(error: EverloopError, wanted: tuple[str, ...]) -> bool:
    """Whether an error, or what the step raised, is one of `wanted` or derives from one."""
    if isinstance(error, Cancelled | OverBudget):
        return False
    kinds = {str(one) for one in error.details.get("kinds", ())} | {str(error.details.get("exception", ""))}
    kinds |= {kind.__name__ for kind in type(error).__mro__} - {"Exception", "BaseException", "object"}
    if "exception" in error.details:
        kinds.add("Exception")
    return not kinds.isdisjoint(wanted)
