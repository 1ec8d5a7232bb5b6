"""Reads an MLflow tracking server over HTTP, its database, or its file store, with the installed mlflow client.

A database is not written to: SQLite is read from a snapshot (which may be older than the client: the snapshot is
upgraded, never the database), PostgreSQL in sessions that can only read. Artifacts that a tracking server proxies are
fetched through it; every other place must lie below one of the given roots, so that a server cannot name files of this
machine, or addresses of its network, that nobody asked for.
"""

import math
import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO
from urllib.parse import unquote, urlsplit

from mlflow import MlflowClient
from mlflow.entities import ViewType
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from everloop.catalog.engine import snapshot
from everloop.catalog.tracking.artifacts import checked_path
from everloop.catalog.tracking.rows import DatasetInput, Point
from everloop.core.clock import Micros
from everloop.core.errors import EverloopError, InvalidInput, NotFound, Unavailable
from everloop.models.importing.sources.folders import files_below, inside
from everloop.models.importing.sources.mlflow_names import read_names
from everloop.models.importing.values import (
    End,
    ImportedExperiment,
    ImportedFile,
    ImportedModel,
    ImportedName,
    ImportedRun,
    Item,
    Link,
    Param,
    Selection,
    Tag,
    Unmapped,
    identity_of,
    stamp_of,
)

_PAGE = 1000
_POINTS = 20_000
_DEPTH = 64
_HEX = frozenset("0123456789abcdef")


@dataclass(slots=True)
class MlflowSource:
    """An opened tracking store. `roots` are the places (folders, `s3://bucket/path`) that artifacts may lie in."""

    client: Any
    label: str
    uri: str
    proxied: bool
    """Whether a tracking server serves `mlflow-artifacts:`."""
    roots: Sequence[str]
    scratch: Path
    cleanup: Callable[[], None] = lambda: None
    kind: str = "mlflow"

    def experiments(self, selection: Selection) -> Iterator[ImportedExperiment | Unmapped]:
        """Active experiments, the oldest first."""
        found = _pages(lambda token: self.client.search_experiments(ViewType.ALL, _PAGE, page_token=token))
        for one in sorted(found, key=lambda one: (one.creation_time or 0, one.experiment_id)):
            if not selection.wants_experiment(one.name, one.experiment_id):
                continue
            if one.lifecycle_stage != "active":
                yield Unmapped("experiment", one.name, "it is deleted in the source")
                continue
            yield ImportedExperiment(one.experiment_id, one.name, dict(one.tags))
            if self._has_traces(one.experiment_id):
                yield Unmapped("traces", one.name, "traces are not imported")

    def runs(self, experiment: ImportedExperiment, selection: Selection) -> Iterator[ImportedRun | Unmapped]:
        """Runs in the order of their start."""
        order = ["attributes.start_time ASC"]
        found = _pages(
            lambda token: self.client.search_runs([experiment.id], "", ViewType.ALL, _PAGE // 10, order, token)
        )
        for run in found:
            info = run.info
            if not selection.wants_run(info.run_name or "", info.run_id):
                continue
            if info.lifecycle_stage != "active":
                yield Unmapped("run", info.run_name or info.run_id, "it is deleted in the source")
                continue
            yield self._run(run)

    def models(self, experiment: ImportedExperiment) -> Iterator[ImportedModel | Unmapped]:
        """Logged models; a server or store before MLflow 3 has none."""
        try:
            search = self.client.search_logged_models
            yield from map(self._model, _pages(lambda token: search([experiment.id], max_results=50, page_token=token)))
        except (AttributeError, Unavailable, NotFound, InvalidInput):
            return

    def names(self) -> Iterator[ImportedName | Unmapped]:
        """Registered models with versions and aliases."""
        yield from read_names(self.client, self.identity)

    def close(self) -> None:
        """Remove the snapshot."""
        self.cleanup()

    def identity(self, run: str) -> str:
        """A run's identity: its own where it is of MLflow's form, so that `runs:/` addresses go on to hold."""
        return run if len(run) == 32 and _HEX.issuperset(run) else identity_of("mlflow", run)

    def _run(self, run: Any) -> ImportedRun:
        info, data = run.info, run.data
        newest = sorted((one.key, one.step, one.timestamp, str(one.value)) for one in data._metric_objs)  # noqa: SLF001
        tags = sorted((key, value) for key, value in data.tags.items() if not key.startswith("everloop."))
        identity = self.identity(info.run_id)
        return ImportedRun(
            id=info.run_id,
            identity=identity,
            name=info.run_name or data.tags.get("mlflow.runName", ""),
            start=_micros(info.start_time),
            contents=lambda: self._contents(run),
            parent=self.identity(parent) if (parent := data.tags.get("mlflow.parentRunId")) else "",
            stamp=stamp_of(info.status, info.end_time, newest, sorted(data.params.items()), tags),
        )

    def _contents(self, run: Any) -> Iterator[Item]:
        info, data = run.info, run.data
        yield from (Param(key, value) for key, value in sorted(data.params.items()))
        skipped = {"mlflow.runName", "mlflow.parentRunId"}
        yield from (Tag(key, value) for key, value in sorted(data.tags.items()) if key not in skipped)
        if info.user_id and "mlflow.user" not in data.tags:
            yield Tag("mlflow.user", info.user_id)
        yield from _inputs(run)
        for key in sorted(data.metrics):
            yield from self._history(info.run_id, key)
        yield from self._files(info.artifact_uri, info.run_name or info.run_id)
        yield End(info.status, None if info.end_time is None else _micros(info.end_time))

    def _history(self, run: str, key: str) -> Iterator[Point]:
        store = self.client._tracking_client.store  # noqa: SLF001 - the client itself reads a history whole
        for one in _pages(lambda token: store.get_metric_history(run, key, _POINTS, token)):
            yield Point(one.key, _value(one.value), _micros(one.timestamp), one.step)

    def _model(self, model: Any) -> ImportedModel | Unmapped:
        identity = model.model_id
        if len(identity) != 34 or not identity.startswith("m-") or not _HEX.issuperset(identity[2:]):
            return Unmapped("logged model", model.name, "its id is of another form than m- and 32 hexadecimal digits")
        return ImportedModel(
            identity=identity,
            name=model.name,
            type=model.model_type or "",
            run=self.identity(model.source_run_id) if model.source_run_id else "",
            status={"READY": "LOGGED_MODEL_READY", "PENDING": "LOGGED_MODEL_PENDING"}.get(
                model.status.value, "LOGGED_MODEL_UPLOAD_FAILED"
            ),
            created=_micros(model.creation_timestamp),
            params=dict(model.params or {}),
            tags=dict(model.tags or {}),
            metrics=tuple(
                Point(
                    one.key,
                    _value(one.value),
                    _micros(one.timestamp),
                    one.step,
                    identity,
                    one.dataset_name or "",
                    one.dataset_digest or "",
                    self.identity(one.run_id),
                )
                for one in model.metrics or ()
                if one.run_id
            ),
            files=lambda: self._files(model.artifact_location, model.name),
        )

    def _files(self, uri: str, of: str) -> Iterator[ImportedFile | Unmapped]:
        place = self._place(uri)
        if place is None:
            hint = "its artifacts lie outside of the artifact roots: name them by --artifacts"
            yield Unmapped("artifacts", f"{of}: {uri}", hint)
        elif isinstance(place, Path):
            if place.is_dir():
                yield from files_below(place)
        else:
            repository = get_artifact_repository(place, tracking_uri=self.uri)
            yield from self._listed(repository, "", 0, of)

    def _place(self, uri: str) -> Path | str | None:
        """A folder of this machine, an address to fetch from, or None when it may not be read."""
        parts = urlsplit(uri)
        if parts.scheme == "mlflow-artifacts":
            if self.proxied:
                return uri
            below = unquote(parts.path).strip("/")
            folders = [Path(root) / below for root in self.roots if "://" not in root]
            return next((one for one in folders if one.is_dir() and self._allowed(one)), None)
        if parts.scheme in {"", "file"}:
            folder = Path(unquote(parts.path) if parts.scheme else uri)
            return folder if folder.is_absolute() and self._allowed(folder) else None
        remote = [root.rstrip("/") for root in self.roots if "://" in root]
        safe = ".." not in unquote(parts.path).split("/")
        return uri if safe and any(uri == root or uri.startswith(root + "/") for root in remote) else None

    def _allowed(self, folder: Path) -> bool:
        return any(inside(Path(root), folder) for root in self.roots if "://" not in root)

    def _listed(self, repository: Any, path: str, depth: int, of: str) -> Iterator[ImportedFile | Unmapped]:
        try:
            found = repository.list_artifacts(path or None)
        except MlflowException as error:
            yield Unmapped("artifacts", f"{of}: {path or '.'}", f"the source does not list them: {_said(error)}")
            return
        for one in sorted(found, key=lambda one: one.path):
            if one.is_dir and depth < _DEPTH and one.path.startswith(f"{path}/" if path else ""):
                yield from self._listed(repository, one.path, depth + 1, of)
            elif one.is_dir:
                yield Unmapped("artifacts", f"{of}: {one.path}", "folders in folders too deep")
            else:
                yield ImportedFile(one.path, self._fetch(repository, one.path), one.file_size)

    def _fetch(self, repository: Any, path: str) -> Callable[[], BinaryIO]:
        def fetch() -> BinaryIO:
            checked_path(path)
            local = self.scratch / "artifact"
            local.unlink(missing_ok=True)
            try:
                repository._download_file(path, str(local))  # noqa: SLF001 - the public one lists its folder first
                stream = local.open("rb")
            except (MlflowException, OSError) as error:
                raise NotFound(f"{path} cannot be fetched: {_said(error)}", hint="is it in the source?") from error
            local.unlink()  # the stream keeps the bytes
            return stream

        return fetch

    def _has_traces(self, experiment: str) -> bool:
        with suppress(MlflowException, TypeError, AttributeError, ValueError):
            return bool(self.client.search_traces(locations=[experiment], max_results=1, include_spans=False))
        return False


def open_mlflow(uri: str, roots: Sequence[str] = ()) -> MlflowSource:
    """Open a server (`http://…`), a database (`sqlite:///…`, `postgresql://…`) or a file store (a folder).

    Raises `NotFound`, `Unavailable`, `InvalidInput`.
    """
    with ExitStack() as undone:
        scratch = TemporaryDirectory(prefix="everloop-import-", ignore_cleanup_errors=True)
        undone.callback(scratch.cleanup)
        source = _opened(uri, list(roots), scratch)
        undone.pop_all()
    return source


def _opened(uri: str, roots: list[str], scratch: "TemporaryDirectory[str]") -> MlflowSource:
    parts = urlsplit(uri)
    label, address, proxied = _label(uri), uri, parts.scheme in {"http", "https"}
    if parts.scheme == "sqlite":
        database, copy = Path(unquote(uri.removeprefix("sqlite:///"))), Path(scratch.name) / "snapshot.db"
        snapshot(database, copy, holding="latest_metrics")
        address = f"sqlite:///{copy}"
        beside = database.resolve().parent
        label, roots = f"sqlite:///{database.resolve()}", roots or [str(beside / "mlruns"), str(beside / "mlartifacts")]
    elif parts.scheme.startswith("postgres"):
        address = "postgresql+psycopg" + uri[len(parts.scheme) :]
        address += ("&" if parts.query else "?") + "options=-c%20default_transaction_read_only%3Don"
    elif parts.scheme in {"", "file"}:
        folder = Path(unquote(parts.path) if parts.scheme else uri).resolve()
        if not folder.is_dir():
            raise NotFound(f"there is no folder {folder}", hint="a tracking server's URL, a database URL, or a folder")
        if not any(True for _ in folder.glob("*/meta.yaml")):
            raise InvalidInput(f"{folder} is no file store of MLflow", hint="the folder mlruns: <experiment>/meta.yaml")
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # newer clients refuse file stores unless told
        label, address, roots = str(folder), folder.as_uri(), roots or [str(folder)]
    elif not proxied:
        raise InvalidInput(f"{label} is no MLflow store", hint="http(s)://, sqlite:///, postgresql:// or a folder")
    client = _client(address, own=parts.scheme == "sqlite")
    return MlflowSource(client, label, address, proxied, roots, Path(scratch.name), scratch.cleanup)


def _client(address: str, *, own: bool) -> Any:
    """The client of a store that answers; a snapshot of `own` may be brought to the client's schema first."""

    def reach() -> Any:
        client = MlflowClient(address, registry_uri=address)
        client.search_experiments(ViewType.ALL, 1)
        return client

    try:
        return _quiet(reach)
    except MlflowException as error:
        if not own or "out-of-date" not in str(error):
            raise _told(error) from error
    except Exception as error:  # of the database's libraries: they say so when its schema is of another mlflow
        raise InvalidInput(
            f"the database cannot be read: its schema is newer than the installed mlflow, or older ({_said(error)})",
            hint="install the mlflow that wrote it, or import from its server",
        ) from error
    line = [sys.executable, "-m", "mlflow", "db", "upgrade", address]
    done = subprocess.run(line, capture_output=True, text=True, check=False)  # noqa: S603 - no shell, our own snapshot
    if done.returncode:
        raise InvalidInput(
            "the database's schema is neither the client's nor older", hint="install the mlflow that wrote it"
        )
    return _reading(reach)


def _pages(page: Callable[[str | None], Any]) -> Iterator[Any]:
    token = None
    while True:
        found = _reading(partial(page, token))
        yield from found
        following = getattr(found, "token", None)
        if not following or following == token:
            return
        token = following


def _reading(ask: Callable[[], Any]) -> Any:
    """The client's answer, its errors as ours."""
    try:
        return _quiet(ask)
    except MlflowException as error:
        raise _told(error) from error


def _quiet(ask: Callable[[], Any]) -> Any:
    """Ask without the warnings that the client's own use of its libraries raises; nobody here can change that."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ask()


def _told(error: MlflowException) -> EverloopError:
    code = getattr(error, "error_code", "")
    if code in {"RESOURCE_DOES_NOT_EXIST", "ENDPOINT_NOT_FOUND"}:
        return NotFound(f"the source answers: {_said(error)}", hint="is it an MLflow tracking server?")
    if code in {"INVALID_PARAMETER_VALUE", "BAD_REQUEST", "NOT_IMPLEMENTED"}:
        return InvalidInput(f"the source answers: {_said(error)}", hint="is its MLflow much older than the client?")
    return Unavailable(f"the source does not answer: {_said(error)}", hint="start the import again; it goes on")


def _said(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:300]


def _inputs(run: Any) -> Iterator[Item]:
    for one in getattr(run.inputs, "dataset_inputs", None) or ():
        about = one.dataset
        tags = {tag.key: tag.value for tag in one.tags or ()}
        yield DatasetInput(about.name, about.digest, about.source_type, about.source, about.schema, about.profile, tags)
    for one in getattr(run.inputs, "model_inputs", None) or ():
        yield Link("in", one.model_id)
    for one in getattr(getattr(run, "outputs", None), "model_outputs", None) or ():
        yield Link("out", one.model_id, one.step)


def _value(stored: float) -> float:
    """A metric's value: MLflow's databases keep an infinity as the largest double."""
    return math.copysign(math.inf, stored) if abs(stored) == sys.float_info.max else stored


def _micros(millis: int | None) -> Micros:
    return int(millis or 0) * 1000


def _label(uri: str) -> str:
    """The address without user and password."""
    parts = urlsplit(uri)
    if not parts.netloc:
        return uri
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()
