"""What every reader gives: experiments, runs with their contents as one stream, logged and registered models.

A reader never holds a run's contents: they are pulled piece by piece, each a frozen value, and points and files come
one at a time. What has no place here comes as `Unmapped`, in the same stream, and ends in the report.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import BinaryIO, Protocol

from blake3 import blake3

from everloop.catalog.tracking.rows import DatasetInput, Point
from everloop.core.clock import Micros


@dataclass(frozen=True, slots=True)
class Unmapped:
    """Something of the source that is not brought over: what kind of thing, which one, and why."""

    kind: str
    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Param:
    """A parameter; the writer keeps the first value."""

    key: str
    value: str


@dataclass(frozen=True, slots=True)
class Tag:
    """A tag."""

    key: str
    value: str


@dataclass(frozen=True, slots=True)
class Link:
    """A logged model that a run read (`in`) or wrote (`out`)."""

    direction: str
    model: str
    step: int = 0


@dataclass(frozen=True, slots=True)
class ImportedFile:
    """A file: its path below the run or model, its size where the source says it, and how to read it once."""

    path: str
    open: Callable[[], BinaryIO]
    """Gives a stream that the writer closes; raises `NotFound`, `InvalidInput`."""
    size: int | None = None


@dataclass(frozen=True, slots=True)
class End:
    """How and when the run ended; None when the source does not say when."""

    status: str
    at: Micros | None


Item = Param | Tag | Point | DatasetInput | Link | ImportedFile | End | Unmapped


@dataclass(frozen=True, slots=True)
class ImportedExperiment:
    """A group of runs. `id` is the source's own."""

    id: str
    name: str
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ImportedRun:
    """A run, without its contents, which `contents` reads from the start each time it is called."""

    id: str
    """As the source knows it."""
    identity: str
    """As it will be known here, 32 hexadecimal digits: the same whenever and from wherever it is imported."""
    name: str
    start: Micros
    contents: Callable[[], Iterator[Item]]
    parent: str = ""
    """`identity` of the run that this one is nested in."""
    stamp: str = ""
    """Changes when the run changes in the source; the same stamp as last time means that nothing is to be read."""


@dataclass(frozen=True, slots=True)
class ImportedModel:
    """A logged model (MLflow 3)."""

    identity: str
    name: str
    type: str
    run: str
    status: str
    created: Micros
    params: Mapping[str, str]
    tags: Mapping[str, str]
    metrics: tuple[Point, ...]
    """Measures of it; `Point.run` is the run that measured."""
    files: Callable[[], Iterator[ImportedFile | Unmapped]]


@dataclass(frozen=True, slots=True)
class ImportedVersion:
    """A numbered version of a registered model."""

    number: int
    created: Micros
    description: str
    stage: str
    source: str
    run: str
    model: str
    owner: str
    """The run or logged model that holds its files; empty when they lie elsewhere."""
    path: str
    tags: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class ImportedName:
    """A registered model: its versions in the order of their numbers, and its aliases."""

    name: str
    created: Micros
    description: str
    tags: Mapping[str, str]
    versions: tuple[ImportedVersion, ...]
    aliases: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Selection:
    """Which experiments and runs are wanted: globs of names or ids; none means all."""

    experiments: tuple[str, ...] = ()
    runs: tuple[str, ...] = ()
    damaged: bool = False
    """Whether what can be read of a damaged run is wanted."""

    def wants_experiment(self, *known_as: str) -> bool:
        """Whether an experiment that goes by these names is wanted."""
        return _matches(self.experiments, known_as)

    def wants_run(self, *known_as: str) -> bool:
        """Whether a run that goes by these names is wanted."""
        return _matches(self.runs, known_as)


class Source(Protocol):
    """A reader of one source, opened."""

    kind: str
    """`mlflow`, `tensorboard`, `wandb` or `neptune`."""
    label: str
    """Where it is, for people; without secrets."""

    def experiments(self, selection: Selection) -> Iterator[ImportedExperiment | Unmapped]:
        """The experiments that are wanted."""
        ...

    def runs(self, experiment: ImportedExperiment, selection: Selection) -> Iterator[ImportedRun | Unmapped]:
        """The wanted runs of one of them, a parent before its children where the source knows."""
        ...

    def models(self, experiment: ImportedExperiment) -> Iterator[ImportedModel | Unmapped]:
        """Its logged models."""
        ...

    def names(self) -> Iterator[ImportedName | Unmapped]:
        """The registered models."""
        ...

    def close(self) -> None:
        """Give back what was opened."""
        ...


def identity_of(kind: str, *parts: str) -> str:
    """A run's identity here, made from what identifies it in the source."""
    return blake3("\x00".join((kind, *parts)).encode("utf-8", "surrogatepass")).hexdigest()[:32]


def stamp_of(*parts: object) -> str:
    """A short digest of what changes when a run changes."""
    return blake3(repr(parts).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _matches(globs: tuple[str, ...], known_as: tuple[str, ...]) -> bool:
    return not globs or any(fnmatchcase(name, glob) for glob in globs for name in known_as)
