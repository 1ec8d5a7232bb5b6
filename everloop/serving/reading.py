"""Reading predictions back: rows in the catalog say where, the gateways' segments hold what was asked and answered."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import polars as pl

from everloop.catalog.context import Context
from everloop.catalog.operating import predictions
from everloop.catalog.operating.predictions import Label, PredictionRow
from everloop.core.clock import Micros
from everloop.core.errors import NotFound
from everloop.serving import log
from everloop.serving.log import Entry

_TIME = pl.Datetime("us", "UTC")


def segment_path(home: Path, gateway: str, number: int) -> Path:
    """Where a segment lies."""
    return home / "serving" / "log" / gateway / f"{number:012d}{log.SUFFIX}"


def entry_of(home: Path, row: PredictionRow) -> Entry:
    """What was asked and answered for one row; raises `NotFound` when its segment is gone or damaged."""
    _, entry = next(entries(home, [row]))
    return entry


def entries(home: Path, rows: Iterable[PredictionRow]) -> Iterator[tuple[PredictionRow, Entry]]:
    """Each row with its log entry; segments are read once if rows of one lie together."""
    held: tuple[str, int] = ("", -1)
    content = b""
    last: tuple[int, Entry] | None = None
    for row in rows:
        if held != (row.gateway, row.segment):
            held, last = (row.gateway, row.segment), None
            content = _content(segment_path(home, *held))
        if last is None or last[0] != row.position:
            found = next(log.read(content, row.position), None)
            if found is None:
                raise NotFound(f"the log of prediction {row.id} is damaged", hint="everloop verify says how far")
            last = (row.position, found[2])
        yield row, last[1]


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise NotFound(
            f"the log segment {path.name} is gone", hint="it was erased, or lies on another machine"
        ) from None


def window(
    ctx: Context,
    endpoint: str,
    start: Micros,
    until: Micros,
    *,
    known: Micros | None = None,
    revision: str = "",
) -> pl.DataFrame:
    """Predictions of an endpoint with start <= at < until, by (at, id).

    Columns: `prediction_id, at, recorded, revision, micros, fallback`, the entity keys, the model's inputs by their
    names, `answer` (or `answer_<output>` when there are several), `label` and `label_at` (null when there is none;
    with `known`, labels as they were known at that event time).
    """
    with ctx.read() as tx:
        rows = predictions.window(tx, ctx.project, endpoint, start, until)
        if revision:
            rows = [row for row in rows if row.revision == revision]
        labels = predictions.labels_of(tx, ctx.project, [row.id for row in rows], known=known)
    order = {row.id: index for index, row in enumerate(rows)}
    listed: list[dict[str, Any]] = [{} for _ in rows]
    decoded: tuple[Entry, dict[str, Any], dict[str, Any]] | None = None
    for row, entry in entries(ctx.home, sorted(rows, key=lambda r: (r.gateway, r.segment, r.position, r.row))):
        if decoded is None or decoded[0] is not entry:
            decoded = (entry, inputs_of(entry), answers_of(entry))
        columns = {**entry.keys, **decoded[1], **decoded[2]}
        listed[order[row.id]] = _record(row, columns, labels.get(row.id))
    frame = pl.DataFrame(listed, infer_schema_length=None)
    times = [name for name in ("at", "recorded", "label_at") if name in frame.columns]
    return frame.with_columns(pl.col(name).cast(pl.Int64).cast(_TIME) for name in times)


def _record(row: PredictionRow, columns: Mapping[str, Any], label: Label | None) -> dict[str, Any]:
    return {
        "prediction_id": row.id,
        "at": row.at,
        "recorded": row.recorded,
        "revision": row.revision,
        "micros": row.micros,
        "fallback": row.fallback,
        **{name: values[row.row] for name, values in columns.items()},
        "label": None if label is None else label.value,
        "label_at": None if label is None else label.at,
    }


def inputs_of(entry: Entry) -> dict[str, list[Any]]:
    """The model's inputs, one value a row; a missing number is None."""
    listed = {n: c if isinstance(c, list) else c.tolist() for n, c in entry.columns().items()}
    return {n: [None if v != v else v for v in values] for n, values in listed.items()}  # noqa: PLR0124 - NaN


def answers_of(entry: Entry) -> dict[str, list[Any]]:
    """The outputs, one value a row, as `answer` or `answer_<output>`."""
    answers = entry.answers()
    if len(answers) == 1:
        return {"answer": next(iter(answers.values()))}
    return {f"answer_{name}": values for name, values in answers.items()}
