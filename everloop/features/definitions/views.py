"""A feature view: features of one entity over the facts of one dataset."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

from everloop.core.clock import DAY, Micros
from everloop.core.errors import DefinitionError
from everloop.core.ids import checked_name
from everloop.features.definitions.feature import Feature, duration
from everloop.features.expressions import Node


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

    With `reads`, every row of the dataset also has the features of these views, as columns `<view>__<feature>`: their
    values for the row's entities as of the row's known time. So a feature may be made of features. A view is a value
    that holds the views which it reads, whole: no chain of them has a cycle.
    """

    name: str
    source: str
    entity: tuple[str, ...]
    features: tuple[Feature, ...]
    event_time: str = ""
    known_time: str = ""
    key: tuple[str, ...] = ()
    slack: Micros = DAY
    reads: "tuple[FeatureViewDef, ...]" = ()

    def __post_init__(self) -> None:
        """Accept a single column for `entity`, lists, and a duration text; refuse what cannot work."""
        checked_name(self.name)
        object.__setattr__(self, "entity", columns_of(self.entity))
        object.__setattr__(self, "key", columns_of(self.key))
        object.__setattr__(self, "features", _checked(f"feature view {self.name}", self.features))
        slack: Any = self.slack
        object.__setattr__(self, "slack", duration(slack) if isinstance(slack, str) else slack)
        if not self.entity or not self.features:
            raise DefinitionError(
                f"feature view {self.name} has no {'features' if self.entity else 'entity'}",
                hint='for example entity="origin", features=[count(over="1h")]',
            )
        twice = repeated(f.name for f in self.features)
        if twice:
            raise DefinitionError(
                f"feature view {self.name} has two features named {twice!r}", hint="give one of them name=..."
            )
        object.__setattr__(self, "reads", need_views(f"feature view {self.name} reads", self.reads))
        _check_reads(self)

    def validate(self, dataset: Timed) -> "FeatureViewDef":
        """This view with its times and key taken from `dataset`; raises `DefinitionError` without an event time."""
        event = self.event_time or dataset.event_time or ""
        if not event:
            raise DefinitionError(
                f"feature view {self.name}: dataset {dataset.name} has no event time",
                hint="declare event_time= on the dataset: a feature must know when its facts happened",
            )
        known = self.known_time or dataset.known_time or event
        return replace(self, event_time=event, known_time=known, key=self.key or columns_of(dataset.key))

    @property
    def columns(self) -> tuple[str, ...]:
        """Every column that the view reads of a row, in a fixed order, each once; also those that `reads` gives it."""
        used = [*self.entity, self.event_time, self.known_time, *self.key]
        for feature in self.features:
            used += feature.reads
        for view in self.reads:
            used += view.entity
        return tuple(dict.fromkeys(c for c in used if c))

    @property
    def stored(self) -> tuple[str, ...]:
        """Those of its columns that its source has."""
        given = self.given
        return tuple(c for c in self.columns if c not in given) if given else self.columns

    @property
    def given(self) -> frozenset[str]:
        """The columns that the views it reads can give."""
        return frozenset(c for view in self.reads for c in view.outputs)

    @property
    def datasets(self) -> dict[str, tuple[str, ...]]:
        """Dataset -> the columns read of it, by the view and by all that it reads."""
        own, theirs = {self.source: self.stored}, by_dataset(self.reads)
        return {name: tuple(dict.fromkeys((*own.get(name, ()), *theirs.get(name, ())))) for name in (own | theirs)}

    @property
    def depth(self) -> int:
        """0 for a view over a dataset alone; a view comes after all that it reads."""
        return max((view.depth + 1 for view in self.reads), default=0)

    @property
    def expressions(self) -> dict[str, Node]:
        """What is computed of a row before it becomes a fact, by name."""
        return {name: node for feature in self.features for name, node in feature.expressions.items()}

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of its columns in a frame: `<view>__<feature>`."""
        return tuple(f"{self.name}__{f.name}" for f in self.features)

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the columns that a model reads: its outputs, lists spread over a column for each place."""
        return tuple(f"{self.name}__{column}" for f in self.features for column in f.inputs)

    @property
    def lists(self) -> dict[str, tuple[str, ...]]:
        """Those of its outputs that are lists -> the columns that a model reads them by."""
        found = {f.name: f.inputs for f in self.features if f.length}
        return {f"{self.name}__{name}": tuple(f"{self.name}__{c}" for c in columns) for name, columns in found.items()}

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
            **({"reads": [{"name": view.name, **view.manifest()} for view in self.reads]} if self.reads else {}),
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
            tuple(cls.from_manifest(one["name"], one) for one in manifest.get("reads", ())),
        )


def columns_of(names: str | Iterable[str] | None) -> tuple[str, ...]:
    """One name or several, as a tuple."""
    return (names,) if isinstance(names, str) else tuple(names or ())


def _checked(who: str, features: Any) -> tuple[Feature, ...]:
    """The features as a tuple; raises `DefinitionError` for what is none."""
    listed = (features,) if isinstance(features, str | Feature) else tuple(features)
    for one in listed:
        if not isinstance(one, Feature):
            several = 'spread the list: features=[*el.vector("embedding", 64)]'
            hint = several if isinstance(one, list | tuple) else 'for example count(over="1h")'
            raise DefinitionError(f"{who}: {type(one).__name__} {str(one)[:40]!r} is no feature", hint=hint)
    return listed


def need_views(who: str, views: Any) -> "tuple[FeatureViewDef, ...]":
    """The views as a tuple; raises `DefinitionError` for what is none, such as a name."""
    listed = (views,) if isinstance(views, str | FeatureViewDef) else tuple(views)
    for one in listed:
        if not isinstance(one, FeatureViewDef):
            hint = "give the view itself, as project.feature_view(…) returned it"
            raise DefinitionError(f"{who} {str(one)[:40]!r}, which is no view", hint=hint)
    return listed


def repeated(names: Iterable[str]) -> str:
    """The first name that appears twice; empty for none."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return ""


def _check_reads(view: FeatureViewDef) -> None:
    """Refuse what a view cannot read: itself, one without a time, a list, a feature that is not there."""
    twice = repeated([view.name, *(v.name for v in view.reads)])
    if twice:
        raise DefinitionError(
            f"feature view {view.name} reads {twice!r} twice, or itself", hint="a view reads earlier views, each once"
        )
    given = {f"{v.name}__{f.name}": f for v in view.reads for f in v.features}
    fixed = {*view.entity, *view.key, view.event_time, view.known_time} & given.keys()
    if fixed:
        raise DefinitionError(
            f"feature view {view.name}: {min(fixed)} is a feature",
            hint="entity, key and times are columns of the dataset",
        )
    for column in (c for feature in view.features for c in feature.reads):
        of = next((v for v in view.reads if column.startswith(f"{v.name}__")), None)
        if of is not None and column not in given:
            raise DefinitionError(
                f"feature view {view.name} reads {column!r}, which {of.name} does not have",
                hint="it has " + ", ".join(of.outputs),
            )
        if column in given and given[column].output in {"integers", "numbers", "texts"}:
            raise DefinitionError(
                f"feature view {view.name} reads {column!r}, which is a list", hint="read numbers, integers or texts"
            )
    for v in view.reads:
        if not v.event_time:
            raise DefinitionError(
                f"feature view {view.name} reads {v.name}, which has no event time", hint="call validate(dataset) first"
            )


def by_dataset(views: Iterable[FeatureViewDef]) -> dict[str, tuple[str, ...]]:
    """Dataset -> the columns that some views, and all that they read, read of it."""
    found: dict[str, dict[str, None]] = {}
    for view in views:
        for name, columns in view.datasets.items():
            found.setdefault(name, {}).update(dict.fromkeys(columns))
    return {name: tuple(columns) for name, columns in found.items()}
