"""The routing table: what a gateway serves, immutable and signed.

The controller writes it (`home/serving/routes.json`, a DSSE envelope), gateways verify it at load and
refuse one that is unsigned, foreign, or older than the one that they serve.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import msgspec

from everloop.core.errors import CorruptObject, InvalidInput, NotFound
from everloop.core.ids import manifest_id
from everloop.core.signing import SigningKey, VerifyKey
from everloop.serving.columns import Layout

PREDICATE = "https://everloop.dev/routes/v1"
LOADER = "everloop.models.compiled.loader:load"
INLINE = "everloop.models.compiled.loader:load_compiled"
"""Of a verified compiled model that the gateway may ask inside its own process."""
PLACES = 10_000
"""Into which keys are hashed."""


class Lookup(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a gateway needs to read features: manifests of the service and its views, and where they lie."""

    name: str
    """Of whose look-up it is, for messages."""
    service: dict[str, Any]
    """Its manifest."""
    views: dict[str, dict[str, Any]]
    """Manifests of the views that it pins, by id."""
    scope: str
    """`<project>/<environment>`: whose states they are; the environment's binding says in which online store."""
    keys: list[str]
    """Entity key columns that the caller sends."""
    fresh_micros: int = 0
    """How far a view's watermark may lag behind the question; 0 means no bound."""
    stale: str = "fail"
    """What happens then, and when a view was never filled: `fail`, `default` or `serve`."""
    types: dict[str, str] = {}
    """`INT64` or `BYTES` of the keys, as the environment's data has them; without data a key is left out."""


class Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one worker of a graph runs: a model, or a function of the project."""

    folder: str
    loader: str
    inputs: list[list[str]]
    """`[name, datatype]` of what it is asked with, in order."""
    example: dict[str, list[Any]]
    nullable: list[str] = []
    budget_micros: int = 50_000
    """How long a batch of several requests may take, as far as past ones tell; an explanation, how long it may take."""
    steps: list["Part"] = []
    """Of fused steps (`graph.fusing`): each of them as it would run alone, the model last; `inputs` are of all."""
    needs: dict[str, int] = {}
    """Of each process, where it is not the usual: thousandths of `cores` (1000) and `gpus` (0), bytes of `memory`."""
    environment: str = ""
    """Names the Python environment of its processes; empty: the gateway's own."""
    sealed: str = ""
    """The digest of the folder's files (`sealing.files`); a worker loads no others. Empty: any."""


class Explainer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a revision's answers are explained."""

    part: Part
    columns: list[str]
    """The model's inputs, in the order of the explanation's values."""
    rows: int
    """Of one request, at most."""


class Revision(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One live revision of an endpoint."""

    id: str
    number: int
    weight: int
    """Percent of the traffic; 0 keeps it warm for fallback and rollback."""
    model: str
    folder: str
    """Where the model's files are on this machine."""
    inputs: list[list[str]]
    """The model's inputs: `[name, datatype]` in order."""
    caller: list[list[str]]
    """What the caller sends: entity keys and request columns, or the model's inputs."""
    example: dict[str, list[Any]]
    """Columns of the model's inputs to warm up on; empty means made up from the datatypes."""
    lookup: Lookup | None = None
    shadow_ppm: int = 0
    """Of a million questions, how many it gets a copy of; callers never see these answers."""
    nullable: list[str] = []
    """Inputs that may be null though their datatype cannot say it: a column `<name>?null` among `inputs` does."""
    loader: str = LOADER
    """`module:function` that loads the folder into a predictor."""
    graph: dict[str, Any] | None = None
    """The endpoint's graph; None stands for what `lookup` and the model say alone."""
    explainer: Explainer | None = None
    parts: dict[str, Part] = {}
    """Of a graph that is more than a line: what its workers run, by `model <role>` or `transform <name>`."""
    needs: dict[str, int] = {}
    """Of a line: what each process of its model needs."""
    environment: str = ""
    """Of a line: the Python environment of its model's processes."""
    sealed: str = ""
    """Of a line: the digest of its model's files."""

    @property
    def workers(self) -> dict[str, Part]:
        """What must run for this revision."""
        more: dict[str, Any] = {"needs": self.needs, "environment": self.environment, "sealed": self.sealed}
        return self.parts or {"": Part(self.folder, self.loader, self.inputs, self.example, self.nullable, **more)}


class Split(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which keys meet which revision while champion and challengers are compared."""

    salt: str
    key: str
    """The column of the request whose first row's value is the key; empty: what callers stick by."""
    champion: str
    slots: list[tuple[int, str]]
    """(up to a place of 10,000, revision): a key's place is its hash with the salt."""


class Instead(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One way to answer when the chosen revision did not."""

    kind: str
    """previous, simpler, cached, default."""
    revision: str = ""
    """Of the simpler graph."""
    ttl_micros: int = 0
    most: int = 0
    """Of the cache: rows that are kept."""
    values: list[list[Any]] = []
    """Of the default: [output, literal]."""


class Route(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One endpoint: its live revisions, the champion last."""

    project: str
    name: str
    revisions: list[Revision]
    fallback: str | None = "previous"
    full_disk: str = "refuse"
    deadline_micros: int = 10_000_000
    max_queue: int = 1024
    least: int = 1
    """Worker processes that each part has at least; 0: none while nobody asks."""
    most: int = 1
    idle_micros: int = 900_000_000
    shared: str = ""
    """Names the worker process that its parts share with those of other endpoints of the project; empty: none."""
    limits: dict[str, list[int]] = {}
    """`rate` and `quota` of one caller, each [requests, microseconds]."""
    tolerance: float = 0.01
    """Numbers that are no further apart count as equal when a shadow's answers are compared."""
    instead: list[Instead] = []
    """Ways to answer when the chosen revision did not, in their order; empty: as `fallback` says."""
    traced_ppm: int = 0
    """Of a million questions without a `traceparent`, how many are traced."""
    split: Split | None = None
    """Of an experiment; it deals keys instead of the weights."""

    @property
    def address(self) -> str:
        """`project.endpoint`, its name in the open protocol."""
        return f"{self.project}.{self.name}"

    def revision(self, spec: str) -> Revision:
        """The revision with this number, id or prefix of an id; raises `NotFound`."""
        for revision in self.revisions:
            if spec == str(revision.number) or (len(spec) >= 8 and spec in revision.id[: 3 + len(spec)]):
                return revision
        raise NotFound(
            f"{self.address} has no live revision {spec[:80]!r}",
            hint=f"GET /v2/models/{self.address} shows those that are live",
        )


class Service(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A feature service whose values anybody may look up who may ask the project's endpoints."""

    project: str
    name: str
    lookup: Lookup
    masked: list[str]
    """Features that carry a tag: their values are not given here."""


class Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Everything that a gateway serves."""

    sequence: int
    """Counts up with every table of a workspace."""
    environment: str
    routes: list[Route]
    replay: bool = False
    """Whether the header `Everloop-Time` sets event time."""
    tokens: dict[str, list[str]] = {}
    """SHA-256 of a token (hexadecimal) -> what it opens: `*`, projects, or endpoints as `project.name` (with globs)."""
    services: list[Service] = []
    explaining: list[str] = []
    """Digests of the tokens that may ask for explanations; on loopback everybody may."""

    def check(self) -> Self:
        """Return the table; raises `InvalidInput` when it contradicts itself."""
        seen: set[str] = set()
        for route in self.routes:
            if route.address in seen:
                raise InvalidInput(f"{route.address} is routed twice")
            seen.add(route.address)
            weights = [revision.weight for revision in route.revisions]
            if route.revisions and (sum(weights) != 100 or min(weights) < 0):
                raise InvalidInput(f"{route.address}: the weights {weights} do not make 100")
            if route.split is not None:
                known = {revision.id for revision in route.revisions}
                uptos = [upto for upto, _ in route.split.slots]
                met = {route.split.champion, *(revision for _, revision in route.split.slots)}
                if uptos != sorted(set(uptos)) or uptos[-1:] != [PLACES] or not met <= known:
                    raise InvalidInput(f"{route.address}: its experiment does not deal every key to a live revision")
            for revision in route.revisions:
                Layout.from_pairs(revision.inputs)
                Layout.from_pairs(revision.caller)
        return self


def same(a: Table, b: Table) -> bool:
    """Whether two tables say the same, their sequence aside."""
    return msgspec.structs.replace(a, sequence=0) == msgspec.structs.replace(b, sequence=0)


def encode(table: Table, key: SigningKey) -> bytes:
    """The signed envelope of a table."""
    predicate = msgspec.to_builtins(table.check())
    return json.dumps(key.sign(PREDICATE, {"routes": _digest(predicate)}, predicate), indent=1).encode()


def _digest(predicate: Mapping[str, Any]) -> str:
    """Examples may hold floats, which canonical JSON has not: they are hashed as text."""
    return manifest_id({"table": json.dumps(predicate, sort_keys=True)})


def decode(content: bytes, key: VerifyKey) -> Table:
    """Verify and read a table; raises `CorruptObject` when it is unsigned, foreign or malformed."""
    try:
        envelope = json.loads(content)
    except ValueError as error:
        raise CorruptObject("the routing table is not JSON") from error
    if not isinstance(envelope, dict):
        raise CorruptObject("the routing table is not an envelope")
    predicate = key.open(envelope, PREDICATE)
    try:
        return msgspec.convert(predicate, Table).check()
    except (msgspec.ValidationError, InvalidInput) as error:
        raise CorruptObject(f"the routing table is malformed: {error}") from error


def write(path: Path, table: Table, key: SigningKey) -> None:
    """Replace the table at `path`, all or nothing."""
    write_atomically(path, encode(table, key))


def write_atomically(path: Path, content: bytes, *, fsync: bool = True) -> None:
    """Replace a file so that a reader sees the old bytes or the new ones."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        if fsync:
            os.fsync(file.fileno())
    temporary.replace(path)


def load(path: Path, key: VerifyKey, *, after: int = -1) -> Table:
    """Read and verify the table at `path`; raises `NotFound`, `CorruptObject`, also when it is older than `after`."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise NotFound(f"{path} is not there", hint="the rollout controller writes it") from None
    table = decode(content, key)
    if table.sequence < after:
        raise CorruptObject(
            f"the routing table {table.sequence} is older than {after}", hint="it was put back by hand?"
        )
    return table
