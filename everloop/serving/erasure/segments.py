"""Erasing rows of the prediction log in their place: frames keep their length, so that positions stay true.

A closed segment is written anew beside the old one and renamed over it. In the newest one, to which a gateway may be
appending, frames are overwritten by one write each; the gateway appends behind them.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from everloop.catalog.context import Context
from everloop.catalog.operating import predictions
from everloop.core.errors import CorruptObject
from everloop.data.erasure.overwriting import overwrite
from everloop.serving import log
from everloop.serving.columns import NUMPY, Layout, outputs_from
from everloop.serving.table import write_atomically


@dataclass(frozen=True, slots=True)
class _Changed:
    """A segment as it was read, and the frames to write over its own."""

    content: bytes
    frames: Mapping[int, bytes]


class PredictionLog:
    """`core.ports.Erasable`: the segments of this machine, with the rows and labels of the catalog."""

    place = "prediction log"

    def __init__(self, ctx: Context, columns: Sequence[str] = ()) -> None:
        """Erase from the project of `ctx`; `columns` may hold the key among the model's inputs."""
        self._ctx, self._columns = ctx, tuple(columns)

    def erase(self, key: str) -> int:
        """Blank the rows that were asked for the subject; rows of others in the same request stay. Returns how many."""
        gone, count = self._noted(), 0
        for path, newest in self._segments("log"):
            ids, changed, blanked_now = _to_erase(path, self._ctx.project, (key, self._columns))
            gone, count = gone | ids, count + blanked_now
            if changed:
                self._note(gone)
                overwrite(path, changed.content, changed.frames, growing=newest)
        if gone:
            self._erase_shadows(frozenset(gone))
            with self._ctx.write() as tx:
                predictions.erase(tx, self._ctx.project, sorted(gone))
            self._note_of_project().unlink(missing_ok=True)
        return count

    def _note_of_project(self) -> Path:
        return self._ctx.home / "serving" / "erasing" / f"{self._ctx.project}.json"

    def _note(self, gone: set[str]) -> None:
        """Write the ids down before their frames are blank: a blank row without a key cannot be told from others."""
        write_atomically(self._note_of_project(), msgspec.json.encode(sorted(gone)))

    def _noted(self) -> set[str]:
        """The ids that an erasure which was cut off had yet to take from the catalog."""
        path = self._note_of_project()
        return set(msgspec.json.decode(path.read_bytes(), type=list[str])) if path.exists() else set()

    def _erase_shadows(self, gone: frozenset[str]) -> None:
        """Blank what shadows answered to the same questions: they are known by the ids of the predictions alone."""
        for path, newest in self._segments("shadow"):
            erase_shadow(path, self._ctx.project, gone, newest=newest)

    def _segments(self, place: str) -> Iterator[tuple[Path, bool]]:
        """The segments of all gateways, and whether one is its gateway's newest, which it may be appending to."""
        for folder in sorted(path for path in (self._ctx.home / "serving" / place).glob("*") if path.is_dir()):
            paths = log.segments(folder)
            yield from ((path, path == paths[-1]) for path in paths)

    def holds(self, key: str) -> bool:
        """Whether any row was asked for the subject."""
        for path, _ in self._segments("log"):
            entries = (entry for _, _, entry in log.read(path.read_bytes()) if entry.project == self._ctx.project)
            if any(_about(entry, key, self._columns) for entry in entries):
                return True
        return False


def _to_erase(path: Path, project: str, subject: tuple[str, Sequence[str]]) -> tuple[set[str], _Changed | None, int]:
    """What an erasure of a subject (its key, the columns that may hold it) does to a segment.

    The ids of its rows and of those that are blank already, the frames to write, and how many rows these blank.
    """
    content = path.read_bytes()
    frames: dict[int, bytes] = {}
    gone: set[str] = set()
    count = 0
    for start, end, entry in log.read(content):
        if entry.project != project:
            continue
        rows = _about(entry, *subject)
        gone |= {identity for row, identity in enumerate(entry.row_ids()) if row in rows or entry.erased(row)}
        count += len(rows)
        if rows:
            frames[start] = _blank_frame(path, entry, rows, end - start)
    return gone, _Changed(content, frames) if frames else None, count


def erase_shadow(path: Path, project: str, gone: frozenset[str], *, newest: bool) -> int:
    """Blank the answers of a shadow's segment that belong to these predictions; returns how many became so now."""
    content = path.read_bytes()
    changed: dict[int, bytes] = {}
    count = 0
    for start, end, entry in log.read(content):
        rows = [row for row, identity in enumerate(entry.row_ids()) if identity in gone]
        if entry.project != project or not rows:
            continue
        frame = _blank_frame(path, entry, rows, end - start)
        if frame != content[start:end]:
            changed[start] = frame
            count += len(rows)
    if changed:
        overwrite(path, content, changed, growing=newest)
    return count


def _blank_frame(path: Path, entry: log.Entry, rows: list[int], length: int) -> bytes:
    frame = log.frame(blanked(entry, rows))
    if len(frame) != length:
        raise CorruptObject(f"a frame of {path.name} cannot be erased in its place", hint="everloop verify")
    return frame


def blanked(entry: log.Entry, rows: list[int]) -> log.Entry:
    """The entry with nothing left of some rows: keys, inputs and answers; every length stays."""
    keys = {
        name: [_mask(value) if row in rows else value for row, value in enumerate(values)]
        for name, values in entry.keys.items()
    }
    layout = Layout.from_pairs(_plain(entry.layout))
    widths = [NUMPY[group.datatype].itemsize * len(group.names) for group in layout.groups]
    outputs = outputs_from(_plain(entry.outputs))
    answers = []
    for output in outputs:
        if output.datatype != "BYTES":
            width = NUMPY[output.datatype].itemsize
            for extent in output.tail:
                width *= extent
            answers.append(width)
    explained = entry.explained
    if explained is not None:
        method, names, payload = explained
        explained = (method, names, _zeroed(payload, [8, 8, 8 * len(names)], entry.rows, rows))
    inputs = _zeroed(entry.inputs, widths, entry.rows, rows)
    return msgspec.structs.replace(
        entry, keys=keys, inputs=inputs, explained=explained, answer=_zeroed(entry.answer, answers, entry.rows, rows)
    )


def _about(entry: log.Entry, key: str, columns: Sequence[str]) -> list[int]:
    """The rows that were asked for the key: it is an entity's, or an input that is called like a column of subjects."""
    named = set(Layout.from_pairs(_plain(entry.layout)).names)
    inputs = entry.columns() if not named.isdisjoint(columns) else {}
    asked = [*entry.keys.values(), *(inputs[name] for name in columns if name in inputs)]
    return [row for row in range(entry.rows) if any(str(values[row]) == key for values in asked)]


def _zeroed(payload: bytes, widths: list[int], count: int, rows: list[int]) -> bytes:
    """Zeros in the place of rows of matrices that lie one after the other; texts behind them are masked."""
    content = bytearray(payload)
    offset = 0
    for width in widths:
        for row in rows:
            content[offset + row * width : offset + (row + 1) * width] = bytes(width)
        offset += width * count
    if offset < len(content):
        texts: list[list[Any]] = msgspec.msgpack.decode(bytes(content[offset:]))
        masked = [[_mask_in(values, i, count, rows) for i in range(len(values))] for values in texts]
        content[offset:] = msgspec.msgpack.encode(masked)
    return bytes(content)


def _mask_in(values: list[Any], index: int, count: int, rows: list[int]) -> Any:
    value = values[index]
    mine = index * count // max(len(values), 1) in rows  # an output may have several texts a row
    return _mask(value) if mine and isinstance(value, str) else value


def _mask(text: str) -> str:
    return log.ERASED * len(text.encode())


def _plain(value: object) -> list[list[Any]]:
    found: list[list[Any]] = msgspec.msgpack.decode(value) if isinstance(value, msgspec.Raw) else value  # type: ignore[assignment]
    return found
