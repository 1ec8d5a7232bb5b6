"""Rows of files: Parquet, CSV, JSON lines, Arrow, Excel, on the disk, in buckets and on the web.

Files are read in the order of their names, and agree in their columns. What lies elsewhere comes through a folder of
its own, piece by piece, and goes again.
"""

import tempfile
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pyarrow as pa

from everloop.core.errors import DataError, InvalidInput
from everloop.data.content.schema import logical_type
from everloop.data.failures import is_full_disk
from everloop.data.sources.formats.columnar import arrow, parquet
from everloop.data.sources.formats.delimited import csv, csv_types
from everloop.data.sources.formats.json_lines import json_lines, json_schema
from everloop.data.sources.formats.telling import unreadable, wider
from everloop.data.sources.formats.unpacking import unpacked
from everloop.data.sources.origins import Files
from everloop.data.sources.places.folder import Folder
from everloop.data.sources.places.place import Found, Here, Place, bound

_TYPED = ("parquet", "arrow")


@dataclass(frozen=True, slots=True)
class FileSource:
    """Files of one format: under `root`, or elsewhere by the options that `bindings` hold."""

    root: Path
    files: Files
    bindings: Mapping[str, Any] = field(default_factory=dict)
    scratch: Path = Path(tempfile.gettempdir())
    """Where copies lie while they are read."""
    only: frozenset[str] | None = None
    """Names of the files to read; None means all."""

    def listed(self) -> list[Found]:
        """The files that match now, in order; raises `NotFound` when there is none."""
        return [f for f in self._place().listed() if self.only is None or f.name in self.only]

    def paths(self) -> list[Path]:
        """The files of the disk that match now."""
        return [self.root / found.name for found in self.listed()]

    @property
    def in_place(self) -> bool:
        """Whether the files lie on this disk and are read as they are."""
        return not self.files.scheme and not self.files.pattern.lower().endswith((".gz", ".zst", ".bz2", ".zip"))

    def narrowed(self, names: Sequence[str]) -> "FileSource":
        """The same source with these files only."""
        return replace(self, only=frozenset(names))

    def state(self) -> Mapping[str, Any]:
        """Name, size and stamp of every file; empty (always read) where a place gives no stamp."""
        found = self.listed()
        return {"files": [f.state() for f in found]} if all(f.stamp for f in found) else {}

    def read(self) -> Generator[pa.RecordBatch]:
        """Record batches of all files; raises `DataError` naming the file, and the line where there is one."""
        self.scratch.mkdir(parents=True, exist_ok=True)
        place, format_ = self._place(), str(self.files.format)
        with tempfile.TemporaryDirectory(prefix="files-", dir=self.scratch) as folder:
            if format_ in _TYPED:
                yield from self._typed(place, Path(folder))
            else:
                here = [self._fetched(place, found, Path(folder), i) for i, found in enumerate(self.listed())]
                yield from self._text(here)

    def _typed(self, place: Place, folder: Path) -> Iterator[pa.RecordBatch]:
        """Formats that say their types: one file after the other."""
        schema: pa.Schema | None = None
        for number, found in enumerate(self.listed()):
            with tempfile.TemporaryDirectory(dir=folder) as own:
                here = self._fetched(place, found, Path(own), number)
                reader = parquet if self.files.format == "parquet" else arrow
                try:
                    for batch in reader(unpacked(here, Path(own))):
                        schema = schema or batch.schema
                        yield conform(batch, schema, here.name)
                except (pa.ArrowException, OSError, EOFError) as error:
                    raise self._unreadable(here, error) from error

    def _text(self, found: list[Here]) -> Iterator[pa.RecordBatch]:
        """Formats whose types are found out: over all files, so they are all here."""
        schema: pa.Schema | None = None
        current = found[0]
        try:
            if self.files.format == "csv":
                encoding = self.files.encoding or "utf-8"
                types = csv_types(found, encoding)
                readers = [csv(here, types, encoding) for here in found]
            elif self.files.format == "jsonl":
                lines = json_schema(found)
                readers = [json_lines(here, lines) for here in found]
            else:
                readers = _sheets(found, self.files.sheet)
            for current, reader in zip(found, readers, strict=True):
                for batch in reader:
                    schema = schema or batch.schema
                    yield conform(batch, schema, current.name)
        except (pa.ArrowException, OSError, EOFError) as error:
            raise self._unreadable(current, error) from error

    def _unreadable(self, here: Here, error: Exception) -> Exception:
        return error if is_full_disk(error) else unreadable(here.name, str(self.files.format), error)

    def _fetched(self, place: Place, found: Found, folder: Path, number: int) -> Here:
        own = folder / str(number)
        own.mkdir()
        return place.fetched(found, own)

    def _place(self) -> Place:
        options = bound(self.bindings, self.files.binding)
        if not self.files.scheme:
            return Folder(self.root, self.files.pattern)
        try:
            module = import_module(
                "everloop.data.sources.places." + ("web" if "http" in self.files.scheme else "bucket")
            )
        except ModuleNotFoundError as error:
            raise InvalidInput(
                f"{self.files.pattern}: {error.name} is not installed", hint='pip install "everloop[s3]"'
            ) from error
        made: Place = getattr(module, "Web" if "http" in self.files.scheme else "Bucket")(self.files.pattern, options)
        return made


def _sheets(found: list[Here], name: str) -> list[Iterator[pa.RecordBatch]]:
    """Sheets of all workbooks, in types that hold the values of all of them."""
    try:
        sheets = import_module("everloop.data.sources.formats.sheets")
    except ModuleNotFoundError as error:
        raise InvalidInput(
            f"{found[0].name}: {error.name} is not installed", hint='pip install "everloop[excel]"'
        ) from error
    tables = [pa.Table.from_batches(list(sheets.sheet(here, name))) for here in found]
    types: dict[str, pa.DataType] = {}
    for table in tables:
        for column in table.schema:
            types[column.name] = wider(types.get(column.name, column.type), column.type)
    wide = [t.cast(pa.schema([(n, types[n]) for n in t.column_names])) for t in tables]
    return [iter(t.to_batches() or [pa.RecordBatch.from_pylist([], schema=t.schema)]) for t in wide]


def conform(batch: pa.RecordBatch, schema: pa.Schema, name: str) -> pa.RecordBatch:
    """`batch` in the schema of the first file; raises `DataError` where columns or types differ."""
    if batch.schema.equals(schema):
        return batch
    missing = [n for n in schema.names if n not in batch.schema.names]
    extra = [n for n in batch.schema.names if n not in schema.names]
    if missing or extra:
        what = f"has no column {missing[0]!r}" if missing else f"has a column {extra[0]!r} more"
        raise DataError(f"{name}: {what} than the first file", hint="files of one source have the same columns")
    batch = batch.select(schema.names)
    for here, there in zip(batch.schema, schema, strict=True):
        if not _fits(here.type, there.type):
            mine, first = logical_type(here.type), logical_type(there.type)
            raise DataError(
                f"{name}: column {here.name!r} is {mine}, but {first} in the first file",
                hint="write the files with the same types",
            )
    try:
        return batch.cast(schema)
    except pa.ArrowException as error:
        raise DataError(
            f"{name}: a column does not fit the type in the first file: {error}", hint="write both with the wider type"
        ) from error


def _fits(here: pa.DataType, there: pa.DataType) -> bool:
    numbers = (pa.types.is_integer(here), pa.types.is_integer(there) or pa.types.is_floating(there))
    return pa.types.is_null(here) or all(numbers) or logical_type(here) == logical_type(there)
