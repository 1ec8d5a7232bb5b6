"""The values of tracking, as they come out of the catalog. Times are microseconds."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Generic, Literal, TypeVar

from everloop.core.clock import Micros

Row = TypeVar("Row")
Stage = Literal["active", "deleted"]
View = Literal["active", "deleted", "all"]
"""Which rows a search shows."""

STATUSES = ("RUNNING", "SCHEDULED", "FINISHED", "FAILED", "KILLED")
MODEL_STATUSES = ("LOGGED_MODEL_PENDING", "LOGGED_MODEL_READY", "LOGGED_MODEL_UPLOAD_FAILED")


@dataclass(frozen=True, slots=True)
class Page(Generic[Row]):
    """Some rows of a search, and the opaque token of the next page; empty when this was the last."""

    rows: tuple[Row, ...]
    token: str = ""


@dataclass(frozen=True, slots=True)
class Experiment:
    """A named group of runs; its id is a small integer that counts up in the project."""

    id: str
    name: str
    artifact_uri: str
    stage: str
    created: Micros
    updated: Micros
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Point:
    """One measured value; NaN and the infinities are values like any other."""

    key: str
    value: float
    at: Micros
    step: int = 0
    model: str = ""
    """The logged model that was measured, when one was named."""
    dataset: str = ""
    digest: str = ""
    run: str = ""

    @property
    def rank(self) -> tuple[int, Micros, int, float]:
        """The newest point of a series is the one of the highest rank: step, then time, then value; NaN is least."""
        return (self.step, self.at, 0 if math.isnan(self.value) else 1, self.stored)

    @property
    def stored(self) -> float:
        """The value as the database holds it: 0 for NaN."""
        return 0.0 if math.isnan(self.value) else self.value


@dataclass(frozen=True, slots=True)
class DatasetInput:
    """A dataset that a run read, as the client described it."""

    name: str
    digest: str
    source_type: str
    source: str
    schema: str | None = None
    profile: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ModelLink:
    """A logged model that a run read or wrote."""

    model: str
    step: int = 0


@dataclass(frozen=True, slots=True)
class Run:
    """A run: a mutable row. `metrics` holds the newest point of each series."""

    number: int
    """The catalog's own key of the row."""
    id: str
    experiment: str
    name: str
    status: str
    actor: str
    stage: str
    start: Micros
    end: Micros | None
    artifact_uri: str
    params: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    metrics: tuple[Point, ...] = ()
    datasets: tuple[DatasetInput, ...] = ()
    models_in: tuple[ModelLink, ...] = ()
    models_out: tuple[ModelLink, ...] = ()


@dataclass(frozen=True, slots=True)
class Artifact:
    """A file of a run, model or experiment, or a directory of them (`object` is then empty)."""

    path: str
    object: str
    size: int

    @property
    def is_directory(self) -> bool:
        """Whether this stands for the files below `path`."""
        return not self.object


@dataclass(frozen=True, slots=True)
class LoggedModel:
    """A model that a run logged; `id` is `m-` and 32 hexadecimal digits."""

    number: int
    id: str
    experiment: str
    name: str
    type: str
    run: str
    status: str
    created: Micros
    updated: Micros
    artifact_uri: str
    params: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    metrics: tuple[Point, ...] = ()
    registrations: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class RegisteredVersion:
    """A numbered version of a registered model, with what people say about it."""

    name: str
    number: int
    version: str
    source: str
    run: str
    model: str
    run_link: str
    description: str
    stage: str
    actor: str
    created: Micros
    updated: Micros
    tags: Mapping[str, str] = field(default_factory=dict)
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RegisteredModel:
    """A name under which model versions are numbered; `asset` is that name as the catalog's versions bear it."""

    name: str
    asset: str
    description: str
    actor: str
    created: Micros
    updated: Micros
    tags: Mapping[str, str] = field(default_factory=dict)
    aliases: Mapping[str, int] = field(default_factory=dict)
    latest: tuple[RegisteredVersion, ...] = ()
