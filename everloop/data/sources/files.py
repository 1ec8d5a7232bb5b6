"""Rows of files: Parquet, CSV, JSON lines, Arrow.

Files are read in the order of their paths, and agree in their columns.
"""

import glob
import io
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.json as pj
import pyarrow.parquet as pq

from everloop.core.errors import DataError, NotFound
from everloop.data.content.logical import BLOCK
from everloop.data.content.schema import logical_type
from everloop.data.definitions import Files

NULLS = ("", "NA", "N/A", "NULL", "null")
"""Unquoted CSV fields that mean "no value"; `nan` is a float that is no number, not a null."""
_CSV_BLOCK = 16 * 2**20
_BAD_COLUMN = re.compile(r"CSV column #(\d+)")


@dataclass(frozen=True, slots=True)
class FileSource:
    """Files of one format under `root`."""

    root: Path
    files: Files

    def paths(self) -> list[Path]:
        """The files that match now, sorted; raises `NotFound` when there is none."""
        pattern = str(self.root / self.files.pattern)  # an absolute pattern stays, which Path.glob refuses
        found = sorted(Path(p) for p in glob.glob(pattern, recursive=True))  # noqa: PTH207 - see above
        matching = [path for path in found if path.is_file()]
        if not matching:
            raise NotFound(f"no file matches {self.files.pattern!r}", hint=f"looked in {self.root}")
        return matching

    def state(self) -> Mapping[str, Any]:
        """Path, size, inode and times of change of every file."""
        listed = []
        for path in self.paths():
            s = path.stat()
            listed.append([str(path.relative_to(self.root) if path.is_relative_to(self.root) else path), s.st_size])
            listed[-1] += [str(s.st_ino), str(s.st_mtime_ns), str(s.st_ctime_ns)]
        return {"files": listed}

    def read(self) -> Iterator[pa.RecordBatch]:
        """Record batches of all files; raises `DataError` naming the file, and the line where there is one."""
        schema: pa.Schema | None = None
        found = self.paths()
        columns = _csv_types(found) if self.files.format == "csv" else None
        for path in found:
            for batch in _read(path, str(self.files.format), columns):
                schema = schema or batch.schema
                yield conform(batch, schema, path)


def conform(batch: pa.RecordBatch, schema: pa.Schema, path: Path) -> pa.RecordBatch:
    """`batch` in the schema of the first file; raises `DataError` where columns or types differ."""
    if batch.schema.equals(schema):
        return batch
    missing = [n for n in schema.names if n not in batch.schema.names]
    extra = [n for n in batch.schema.names if n not in schema.names]
    if missing or extra:
        what = f"has no column {missing[0]!r}" if missing else f"has a column {extra[0]!r} more"
        raise DataError(f"{path}: {what} than the first file", hint="files of one source have the same columns")
    batch = batch.select(schema.names)
    for here, there in zip(batch.schema, schema, strict=True):
        if not _fits(here.type, there.type):
            mine, first = logical_type(here.type), logical_type(there.type)
            raise DataError(
                f"{path}: column {here.name!r} is {mine}, but {first} in the first file",
                hint="write the files with the same types",
            )
    try:
        return batch.cast(schema)
    except pa.ArrowException as error:
        raise DataError(f"{path}: a column does not fit the type in the first file: {error}") from error


def _fits(here: pa.DataType, there: pa.DataType) -> bool:
    numbers = (pa.types.is_integer(here), pa.types.is_integer(there) or pa.types.is_floating(there))
    return pa.types.is_null(here) or all(numbers) or logical_type(here) == logical_type(there)


def _read(path: Path, format_: str, columns: Mapping[str, pa.DataType] | None) -> Iterator[pa.RecordBatch]:
    try:
        if format_ == "parquet":
            yield from _parquet(path)
        elif format_ == "csv":
            yield from _csv(path, columns or {})
        elif format_ == "jsonl":
            yield from _json_lines(path)
        else:
            yield from _arrow(path)
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(path, format_, error) from error


_HINTS = {
    "parquet": "the file is broken or was cut off while it was written; write it again",
    "csv": "correct the line, or export the file again",
    "jsonl": "every line is one JSON object, and a field has one type throughout",
    "arrow": "the file is broken or was cut off while it was written; write it again",
}


_ROW = re.compile(r"Row #(\d+): ")


def _unreadable(path: Path, format_: str, error: BaseException) -> DataError:
    text = (str(error).strip() or type(error).__name__).splitlines()[0]
    row = _ROW.search(text)
    place = f"{path}:{row.group(1)}" if row else str(path)
    what = f"not a readable {format_} file: " if format_ in ("parquet", "arrow") else ""
    return DataError(f"{place}: {what}{_ROW.sub('', text)}", hint=_HINTS[format_])


def _parquet(path: Path) -> Iterator[pa.RecordBatch]:
    with pq.ParquetFile(path, memory_map=True) as file:
        names = file.schema_arrow.names
        schema = file.schema_arrow.remove_metadata()
        none = True
        for batch in file.iter_batches(BLOCK, use_threads=False):
            none = False
            yield batch.replace_schema_metadata(None)
        if none and names:
            yield pa.RecordBatch.from_pylist([], schema=schema)


def _arrow(path: Path) -> Iterator[pa.RecordBatch]:
    with pa.memory_map(str(path)) as file:
        try:
            reader = pa.ipc.open_file(file)
            yield from (reader.get_batch(i) for i in range(reader.num_record_batches))
            if not reader.num_record_batches:
                yield pa.RecordBatch.from_pylist([], schema=reader.schema)
        except pa.ArrowInvalid:
            file.seek(0)
            yield from pa.ipc.open_stream(file)


# --- CSV


def _open(path: Path) -> Any:
    return pa.input_stream(str(path), compression="detect")


def _csv_types(found: list[Path]) -> dict[str, pa.DataType]:
    """The type of each column over all files. A column whose values do not fit one type in the end becomes wider.

    One file of less than a block is typed as it is read; else a first pass reads everything.
    """
    if len(found) == 1 and found[0].stat().st_size < _CSV_BLOCK and not _is_compressed(found[0]):
        return {}
    types: dict[str, pa.DataType] = {}
    for path in found:
        while True:
            try:
                for batch in _csv(path, types):
                    for field in batch.schema:
                        types[field.name] = _wider(types.get(field.name, field.type), field.type)
                break
            except pa.ArrowInvalid as error:
                if not _widen(types, path, str(error)):
                    raise _unreadable(path, "csv", error) from error
    return types


def _is_compressed(path: Path) -> bool:
    return path.suffix in (".gz", ".zst", ".bz2")


def _wider(a: pa.DataType, b: pa.DataType) -> pa.DataType:
    if a.equals(b) or pa.types.is_null(b):
        return a
    if pa.types.is_null(a):
        return b
    if {a, b} == {pa.int64(), pa.float64()}:
        return pa.float64()
    return pa.string()


def _widen(types: dict[str, pa.DataType], path: Path, message: str) -> bool:
    """Make the column that `message` complains about wider; False when it is about something else."""
    match = _BAD_COLUMN.search(message)
    if match is None or "conversion error" not in message:
        return False
    with _open(path) as file, pc.open_csv(file, *_csv_options({}, path)[:2]) as reader:
        name = reader.schema.names[int(match.group(1))]
        now = types.get(name, reader.schema.field(name).type)
    wider = {pa.null(): pa.int64(), pa.int64(): pa.float64()}.get(now, pa.string())
    types[name] = wider
    return not now.equals(wider)


def _csv_options(types: Mapping[str, pa.DataType], path: Path) -> tuple[Any, Any, Any]:
    delimiter = "\t" if ".tsv" in path.suffixes else ","
    return (
        pc.ReadOptions(use_threads=False, block_size=_CSV_BLOCK),
        pc.ParseOptions(delimiter=delimiter),
        pc.ConvertOptions(
            null_values=list(NULLS), strings_can_be_null=True, quoted_strings_can_be_null=False, column_types=types
        ),
    )


def _csv(path: Path, types: Mapping[str, pa.DataType]) -> Iterator[pa.RecordBatch]:
    with _open(path) as file:
        try:
            reader = pc.open_csv(file, *_csv_options(types, path))
        except pa.ArrowInvalid as error:
            if "Empty CSV file" in str(error):
                raise DataError(f"{path}: the file is empty", hint="a CSV file has at least a line of names") from None
            raise
        none = True
        for batch in reader:
            none = False
            yield batch
        if none:
            yield pa.RecordBatch.from_pylist([], schema=reader.schema)


# --- JSON lines


def _json_lines(path: Path) -> Iterator[pa.RecordBatch]:
    try:
        with _open(path) as file:
            table = pj.read_json(file, read_options=pj.ReadOptions(use_threads=False, block_size=_CSV_BLOCK))
        yield from table.to_batches(max_chunksize=BLOCK)
    except pa.ArrowInvalid as error:
        bad = _bad_line(path)
        if bad is None:
            raise
        raise bad from error


def _bad_line(path: Path) -> DataError | None:
    """Which line is the first that is no JSON object."""
    with io.BufferedReader(_open(path)) as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                value = orjson.loads(line)
            except orjson.JSONDecodeError as error:
                return DataError(f"{path}:{number}: not JSON: {error}", hint=_HINTS["jsonl"])
            if not isinstance(value, dict):
                return DataError(f"{path}:{number}: a JSON {type(value).__name__}, not an object", hint=_HINTS["jsonl"])
    return None
