"""One feature: an aggregation of a column, and every number that changes its answer."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from everloop.core.clock import DAY, HOUR, MINUTE, Micros, parse_duration
from everloop.core.errors import DefinitionError
from everloop.features.definitions.filters import Filter, filter_from
from everloop.features.expressions import Node
from everloop.features.expressions.tree import read, written

Function = Literal[
    "count", "sum", "mean", "variance", "stddev", "min", "max", "first", "last", "last_k", "top_k", "distinct",
    "ratio", "histogram", "quantile",
]  # fmt: skip
Kind = Literal["number", "integer", "text"]
"""What a kept value is: a 64-bit float, a 64-bit integer, or text."""
Output = Literal["integer", "number", "text", "integers", "numbers", "texts"]
"""What a feature gives; the plural is a list, in which no null stands."""
Value = int | float | str | list[int] | list[float] | list[str] | None
"""What a feature may be: a number, a text, a list of these, or unknown."""
FUNCTIONS: frozenset[str] = frozenset(get_args(Function))
KEEPING: frozenset[str] = frozenset({"first", "last", "last_k"})
"""Functions that keep facts: their window is an age, exact to the microsecond, but for `first` over a window."""
SCALED: frozenset[str] = frozenset(
    {"sum", "mean", "variance", "stddev", "min", "max", "histogram", "quantile"}
)  # fmt: skip
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
    """One aggregation of one column. Made by the functions of `definitions.functions`."""

    name: str
    function: Function
    column: str
    """Empty for `count` and `ratio`."""
    window: Micros | None
    """Length of the window; for `last` and `last_k` the time to live; None for no end."""
    scale: int = 0
    """Decimal digits after the point that are kept at ingest, for functions that add or compare numbers."""
    where: Filter | None = None
    kind: Kind = "number"
    """What the column's values are, for functions that keep values."""
    size: int = 0
    """How many (`last_k`, `top_k`); hashes of a sketch; bits of a quantile; 1 for the variance of a sample."""
    quantile: str = ""
    """Which quantile, as a fraction between 0 and 1: `19/20`."""
    edges: tuple[int, ...] = ()
    """Edges of a `histogram`, ascending, times 10 to the scale."""
    parts: "tuple[Feature, ...]" = ()
    """Numerator and denominator of a `ratio`."""
    description: str = field(default="", compare=False)
    """No part of its definition: the catalogue shows it, as what is said of the view's column."""
    expression: Node | None = None
    """What `column` names where it is no column of the source but computed from its columns, row by row."""

    @property
    def hop(self) -> Micros:
        """Granularity of the window's tail; 0 for ages, which are exact."""
        if self.window is None or self.function in {"last", "last_k"}:
            return 0
        return hop_of(self.window)

    @property
    def output(self) -> Output:
        """What its values are; frames, look-ups, requests and a model's signature agree on it."""
        match self.function:
            case "count" | "distinct":
                return "integer"
            case "histogram":
                return "integers"
            case "first" | "last":
                return self.kind
            case "last_k" | "top_k":
                return _LISTS[self.kind]
            case _:
                return "number"

    @property
    def length(self) -> int:
        """How many values its list has at most (a histogram: always); 0 for what is no list."""
        match self.function:
            case "last_k" | "top_k":
                return self.size
            case "histogram":
                return len(self.edges) + 1
            case _:
                return 0

    @property
    def inputs(self) -> tuple[str, ...]:
        """Its columns where a model reads it: its name, or one for each place of a list, `<name>_000` and so on."""
        return tuple(f"{self.name}_{place:03d}" for place in range(self.length)) or (self.name,)

    @property
    def empty(self) -> Value:
        """The value over no facts: counts 0, `sum` 0.0, lists empty (a histogram: zeros), every other null."""
        match self.function:
            case "count" | "distinct":
                return 0
            case "sum":
                return 0.0
            case "last_k" | "top_k":
                return []
            case "histogram":
                return [0] * (len(self.edges) + 1)
            case _:
                return None

    @property
    def expressions(self) -> dict[str, Node]:
        """What is computed for it before it counts, by the name that `column` and `where` use."""
        computed = {self.column: self.expression} if self.expression else {}
        computed |= {} if self.where is None else self.where.expressions
        return computed | {name: node for part in self.parts for name, node in part.expressions.items()}

    @property
    def reads(self) -> tuple[str, ...]:
        """The columns of the source that it reads."""
        column = (self.column,) if self.column else ()
        own = column if self.expression is None else tuple(self.expression.columns)
        filtered = () if self.where is None else self.where.reads
        return (*own, *filtered, *(c for part in self.parts for c in part.reads))

    def manifest(self) -> dict[str, Any]:
        """Canonical-JSON-ready, with hop and scale, so that they are hashed in; options not used are left out."""
        fixed = {
            "name": self.name,
            "function": self.function,
            "column": self.column,
            "window": self.window,
            "hop": self.hop,
            "scale": self.scale,
            "where": None if self.where is None else self.where.manifest(),
        }
        more = {
            "kind": "" if self.kind == "number" else self.kind,
            "size": self.size,
            "quantile": self.quantile,
            "edges": list(self.edges),
            "parts": [p.manifest() for p in self.parts],
            "expression": None if self.expression is None else written(self.expression),
        }
        return fixed | {name: value for name, value in more.items() if value}

    @classmethod
    def from_manifest(cls, manifest: Mapping[str, Any]) -> "Feature":
        """Rebuild what `manifest` wrote; raises `DefinitionError` when its hop is not the one we would use."""
        tree = manifest.get("expression")
        feature = cls(
            manifest["name"],
            manifest["function"],
            manifest["column"],
            manifest["window"],
            manifest["scale"],
            filter_from(manifest.get("where")),
            manifest.get("kind", "number"),
            manifest.get("size", 0),
            manifest.get("quantile", ""),
            tuple(manifest.get("edges", ())),
            tuple(cls.from_manifest(p) for p in manifest.get("parts", ())),
            "",
            None if tree is None else read(tree),
        )
        if feature.hop != manifest["hop"]:
            raise DefinitionError(
                f"feature {feature.name}: its version was made with another hop",
                hint="define the view again, or read it with the release that made it",
            )
        return feature


_LISTS: dict[Kind, Output] = {"number": "numbers", "integer": "integers", "text": "texts"}


def duration(text: str) -> Micros:
    """A length of time from what an author wrote. Raises `DefinitionError`."""
    said: Any = text
    if not isinstance(said, str):
        raise DefinitionError(f"{said!r} is no length of time", hint='write "90s", "10m", "3h" or "7d"')
    try:
        return parse_duration(text)
    except ValueError as error:
        raise DefinitionError(str(error), hint="write 90s, 10m, 3h or 7d") from None
