"""Reads folders that `wandb` wrote in offline mode: the log `run-<id>.wandb` and the `files` beside it.

Configuration becomes parameters, numbers of the history metrics by wandb's own step, the final summary parameters of
no series; files become files. Tables, plots and media are in the files; what the history says of them is not repeated.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from everloop.catalog.tracking.rows import Point
from everloop.core.clock import SECOND, Micros
from everloop.core.errors import CorruptObject, NotFound
from everloop.models.importing.sources.folders import Tails, files_below, open_plain
from everloop.models.importing.sources.messages import Undecodable, declare
from everloop.models.importing.sources.records import BrokenFrameError, Health, check_leveldb, leveldb_records
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

_ITEM = {"key": (1, "string"), "nested": (2, "*string"), "value": (16, "string")}
_MESSAGES = declare(
    "everloop_wandb",
    {
        "Record": {
            "history": (2, "Items"),
            "summary": (3, "Summary"),
            "config": (5, "Items"),
            "stats": (7, "Stats"),
            "artifact": (8, "Artifact"),
            "alert": (10, "Empty"),
            "metric": (12, "Empty"),
            "run": (17, "Run"),
            "exit": (18, "Exit"),
            "use_artifact": (25, "Artifact"),
        },
        "Items": {"item": (1, "*Item"), "step": (2, "Step")},
        "Item": dict(_ITEM),
        "Step": {"num": (1, "int64")},
        "Summary": {"item": (1, "*Item")},
        "Stats": {"timestamp": (2, "Time"), "item": (3, "*Item")},
        "Artifact": {"type": (4, "string"), "name": (5, "string"), "other_name": (3, "string")},
        "Empty": {},
        "Run": {
            "id": (1, "string"),
            "entity": (2, "string"),
            "project": (3, "string"),
            "config": (4, "Items"),
            "group": (6, "string"),
            "job_type": (7, "string"),
            "name": (8, "string"),
            "notes": (9, "string"),
            "tags": (10, "*string"),
            "sweep": (12, "string"),
            "host": (13, "string"),
            "started": (17, "Time"),
            "git": (21, "Git"),
        },
        "Git": {"remote": (1, "string"), "commit": (2, "string")},
        "Time": {"seconds": (1, "int64"), "nanos": (2, "int32")},
        "Exit": {"code": (1, "int32"), "runtime": (2, "int32")},
    },
    {"Record": ("history", "summary", "config", "stats", "artifact", "alert", "metric", "run", "exit", "use_artifact")},
)
_LOG = re.compile(r"run-.*\.wandb")
_DEEP = 32


@dataclass(slots=True)
class WandbSource:
    """A folder with offline runs, or one of them."""

    folder: Path
    kind: str = "wandb"
    _found: dict[str, list["_Log"]] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """The folder."""
        return str(self.folder)

    def experiments(self, selection: Selection) -> Iterator[ImportedExperiment | Unmapped]:
        """The projects of the runs."""
        for log in sorted(_logs(self.folder)):
            found = _Log(log)
            reason = found.look()
            if found.run is None or (reason and not selection.damaged):
                yield Unmapped("run", log.name, f"{reason or 'it says nothing of a run'}; none of it is imported")
                continue
            self._found.setdefault(found.run.project or "wandb", []).append(found)
        for project in sorted(self._found):
            if selection.wants_experiment(project):
                yield ImportedExperiment(project, project)

    def runs(self, experiment: ImportedExperiment, selection: Selection) -> Iterator[ImportedRun | Unmapped]:
        """The runs of a project, by their start."""
        for log in sorted(self._found[experiment.id], key=lambda one: (one.start, one.path.name)):
            about = log.run
            if not selection.wants_run(about.name, about.id):
                continue
            whole = f"{about.entity}/{about.project}/{about.id}"
            yield ImportedRun(
                id=whole,
                identity=identity_of("wandb", about.entity, about.project, about.id),
                name=about.name or about.id,
                start=log.start,
                contents=log.contents,
                stamp=stamp_of(log.path.name, log.path.stat().st_size),
            )

    def models(self, _experiment: ImportedExperiment) -> Iterator[ImportedModel | Unmapped]:
        """None: the bytes of W&B's artifacts are not in an offline folder."""
        return iter(())

    def names(self) -> Iterator[ImportedName | Unmapped]:
        """None."""
        return iter(())

    def close(self) -> None:
        """Nothing stays open."""


def open_wandb(folder: Path) -> WandbSource:
    """Open a folder; raises `NotFound` when there is no offline run in it."""
    if not folder.is_dir():
        raise NotFound(f"there is no folder {folder}", hint="the folder `wandb` that offline runs were written to")
    whole = folder.resolve()
    if not any(True for _ in _logs(whole)):
        raise NotFound(f"there is no offline run in {folder}", hint="it holds folders offline-run-*/run-*.wandb")
    return WandbSource(whole)


@dataclass(slots=True)
class _Log:
    """One run's log."""

    path: Path
    run: Any = None
    start: Micros = 0
    health: Health = field(default_factory=lambda: Health(0))

    def look(self) -> str:
        """Check every record and read what the first ones say of the run; returns what is damaged."""
        with closing(open_plain(self.path)) as stream:
            self.health = check_leveldb(stream)
        try:
            for record in self._records():
                if record.HasField("run"):
                    self.run = record.run
                    self.start = _moment(record.run.started) or 0
                    break
        except CorruptObject as error:
            return error.message
        return self.health.damage

    def contents(self) -> Iterator[Item]:
        """Everything in the log, then the files beside it."""
        yield from _described(self.run)
        if self.health.truncated:
            yield Unmapped("record", self.path.name, "the last record is cut short: its writer was killed, or is alive")
        if self.health.damage:
            yield Tag("import.damaged", f"{self.path.name}: {self.health.damage}")
            yield Unmapped("record", self.path.name, f"{self.health.damage}; what follows is not read")
        with TemporaryDirectory(prefix="everloop-import-") as scratch, closing(Tails(Path(scratch), "wandb")) as tails:
            told = _Told(self.start, self.start, tails)
            for record in self._records():
                yield from told.take(record)
            yield from tails.files()
        yield from (Param(key, value) for key, value in _flat(told.config, skip={"_wandb"}))
        yield from _summary(told.summary, told.seen, told.last)
        folder = self.path.parent / "files"
        if folder.is_dir() and not folder.is_symlink():
            yield from files_below(folder)
        ended = told.status != "RUNNING" or self.health.truncated
        yield End("KILLED" if ended and told.status == "RUNNING" else told.status, told.last if ended else None)

    def _records(self) -> Iterator[Any]:
        record, read = _MESSAGES["Record"], 0
        with closing(open_plain(self.path)) as stream:
            try:
                for frame in leveldb_records(stream):
                    if read == self.health.records:
                        return
                    yield record.FromString(frame.content)
                    read += 1
            except (BrokenFrameError, Undecodable) as error:
                if read < self.health.records:
                    raise CorruptObject(
                        f"record {read + 1} of {self.path.name} cannot be read: {error}", hint="the file is damaged"
                    ) from error


@dataclass(slots=True)
class _Told:
    """What the records so far have told of a run."""

    start: Micros
    last: Micros
    tails: Tails
    status: str = "RUNNING"
    config: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    seen: set[str] = field(default_factory=set)

    def take(self, record: Any) -> Iterator[Item]:
        """What a record gives at once; what counts whole at the end only is kept."""
        which = record.WhichOneof("which")
        if which == "history":
            values = _values(record.history.item)
            self.last = max(self.last, _seconds(values.get("_timestamp")) or self.last)
            step = record.history.step.num or int(_number(values.get("_step")) or 0)
            yield from self._history(values, step)
        elif which == "stats":
            at = _moment(record.stats.timestamp) or self.last
            measured = {key: _number(value) for key, value in _values(record.stats.item).items()}
            step = max(0, (at - self.start) // SECOND)
            yield from (Point(f"system/{key}", one, at, step) for key, one in measured.items() if one is not None)
        elif which in {"artifact", "use_artifact"}:
            name = record.artifact.name or record.use_artifact.other_name or "artifact"
            yield Unmapped("artifact", name, "W&B keeps an artifact's files elsewhere: an offline folder lacks them")
        elif which == "alert":
            yield Unmapped("alert", "alert", "nothing here holds it")
        else:
            self._keep(which, record)

    def _history(self, values: Mapping[str, Any], step: int) -> Iterator[Item]:
        for key, value in _flat_values(values):
            number = _number(value)
            if key.startswith("_") or value is None:
                continue
            self.seen.add(key)
            if number is not None:
                yield Point(key, number, self.last, step)
            elif isinstance(value, Mapping) and "path" in value:
                yield Unmapped(str(value.get("_type")), key, "its file is imported, its place in the history is not")
            else:
                kind = "histograms" if isinstance(value, Mapping) else "history"
                self.tails.add(kind, key, {"step": step, "time": self.last, "value": value})

    def _keep(self, which: str | None, record: Any) -> None:
        if which == "run":
            _merge(self.config, record.run.config.item)
        elif which == "config":
            _merge(self.config, record.config.item)
        elif which == "summary":
            _merge(self.summary, record.summary.item)
        elif which == "exit":
            self.status = "FINISHED" if record.exit.code == 0 else "FAILED"
            self.last = max(self.last, self.start + record.exit.runtime * SECOND)


def _described(about: Any) -> Iterator[Item]:
    said = {
        "wandb.entity": about.entity,
        "wandb.project": about.project,
        "wandb.run_id": about.id,
        "wandb.group": about.group,
        "wandb.job_type": about.job_type,
        "wandb.sweep": about.sweep,
        "wandb.host": about.host,
        "mlflow.note.content": about.notes,
        "mlflow.user": about.entity,
        "mlflow.source.git.commit": about.git.commit,
        "mlflow.source.git.repoURL": about.git.remote,
    }
    yield from (Tag(key, value) for key, value in said.items() if value)
    yield from (Tag(f"wandb.tag.{tag}", "true") for tag in about.tags)


def _summary(summary: Mapping[str, Any], seen: set[str], at: Micros) -> Iterator[Item]:
    """Values that only the summary holds: numbers become a metric of one point, texts a tag."""
    for key, value in _flat_values(summary):
        if key.startswith("_") or key in seen:
            continue
        number = _number(value)
        if number is not None:
            yield Point(key, number, at, 0)
        elif isinstance(value, str):
            yield Tag(f"wandb.summary.{key}", value)
        elif isinstance(value, Mapping) and "_type" in value:
            continue  # told where the history names it
        elif value is not None:
            yield Unmapped("summary", key, "neither a number nor a text")


def _merge(known: dict[str, Any], items: Any) -> None:
    for item in items:
        path = list(item.nested) or [item.key]
        place = known
        for part in path[:-1]:
            inner = place.setdefault(part, {})
            if not isinstance(inner, dict):
                inner = place[part] = {}
            place = inner
        place[path[-1]] = _parsed(item.value)


def _values(items: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    _merge(found, items)
    return found


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _flat(values: Mapping[str, Any], *, skip: set[str]) -> Iterator[tuple[str, str]]:
    """Parameters of a configuration: `a.b` for what lies in folders; a list is its JSON."""
    for key, value in _flat_values({key: value for key, value in values.items() if key not in skip}, separator="."):
        yield key, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _flat_values(values: Mapping[str, Any], separator: str = ".", depth: int = 0) -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping) and value and "_type" not in value and depth < _DEEP:
            for inner, found in _flat_values(value, separator, depth + 1):
                yield f"{key}{separator}{inner}", found
        else:
            yield key, value


def _number(value: Any) -> float | None:
    if isinstance(value, bool):
        return float(value)
    if isinstance(value, int | float):
        try:
            return float(value)
        except OverflowError:
            return None
    return (
        {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}.get(value) if isinstance(value, str) else None
    )


def _seconds(value: Any) -> Micros | None:
    return round(value * SECOND) if isinstance(value, int | float) and 0 < value < 253_402_300_799 else None


def _moment(time: Any) -> Micros | None:
    whole = time.seconds * SECOND + time.nanos // 1000
    return whole if 0 < whole < 253_402_300_799 * SECOND else None


def _logs(folder: Path) -> Iterator[Path]:
    """Logs in the folder itself, in its runs, or in those of the `wandb` folder in it; links are not followed."""
    for pattern in ("run-*.wandb", "*run-*/run-*.wandb", "wandb/*run-*/run-*.wandb"):
        for path in folder.glob(pattern):
            if _LOG.fullmatch(path.name) and path.is_file() and not path.is_symlink() and not path.parent.is_symlink():
                yield path
