"""Views over views online: a row is looked up in the views that it reads as of its known time, then it is a fact.

`push_all` pushes the rows of a dataset to all its views, those first that others read. A view that reads only views
over the same dataset follows live: what it needs was pushed before it. One that needs another dataset does not, for
nothing says that the other one's rows are there yet: it is filled from batch, like rows that came too late to be
looked up. A late fact would have changed the features of rows that were looked up before: this is noted
(`LATE_READS`), and the next filling makes the view anew. So a filled view always has the bytes that batch gives.
"""

import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from everloop.core.clock import Micros
from everloop.core.errors import InvalidInput
from everloop.core.ports import OnlineStore
from everloop.features.definitions import Value
from everloop.features.online import (
    OnlineView,
    Pushed,
    Rows,
    advance,
    lift,
    lift_columns,
    push_facts,
    state_key,
    watermarks,
)
from everloop.features.states.columns import Column, column_of, columns_of
from everloop.features.states.facts import Facts

LATE_READS = b"x"
"""There when a view waits for a filling: a row was looked up before all was known that it reads, or left out."""
_REACHED = b"r"
_WORD = struct.Struct("<q")
Lifted = tuple[Facts, Mapping[str, Column]]


def follows(view: OnlineView) -> bool:
    """Whether rows may be pushed to a view: all that it reads is made from its own dataset."""
    return len(view.view.datasets) == 1


def reached(store: OnlineStore, views: Sequence[OnlineView], time: Micros) -> None:
    """Move the watermarks of views that were filled once: pushes alone do not know what was before them."""
    mine = [view for view in views if follows(view)]
    for view, before in zip(mine, watermarks(store, mine), strict=True):
        if before is not None:
            advance(store, view, time)


def push_all(
    store: OnlineStore, views: Sequence[OnlineView], rows: Rows, *, now: Micros | None = None
) -> dict[str, Pushed]:
    """Push rows of a dataset to its views; by view name what happened.

    Raises what `push` raises, before any view took a row. Views that read views come after, and may refuse a value that
    does not fit when the others have taken the rows: pushing again changes nothing for these.
    """
    plain = [view for view in views if not view.reads]
    # every view looks at the rows before any of them takes some
    lifted = [lift(view, rows, now=now) for view in plain]
    done = {}
    for view, (facts, columns) in zip(plain, lifted, strict=True):
        done[view.view.name] = push_facts(store, view, facts, columns)
        note_late(store, views, facts, new=done[view.view.name].new)
    for view in sorted((view for view in views if view.reads), key=lambda v: v.view.depth):
        done[view.view.name] = push_reading(store, view, rows, views)
    return done


def _reads(view: OnlineView, other: OnlineView) -> bool:
    """Whether a view reads another, itself or through others."""
    return any(read.space == other.space or _reads(read, other) for read in view.reads)


def push_reading(store: OnlineStore, view: OnlineView, rows: Rows, views: Sequence[OnlineView]) -> Pushed:
    """Push rows to a view that reads views, after these. Rows that cannot be looked up are left to the next filling.

    These are all rows while something that it reads was never filled or waits for a filling itself, and rows from
    before what the states of their entities hold. The view waits for a filling, then. `views`: all of the
    dataset, of which some may read this one.
    """
    definition = view.view
    columns = columns_of(definition, rows, definition.stored)
    known = columns[definition.known_time or definition.event_time]
    if not follows(view):
        return Pushed(len(known.values), 0, 0)
    kept = known.valid & columns[definition.event_time].valid
    whole = {name: column.take(kept) for name, column in columns.items()}
    times = known.values[kept]
    if not len(times):
        return Pushed(len(kept), 0, 0)
    reach(store, view, int(times.max()))  # before the look-up: whoever is late sees it, or is seen
    if not _ready(store, view.reads):
        store.write(view.space, [(LATE_READS, b"1")])
        return Pushed(len(kept), 0, 0)
    given, there = _looked_up(store, view, whole, times)
    if not there.all():
        store.write(view.space, [(LATE_READS, b"1")])
    whole = {name: column.take(there) for name, column in (whole | given).items()}
    facts, lifted = lift_columns(view, whole)
    done = push_facts(store, view, facts, lifted)
    above = [one for one in views if _reads(one, view)]
    note_late(store, above, facts, new=done.new)  # they may be new here though what is read had them
    return Pushed(len(kept), done.new, done.entities)


def _ready(store: OnlineStore, views: Sequence[OnlineView]) -> bool:
    marks = store.read([(view.space, (LATE_READS,)) for view in views])
    return None not in watermarks(store, views) and all(late is None for (late,) in marks)


def _looked_up(
    store: OnlineStore, view: OnlineView, columns: Mapping[str, Column], times: Any
) -> tuple[dict[str, Column], Any]:
    """What the views that are read say of each row at its time; and which rows they can still answer for."""
    there = np.ones(len(times), bool)
    values: dict[str, list[Value]] = {}
    asked = []
    for read in view.reads:
        entities = zip(*(columns[name].listed() for name in read.view.entity), strict=True)
        asked.append([state_key(read, dict(zip(read.view.entity, entity, strict=True))) for entity in entities])
    found = store.read([(read.space, keys) for read, keys in zip(view.reads, asked, strict=True)])
    for read, states in zip(view.reads, found, strict=True):
        answers = []
        for row, (packed, at) in enumerate(zip(states, times.tolist(), strict=True)):
            try:
                answers.append(read.empty if packed is None else read.decode(packed, at))
            except InvalidInput:  # folded: the row came too late
                there[row] = False
                answers.append(read.empty)
        values |= {name: [answer[i] for answer in answers] for i, name in enumerate(read.outputs)}
    used = view.view.columns
    return {name: column_of(column) for name, column in values.items() if name in used}, there


def note_late(store: OnlineStore, views: Sequence[OnlineView], facts: Facts, *, new: int) -> None:
    """Facts came to a view: say so of each view that looked rows up which these would have changed."""
    if not new:
        return
    first = int(facts.starts.min())
    for view in views:
        if view.reads:
            (mark,) = store.read([(view.space, (_REACHED,))])[0]
            if mark is not None and first < _WORD.unpack(mark)[0]:
                store.write(view.space, [(LATE_READS, b"1")])


def reach(store: OnlineStore, view: OnlineView, to: Micros) -> None:
    """Rows known up to `to` have been looked up, or are about to be."""

    def act() -> None:
        (mark,) = store.read([(view.space, (_REACHED,))])[0]
        if mark is None or _WORD.unpack(mark)[0] < to:
            store.write(view.space, [(_REACHED, _WORD.pack(to))])

    store.atomically(act)
