"""Reads what the public `neptune-exporter` writes: Parquet files of attributes, and the files that they name.

`EXPORT-DIR` holds `data/<project>/<run>_part_<n>.parquet` and `files/…`; the folder of the Parquet files alone will do.
A row is one attribute, or one point of a series; the columns are those of the exporter's own schema.
"""

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from itertools import chain
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from everloop.catalog.tracking.rows import Point
from everloop.core.clock import Micros, micros
from everloop.core.errors import CorruptObject, InvalidInput, NotFound
from everloop.models.importing.sources.folders import Tails, file_at, files_below, inside, open_plain, safe_path
from everloop.models.importing.values import (
    End,
    ImportedExperiment,
    ImportedModel,
    ImportedName,
    ImportedRun,
    Item,
    Param,
    Selection,
    Tag,
    Unmapped,
    identity_of,
    stamp_of,
)

_COLUMNS = {
    "project_id": "string",
    "run_id": "string",
    "attribute_path": "string",
    "attribute_type": "string",
    "step": "decimal",
    "timestamp": "timestamp",
    "int_value": "int",
    "float_value": "float",
    "string_value": "string",
    "bool_value": "bool",
    "datetime_value": "timestamp",
    "string_set_value": "list",
    "file_value": "struct",
    "histogram_value": "struct",
}
_PART = re.compile(r"(?P<run>.+)_part_(?P<part>\d+)\.parquet")
_ROWS = 4096
_TAILS = {"string_series": "texts", "histogram_series": "histograms"}
_STATES = {"running": "RUNNING", "active": "RUNNING", "idle": "FINISHED", "inactive": "FINISHED"}
_SCALARS: Mapping[str, Callable[[Any], str]] = {
    "float": str,
    "int": str,
    "string": str,
    "bool": str,
    "datetime": lambda value: value.isoformat() if isinstance(value, datetime) else str(value),
    "string_set": lambda value: json.dumps(sorted(str(one) for one in value), ensure_ascii=False),
}


@dataclass(slots=True)
class NeptuneSource:
    """An export. A step of a series is a decimal there and an integer here: `scale` is what it is multiplied by."""

    data: Path
    files: Path
    scale: int
    scratch: "TemporaryDirectory[str]"
    kind: str = "neptune"
    _found: dict[str, list["_Run"]] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """The folder of the Parquet files."""
        return str(self.data)

    def experiments(self, selection: Selection) -> Iterator[ImportedExperiment | Unmapped]:
        """Neptune's projects."""
        for folder, parts in _runs(self.data):
            run = _Run(self, parts)
            try:
                run.look()
            except CorruptObject as error:
                yield Unmapped("run", f"{folder}/{parts[0].name}", f"{error.message}; none of it is imported")
                continue
            self._found.setdefault(run.project, []).append(run)
        for project in sorted(self._found):
            if selection.wants_experiment(project):
                yield ImportedExperiment(project, project)

    def runs(self, experiment: ImportedExperiment, selection: Selection) -> Iterator[ImportedRun | Unmapped]:
        """The runs of a project, by their start."""
        for run in sorted(self._found[experiment.id], key=lambda one: (one.start, one.id)):
            name = str(run.system.get("sys/name") or run.id)
            if not selection.wants_run(name, run.id):
                continue
            parent = run.system.get("sys/forking/parent") or run.system.get("sys/relationships/parent")
            yield ImportedRun(
                id=f"{run.project}/{run.id}",
                identity=identity_of("neptune", run.project, run.id),
                name=name,
                start=run.start,
                contents=run.contents,
                parent=identity_of("neptune", run.project, str(parent)) if parent else "",
                stamp=stamp_of(self.scale, [(one.name, one.stat().st_size) for one in run.parts]),
            )

    def models(self, _experiment: ImportedExperiment) -> Iterator[ImportedModel | Unmapped]:
        """None: the exporter's files of runs hold no models."""
        return iter(())

    def names(self) -> Iterator[ImportedName | Unmapped]:
        """None; Neptune's own registry is reported."""
        registry = self.data.parent / "model_registry"
        if registry.is_dir():
            yield Unmapped("model registry", str(registry), "Neptune's model registry is not imported")

    def close(self) -> None:
        """Remove temporary files."""
        self.scratch.cleanup()


def open_neptune(folder: Path, *, files: Path | None = None, scale: int = 1) -> NeptuneSource:
    """Open an export; raises `NotFound`, `InvalidInput`."""
    if scale < 1:
        raise InvalidInput(f"steps cannot be multiplied by {scale}", hint="a whole number from 1 on")
    data = folder / "data" if (folder / "data").is_dir() else folder
    if not data.is_dir() or not any(True for _ in _runs(data)):
        raise NotFound(
            f"there is no export in {folder}", hint="the exporter's --data-path: <project>/<run>_part_0.parquet"
        )
    held = files or (folder / "files" if (folder / "files").is_dir() else data.parent / "files")
    return NeptuneSource(data.resolve(), held.resolve(), scale, TemporaryDirectory(prefix="everloop-import-"))


@dataclass(slots=True)
class _Run:
    """The Parquet files of one run."""

    source: NeptuneSource
    parts: list[Path]
    project: str = ""
    id: str = ""
    start: Micros = 0
    last: Micros = 0
    system: dict[str, Any] = field(default_factory=dict)

    def look(self) -> None:
        """Read every row once, so that a damaged file is met before anything is written; raises `CorruptObject`."""
        times: list[Micros] = []
        for row in self._rows():
            self.project, self.id = self.project or row["project_id"], self.id or row["run_id"]
            if (row["project_id"], row["run_id"]) != (self.project, self.id):
                raise CorruptObject(f"{self.parts[0].name} holds more than one run", hint="export it again")
            path = row["attribute_path"] or ""
            if path.startswith("sys/"):
                self.system[path] = _scalar(row)
            if row["timestamp"] is not None and len(times) < 2:
                times.append(micros(row["timestamp"]))
            elif row["timestamp"] is not None:
                times = [min(times), max(times[1], micros(row["timestamp"]))]
        if not self.project or not self.id:
            raise CorruptObject(f"{self.parts[0].name} names no run", hint="export it again")
        created, changed = self.system.get("sys/creation_time"), self.system.get("sys/modification_time")
        self.start = micros(created) if isinstance(created, datetime) else min(times, default=0)
        self.last = micros(changed) if isinstance(changed, datetime) else max(times, default=self.start)

    def contents(self) -> Iterator[Item]:
        """Every attribute; series of texts and histograms end in files of their own."""
        yield from self._described()
        with closing(Tails(Path(self.source.scratch.name), "neptune")) as tails:
            for row in self._rows():
                path, kind = row["attribute_path"] or "attribute", row["attribute_type"]
                if kind in _SCALARS:
                    value = _scalar(row)
                    if value is not None and not path.startswith("sys/"):
                        yield Param(path, _SCALARS[kind](value))
                elif kind == "float_series":
                    yield from self._point(path, row)
                elif kind in _TAILS:
                    tails.add(_TAILS[kind], path, _line(row, kind))
                elif kind in {"file", "file_series", "file_set", "artifact"}:
                    yield from self._files(path, kind, row)
                else:
                    yield Unmapped(str(kind), path, "a type of attribute that is not known")
            yield from tails.files()
        failed = self.system.get("sys/failed") is True
        status = _STATES.get(str(self.system.get("sys/state") or "inactive").lower(), "FINISHED")
        yield End("FAILED" if failed else status, None if status == "RUNNING" else max(self.last, self.start))

    def _described(self) -> Iterator[Item]:
        known = {"sys/owner": "mlflow.user", "sys/description": "mlflow.note.content"}
        for path, value in sorted(self.system.items()):
            if path in {"sys/tags", "sys/group_tags"} and isinstance(value, list):
                yield from (Tag(f"neptune.tag.{one}", "true") for one in value)
            elif value is not None:
                text = value.isoformat() if isinstance(value, datetime) else str(value)
                yield Tag(known.get(path, "neptune." + path.removeprefix("sys/").replace("/", ".")), text)

    def _point(self, path: str, row: Mapping[str, Any]) -> Iterator[Item]:
        value, at = row["float_value"], row["timestamp"]
        step = (row["step"] or Decimal(0)) * self.source.scale
        if value is None:
            yield Unmapped("point", path, "it has no value")
        elif step != int(step):
            yield Unmapped("point", path, "its step is no whole number: --step-scale 1000 keeps three decimals")
        else:
            yield Point(path, value, micros(at) if at is not None else self.start, int(step))

    def _files(self, path: str, kind: str, row: Mapping[str, Any]) -> Iterator[Item]:
        named = (row["file_value"] or {}).get("path")
        if not named:
            yield Unmapped(kind, path, "the exporter did not download it")
            return
        inner = PurePosixPath(named)
        local = self.source.files / inner
        if inner.is_absolute() or ".." in inner.parts or not inside(self.source.files, local):
            yield Unmapped(kind, path, "its path leads out of the folder of files")
            return
        place = (
            f"{safe_path(path)}/{row['step'].normalize():f}"
            if kind == "file_series" and row["step"]
            else safe_path(path)
        )
        if local.is_dir() and not local.is_symlink():
            yield from files_below(local, place, kind=kind)
            return
        suffix = inner.suffix if re.fullmatch(r"\.[A-Za-z0-9]{1,12}", inner.suffix) else ""
        yield file_at(local, place if place.endswith(suffix) else place + suffix)

    def _rows(self) -> Iterator[dict[str, Any]]:
        """Rows of all parts, a batch in memory at a time; raises `CorruptObject`."""
        for part in self.parts:
            try:
                with closing(open_plain(part)) as stream, pq.ParquetFile(stream) as file:
                    _check_columns(part, file.schema_arrow)
                    batches = file.iter_batches(batch_size=_ROWS, columns=list(_COLUMNS))
                    yield from chain.from_iterable(batch.to_pylist() for batch in batches)
            except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
                said = (str(error).splitlines() or [type(error).__name__])[0][:200]
                raise CorruptObject(f"{part.name} cannot be read: {said}", hint="export it again") from error


def _check_columns(part: Path, schema: Any) -> None:
    missing = sorted(set(_COLUMNS) - set(schema.names))
    wrong = [
        name
        for name, kind in _COLUMNS.items()
        if name in schema.names and not str(schema.field(name).type).startswith(_arrow_names(kind))
    ]
    if missing or wrong:
        raise CorruptObject(
            f"{part.name} is no file of neptune-exporter: {', '.join(missing + wrong)} missing or of another type",
            hint="export it again",
        )


def _arrow_names(kind: str) -> tuple[str, ...]:
    return {"string": ("string", "large_string"), "float": ("double", "float")}.get(kind, (kind,))


def _runs(data: Path) -> Iterator[tuple[str, list[Path]]]:
    """The parts of each run, in order: (folder of the project, paths). A run without part 0 is not complete."""
    for folder in sorted(one for one in data.iterdir() if one.is_dir() and not one.is_symlink()):
        runs: dict[str, dict[int, Path]] = {}
        for path in folder.iterdir():
            match = _PART.fullmatch(path.name)
            if match is not None and path.is_file() and not path.is_symlink():
                runs.setdefault(match["run"], {})[int(match["part"])] = path
        yield from ((folder.name, [parts[n] for n in sorted(parts)]) for _, parts in sorted(runs.items()) if 0 in parts)


def _scalar(row: Mapping[str, Any]) -> Any:
    kind = row["attribute_type"]
    return row.get(f"{kind}_value") if kind in _SCALARS else None


def _line(row: Mapping[str, Any], kind: str) -> dict[str, Any]:
    at, step = row["timestamp"], row["step"]
    value = row["string_value"] if kind == "string_series" else _finite(row["histogram_value"])
    return {"step": None if step is None else str(step.normalize()), "time": at and micros(at), "value": value}


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_finite(inner) for inner in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
