"""From a dataset version to the online store: the same `push`, fed from Parquet, so the same bytes."""

from collections.abc import Sequence
from pathlib import Path

from everloop.core.clock import Micros
from everloop.core.ports import OnlineStore
from everloop.features.online import OnlineView, Pushed, advance, push_facts
from everloop.features.scan import Scan, engine


def materialize(
    store: OnlineStore,
    view: OnlineView,
    paths: str | Path | Sequence[str | Path],
    up_to: Micros,
    *,
    threads: int | None = None,
    memory: str = "1GB",
) -> Pushed:
    """Push every fact of the Parquet files that was known before `up_to`, then move the watermark there.

    May be repeated, may overlap with `push` and may stop half-way: facts that are there already change nothing.
    Returns the facts read, how many were new, and entities touched, summed over batches.
    """
    read = new = touched = 0
    with engine(threads, memory) as connection:
        for facts, columns in Scan(connection, view.view, paths).known(up_to):
            done = push_facts(store, view, facts, columns)
            read, new, touched = read + done.facts, new + done.new, touched + done.entities
    advance(store, view, up_to)
    return Pushed(read, new, touched)
