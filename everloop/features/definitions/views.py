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
    """

    name: str
    source: str
    entity: tuple[str, ...]
    features: tuple[Feature, ...]
    event_time: str = ""
    known_time: str = ""
    key: tuple[str, ...] = ()
    slack: Micros = DAY
    description: str = ""
    owner: str = ""

    def __post_init__(self) -> None:
        """Accept a single column for `entity`, lists, and a duration text; refuse what cannot work."""
        checked_name(self.name)
        object.__setattr__(self, "entity", columns_of(self.entity))
        object.__setattr__(self, "key", columns_of(self.key))
        object.__setattr__(self, "features", tuple(self.features))
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
        """Every column that the view reads of its source, in a fixed order, each once."""
        used = [*self.entity, self.event_time, self.known_time, *self.key]
        for feature in self.features:
            used += feature.reads
        return tuple(dict.fromkeys(c for c in used if c))

    @property
    def expressions(self) -> dict[str, Node]:
        """What is computed of a row before it becomes a fact, by name."""
        return {name: node for feature in self.features for name, node in feature.expressions.items()}

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
            **{name: said for name in ("description", "owner") if (said := getattr(self, name))},
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
            manifest.get("description", ""),
            manifest.get("owner", ""),
        )


def columns_of(names: str | Iterable[str] | None) -> tuple[str, ...]:
    """One name or several, as a tuple."""
    return (names,) if isinstance(names, str) else tuple(names or ())


def repeated(names: Iterable[str]) -> str:
    """The first name that appears twice; empty for none."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return ""
