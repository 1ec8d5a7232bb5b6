"""What an endpoint was asked and answered in a stretch of time, read back from the prediction log."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from everloop.catalog.context import Context
from everloop.catalog.operating import predictions
from everloop.catalog.operating.predictions import Label, PredictionRow
from everloop.core.clock import Micros, iso
from everloop.core.errors import InvalidInput, NotFound
from everloop.serving.log import SUFFIX, Entry, read
from everloop.watch.reference import array_of

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Window:
    """A stretch of event time, start included, until excluded."""

    start: Micros
    until: Micros

    def __post_init__(self) -> None:
        """Refuse an empty one."""
        if self.until <= self.start:
            raise InvalidInput("the window is empty", hint="its end lies after its start")

    def earlier(self, by: Micros) -> "Window":
        """The same length, `by` microseconds before."""
        return Window(self.start - by, self.until - by)

    def __str__(self) -> str:
        """ISO times."""
        return f"{iso(self.start)} to {iso(self.until)}"


@dataclass(frozen=True, slots=True)
class Observed:
    """Rows in the order of time. Inputs are those that the model saw: request columns and looked-up features."""

    ids: tuple[str, ...]
    at: NDArray[np.int64]
    revisions: tuple[str, ...]
    columns: Mapping[str, NDArray[Any]]
    scores: Floats
    """The model's answer as one number a row (the positive class's probability, or the value); NaN where it is none."""

    @property
    def rows(self) -> int:
        """How many predictions."""
        return len(self.ids)

    def revision(self) -> str:
        """The revision that answered most rows; empty when there are none."""
        counts: dict[str, int] = defaultdict(int)
        for revision in self.revisions:
            counts[revision] += 1
        return max(counts, key=lambda name: (counts[name], name), default="")

    def answered_by(self, revision: str) -> "Observed":
        """Only the rows that one revision answered: two models' scores do not mix."""
        kept = np.array([r == revision for r in self.revisions], dtype=bool)
        return Observed(
            tuple(i for i, keep in zip(self.ids, kept, strict=True) if keep),
            self.at[kept],
            (revision,) * int(kept.sum()),
            {name: values[kept] for name, values in self.columns.items()},
            self.scores[kept],
        )


def observe(ctx: Context, endpoint: str, start: Micros, until: Micros) -> Observed:
    """Predictions with start <= at < until. Raises `NotFound` when their log is gone."""
    with ctx.read() as tx:
        rows = predictions.window(tx, ctx.project, endpoint, start, until)
    wanted: dict[tuple[str, int], set[int]] = defaultdict(set)
    for row in rows:
        wanted[row.gateway, row.segment].add(row.position)
    entries: dict[tuple[str, int, int], Entry] = {}
    for (gateway, segment), positions in wanted.items():
        content = _segment(ctx, gateway, segment)
        for offset, _, entry in read(content, min(positions)):
            if offset in positions:
                entries[gateway, segment, offset] = entry
            if offset >= max(positions):
                break
    return _gathered(rows, entries)


def labels_of(ctx: Context, observed: Observed, known: Micros) -> tuple[Floats, Floats]:
    """Label of each row and when it was known, as of event time `known`; NaN where there is none, or no number."""
    with ctx.read() as tx:
        found = predictions.labels_of(tx, ctx.project, observed.ids, known=known)
    values = np.array([_number(found.get(identity)) for identity in observed.ids], dtype=np.float64)
    moments = np.array(
        [float(found[identity].at) if identity in found else np.nan for identity in observed.ids], dtype=np.float64
    )
    return values, moments


def score_of(answers: Mapping[str, Sequence[Any]], row: int) -> float:
    """One number for a row's answer: of two class probabilities the last one; NaN for text or more classes."""
    for values in answers.values():
        value = values[row]
        if isinstance(value, list):
            value = value[-1] if 1 <= len(value) <= 2 else None
        if isinstance(value, bool | int | float):
            return float(value)
    return float("nan")


def _gathered(rows: Sequence[PredictionRow], entries: Mapping[tuple[str, int, int], Entry]) -> Observed:
    inputs: dict[tuple[str, int, int], tuple[Mapping[str, Any], Mapping[str, Any]]] = {}
    kept: list[PredictionRow] = []
    scores: list[float] = []
    values: dict[str, list[Any]] = {}
    for row in rows:
        key = (row.gateway, row.segment, row.position)
        if key not in entries:  # a frame that was damaged after it was ingested
            continue
        if key not in inputs:
            inputs[key] = (entries[key].columns(), entries[key].answers())
        columns, answers = inputs[key]
        for name in columns.keys() - values.keys():
            values[name] = [None] * len(kept)
        for name, column in values.items():
            column.append(_plain(columns[name][row.row]) if name in columns else None)
        scores.append(score_of(answers, row.row))
        kept.append(row)
    return Observed(
        tuple(r.id for r in kept),
        np.array([r.at for r in kept], dtype=np.int64),
        tuple(r.revision for r in kept),
        {name: array_of(column) for name, column in values.items()},
        np.array(scores, dtype=np.float64),
    )


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _segment(ctx: Context, gateway: str, number: int) -> bytes:
    path = ctx.home / "serving" / "log" / gateway / f"{number:012d}{SUFFIX}"
    if path.is_file():
        return path.read_bytes()
    with ctx.read() as tx:
        known = predictions.segment(tx, gateway, number)
    if known is None or not known.object:
        raise NotFound(
            f"segment {number} of the prediction log of {gateway} is not here",
            hint="it lies on the gateway's machine until it is archived",
        )
    return ctx.store.get(known.object)


def _number(label: Label | None) -> float:
    if label is None or not isinstance(label.value, bool | int | float):
        return float("nan")
    return float(label.value)
