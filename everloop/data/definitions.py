"""What an author says about data: sources, datasets, where rows come from. Pure values, no engine is loaded."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any, Protocol

from everloop.core.canonical import canonical_json
from everloop.core.errors import InvalidInput
from everloop.core.ids import checked_name
from everloop.core.version import Version
from everloop.data.expect import Expectation

FORMATS: Mapping[str, str] = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".csv": "csv",
    ".tsv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".ipc": "arrow",
}
"""Format by suffix; `.gz`, `.zst` and `.bz2` after a text format mean that it is compressed."""

_COMPRESSED = (".gz", ".zst", ".bz2")


class Origin(Protocol):
    """Where the rows of a source come from."""

    def manifest(self) -> dict[str, Any]:
        """Its part of the source's identity."""
        ...


@dataclass(frozen=True, slots=True)
class Files:
    """Files that match a glob, relative to the project's folder, read in the order of their paths.

    The format follows from the suffix; `format` (parquet, csv, jsonl, arrow) says it where the suffix does not.
    """

    pattern: str
    format: str | None = None

    def __post_init__(self) -> None:
        """Find the format; raises `InvalidInput`."""
        if not self.pattern:
            raise InvalidInput("Files needs a path or a glob", hint='for example Files("data/flights/*.parquet")')
        if self.format is None:
            object.__setattr__(self, "format", format_of(self.pattern))
        elif self.format not in FORMATS.values():
            raise InvalidInput(f"{self.format!r} is not a format of files", hint=_formats())

    def manifest(self) -> dict[str, Any]:
        """Pattern and format."""
        return {"type": "files", "pattern": self.pattern, "format": self.format}


@dataclass(frozen=True, slots=True)
class SQL:
    """The rows of a query against the database that `binding` names in the environment.

    `state` may be a cheap query (say, `select max(updated_at), count(*) from t`): while its answer stays the same,
    the real query is not run again.
    """

    binding: str
    query: str
    state: str = ""

    def __post_init__(self) -> None:
        """Check both; raises `InvalidInput`."""
        checked_name(self.binding)
        if not self.query.strip():
            raise InvalidInput(f"the query for {self.binding!r} is empty")

    def manifest(self) -> dict[str, Any]:
        """Binding's name (never its value) and query."""
        return {"type": "sql", "binding": self.binding, "query": self.query, "state": self.state}


@dataclass(frozen=True, slots=True)
class Call:
    """The table that a function of the project returns (polars, pandas, Arrow, or an iterator of record batches).

    `function` is `module:name`, or the function itself. It is called with `arguments`, and with `now` (an aware
    datetime, the capture's event time) when it has a parameter of that name. `state` may name a second function, of
    the same arguments, whose small JSON answer tells whether the table has changed.
    """

    function: str | Callable[..., Any]
    arguments: Mapping[str, Any] = field(default_factory=dict)
    state: str | Callable[..., Any] = ""

    def __post_init__(self) -> None:
        """Turn functions into `module:name`; raises `InvalidInput` for lambdas and inner functions."""
        object.__setattr__(self, "function", reference(self.function))
        object.__setattr__(self, "state", reference(self.state) if self.state else "")
        object.__setattr__(self, "arguments", dict(self.arguments))
        canonical_json(self.arguments)

    def manifest(self) -> dict[str, Any]:
        """The function's address and its arguments."""
        return {"type": "call", "function": self.function, "arguments": dict(self.arguments), "state": self.state}


@dataclass(frozen=True, slots=True)
class Folder:
    """Files of any kind (images, audio, text, PDF) that match a pattern: rows of path, size, media type and digest.

    `Folder("images/**")` means all below `images`, `"images/*.png"` some of it; paths are told from the first folder
    that has no wildcard. Hidden files stay out unless the pattern names their dot. `media` promises kinds ("image",
    "audio/wav"): a file of another is refused. `exclude` names paths that stay out, as patterns too.
    """

    pattern: str
    media: str | Sequence[str] = ()
    exclude: str | Sequence[str] = ()

    def __post_init__(self) -> None:
        """Check and complete it; raises `InvalidInput`."""
        if not self.pattern:
            raise InvalidInput("Folder needs a folder or a glob", hint='for example Folder("images/**")')
        object.__setattr__(self, "media", _names(self.media, "media"))
        object.__setattr__(self, "exclude", _names(self.exclude, "exclude"))

    def manifest(self) -> dict[str, Any]:
        """Pattern, promised kinds, exceptions."""
        return {"type": "folder", "pattern": self.pattern, "media": list(self.media), "exclude": list(self.exclude)}


TREE_KEY = ("path",)
"""The key of the table of a folder."""


def format_of(path: str) -> str:
    """The format of a file by its suffix; raises `InvalidInput`."""
    suffixes = [s.lower() for s in PurePath(path).suffixes]
    while suffixes and suffixes[-1] in _COMPRESSED:
        suffixes.pop()
    if not suffixes or suffixes[-1] not in FORMATS:
        raise InvalidInput(f"the format of {path!r} does not follow from its suffix", hint=_formats())
    return FORMATS[suffixes[-1]]


def _formats() -> str:
    return "formats are " + ", ".join(sorted(set(FORMATS.values()))) + '; for example Files("events/*.log", "jsonl")'


def reference(function: str | Callable[..., Any]) -> str:
    """`module:name` of a function that can be imported again; raises `InvalidInput`."""
    if isinstance(function, str):
        module, colon, name = function.partition(":")
        if not colon or not module or not name:
            raise InvalidInput(f"{function!r} does not name a function", hint="write module:function")
        return function
    name = getattr(function, "__qualname__", "")
    module = getattr(function, "__module__", "")
    if not name or not module or "<" in name:
        raise InvalidInput(f"{function!r} cannot be imported by name", hint="define it at the top level of a module")
    return f"{module}:{name}"


Names = str | Sequence[str]
Origins = Mapping[str, Sequence[str]]
"""Column -> what it is made from: `input.column`, or `operator(input.column)` with an operator of `OPERATORS`."""
OPERATORS = frozenset({"copy", "combine", "hash", "mean", "sum", "count", "min", "max", "last", "unknown"})
"""What may become of a column; how tags pass each is told by `data.sensitive.carrying`."""
ORIGIN = re.compile(r"(?:(?P<operator>[a-z]+)\()?(?P<input>[A-Za-z_]\w*)\.(?P<column>[^()]+?)(?P<close>\))?")


def _names(value: Names | None, what: str) -> tuple[str, ...]:
    names = (value,) if isinstance(value, str) else tuple(value or ())
    if not all(isinstance(name, str) and name for name in names):
        raise InvalidInput(f"{what} must be names of columns, not {value!r}")
    if len(set(names)) != len(names):
        raise InvalidInput(f"{what} names a column twice: {', '.join(names)}")
    return names


@dataclass(frozen=True, slots=True)
class Contract:
    """What is promised of a table, whoever makes it: key, times, tags, expectations.

    `key` identifies a row (and orders it); `event_time` says when it happened; `known_time` when we could know it
    (an arrival delay is known at arrival). `tags` mark columns, for example `{"tailnum": "pseudonymous"}`:
    the values of tagged columns are masked wherever rows are shown.
    """

    key: tuple[str, ...] = ()
    event_time: str | None = None
    known_time: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    expect: tuple[Expectation, ...] = ()
    columns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """For a table that a function makes: by column, the columns of its inputs that it is made from (`Origins`)."""

    @classmethod
    def of(
        cls,
        key: Names | None = None,
        event_time: str | None = None,
        known_time: str | None = None,
        tags: Mapping[str, str] | None = None,
        expect: Sequence[Expectation] = (),
        *,
        columns: "Origins | None" = None,
    ) -> "Contract":
        """Check and complete what an author wrote; raises `InvalidInput`."""
        wrong = next((e for e in expect if not isinstance(e, Expectation)), None)
        if wrong is not None:
            raise InvalidInput(f"{wrong!r} is not an expectation", hint='for example expect.unique("flight_id")')
        for column, tag in (tags or {}).items():
            if not isinstance(column, str) or not isinstance(tag, str):
                raise InvalidInput("tags map a column's name to a tag", hint='{"email": "personal"}')
            checked_name(tag)
        named = _names(key, "key"), event_time or None, known_time or None
        return cls(*named, dict(tags or {}), tuple(expect), _origins(columns or {}))

    def manifest(self) -> dict[str, Any]:
        """The contract in canonical-JSON-ready form."""
        return {
            "key": list(self.key),
            "event_time": self.event_time,
            "known_time": self.known_time,
            "tags": dict(self.tags),
            "expect": [e.manifest() for e in self.expect],
            **self.lineage(),
        }

    def lineage(self) -> dict[str, Any]:
        """The field `columns` of a manifest; none where nothing is declared, so that identities stay."""
        return {"columns": {name: list(made) for name, made in self.columns.items()}} if self.columns else {}

    @classmethod
    def from_manifest(cls, manifest: Mapping[str, Any]) -> "Contract":
        """Rebuild a contract from a `source`, `dataset` or `data` manifest."""
        return cls.of(
            manifest.get("key"),
            manifest.get("event_time"),
            manifest.get("known_time"),
            manifest.get("tags"),
            [Expectation.from_manifest(e) for e in manifest.get("expect", ())],
            columns=manifest.get("columns"),
        )


NO_CONTRACT = Contract()
"""Nothing is promised."""


@dataclass(frozen=True, slots=True)
class SourceDef:
    """A table that comes from outside: an origin and a contract (see `Contract` for what the fields mean).

    Raises `InvalidInput` for a wrong name, origin, key, tag or expectation.
    """

    name: str
    origin: Origin
    key: Names = ()
    event_time: str | None = None
    known_time: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    expect: Sequence[Expectation] = ()

    def __post_init__(self) -> None:
        """Check and complete what the author wrote."""
        if not isinstance(self.origin, Files | SQL | Call | Folder):
            raise InvalidInput(f"{self.origin!r} is no origin of rows", hint="Files(...), SQL(...) or Call(...)")
        if isinstance(self.origin, Folder):
            if self.key and _names(self.key, "key") != TREE_KEY:
                raise InvalidInput(f"the files of {self.name!r} have the key 'path'", hint="leave key= out")
            object.__setattr__(self, "key", TREE_KEY)
        _complete(self)

    @property
    def contract(self) -> Contract:
        """What is promised of the table."""
        return _contract(self)

    def manifest(self) -> dict[str, Any]:
        """The definition's content."""
        return {"origin": self.origin.manifest(), **self.contract.manifest()}

    def version(self) -> Version:
        """The version of kind `source` that a snapshot holds."""
        return Version("source", self.name, self.manifest())

    @classmethod
    def from_manifest(cls, name: str, manifest: Mapping[str, Any]) -> "SourceDef":
        """Rebuild the definition that `manifest` wrote."""
        c = Contract.from_manifest(manifest)
        return cls(name, _origin(manifest["origin"]), c.key, c.event_time, c.known_time, c.tags, c.expect)


@dataclass(frozen=True, slots=True)
class DatasetDef:
    """A table that a function of the project computes from upstream tables (see `Contract` for the fields).

    `upstream` gives the key (`source/flights`, `dataset/departures`) for each parameter.
    Raises `InvalidInput` for a wrong name, key, tag or expectation.
    """

    name: str
    function: Callable[..., Any]
    upstream: Mapping[str, str]
    key: Names = ()
    event_time: str | None = None
    known_time: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    expect: Sequence[Expectation] = ()
    columns: Origins = field(default_factory=dict)
    """Lineage of its columns as its author declares it; a column that is not named may come from all inputs."""

    def __post_init__(self) -> None:
        """Check and complete what the author wrote."""
        if not callable(self.function):
            raise InvalidInput(f"the dataset {self.name!r} needs a function, not {self.function!r}")
        object.__setattr__(self, "upstream", dict(self.upstream))
        _complete(self)
        object.__setattr__(self, "columns", self.contract.columns)

    @property
    def contract(self) -> Contract:
        """What is promised of the table."""
        return _contract(self)

    def manifest(self) -> dict[str, Any]:
        """The definition's content; the flow that knows the function's closure adds the code's hash."""
        return {"function": reference(self.function), "upstream": dict(self.upstream), **self.contract.manifest()}

    def version(self) -> Version:
        """The version of kind `dataset` that a snapshot holds."""
        return Version("dataset", self.name, self.manifest())


def _complete(definition: SourceDef | DatasetDef) -> None:
    checked_name(definition.name)
    contract = _contract(definition)
    for name in ("key", "event_time", "known_time", "tags", "expect"):
        object.__setattr__(definition, name, getattr(contract, name))


def _contract(definition: SourceDef | DatasetDef) -> Contract:
    d = definition
    columns = d.columns if isinstance(d, DatasetDef) else None
    return Contract.of(d.key, d.event_time, d.known_time, d.tags, d.expect, columns=columns)


def _origins(columns: Origins) -> dict[str, tuple[str, ...]]:
    """What an author declared of columns, checked; raises `InvalidInput`."""
    for name, made in columns.items():
        for text in (made,) if isinstance(made, str) else made:
            match = ORIGIN.fullmatch(text)
            whole = match is not None and (match["operator"] is None) == (match["close"] is None)
            if match is None or not whole or (match["operator"] or "copy") not in OPERATORS:
                raise InvalidInput(
                    f"{text!r} says not what the column {name!r} is made from",
                    hint="input.column, or one of " + ", ".join(sorted(OPERATORS)) + " around it: hash(people.email)",
                )
    return {name: (made,) if isinstance(made, str) else tuple(made) for name, made in columns.items()}


def _origin(manifest: Mapping[str, Any]) -> Origin:
    fields = {k: v for k, v in manifest.items() if k != "type"}
    kinds: Mapping[str, Callable[..., Origin]] = {"files": Files, "sql": SQL, "call": Call, "folder": Folder}
    if manifest.get("type") not in kinds:
        raise InvalidInput(f"{manifest.get('type')!r} is no origin of rows", hint="one of " + ", ".join(kinds))
    return kinds[manifest["type"]](**fields)
