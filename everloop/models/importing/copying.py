"""Copying: pulls what a reader gives and writes it by operations, a run at a time.

Whatever stops it, the next import goes on: complete runs whose stamp is the same are not read again, of a run that was
being copied only the files and points that lack are added, and identities are the same each time.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import Any

from everloop.catalog.tracking.artifacts import checked_path
from everloop.catalog.tracking.rows import DatasetInput, Point
from everloop.core.errors import CorruptObject, DataError, InvalidInput, NotFound
from everloop.models.importing.operations import LATEST
from everloop.models.importing.report import Report
from everloop.models.importing.targets import Target
from everloop.models.importing.values import (
    End,
    ImportedExperiment,
    ImportedFile,
    ImportedRun,
    Item,
    Link,
    Param,
    Selection,
    Source,
    Tag,
    Unmapped,
)

Say = Callable[[str, int, int], None]
"""What is being copied, which run of how many; 0 where the number is not known."""

_BATCH = 5_000
"""Points of one write."""
_KEY = 250
"""Characters of a key: what MLflow's clients may write to later."""
_CONTROL = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Plan:
    """What is wanted of a source."""

    selection: Selection = field(default_factory=Selection)
    dry_run: bool = False
    files: bool = True
    again: bool = False
    """Read complete runs again though their stamp is the same."""


@dataclass(slots=True)
class Copy:
    """An import under way: where from, where to, what came over so far."""

    source: Source
    target: Target
    plan: Plan
    report: Report
    say: Say
    runs: dict[str, str] = field(default_factory=dict)
    """Identity of each imported run -> its experiment here."""
    models: set[str] = field(default_factory=set)
    """Logged models that are here."""

    def lose(self, kind: str, name: str, reason: str) -> None:
        """Note what is not brought over."""
        self.report.lose(Unmapped(kind, name, reason))


def copy_runs(copy: Copy, experiment: ImportedExperiment, here: str) -> None:
    """Bring the runs of one experiment over."""
    done = 0
    for run in copy.source.runs(experiment, copy.plan.selection):
        if isinstance(run, Unmapped):
            copy.report.lose(run)
            continue
        done += 1
        copy.say(f"{experiment.name}: {run.name or run.id}", done, 0)
        try:
            _copy_run(copy, run, here)
        except (DataError, CorruptObject) as error:  # the next run may be whole
            copy.lose("run", run.name or run.id, f"not complete: {error.message}")


def put_experiment(copy: Copy, experiment: ImportedExperiment) -> str:
    """The experiment's id here; empty in a dry run."""
    copy.report.count("experiments")
    if copy.plan.dry_run:
        return ""
    tags = {key: text_of(value) for key, value in experiment.tags.items() if not reserved(copy, experiment.name, key)}
    named = text_of(experiment.name)[:500]
    found: str = copy.target.call("imports.experiment", name=named, tags=tags).experiment
    return found


def upload(copy: Copy, place: str, owner: str, file: ImportedFile, held: Mapping[str, int]) -> None:
    """Bring one file over, unless one of its size is there."""
    name = f"{owner}/{file.path}"
    try:
        checked_path(file.path)
        file.path.encode()
    except (InvalidInput, UnicodeEncodeError):
        copy.lose("file", name, "its path is not safe")
        return
    if file.path in held and file.size in {None, held[file.path]}:
        copy.report.count("files there")
        return
    if copy.plan.dry_run:
        copy.report.count("files")
        copy.report.count("bytes", file.size or 0)
        return
    try:
        with closing(file.open()) as stream:
            size = copy.target.upload(place, owner, file.path, stream)
    except (InvalidInput, NotFound) as error:
        copy.lose("file", name, error.message.replace(file.path, "it"))
        return
    copy.report.count("files")
    copy.report.count("bytes", size)


def reserved(copy: Copy, of: str, key: str) -> bool:
    """Whether a tag's key is one that only this workspace may say; it is reported."""
    if key.startswith("everloop."):
        copy.lose("tag", f"{of}: {key}", "tags that begin with everloop. say what happened here")
        return True
    return False


def text_of(value: str) -> str:
    """A text that both databases can hold."""
    return value.replace("\x00", "\ufffd").encode("utf-8", "replace").decode()


def fitting(key: str) -> str:
    """A key that can be stored and logged to later: no control characters, 250 characters at most."""
    plain = _CONTROL.sub("_", key) or "_"
    if len(plain) > _KEY:
        plain = f"{plain[: _KEY - 17]}~{blake2b(key.encode('utf-8', 'replace'), digest_size=8).hexdigest()}"
    return plain


def _copy_run(copy: Copy, run: ImportedRun, experiment: str) -> None:
    plan, report = copy.plan, copy.report
    state = copy.target.call("imports.look", run=run.identity)
    if state.state == "complete" and state.stamp == run.stamp and run.stamp and not plan.again:
        report.count("runs unchanged")
        copy.runs[run.identity] = state.experiment
        return
    if state.state != "taken" and not plan.dry_run:
        parent = {"mlflow.parentRunId": run.parent} if run.parent else {}
        state = copy.target.call(
            "imports.open",
            run=run.identity,
            experiment=experiment,
            name=text_of(run.name)[:1000],
            start=min(max(run.start, 0), LATEST),
            tags=parent,
            kind=copy.source.kind,
            source=copy.source.label,
            source_id=run.id,
        )
    if state.state == "taken":
        copy.lose("run", run.name or run.id, "a run with its identity is here that is no import of it, or is deleted")
        return
    end = _Writer(copy, run, state.experiment or experiment, state.files).drain()
    if not plan.dry_run:
        copy.target.call("imports.close", run=run.identity, status=end.status, end=end.at, stamp=run.stamp)
        copy.runs[run.identity] = state.experiment or experiment
    report.count("runs" if state.state == "new" else "runs completed")


class _Writer:
    """Collects a run's contents and writes them in parts."""

    def __init__(self, copy: Copy, run: ImportedRun, experiment: str, held: Mapping[str, int]) -> None:
        self.copy, self.run, self.experiment, self.held = copy, run, experiment, held
        self.name = run.name or run.id
        self.params: dict[str, str] = {}
        self.tags: dict[str, str] = {}
        self.series: dict[str, list[tuple[int, int, float | str]]] = defaultdict(list)
        self.datasets: list[dict[str, Any]] = []
        self.links: list[dict[str, Any]] = []
        self.waiting = 0
        self.renamed: set[str] = set()

    def drain(self) -> End:
        """Take everything; returns how the run ended."""
        end = End("FINISHED", None)
        for item in self.run.contents():
            if isinstance(item, End):
                last = item.at if item.at is None or 0 <= item.at <= LATEST else None
                end = replace(item, at=last)
            else:
                self.take(item)
            if self.waiting >= _BATCH:
                self.flush()
        self.flush()
        return end

    def take(self, item: Item) -> None:
        """Collect one thing; files go at once."""
        report = self.copy.report
        if isinstance(item, Point):
            self._point(item)
        elif isinstance(item, Param):
            report.count("params")
            self.params.setdefault(self._key(item.key), text_of(item.value))
            self.waiting += 1
        elif isinstance(item, Tag):
            if not reserved(self.copy, self.name, item.key):
                report.count("tags")
                self.tags[self._key(item.key)] = text_of(item.value)
                self.waiting += 1
        elif isinstance(item, ImportedFile):
            if self.copy.plan.files:
                upload(self.copy, f"{self.experiment}/{self.run.identity}", self.run.identity, item, self.held)
        elif isinstance(item, DatasetInput):
            report.count("datasets")
            self.datasets.append(_dataset(item))
        elif isinstance(item, Link):
            self.links.append({"direction": item.direction, "model": item.model, "step": item.step})
        elif isinstance(item, Unmapped):
            report.lose(replace(item, name=f"{self.name}: {item.name}"))

    def flush(self) -> None:
        """Write what was collected; nothing in a dry run."""
        anything = self.params or self.tags or self.series or self.datasets or self.links
        if anything and not self.copy.plan.dry_run:
            series = [{"key": key, "points": rows} for key, rows in self.series.items()]
            refused = self.copy.target.call(
                "imports.write",
                run=self.run.identity,
                params=self.params,
                tags=self.tags,
                series=series,
                datasets=self.datasets,
                links=self.links,
            )
            for key in refused.params:
                self.copy.lose("param", f"{self.name}: {key}", "it is here with another value")
        self.params, self.tags, self.datasets, self.links = {}, {}, [], []
        self.series.clear()
        self.waiting = 0

    def _point(self, point: Point) -> None:
        if not 0 <= point.at <= LATEST or not -(2**63) <= point.step < 2**63:
            self.copy.lose("point", f"{self.name}: {point.key}", "its time or step is out of range")
            return
        self.copy.report.count("points")
        self.series[self._key(point.key)].append((point.step, point.at, number_of(point.value)))
        self.waiting += 1

    def _key(self, key: str) -> str:
        plain = fitting(key)
        if plain != key and key not in self.renamed:
            self.renamed.add(key)
            self.copy.lose("key", f"{self.name}: {key[:80]!r}", f"renamed: at most {_KEY} characters, none of control")
        return plain


def number_of(value: float) -> float | str:
    """A number, as JSON can say it."""
    if value != value:  # noqa: PLR0124 - NaN
        return "NaN"
    return value if abs(value) != float("inf") else ("Infinity" if value > 0 else "-Infinity")


def _dataset(item: DatasetInput) -> dict[str, Any]:
    return {
        "name": text_of(item.name)[:500],
        "digest": text_of(item.digest)[:36],
        "source_type": text_of(item.source_type),
        "source": text_of(item.source),
        "schema_text": None if item.schema is None else text_of(item.schema),
        "profile": None if item.profile is None else text_of(item.profile),
        "tags": {text_of(key): text_of(value) for key, value in item.tags.items()},
    }
