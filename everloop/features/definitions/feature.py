"""One feature: an aggregation of a column, and every number that changes its answer."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from everloop.core.clock import DAY, HOUR, MINUTE, Micros, parse_duration
from everloop.core.errors import DefinitionError
from everloop.features.definitions.filters import Where
from everloop.features.expressions import Node
from everloop.features.expressions.tree import read, written

Function = Literal["count", "sum", "mean", "min", "max", "last"]
Value = int | float | str | list[int] | list[float] | list[str] | None
"""What a feature may be: a number, a text, a list of these (a null in a list is left out), or unknown."""
FUNCTIONS: frozenset[str] = frozenset(get_args(Function))
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
    expression: Node | None = None
    """What `column` names where it is no column of the source but computed from its columns, row by row."""

    @property
    def expressions(self) -> dict[str, Node]:
        """What is computed for it before it counts, by the name that `column` and `where` use."""
        computed = {self.column: self.expression} if self.expression else {}
        if self.where is not None and self.where.expression is not None:
            computed[self.where.column] = self.where.expression
        return computed

    @property
    def reads(self) -> tuple[str, ...]:
        """The columns of the source that it reads."""
        named = [self.column, self.where.column if self.where else ""]
        made = self.expressions
        return tuple(c for name in named if name for c in (made[name].columns if name in made else (name,)))

    @property
    def hop(self) -> Micros:
        """Granularity of the window's tail; 0 for `last`, whose age is exact."""
        return 0 if self.function == "last" or self.window is None else hop_of(self.window)

    @property
    def integer(self) -> bool:
        """Whether values are integers (`count`); all others are 64-bit floats or null."""
        return self.function == "count"

    @property
    def empty(self) -> Value:
        """The value over no facts: `count` 0, `sum` 0.0, every other null."""
        return {"count": 0, "sum": 0.0}.get(self.function)

    def manifest(self) -> dict[str, Any]:
        """Canonical-JSON-ready, with hop and scale, so that they are hashed in."""
        said = {
            "name": self.name,
            "function": self.function,
            "column": self.column,
            "window": self.window,
            "hop": self.hop,
            "scale": self.scale,
            "where": None if self.where is None else self.where.manifest(),
        }
        return said if self.expression is None else {**said, "expression": written(self.expression)}

    @classmethod
    def from_manifest(cls, manifest: Mapping[str, Any]) -> "Feature":
        """Rebuild what `manifest` wrote; raises `DefinitionError` when its hop is not the one we would use."""
        where, tree = manifest.get("where"), manifest.get("expression")
        feature = cls(
            manifest["name"],
            manifest["function"],
            manifest["column"],
            manifest["window"],
            manifest["scale"],
            None if where is None else Where.from_manifest(where),
            None if tree is None else read(tree),
        )
        if feature.hop != manifest["hop"]:
            raise DefinitionError(
                f"feature {feature.name}: its version was made with another hop",
                hint="define the view again, or read it with the release that made it",
            )
        return feature


def duration(text: str) -> Micros:
    """A length of time from what an author wrote. Raises `DefinitionError`."""
    try:
        return parse_duration(text)
    except ValueError as error:
        raise DefinitionError(str(error), hint="write 90s, 10m, 3h or 7d") from None
