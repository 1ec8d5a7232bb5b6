"""Files of runs: a directory at a time, one file, and a look into one that can run nothing."""

import csv
import io
import json
import math
from pathlib import PurePosixPath
from typing import Any, Literal

from pydantic import Field

from everloop.catalog.context import Context
from everloop.catalog.operation import Answer, Command, operation
from everloop.catalog.tracking import artifacts, runs
from everloop.core.errors import CorruptObject, DataError, NotFound
from everloop.core.grants import Target
from everloop.models import tracking

LARGEST_TEXT = 256 << 10
"""Bytes of a text that are shown."""
LARGEST_TABLE = 1 << 30
"""Bytes of a Parquet file that is opened."""
_CELL = 200
_COLUMNS = 100
PICTURES = {
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".gif": "image/gif",
    ".webp": "image/webp",
}
"""Shown as pictures, with their media types; SVG is not, for it may hold script."""
Kind = Literal["text", "json", "table", "parquet", "picture", "none"]
"""`parquet` is told by `runs.head`, which needs an engine."""


class FilesOfRun(Command):
    """A directory of a run's files; the empty path is the topmost."""

    run: str
    path: str = ""


class FileOfRun(Command):
    """A file of a run."""

    run: str
    path: str


class PreviewFile(FileOfRun):
    """What to show of a file."""

    rows: int = Field(default=100, ge=1, le=1000)


class FileEntry(Answer):
    """A file, or a directory with the number and size of all files below it; `object` is then empty."""

    path: str
    name: str
    object: str
    size: int
    files: int = 1


class FileList(Answer):
    """What is directly in a directory: directories first, each by name."""

    path: str
    entries: tuple[FileEntry, ...]


class Preview(Answer):
    """What can be seen of a file. Texts and cells are plain text, never markup."""

    file: FileEntry
    kind: Kind
    text: str = ""
    columns: tuple[str, ...] = ()
    types: tuple[str, ...] = ()
    rows: tuple[tuple[str | None, ...], ...] = ()
    total: int | None = None
    """Rows of the whole table, where that is known."""
    cut: bool = False
    """Whether there is more than is shown."""
    note: str = ""
    """Why nothing is shown."""


def _on(_ctx: Context, cmd: FilesOfRun) -> Target:
    return Target("run", cmd.run)


def _on_file(_ctx: Context, cmd: FileOfRun) -> Target:
    return Target("run", cmd.run)


def _on_preview(_ctx: Context, cmd: PreviewFile) -> Target:
    return Target("run", cmd.run)


@operation("runs.files", needs="read", on=_on, reads=True)
def files_of_run(ctx: Context, cmd: FilesOfRun) -> FileList:
    """List a directory of a run's files."""
    path = artifacts.checked_path(cmd.path.strip("/"), empty=True)
    start = len(path) + 1 if path else 0
    found: dict[str, FileEntry] = {}
    with ctx.read() as tx:
        run = runs.find(tx, ctx.project, cmd.run)
        below = artifacts.tree(tx, ctx.project, run.id, path)
    for one in below:
        name, slash, _ = one.path[start:].partition("/")
        whole, known = one.path[:start] + name, found.get(name)
        if not slash:
            found[name] = FileEntry(path=whole, name=name, object=one.object, size=one.size)
        else:
            size, files = (known.size, known.files) if known else (0, 0)
            found[name] = FileEntry(path=whole, name=name, object="", size=size + one.size, files=files + 1)
    listed = sorted(found.values(), key=lambda entry: (bool(entry.object), entry.name))
    return FileList(path=path, entries=tuple(listed))


@operation("runs.file", needs="read", on=_on_file, reads=True)
def file_of_run(ctx: Context, cmd: FileOfRun) -> FileEntry:
    """Find one file of a run; its bytes are in the store, under `object`."""
    path = artifacts.checked_path(cmd.path)
    with ctx.read() as tx:
        run = runs.find(tx, ctx.project, cmd.run)
        one = artifacts.get(tx, ctx.project, run.id, path)
    return FileEntry(path=one.path, name=PurePosixPath(one.path).name, object=one.object, size=one.size)


@operation("runs.preview", needs="read", on=_on_preview, reads=True)
def preview_file(ctx: Context, cmd: PreviewFile) -> Preview:
    """Look into a file: text, JSON, the head of a CSV table, or that it is a picture or Parquet."""
    file = file_of_run(ctx, FileOfRun(run=cmd.run, path=cmd.path))
    ending = PurePosixPath(file.path).suffix.lower()
    if ending in PICTURES or ending == ".parquet":
        return Preview(file=file, kind="picture" if ending in PICTURES else "parquet")
    try:
        with ctx.store.open(file.object) as stream:
            head = stream.read(LARGEST_TEXT + 1)
    except (NotFound, CorruptObject) as error:
        return Preview(file=file, kind="none", note=f"its bytes cannot be read: {error.message}")
    cut = len(head) > LARGEST_TEXT
    text = _text(head[:LARGEST_TEXT], cut=cut)
    if text is None:
        return Preview(file=file, kind="none", note="not a text")
    if ending in (".csv", ".tsv"):
        return _csv(file, text, cmd.rows, "\t" if ending == ".tsv" else ",", cut=cut)
    tidy = _tidy(text) if ending == ".json" and not cut else None
    return Preview(file=file, kind="text" if tidy is None else "json", text=tidy or text, cut=cut)


@operation("runs.head", needs="read", on=_on_preview, reads=True, engine=True)
def head_of_file(ctx: Context, cmd: PreviewFile) -> Preview:
    """Show the head of a Parquet file; what is none says so."""
    file = file_of_run(ctx, FileOfRun(run=cmd.run, path=cmd.path))
    if file.size > LARGEST_TABLE:
        return Preview(file=file, kind="none", note="too large to look into here")
    try:
        with ctx.store.open(file.object) as stream:
            found = tracking.parquet.head(stream, rows=cmd.rows, columns=_COLUMNS)
    except (DataError, NotFound, CorruptObject) as error:
        return Preview(file=file, kind="none", note=error.message)
    shown = tuple(tuple(_cell(value) for value in row) for row in found.rows)
    return Preview(
        file=file,
        kind="table",
        columns=found.columns,
        types=found.types,
        rows=shown,
        total=found.total,
        cut=found.total > len(shown),
    )


def _text(head: bytes, *, cut: bool) -> str | None:
    """The bytes as UTF-8; a character that the cut went through is left out. None for what is no text."""
    if b"\0" in head:
        return None
    for fewer in range(4 if cut else 1):
        try:
            return head[: len(head) - fewer].decode("utf-8")
        except UnicodeDecodeError:
            continue
    return None


def _tidy(text: str) -> str | None:
    try:
        return json.dumps(json.loads(text), indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        return None


def _csv(file: FileEntry, text: str, rows: int, separator: str, *, cut: bool) -> Preview:
    if cut:  # the last line may be a part of one
        text = text.rpartition("\n")[0]
    reader = csv.reader(io.StringIO(text), delimiter=separator)
    try:
        head = next(reader, [])[:_COLUMNS]
        kept = [row for row, _ in zip(reader, range(rows + 1), strict=False)]
    except csv.Error:
        return Preview(file=file, kind="text", text=text, cut=cut)
    shown = tuple(tuple(_cell(cell) for cell in _padded(row, len(head))) for row in kept[:rows])
    more = cut or len(kept) > rows
    total = None if more else len(kept)
    return Preview(file=file, kind="table", columns=tuple(head), rows=shown, total=total, cut=more)


def _padded(row: list[str], width: int) -> list[Any]:
    return [*row[:width], *([None] * (width - len(row)))]


def _cell(value: Any) -> str | None:
    if value is None:
        return None
    if isinstance(value, float) and math.isfinite(value):
        return f"{value:.6g}"
    text = value if isinstance(value, str) else str(value)
    return text if len(text) <= _CELL else text[: _CELL - 1] + "…"
