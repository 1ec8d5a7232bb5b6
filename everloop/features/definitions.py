"""What a feature is: pure values with canonical manifests; importing this loads nothing heavy.

Every number that changes an answer (window, hop, decimal scale, filter) is in the manifest, hence in the
version id: two views with the same id give the same values, in batch and online.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, get_args

from everloop.core.clock import DAY, HOUR, MINUTE, Micros, parse_duration
from everloop.core.errors import DefinitionError, EverloopError
from everloop.core.ids import checked_name

Function = Literal["count", "sum", "mean", "min", "max", "last"]
Operator = Literal["==", "!=", "<", "<=", ">", ">="]
FUNCTIONS: frozenset[str] = frozenset(get_args(Function))
OPERATORS: frozenset[str] = frozenset(get_args(Operator))
LARGEST_SCALE = 15
"""10**15 is an exact double, and leaves three digits before the point in 64 bits."""
FOREVER: Micros = 2**62
"""A time after every other: when a fact without a time to live stops counting."""


def hop_of(window: Micros) -> Micros:
    """How far the tail of a window moves at a time: 5 min below 12 h, 1 h below 12 d, else 1 d.

    The steps of Chronon's sawtooth windows. The head of a window is exact to the microsecond.
    """
    if window < 12 * HOUR:
        return 5 * MINUTE
    return HOUR if window < 12 * DAY else DAY


@dataclass(frozen=True, slots=True)
class Where:
    """A filter on facts: `column op value`. A null or NaN in the column never passes."""

    column: str
    op: Operator
    value: str | float

    def manifest(self) -> dict[str, Any]:
        """Canonical-JSON-ready: a number is written as text, for identity holds no floats."""
        kind = "text" if isinstance(self.value, str) else "number"
        return {"column": self.column, "op": self.op, "type": kind, "value": _literal(self.value)}

    @classmethod
    def from_manifest(cls, manifest: Mapping[str, Any]) -> "Where":
        """Rebuild what `manifest` wrote."""
        text = manifest["value"]
        value = text if manifest["type"] == "text" else _number(text)
        return cls(manifest["column"], manifest["op"], value)


@dataclass(frozen=True, slots=True)
class Feature:
    """One aggregation of one column. Made by `count`, `sum`, `mean`, `min`, `max` and `last`."""

    name: str
    function: Function
    column: str
    """Empty for `count`."""
    window: Micros | None
    """Length of the window; for `last` the time to live, None for no end."""
    scale: int
    """Decimal digits after the point that are kept at ingest; unused by `count` and `last`."""
    where: Where | None = None

    @property
    def hop(self) -> Micros:
        """Granularity of the window's tail; 0 for `last`, whose age is exact."""
        return 0 if self.function == "last" or self.window is None else hop_of(self.window)

    @property
    def integer(self) -> bool:
        """Whether values are integers (`count`); all others are 64-bit floats or null."""
        return self.function == "count"

    @property
    def empty(self) -> int | float | None:
        """The value over no facts: `count` 0, `sum` 0.0, every other null."""
        return {"count": 0, "sum": 0.0}.get(self.function)

    def manifest(self) -> dict[str, Any]:
        """Canonical-JSON-ready, with hop and scale, so that they are hashed in."""
        return {
            "name": self.name,
            "function": self.function,
            "column": self.column,
            "window": self.window,
            "hop": self.hop,
            "scale": self.scale,
            "where": None if self.where is None else self.where.manifest(),
        }

    @classmethod
    def from_manifest(cls, manifest: Mapping[str, Any]) -> "Feature":
        """Rebuild what `manifest` wrote; raises `DefinitionError` when its hop is not the one we would use."""
        where = manifest.get("where")
        feature = cls(
            manifest["name"],
            manifest["function"],
            manifest["column"],
            manifest["window"],
            manifest["scale"],
            None if where is None else Where.from_manifest(where),
        )
        if feature.hop != manifest["hop"]:
            raise DefinitionError(
                f"feature {feature.name}: its version was made with another hop",
                hint="define the view again, or read it with the release that made it",
            )
        return feature


def count(*, over: str, name: str = "", where: Any = None) -> Feature:
    """How many facts lie in the window; 0 when none."""
    return _windowed("count", "", over, name, 0, where)


def sum(column: str, *, over: str, name: str = "", scale: int = 6, where: Any = None) -> Feature:  # noqa: A001 - the author's word
    """Exact decimal sum of the column's values that are not null; 0.0 when none."""
    return _windowed("sum", column, over, name, scale, where)


def mean(column: str, *, over: str, name: str = "", scale: int = 6, where: Any = None) -> Feature:
    """Exact sum over count of the values that are not null, rounded once; null when none."""
    return _windowed("mean", column, over, name, scale, where)


def min(column: str, *, over: str, name: str = "", scale: int = 6, where: Any = None) -> Feature:  # noqa: A001 - the author's word
    """Smallest value in the window; null when none."""
    return _windowed("min", column, over, name, scale, where)


def max(column: str, *, over: str, name: str = "", scale: int = 6, where: Any = None) -> Feature:  # noqa: A001 - the author's word
    """Largest value in the window; null when none."""
    return _windowed("max", column, over, name, scale, where)


def last(column: str, *, ttl: str | None = None, name: str = "", where: Any = None) -> Feature:
    """The value of the newest fact by (event time, fact id), null included, if it is at most `ttl` old.

    A null in the newest fact is the answer: it is never filled from an older one.
    """
    where = _where(where)
    window = None if ttl is None else _duration(ttl)
    return _checked(Feature(name or f"{column}_last", "last", column, window, 0, where))


class Timed(Protocol):
    """What a view needs of its source dataset; `data.DatasetDef` and `data.SourceDef` have it."""

    @property
    def name(self) -> str:
        """The dataset's name."""
        ...

    @property
    def key(self) -> str | Iterable[str]:
        """The columns that tell rows apart."""
        ...

    @property
    def event_time(self) -> str | None:
        """Column with the time that a row describes."""
        ...

    @property
    def known_time(self) -> str | None:
        """Column with the time from which a row is known; None means the event time."""
        ...


@dataclass(frozen=True, slots=True)
class FeatureViewDef:
    """Features of one entity over the facts of one dataset.

    `event_time`, `known_time` and `key` come from the dataset by `validate`, or are given here. `slack` is how
    far before an entity's newest known fact a question may still be asked online (batch has no such limit).
    """

    name: str
    source: str
    entity: tuple[str, ...]
    features: tuple[Feature, ...]
    event_time: str = ""
    known_time: str = ""
    key: tuple[str, ...] = ()
    slack: Micros = DAY

    def __post_init__(self) -> None:
        """Accept a single column for `entity`, lists, and a duration text; refuse what cannot work."""
        checked_name(self.name)
        object.__setattr__(self, "entity", _columns(self.entity))
        object.__setattr__(self, "key", _columns(self.key))
        object.__setattr__(self, "features", tuple(self.features))
        slack: Any = self.slack
        object.__setattr__(self, "slack", _duration(slack) if isinstance(slack, str) else slack)
        if not self.entity or not self.features:
            raise DefinitionError(
                f"feature view {self.name} has no {'features' if self.entity else 'entity'}",
                hint='for example entity="origin", features=[count(over="1h")]',
            )
        twice = _repeated(f.name for f in self.features)
        if twice:
            raise DefinitionError(
                f"feature view {self.name} has two features named {twice!r}", hint="give one of them name=..."
            )

    def validate(self, dataset: Timed) -> "FeatureViewDef":
        """This view with its times and key taken from `dataset`; raises `DefinitionError` without an event time."""
        event = self.event_time or dataset.event_time or ""
        if not event:
            raise DefinitionError(
                f"feature view {self.name}: dataset {dataset.name} has no event time",
                hint="declare event_time= on the dataset: a feature must know when its facts happened",
            )
        known = self.known_time or dataset.known_time or event
        return replace(self, event_time=event, known_time=known, key=self.key or _columns(dataset.key))

    @property
    def columns(self) -> tuple[str, ...]:
        """Every column that the view reads of its source, in a fixed order, each once."""
        used = [*self.entity, self.event_time, self.known_time, *self.key]
        for feature in self.features:
            used += [feature.column] if feature.column else []
            used += [feature.where.column] if feature.where else []
        return tuple(dict.fromkeys(c for c in used if c))

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of its columns in a frame: `<view>__<feature>`."""
        return tuple(f"{self.name}__{f.name}" for f in self.features)

    def manifest(self) -> dict[str, Any]:
        """Canonical-JSON-ready; raises `DefinitionError` before `validate` gave it an event time."""
        if not self.event_time:
            raise DefinitionError(
                f"feature view {self.name} has no event time", hint="call validate(dataset) first, or give event_time="
            )
        return {
            "source": self.source,
            "entity": list(self.entity),
            "event_time": self.event_time,
            "known_time": self.known_time or self.event_time,
            "key": list(self.key),
            "slack": self.slack,
            "features": [f.manifest() for f in self.features],
        }

    @classmethod
    def from_manifest(cls, name: str, manifest: Mapping[str, Any]) -> "FeatureViewDef":
        """Rebuild what `manifest` wrote; the name is a label beside it."""
        return cls(
            name,
            manifest["source"],
            tuple(manifest["entity"]),
            tuple(Feature.from_manifest(f) for f in manifest["features"]),
            manifest["event_time"],
            manifest["known_time"],
            tuple(manifest["key"]),
            manifest["slack"],
        )


@dataclass(frozen=True, slots=True)
class FeatureServiceDef:
    """The list that a model trains and serves on: request columns first, then the views' features, in order."""

    name: str
    views: tuple[FeatureViewDef, ...]
    request: tuple[str, ...] = ()
    """Columns that the caller knows when it asks, such as `distance`."""

    def __post_init__(self) -> None:
        """Accept lists; refuse a view or a column that appears twice."""
        checked_name(self.name)
        object.__setattr__(self, "views", tuple(self.views))
        object.__setattr__(self, "request", _columns(self.request))
        if not self.views and not self.request:
            raise DefinitionError(
                f"feature service {self.name} is empty", hint="give it views, request columns or both"
            )
        twice = _repeated([v.name for v in self.views]) or _repeated(self.columns)
        if twice:
            raise DefinitionError(f"feature service {self.name} has {twice!r} twice", hint="leave one of them out")

    @property
    def entities(self) -> tuple[str, ...]:
        """The entity columns of all views, each once: what a caller must name."""
        return tuple(dict.fromkeys(c for v in self.views for c in v.entity))

    @property
    def columns(self) -> tuple[str, ...]:
        """The model's inputs: request columns, then `<view>__<feature>`."""
        return (*self.request, *(c for v in self.views for c in v.outputs))

    def manifest(self, view_ids: Mapping[str, str]) -> dict[str, Any]:
        """Canonical-JSON-ready: pins every view by the version id that `view_ids` gives its name."""
        return {
            "views": {v.name: view_ids[v.name] for v in self.views},
            "order": [v.name for v in self.views],
            "request": list(self.request),
            "entities": list(self.entities),
        }

    @classmethod
    def from_manifest(
        cls, name: str, manifest: Mapping[str, Any], manifests: Mapping[str, Mapping[str, Any]]
    ) -> "FeatureServiceDef":
        """Rebuild a service from its manifest and the manifests of the view ids that it pins."""
        pinned = manifest["views"]
        views = (FeatureViewDef.from_manifest(v, manifests[pinned[v]]) for v in manifest["order"])
        return cls(name, tuple(views), tuple(manifest["request"]))


def _windowed(function: Function, column: str, over: str, name: str, scale: int, where: Any) -> Feature:  # noqa: PLR0917 - in the order of the fields
    stem = f"{column}_{function}" if column else function
    return _checked(Feature(name or f"{stem}_{over}", function, column, _duration(over), scale, _where(where)))


def _checked(feature: Feature) -> Feature:
    try:
        checked_name(feature.name)
    except EverloopError as error:
        raise DefinitionError(f"feature {feature.name!r}: {error.message}", hint=error.hint) from None
    if feature.function != "count" and not feature.column:
        raise DefinitionError(f"feature {feature.name}: {feature.function} needs a column")
    if not 0 <= feature.scale <= LARGEST_SCALE:
        raise DefinitionError(
            f"feature {feature.name}: scale {feature.scale} is not between 0 and {LARGEST_SCALE}",
            hint="scale is the number of decimal digits to keep, for example scale=2 for cents",
        )
    return feature


def _where(where: Any) -> Where | None:
    if where is None or isinstance(where, Where):
        return where
    if not isinstance(where, tuple | list) or len(where) != 3 or where[1] not in OPERATORS:
        raise DefinitionError(f"{where!r} is not a filter", hint='write where=("carrier", "==", "AA")')
    column, op, value = where
    if not isinstance(column, str) or not isinstance(value, str | int | float | bool) or value != value:  # noqa: PLR0124 - NaN
        raise DefinitionError(f"{where!r} is not a filter", hint="a column name, an operator, and a text or number")
    return Where(column, op, value)


def _duration(text: str) -> Micros:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise DefinitionError(str(error), hint="write 90s, 10m, 3h or 7d") from None


def _columns(names: str | Iterable[str] | None) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names or ())


def _repeated(names: Iterable[str]) -> str:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return ""


def _literal(value: str | float) -> str:
    return value if isinstance(value, str) else repr(int(value) if isinstance(value, bool) else value)


def _number(text: str) -> int | float:
    return float(text) if any(c in text for c in ".einf") else int(text)
