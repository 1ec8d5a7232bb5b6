"""The seams: where a lower package needs a higher one, or a third party joins in by entry point.

Each Protocol has at most five methods and a conformance suite in `everloop.testing`.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Protocol, TypeVar, runtime_checkable

from everloop.core.clock import Micros
from everloop.core.version import Version

Result = TypeVar("Result")


class Blobs(Protocol):
    """Content-addressed bytes. `put` is atomic and idempotent; `get` verifies."""

    def put(self, content: bytes) -> str:
        """Store bytes and return their id; raises `StorageFull`."""
        ...

    def put_file(self, path: Path, *, move: bool = False, known: str = "") -> str:
        """Store a file's bytes (moved where that is safe) and return their id; `known` to who hashed what moves."""
        ...

    def get(self, identity: str) -> bytes:
        """The bytes; raises `NotFound` or `CorruptObject`."""
        ...

    def open(self, identity: str) -> BinaryIO:
        """A read stream, for objects too large to hold; the caller closes it."""
        ...

    def has(self, identity: str) -> bool:
        """Whether the object is here."""
        ...


@dataclass(frozen=True, slots=True)
class Saved:
    """What a codec made of a value: the version to record, whose objects are stored already."""

    version: Version
    metrics: Mapping[str, float] = field(default_factory=dict)
    placements: Mapping[str, str] = field(default_factory=dict)
    """For tables: logical id of each new part -> the object that holds its bytes now."""
    rests: Mapping[str, str] = field(default_factory=dict)
    """For tables: new objects that are layers -> the object that each rests on."""


class Codec(Protocol):
    """Turns the Python value that a step returns into a version, and back."""

    def save(self, value: Any, name: str, blobs: Blobs, facts: Mapping[str, Any]) -> Saved:
        """Store the value's bytes; `facts` is what the step knows (inputs, parameters, runtime id)."""
        ...

    def load(self, manifest: Mapping[str, Any], blobs: Blobs, placements: Mapping[str, str]) -> Any:
        """Rebuild the value; `placements` resolves the logical ids of a table's parts."""
        ...


@dataclass(frozen=True, slots=True)
class Resources:
    """What a step may use. Memory in bytes, time in seconds; None means no limit."""

    cores: float = 1.0
    memory: int | None = None
    seconds: float | None = None
    gpus: float = 0.0

    @property
    def limited(self) -> bool:
        """Whether there is a limit that only a process of its own can be held to."""
        return self.memory is not None or self.seconds is not None


@dataclass(frozen=True, slots=True)
class Job:
    """One step for an executor: where the code is, what goes in, what it may use."""

    step: str
    """The asset's key, `kind/name`."""
    root: Path
    """The project's folder, put first on the module path."""
    module: str
    """The module that defines the project."""
    inputs: Mapping[str, str]
    """Version id for each parameter that names an upstream asset."""
    manifests: Mapping[str, Mapping[str, Any]]
    """The manifest of every input id."""
    placements: Mapping[str, str]
    """Object id of every logical part that the inputs name."""
    params: Mapping[str, Any]
    blobs: str
    """Where the objects are, as a URL."""
    env: Mapping[str, str] = field(default_factory=dict)
    """Environment variables of the step, and no others of ours: tracking address, scoped token, threads."""
    resources: Resources = field(default_factory=Resources)
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What the codec is told: run, runtime, code, service; JSON-ready."""
    codecs: Mapping[str, str] = field(default_factory=dict)
    """`module:attribute` of the codec of each kind of version that goes in or comes out."""
    recipe: str = ""
    """The recipe key, from which random generators are seeded."""


@dataclass(frozen=True, slots=True)
class Use:
    """What something used: seconds of the clock, of CPUs (with all that it started) and of GPUs, bytes."""

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_memory: int = 0
    gpu_seconds: float = 0.0
    """GPUs held times the seconds that they were held."""
    written: int = 0
    """Bytes that it had the system write to storage."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came out of a step: its saved output, what was measured, the tail of what it printed."""

    saved: Saved
    seconds: float
    cpu_seconds: float
    peak_memory: int
    output: str = ""
    reads: Mapping[str, str] = field(default_factory=dict)
    """What the step read that its code does not say, with digests (see `flows.witness`)."""
    seen: Mapping[str, Any] = field(default_factory=dict)
    """The code and the runtime as the step's process saw them, where its job asked for that (`facts["describe"]`)."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line that a step or run printed."""

    at: Micros
    stream: str
    """`out` or `err`."""
    text: str
    """Without the end of the line."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What was measured of a run at one moment, by name."""

    at: Micros
    step: int
    values: Mapping[str, float]


class Observer(Protocol):
    """Is told what a step's process does while it runs, from the executor's threads; never raises."""

    shows: bool
    """Whether it shows people what the step prints, so that the executor need not."""

    def began(self, pid: int) -> None:
        """The step runs in this process of this machine."""
        ...

    def wrote(self, stream: str, text: str) -> None:
        """The step printed to `out` or `err`; `text` may be any part of a line, or several lines."""
        ...

    def used(self, use: Use) -> None:
        """What the step used in all, as its own process counted; not told of one that was killed."""
        ...


class Executor(Protocol):
    """Runs one job somewhere; blocks until it ends."""

    def run(self, job: Job, observer: Observer | None = None) -> Outcome:
        """Run it; raises `StepFailed` with the end of the traceback, or `Unavailable` when its place died."""
        ...

    def close(self) -> None:
        """End children and free resources."""
        ...


class OnlineStore(Protocol):
    """Packed feature values: a `space` is (project, environment, view version id), keys and values are bytes."""

    def read(self, wanted: Sequence[tuple[str, Sequence[bytes]]]) -> list[list[bytes | None]]:
        """The values of some keys of each space, in one round trip; None where there is none."""
        ...

    def write(self, space: str, items: Iterable[tuple[bytes, bytes]]) -> None:
        """Replace values, all or none; an empty value removes its key."""
        ...

    def atomically(self, act: Callable[[], Result]) -> Result:
        """Run `act`, perhaps more than once; its reads and writes of this store happen as one."""
        ...

    def drop(self, space: str) -> None:
        """Forget a space."""
        ...

    def forget(self, spaces: Collection[str], wanted: Callable[[bytes], bool]) -> int:
        """Remove the keys of some spaces that are `wanted`, from the disk too. Returns how many."""
        ...


class Erasable(Protocol):
    """A place beside the tables that may hold a subject's key: the prediction log, the online store."""

    place: str
    """Its name in receipts."""

    def erase(self, key: str) -> int:
        """Remove what it holds of the subject, from the disk too; doing it again changes nothing. Returns how much."""
        ...


@runtime_checkable
class Leaving(Protocol):
    """An `Erasable` that may have to leave something, and says what and why: receipts list it."""

    def left(self) -> Sequence[str]:
        """What the newest `erase` left, in words that name nobody."""
        ...


class Source(Protocol):
    """Where rows come from. `state` fingerprints the input so that unchanged input is not read again."""

    def state(self) -> Mapping[str, Any]:
        """A cheap fingerprint (canonical-JSON-ready) of what a read would return now."""
        ...

    def read(self) -> Iterator[Any]:
        """Arrow record batches of one schema; raises `DataError` with file and line where it can."""
        ...


class Notifier(Protocol):
    """Tells somebody outside about a fact."""

    def notify(self, subject: str, text: str, facts: Mapping[str, Any]) -> None:
        """Send it; raises `Unavailable` when the other side does not take it."""
        ...


class RunSink(Protocol):
    """Where a step's run is recorded."""

    def start(self, step: str, params: Mapping[str, Any], tags: Mapping[str, str]) -> str:
        """Open a run and return its id."""
        ...

    def log(self, run: str, samples: Sequence[Sample]) -> None:
        """Add measurements to a run."""
        ...

    def write(self, owner: str, lines: Sequence[Line], *, first: bool = False, last: bool = False) -> None:
        """Add to the console output of a run, or of a step without one (its recipe).

        `first`: what was there before is forgotten; `last`: nothing will follow.
        """
        ...

    def finish(
        self,
        run: str,
        *,
        status: str,
        metrics: Mapping[str, float],
        tags: Mapping[str, str] | None = None,
        tx: Any = None,
    ) -> None:
        """Close it with `FINISHED`, `FAILED` or `KILLED`; as a part of the transaction `tx` when there is one."""
        ...
