"""Finding what was asked and answered: rows in the catalog say where, segments hold it. Loads no engine."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from everloop.catalog.operating.predictions import PredictionRow
from everloop.core.errors import NotFound
from everloop.serving import log
from everloop.serving.fusing.derived import asked_and_answered
from everloop.serving.log import Entry


def segment_path(home: Path, gateway: str, number: int) -> Path:
    """Where a segment lies."""
    return home / "serving" / "log" / gateway / f"{number:012d}{log.SUFFIX}"


def entry_of(home: Path, row: PredictionRow) -> Entry:
    """What was asked and answered for one row; raises `NotFound` when its segment is gone or damaged."""
    _, entry = next(entries(home, [row]))
    return entry


def entries(home: Path, rows: Iterable[PredictionRow]) -> Iterator[tuple[PredictionRow, Entry]]:
    """Each row with its log entry; a segment is opened once if its rows lie together."""
    held: tuple[str, int] = ("", -1)
    descriptor = -1
    last: tuple[int, Entry] | None = None
    try:
        for row in rows:
            if held != (row.gateway, row.segment):
                if descriptor >= 0:
                    os.close(descriptor)
                    descriptor = -1
                held, last = (row.gateway, row.segment), None
                descriptor = _opened(segment_path(home, *held))
            if last is None or last[0] != row.position:
                found = next(log.read(_frame(descriptor, row.position)), None)
                if found is None:
                    raise NotFound(f"the log of prediction {row.id} is damaged", hint="everloop verify says how far")
                last = (row.position, found[2])
            yield row, last[1]
    finally:
        if descriptor >= 0:
            os.close(descriptor)


def _opened(path: Path) -> int:
    try:
        return os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        raise NotFound(
            f"the log segment {path.name} is gone", hint="it was erased, or lies on another machine"
        ) from None


def _frame(descriptor: int, position: int) -> bytes:
    """The bytes of one frame; fewer when it is torn. A segment is large, and mostly little of it is wanted."""
    head = os.pread(descriptor, log.HEADER.size, position)
    if len(head) < log.HEADER.size:
        return b""
    return head + os.pread(descriptor, log.HEADER.unpack(head)[1], position + log.HEADER.size)


def inputs_of(entry: Entry) -> dict[str, list[Any]]:
    """What the model was asked with, one value a row; a missing value is None. Columns of transforms are among it."""
    return {n: [None if v != v else v for v in values] for n, values in _both(entry)[0].items()}  # noqa: PLR0124 - NaN


def _both(entry: Entry) -> tuple[dict[str, list[Any]], dict[str, list[Any]]]:
    listed = {n: c if isinstance(c, list) else c.tolist() for n, c in entry.columns().items()}
    return asked_and_answered(listed, entry.answers())


def answers_of(entry: Entry) -> dict[str, list[Any]]:
    """The outputs, one value a row, as `answer` or `answer_<output>`."""
    answers = _both(entry)[1]
    if len(answers) == 1:
        return {"answer": next(iter(answers.values()))}
    return {f"answer_{name}": values for name, values in answers.items()}
