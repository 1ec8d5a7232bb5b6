"""What an author says about data: sources, datasets, where rows come from. Pure values, no engine is loaded."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from everloop.core.errors import InvalidInput
from everloop.core.ids import checked_name
from everloop.core.version import Version
from everloop.data.evolution import UNCHANGED, Evolution
from everloop.data.expect import Expectation
from everloop.data.sources.origins import (
    FORMATS,
    ORIGINS,
    SQL,
    TREE_KEY,
    Call,
    Files,
    Folder,
    Names,
    Origin,
    Query,
    Table,
    checked_names,
    format_of,
    origin_of,
    reference,
)
from everloop.data.streams.origins import Feed, refuse_unroutable

__all__ = [
    "FORMATS",
    "NO_CONTRACT",
    "OPERATORS",
    "ORIGIN",
    "SQL",
    "TREE_KEY",
    "Call",
    "Contract",
    "DatasetDef",
    "Files",
    "Folder",
    "Names",
    "Origin",
    "Origins",
    "Query",
    "SourceDef",
    "Table",
    "format_of",
    "reference",
]

Origins = Mapping[str, Sequence[str]]
"""Column -> what it is made from: `input.column`, or `operator(input.column)` with an operator of `OPERATORS`."""
OPERATORS = frozenset({"copy", "combine", "hash", "mean", "sum", "count", "min", "max", "last", "unknown"})
"""What may become of a column; how tags pass each is told by `data.sensitive.carrying`."""
ORIGIN = re.compile(r"(?:(?P<operator>[a-z]+)\()?(?P<input>[A-Za-z_]\w*)\.(?P<column>[^()]+?)(?P<close>\))?")


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
        named = checked_names(key, "key"), event_time or None, known_time or None
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
    evolution: Evolution = UNCHANGED
    """What is told to become of its columns; see `data.evolution`."""

    def __post_init__(self) -> None:
        """Check and complete what the author wrote."""
        if not isinstance(self.origin, tuple(ORIGINS.values())):  # type: ignore[arg-type]
            raise InvalidInput(f"{self.origin!r} is no origin of rows", hint="Files(...), SQL(...) or Call(...)")
        if isinstance(self.origin, Feed):
            refuse_unroutable(self.name, self.expect)
        if isinstance(self.origin, SQL) and self.origin.cursor and not self.key:
            raise InvalidInput(f"{self.name!r} has a cursor and no key", hint="rows are upserted by key: declare key=")
        if isinstance(self.origin, Folder):
            if self.key and checked_names(self.key, "key") != TREE_KEY:
                raise InvalidInput(f"the files of {self.name!r} have the key 'path'", hint="leave key= out")
            object.__setattr__(self, "key", TREE_KEY)
        _complete(self)

    @property
    def contract(self) -> Contract:
        """What is promised of the table."""
        return _contract(self)

    def manifest(self) -> dict[str, Any]:
        """The definition's content."""
        told = {"evolution": self.evolution.manifest()} if self.evolution else {}
        return {"origin": self.origin.manifest(), **self.contract.manifest(), **told}

    def version(self) -> Version:
        """The version of kind `source` that a snapshot holds."""
        return Version("source", self.name, self.manifest())

    @classmethod
    def from_manifest(cls, name: str, manifest: Mapping[str, Any]) -> "SourceDef":
        """Rebuild the definition that `manifest` wrote."""
        c = Contract.from_manifest(manifest)
        told = Evolution(**manifest.get("evolution", {}))
        origin = origin_of(manifest["origin"])
        return cls(name, origin, c.key, c.event_time, c.known_time, c.tags, c.expect, told)


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
