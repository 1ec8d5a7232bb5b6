"""The order of a run: what may start now, beside what, and what an end means for the rest.

Steps in this process run one at a time, in the driver's own thread; steps that the executor isolates run beside them.
"""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from typing import Any

from everloop.catalog.context import Context
from everloop.catalog.making.flows import FlowStep
from everloop.catalog.steps import StepRow
from everloop.core.errors import Cancelled, EverloopError, OverBudget, StepFailed
from everloop.core.ids import manifest_id
from everloop.core.ports import Executor, RunSink
from everloop.flows.assets import Asset
from everloop.flows.identity.recipe import plain_text
from everloop.flows.running.approving import Approvals
from everloop.flows.running.attempt import Attempts
from everloop.flows.running.each import items_of, together
from everloop.flows.running.interrupting import Interrupts
from everloop.flows.running.keys import Keys
from everloop.flows.running.known import Known
from everloop.flows.running.ledger import Ledger, Record
from everloop.flows.running.settings import Done, Ended, Options, Progress
from everloop.flows.running.unit import Unit
from everloop.flows.search.definitions import Search
from everloop.flows.search.driving import Searching, spent
from everloop.flows.value import codec


class Driver:
    """The state of one run: what has its output, what runs, and what never will."""

    def __init__(
        self,
        ctx: Context,
        executor: Executor,
        options: Options,
        *,
        keys: Keys,
        known: Known,
        ledger: Ledger,
        attempts: Attempts,
        approvals: Approvals,
        progress: Progress,
        code: str,
        interrupts: Interrupts,
        runs: RunSink | None,
    ) -> None:
        """Drive a run whose other parts are given."""
        self._runs = runs
        self._ctx, self._executor, self._options, self._keys, self._known = ctx, executor, options, keys, known
        self._ledger, self._attempts, self._approvals, self._progress = ledger, attempts, approvals, progress
        self._code, self._interrupts = code, interrupts
        self.outputs: dict[str, str] = {}
        self.done: dict[str, Done] = {}
        self.skipped: set[str] = set()
        self.parked: set[str] = set()
        self._places: dict[str, int] = {}
        self._ready: deque[Asset] = deque()
        self._missing: dict[str, int] = {}
        """How much of what an asset needs has not ended yet."""
        self._needing: dict[str, list[Asset]] = {}
        self._here_next: deque[Unit] = deque()
        """Units for this thread, one at a time."""
        self._apart: deque[Unit] = deque()
        """Units that run beside each other."""
        self._pool: ThreadPoolExecutor | None = None
        self._spread: dict[str, _Spread] = {}
        self._searches: dict[str, Searching] = {}
        self._leaks: dict[str, list[str]] = {}
        """What trials read that nobody had declared, by the search's key."""
        self._running: dict[Future[Done], Unit] = {}
        self._error: EverloopError | None = None

    def make(self, plan: Sequence[Asset], given: Mapping[str, str]) -> None:
        """Make everything that can be made; raises the first error after what ran beside it has ended."""
        self.outputs.update(given)
        self._places = {asset.key: place for place, asset in enumerate(plan)}
        waiting = [asset for asset in plan if asset.key not in self.outputs]
        self._ledger.state(*(FlowStep(one.key, self._places[one.key], "waiting") for one in waiting))
        for asset in waiting:
            needs = {key for key in asset.needs if key not in self.outputs}
            self._missing[asset.key] = len(needs)
            for key in needs:
                self._needing.setdefault(key, []).append(asset)
        self._ready.extend(asset for asset in waiting if self._missing[asset.key] == 0)
        try:
            while self._go_on():
                pass
        except (KeyboardInterrupt, SystemExit, EverloopError):
            self._interrupts.stop()
            self._executor.close()  # end the children instead of waiting for them
            raise
        finally:
            if self._pool is not None:
                self._pool.shutdown(wait=True)
            self._end_searches()
        self._ledger.accounts.check()  # ends steps, which then say that they were cancelled
        if self._error is not None:
            raise self._error

    def _go_on(self) -> bool:
        """Start what may start and take what ended; False when nothing is left to do."""
        self._ledger.check()
        if self._error is None:
            self._start()
        while self._apart and len(self._running) < self._options.workers:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(self._options.workers, thread_name_prefix="step")
            unit = self._apart.popleft()
            self._running[self._pool.submit(self._attempts.do, unit)] = unit
        here = self._here_next.popleft() if self._here_next else None
        if here is not None:
            self._take(here, self._do_here(here))
        self._collect(block=here is None)
        if here or self._running or self._apart or self._here_next:
            return True
        return self._error is None and self._start()

    def stop(self) -> None:
        """End what runs, from another thread: the run was cancelled, or belongs to somebody else now."""
        self._interrupts.stop()
        self._executor.close()

    def _start(self) -> bool:
        """Move what may start into the queues; True when something changed."""
        changed = False
        while self._ready:
            self._begin(self._ready.popleft())
            changed = True
        return changed

    def _settled(self, key: str) -> None:
        """What only waited for this asset may start."""
        for asset in self._needing.pop(key, ()):
            self._missing[asset.key] -= 1
            if self._missing[asset.key] == 0:
                self._ready.append(asset)

    def _begin(self, asset: Asset) -> None:
        if reason := self._left_out(asset):
            self._skip(asset, reason)
            return
        try:
            if asset.approval is not None:
                self._ask(asset)
            elif asset.each is not None:
                self._spread_out(asset)
            elif asset.search is not None:
                self._search(asset, asset.search)
            else:
                self._queue(self._unit(asset))
        except EverloopError as error:
            self._fail(asset, error)

    def _left_out(self, asset: Asset) -> str:
        """Why a step is not made; empty when it is."""
        for wanted, key in ((True, asset.only_if), (False, asset.unless)):
            if not key:
                continue
            if key in self.skipped:
                return f"{key} was skipped"
            manifest = self._known.manifest(self.outputs[key]) or {}
            if bool(codec.load(manifest, self._ctx.store, {})) is not wanted:
                return f"{key} is {'not true' if wanted else 'true'}"
        missing = [key for key in asset.upstream.values() if key in self.skipped]
        if missing and not (asset.joins and len(missing) < len(asset.upstream)):
            return f"{missing[0]} was skipped"
        return ""

    def _skip(self, asset: Asset, why: str) -> None:
        self.skipped.add(asset.key)
        self._settled(asset.key)
        self._ledger.state(FlowStep(asset.key, self._places[asset.key], "skipped", why=why))
        self._progress(asset.key, "skipped", 0.0)

    def _unit(self, asset: Asset) -> Unit:
        inputs = {name: self.outputs[key] for name, key in asset.upstream.items() if key in self.outputs}
        absent = tuple(name for name in asset.upstream if name not in inputs)
        return Unit(asset, asset.key, self._places[asset.key], inputs, inputs, absent=absent)

    def _ask(self, asset: Asset) -> None:
        unit = self._unit(asset)
        record = self._approvals.decided(unit)
        if record is None:
            self.parked.add(asset.key)
            self._progress(asset.key, "parked", 0.0)
            return
        self._known.made(record.version.id, record.version.manifest)
        self._ledger.finished(record, now=True)
        self._finish(Done(asset.key, record.row.recipe, record.version.id, False, 0.0, ""))
        self._progress(asset.key, "done", 0.0)

    def _spread_out(self, asset: Asset) -> None:
        """Make a unit of each item; a list without items is made at once."""
        whole = self._unit(asset)
        assert asset.each is not None
        parameter = asset.each.parameter
        listed = whole.inputs[parameter]
        manifest = self._known.manifest(listed) or {}
        items = items_of(asset.upstream[parameter], manifest, self._ctx.store)
        units = [
            Unit(
                asset,
                f"{asset.key}[{number}]",
                whole.place,
                {**whole.inputs, parameter: identity},
                whole.lineage,
                {identity: item},
                whole.absent,
                number,
            )
            for number, (identity, item) in enumerate(items)
        ]
        self._ledger.base(self._keys.runtime_of(asset).version)
        self._spread[asset.key] = _Spread(whole, len(units))
        self._attempts.expect(units)
        self._ledger.state(
            FlowStep(asset.key, whole.place, "running", why=f"{len(units)} items", began=self._ctx.wall())
        )
        self._queue(*units)
        if not units:
            self._gather(asset.key)

    def _queue(self, *units: Unit) -> None:
        for unit in units:
            apart = self._options.workers > 1 and self._keys.isolates(unit.asset)
            (self._apart if apart else self._here_next).append(unit)

    def _do_here(self, unit: Unit) -> Callable[[], Done]:
        """Do a unit in this thread; what came of it is told by calling the answer."""
        try:
            done = self._attempts.do(unit)
        except Ended:
            self._ledger.check()
            raise Cancelled(f"{unit.step} was cancelled") from None
        except EverloopError as raised:
            error = raised

            def fail() -> Done:
                raise error

            return fail
        return lambda: done

    def _collect(self, *, block: bool) -> None:
        if not self._running:
            return
        ended, _ = wait(self._running, timeout=None if block else 0, return_when=FIRST_COMPLETED)
        for future in ended:
            self._take(self._running.pop(future), future.result)

    def _take(self, unit: Unit, result: Callable[[], Done]) -> None:
        """What came of a unit."""
        key = unit.asset.key
        try:
            done = result()
        except EverloopError as error:
            if unit.item is None or isinstance(error, Cancelled | OverBudget):
                self._fail(unit.asset, error)
            elif key in self._searches:
                self._searches[key].failed(unit, error)
                self._search_on(key)
            else:
                self._spread[key].failed[unit.item] = error
                self._gather(key)
            return
        if unit.item is None:
            self._finish(done)
            return
        if key in self._searches:
            self._leaks[key] = [*self._leaks.get(key, []), *done.leaks]
            self._searches[key].took(unit, done.output, reused=done.reused, seconds=done.seconds)
            self._search_on(key)
            return
        self._spread[key].done[unit.item] = done
        self._gather(key)

    def _fail(self, asset: Asset, error: EverloopError) -> None:
        """Start nothing more; the first error is the run's."""
        if self._error is None:
            self._error = error
        self._apart.clear()
        self._here_next.clear()
        if asset.each is not None or asset.search is not None:
            self._ledger.state(FlowStep(asset.key, self._places[asset.key], "failed", why=error.message))

    def _search(self, asset: Asset, search: Search) -> None:
        """Reuse what the very same search found, or begin with its first wave of trials."""
        whole = self._unit(asset)
        trial = self._keys.recipe(asset, whole.inputs)[0]
        recipe = manifest_id({"search": plain_text(search.manifest()), "trial": trial})
        found = self._attempts.reuse(whole, recipe) if self._options.cached else None
        if found is not None:
            self._finish(found)
            return
        self._ledger.base(self._keys.runtime_of(asset).version)
        self._searches[asset.key] = Searching(
            self._ctx,
            whole,
            search,
            runs=self._runs,
            load=lambda output: codec.load(self._known.manifest(output) or {}, self._ctx.store, {}),
            price=self._options.price,
            recipe=recipe,
            recipe_of=lambda tried: self._keys.recipe(tried, whole.inputs)[0],
            before=spent(self._ledger.before.values(), asset.key),
        )
        self._ledger.state(FlowStep(asset.key, whole.place, "running", recipe, began=self._ctx.wall()))
        self._search_on(asset.key)

    def _search_on(self, key: str) -> None:
        """Queue the next wave of a search, or record what it gave."""
        searching = self._searches[key]
        if self._error is not None or searching.waits:
            return
        try:
            if units := searching.next():
                self._attempts.expect(units)
                self._queue(*units)
                return
            record, why = searching.record(
                self._code, self._keys.runtime_of(searching.whole.asset).version.id, known=not self._leaks.get(key)
            )
        except EverloopError as error:
            self._fail(searching.whole.asset, error)
            return
        del self._searches[key]
        searching.close("FINISHED")
        self._known.made(record.version.id, record.version.manifest)
        self._ledger.finished(record, now=True)
        row, wall = record.row, self._ctx.wall()
        self._ledger.state(
            FlowStep(key, searching.whole.place, "done", row.recipe, record.version.id, row.run, why, ended=wall)
        )
        self._progress(key, "done", row.seconds)
        self._finish(
            Done(
                key,
                row.recipe,
                record.version.id,
                False,
                row.seconds,
                row.run,
                tuple(dict.fromkeys(self._leaks.get(key, ()))),
            )
        )

    def _end_searches(self) -> None:
        """Close the runs of searches that did not come to their end."""
        for searching in self._searches.values():
            with suppress(EverloopError):  # the database may be away
                searching.close("KILLED" if isinstance(self._error, Cancelled | None) else "FAILED")
        self._searches.clear()

    def _finish(self, done: Done) -> None:
        self.done[done.step] = done
        self.outputs[done.step] = done.output
        self._settled(done.step)

    def _gather(self, key: str) -> None:
        """Put the items together when the last one has ended."""
        spread = self._spread[key]
        if len(spread.done) + len(spread.failed) < spread.count or self._error is not None:
            return
        asset, failed = spread.whole.asset, sorted(spread.failed)
        assert asset.each is not None
        if failed and len(failed) > asset.each.tolerate * spread.count:
            self._fail(asset, _failure(asset.key, spread))
            return
        made: list[tuple[str, Mapping[str, Any]] | None] = [None] * spread.count
        for number, done in spread.done.items():
            made[number] = (done.output, self._known.manifest(done.output) or {})
        runtime = self._keys.runtime_of(asset).version.id
        lineage = [*spread.whole.lineage.items(), ("code", self._code), ("runtime", runtime)]
        try:
            version = together(asset.name, made, lineage)
        except EverloopError as error:
            self._fail(asset, error)
            return
        every = [spread.done[number].recipe for number in sorted(spread.done)]
        recipe = manifest_id({"each": every, "failed": failed})
        reused = bool(spread.done) and all(done.reused for done in spread.done.values()) and not failed
        seconds = sum(done.seconds for done in spread.done.values())
        row = StepRow(
            recipe,
            asset.key,
            version.id,
            self._code,
            runtime,
            self._keys.params(asset),
            spread.whole.lineage,
            self._ctx.now(),
            cached=reused,
            seconds=seconds,
        )
        self._known.made(version.id, version.manifest)
        self._ledger.finished(Record(row, version), now=False)
        wall = self._ctx.wall()
        why = f"{spread.count} items, {sum(done.reused for done in spread.done.values())} of them reused"
        why += f", {len(failed)} failed: {spread.failed[failed[0]].message}" if failed else ""
        state = FlowStep(
            asset.key, spread.whole.place, "reused" if reused else "done", recipe, version.id, why=why, ended=wall
        )
        self._ledger.state(state)
        self._progress(asset.key, "reused" if reused else "done", seconds)
        leaks = tuple(dict.fromkeys(leak for done in spread.done.values() for leak in done.leaks))
        self._finish(Done(asset.key, recipe, version.id, reused, seconds, "", leaks, tuple(failed)))


class _Spread:
    """How far a step over a list is."""

    def __init__(self, whole: Unit, count: int) -> None:
        self.whole, self.count = whole, count
        self.done: dict[int, Done] = {}
        self.failed: dict[int, EverloopError] = {}


def _failure(key: str, spread: _Spread) -> StepFailed:
    first = spread.failed[min(spread.failed)]
    numbers = sorted(spread.failed)
    shown = ", ".join(map(str, numbers[:10])) + (", …" if len(numbers) > 10 else "")
    details = {**first.details, "items": numbers[:1000]}
    return StepFailed(
        f"{key} failed for {len(numbers)} of {spread.count} items ({shown}): {first.message}",
        hint=f"{first.hint}; the items that were made are reused by the next run",
        **{**details, "step": key},
    )
