"""What a run writes down: everything of a finished step in one transaction, short steps together.

A long step is written when it ends, short ones a tenth of a second later at most, all of each or nothing. Every
transaction begins with `flows.hold`: after somebody cancelled the run, or another process went on with it, nothing more
is committed.
"""

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace

from everloop.catalog import placements, steps, versions
from everloop.catalog.context import Context
from everloop.catalog.engine import Tx
from everloop.catalog.making import flows, leaks, recipes
from everloop.catalog.making.flows import Flow, FlowStep
from everloop.catalog.making.leaks import Leak
from everloop.catalog.making.recipes import Ingredients
from everloop.catalog.steps import StepRow
from everloop.catalog.versions import Numbered
from everloop.core.errors import Conflict, EverloopError
from everloop.core.version import Version
from everloop.flows.compute.accounts import Accounts

_TOGETHER = 0.1
"""Seconds in which short steps wait for each other."""
_MANY = 200
"""Records that wait for each other at most: each holds the lock of its recipe until it is written."""
_BEAT = 1.0
"""Seconds between two looks at whether the run is still this process's."""


@dataclass(frozen=True, slots=True)
class Record:
    """What one execution gives to write down."""

    row: StepRow
    version: Version
    made_of: Ingredients | None = None
    placed: Mapping[str, str] = field(default_factory=dict)
    rests: Mapping[str, str] = field(default_factory=dict)
    leak: Leak | None = None
    also: Callable[[Tx, Numbered], None] | None = None
    """More of the same transaction: the end of a tracking run, facts of a new model."""


class Ledger:
    """Writes for one run, from any of its threads; a thread of its own keeps the beat."""

    def __init__(self, ctx: Context, flow: Flow | None, accounts: Accounts) -> None:
        """Write for `flow`, or for a run that is not listed."""
        self._ctx, self.flow, self.accounts = ctx, flow, accounts
        self.stop: Callable[[], None] = lambda: None
        """Is called, from the thread that keeps the beat, when the run must end."""
        self._lock, self._writing = threading.Lock(), threading.Lock()
        self._records: list[Record] = []
        self._rows: list[StepRow] = []
        self._states: dict[str, FlowStep] = {}
        self._after: list[Callable[[], None]] = []
        self._base: dict[str, Version] = {}
        self._there: set[str] = set()
        self._broken: EverloopError | None = None
        self._wake, self._closed = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None
        self.before: Mapping[str, FlowStep] = self._known() if flow is not None and flow.token > 1 else {}
        """How far the run's steps were when this process took it over."""
        if flow is not None:
            self._begin()

    def state(self, *changed: FlowStep) -> None:
        """Note how far steps are; one that this very run had made before it was taken over, when it was made."""
        if self.flow is not None:
            with self._lock:
                self._states.update((one.step, self._dated(one)) for one in changed)
            self._stir()

    def _known(self) -> Mapping[str, FlowStep]:
        assert self.flow is not None
        with self._ctx.read() as tx:
            return {one.step: one for one in flows.steps_of(tx, self._ctx.project, self.flow.id)}

    def _dated(self, one: FlowStep) -> FlowStep:
        then = self.before.get(one.step) if one.state == "reused" else None
        if then is None or then.output != one.output or then.began is None or then.ended is None:
            return one
        return replace(one, began=then.began, ended=then.ended)

    def base(self, *many: Version) -> None:
        """Code and runtimes, which must be in the catalog before a row names them."""
        with self._lock:
            self._base.update((one.id, one) for one in many if one.id not in self._there)

    def finished(self, record: Record, *, now: bool, written: Callable[[], None] | None = None) -> None:
        """Take what an execution gave; `now`: it is written when this returns. Afterwards `written` is called."""
        with self._lock:
            self._records.append(record)
            if written is not None:
                self._after.append(written)
            now = now or len(self._after) > _MANY
        self._written(now=now)

    def row(self, row: StepRow, *, now: bool = False) -> None:
        """Take a reuse, or a failure."""
        with self._lock:
            self._rows.append(row)
        self._written(now=now)

    def check(self) -> None:
        """Raise what went wrong while writing, or what says that the run must end."""
        self._whole()
        self.accounts.check()

    def flush(self, last: Callable[[Tx], None] | None = None) -> None:
        """Write all that waits, in one transaction, of which `last` is the end; raises what went wrong while writing.

        What a budget ends is no such thing: what was finished before is kept.
        """
        with self._writing, ExitStack() as after:
            with self._lock:
                for act in self._after:
                    after.callback(act)
                records, rows, states = self._records, self._rows, list(self._states.values())
                self._records, self._rows, self._states, self._after = [], [], {}, []
            self._whole()
            if records or rows or states or last:
                try:
                    self._write(records, rows, states, last)
                except EverloopError as error:
                    self._broken = error
                    raise

    def close(self, last: Callable[[Tx], None] | None = None) -> None:
        """Write what is left and stop the beat; `last` is done in the same transaction."""
        self._closed.set()
        self._wake.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()
        self.flush(last)
        self.accounts.settle()

    def abort(self) -> None:
        """Stop the beat and write nothing more but what was used: it was used, whatever became of it."""
        self._closed.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join()
        with suppress(EverloopError):
            self.accounts.settle(ours=not isinstance(self._broken, Conflict))

    def _whole(self) -> None:
        if self._broken is not None:
            raise self._broken

    def _written(self, *, now: bool) -> None:
        if now:
            self.flush()
        else:
            if self._thread is None:
                self._begin()
            self._stir()

    def _stir(self) -> None:
        """Tell the thread that something waits; most of the time it was told already."""
        if not self._wake.is_set():
            self._wake.set()

    def _begin(self) -> None:
        with self._lock:
            if self._thread is None and not self._closed.is_set():
                self._thread = threading.Thread(target=self._keep, name="ledger", daemon=True)
                self._thread.start()

    def _keep(self) -> None:
        due = time.monotonic() + _BEAT
        while not self._closed.is_set():
            woken = self._wake.wait(_BEAT)
            self._wake.clear()
            if self._closed.is_set() or (woken and self._closed.wait(_TOGETHER)):
                return
            try:
                if woken:
                    self.flush()
                if self.flow is not None and time.monotonic() >= due:
                    due = time.monotonic() + _BEAT
                    self._beat(self.flow)
            except EverloopError as error:
                self._broken = error
                self.stop()
                return

    def _beat(self, flow: Flow) -> None:
        """Say that the run lives and what it uses; a budget that is spent ends it."""
        before, used = self.accounts.over, self.accounts.look()
        with self._writing, self._ctx.write() as tx:
            flows.hold(tx, self._ctx.project, flow, now=self._ctx.wall())
            if used:
                self.accounts.beat(tx)
        if before is None and self.accounts.over is not None:
            self.stop()

    def _write(
        self,
        records: list[Record],
        rows: list[StepRow],
        states: list[FlowStep],
        last: Callable[[Tx], None] | None = None,
    ) -> None:
        ctx, project = self._ctx, self._ctx.project
        with self._lock:
            base = dict(self._base)
        if base and (records or rows):
            with ctx.read() as tx:  # writing a runtime's hundred packages down costs more than a look
                there = versions.labels(tx, project, list(base))
        missing = [one for one in base.values() if one.id not in there] if base and (records or rows) else []
        with ctx.write() as tx:
            if self.flow is not None:
                flows.hold(tx, project, self.flow, now=ctx.wall())
            self._put(tx, records, missing)
            steps.record_many(tx, project, [*(one.row for one in records), *rows])
            if self.flow is not None:
                flows.save(tx, project, self.flow.id, states)
            used = self.accounts.write(tx)
            if last is not None:
                last(tx)
        self.accounts.written(used)
        if records or rows:
            with self._lock:
                self._there.update(base)
                for identity in base:
                    self._base.pop(identity, None)

    def _put(self, tx: Tx, records: list[Record], missing: list[Version]) -> None:
        ctx, project = self._ctx, self._ctx.project
        made = [one.version for one in records]
        if not made and not missing:
            return
        numbered = versions.put_many(tx, project, [*missing, *made], actor=ctx.actor.name, at=ctx.now())
        placements.put(tx, project, _joined(one.placed for one in records))
        placements.rest(tx, project, _joined(one.rests for one in records))
        made_of = {one.row.recipe: one.made_of for one in records if one.made_of is not None}
        recipes.put_many(tx, project, made_of)
        for one, number in zip(records, numbered[len(missing) :], strict=True):
            if one.leak is not None:
                leaks.put(tx, project, one.row.recipe, one.leak, at=ctx.wall())
            if one.also is not None:
                one.also(tx, number)


def _joined(many: Iterable[Mapping[str, str]]) -> dict[str, str]:
    return {key: value for one in many for key, value in one.items()}
