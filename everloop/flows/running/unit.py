"""One piece of work of a run: a step, or a step for one item of a list."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from everloop.flows.assets import Asset


@dataclass(frozen=True, slots=True)
class Unit:
    """What is executed, or reused, as one."""

    asset: Asset
    step: str
    """How it is called in the run: the asset's key, with `[number]` behind it for an item."""
    place: int
    """In the order of the plan."""
    inputs: Mapping[str, str]
    """For each parameter the id of what it gets."""
    lineage: Mapping[str, str]
    """For each parameter the version that it comes from: for an item, the list's."""
    manifests: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Of items, which are no versions of their own."""
    absent: tuple[str, ...] = ()
    """Parameters whose assets were skipped: they get None."""
    item: int | None = None
    """Of a step over a list its place, of a trial of a search its number."""
    run: str = ""
    """The tracking run that was opened for it, where its driver did."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """More for its job, outside the recipe."""
    again: bool = False
    """Run it although its recipe is known."""

    @property
    def name(self) -> str:
        """The name of the version that comes out."""
        if self.item is None:
            return self.asset.name
        return f"{self.asset.name}.{'each' if self.asset.search is None else 'trial'}"
