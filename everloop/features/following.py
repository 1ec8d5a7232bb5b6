"""Feature views that follow a live feed: each event is online before it is committed, and before it is forgotten.

The order is: push to the views, commit version and position together, acknowledge. A process may die anywhere between:
what is not committed comes again, and the same fact twice is one fact. So the states are those of the committed rows
and of some that will be committed next, and `materialize` from the version makes the same bytes.
"""

import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa

from everloop.catalog import refs
from everloop.catalog.context import Context
from everloop.catalog.operating import feeds
from everloop.core.clock import Micros
from everloop.core.errors import DataError, EverloopError, Unavailable
from everloop.features.online import LATE, OnlineView, lift, push_facts
from everloop.features.operations import online_store, online_view, views_in
from everloop.features.reading import note_late, push_reading, reached
from everloop.features.states.columns import Column
from everloop.features.states.facts import Facts

Columns = Mapping[str, Any]
Lifted = tuple[Facts, dict[str, Column]] | None


class ViewFollower:
    """`data.streams.arriving.Follower`: the views of an environment over one feed."""

    def __init__(self, ctx: Context, environment: str, feed: str) -> None:
        """Follow `feed`; views that come and go are noticed with the next rows."""
        self._ctx, self._environment, self._feed = ctx, environment, feed
        self._store = online_store(ctx, environment)
        self._snapshot: str | None = None
        self._views: dict[str, OnlineView] = {}
        self._taken: dict[str, int] = {}
        self._rows = 0
        self._failing: dict[str, str] = {}

    def take(self, rows: pa.Table) -> Mapping[int, str]:
        """Push rows to every view. Returns which a view refuses, and why; no view has taken these.

        A view that would refuse any row is itself wrong: the feed says so, and goes on without it.
        """
        self._look()
        refused: dict[int, str] = {}
        lifted: dict[str, Lifted] = {}
        for space, view in self._views.items():
            wrong = {} if view.view.reads else self._lift_into(lifted, view, rows)
            if (
                len(wrong) == rows.num_rows
                and not all(LATE in why for why in wrong.values())
                and _takes_none(view, rows)
            ):
                self._complain(view, next(iter(wrong.values())))
                continue
            lifted.setdefault(space, None)
            refused |= {number: why for number, why in wrong.items() if number not in refused}
        if refused:
            keep = np.ones(rows.num_rows, bool)
            keep[list(refused)] = False
            rows, lifted = rows.filter(pa.array(keep)), dict.fromkeys(lifted)
        self._rows += rows.num_rows
        for space, facts in lifted.items():
            self._push(self._views[space], rows, facts)
            self._taken[space] = self._taken.get(space, 0) + rows.num_rows
        return refused

    def reached(self, time: Micros) -> None:
        """All that was known before `time` has been taken, but by views that failed."""
        self._look()
        reached(self._store, [view for space, view in self._views.items() if space not in self._failing], time)

    def committed(self, rows: pa.Table) -> None:
        """Push the rows to views that appeared while they were held; who fills such a view reads older versions."""
        self._look()
        for space, view in self._views.items():
            if self._taken.get(space, 0) < self._rows and space not in self._failing:
                self._push(view, rows)
        self._taken, self._rows = {}, 0
        if self._failing:
            self._tell("; ".join(self._failing.values()))  # a commit has cleared what was said before

    def _look(self) -> None:
        with self._ctx.read() as tx:
            snapshot = refs.get(tx, self._ctx.project, refs.env_ref(self._environment))
        if snapshot == self._snapshot:
            return
        found = views_in(self._ctx, self._environment) if snapshot else {}
        mine = [online_view(self._ctx, self._environment, i, v) for i, v in found.values() if v.source == self._feed]
        mine.sort(key=lambda view: view.view.depth)  # what others read comes first
        self._views = {view.space: view for view in mine}
        self._failing = {space: why for space, why in self._failing.items() if space in self._views}
        self._snapshot = snapshot

    def _lift_into(self, lifted: dict[str, Lifted], view: OnlineView, rows: pa.Table) -> dict[int, str]:
        """Make facts of all rows; where a view refuses some, say which and why instead."""
        try:
            lifted[view.space] = lift(view, columns_of_table(view, rows), now=self._ctx.now())
        except DataError as error:
            return self._refused(view, rows, error.message)
        return {}

    def _refused(self, view: OnlineView, rows: pa.Table, why: str, first: int = 0) -> dict[int, str]:
        """Which rows a view refuses: a half at a time, down to single rows."""
        if rows.num_rows == 1:
            return {first: why}
        found: dict[int, str] = {}
        half = rows.num_rows // 2
        for begin, part in ((first, rows.slice(0, half)), (first + half, rows.slice(half))):
            try:
                lift(view, columns_of_table(view, part), now=self._ctx.now())
            except DataError as error:
                found |= self._refused(view, part, error.message, begin)
        return found

    def _push(self, view: OnlineView, rows: pa.Table, lifted: Lifted = None) -> None:
        try:
            if rows.num_rows and view.view.reads:
                push_reading(self._store, view, columns_of_table(view, rows), list(self._views.values()))
            elif rows.num_rows:
                facts, columns = lifted or lift(view, columns_of_table(view, rows))
                done = push_facts(self._store, view, facts, columns)
                note_late(self._store, list(self._views.values()), facts, new=done.new)
        except Unavailable:
            raise  # the consumer begins again from its last commit
        except EverloopError as error:
            self._complain(view, error.message)

    def _complain(self, view: OnlineView, why: str) -> None:
        """The view lacks rows from now on: its watermark stands still until another version takes its place."""
        if view.space in self._failing:
            return
        name = f"feature view {view.view.name}"
        said = why if why.startswith(name) else f"{name}: {why}"
        sys.stderr.write(f"feed {self._feed}@{self._environment}: {said}\n")
        sys.stderr.flush()
        self._failing[view.space] = said
        self._tell("; ".join(self._failing.values()))

    def _tell(self, error: str) -> None:
        """Say on the feed what is wrong with its views."""
        with self._ctx.write() as tx:
            feeds.complain(tx, feeds.get(tx, self._ctx.project, self._environment, self._feed), error)


def _takes_none(view: OnlineView, rows: pa.Table) -> bool:
    """Whether a view refuses the plainest row too, so that its definition is wrong and not what arrived."""
    plain = [pa.array([_plain(field.type)], field.type) for field in rows.schema]
    try:
        lift(view, columns_of_table(view, pa.Table.from_arrays(plain, schema=rows.schema)))
    except DataError:
        return True
    return False


def _plain(kind: pa.DataType) -> Any:
    if pa.types.is_boolean(kind):
        return False
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return ""
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return 0
    return datetime(2000, 1, 1, tzinfo=UTC) if pa.types.is_timestamp(kind) else None


def columns_of_table(view: OnlineView, rows: pa.Table) -> Columns:
    """The columns that a view reads, as `lift` takes them; a missing one is left out, which `lift` says."""
    return {name: _values(rows[name]) for name in view.view.columns if name in rows.column_names}


def _values(column: pa.ChunkedArray) -> Any:
    kind = column.type
    plain = pa.types.is_integer(kind) or pa.types.is_floating(kind)
    if plain and not column.null_count:
        return column.to_numpy()
    if pa.types.is_timestamp(kind) and not column.null_count:
        return column.cast(pa.timestamp("us", kind.tz)).cast(pa.int64()).to_numpy()
    return column.to_pylist()
