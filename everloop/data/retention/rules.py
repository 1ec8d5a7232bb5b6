"""Retention rules: for names of a kind, how many of the newest versions and how many days are kept. Pure values."""

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Literal, get_args

from everloop.core.errors import InvalidInput

RetainedKind = Literal["data", "frame", "predictions", "runs", "traces"]
KINDS: tuple[str, ...] = get_args(RetainedKind)


@dataclass(frozen=True, slots=True)
class Retention:
    """Keep the newest `versions` and everything of the last `days`; what neither keeps may go.

    `name` is a glob over tables (`data`, and `frame`: what models were trained on), or over names of experiments
    (`runs`, `traces`); with `tag`, only tables with a column of that tag are meant. Of runs the newest `versions` of an
    experiment stay; predictions and traces go by age alone. Raises `InvalidInput` for a rule that keeps nothing.
    """

    kind: RetainedKind
    name: str = "*"
    tag: str = ""
    versions: int = 1
    days: float = 0.0

    def __post_init__(self) -> None:
        """Check the rule."""
        if self.kind not in KINDS:
            raise InvalidInput(f"{self.kind!r} is no kind that rules are for", hint="one of " + ", ".join(KINDS))
        if self.versions < 1 or self.days < 0 or (self.kind not in ("data", "frame") and not self.days):
            raise InvalidInput("a rule keeps at least the newest version", hint="versions >= 1; the others need days")
        if self.tag and self.kind not in ("data", "frame"):
            raise InvalidInput(f"{self.kind} have no columns with tags", hint="rules for data and frame may name a tag")

    def names(self, name: str) -> bool:
        """Whether the rule is about this name."""
        return fnmatchcase(name, self.name)

    def manifest(self) -> dict[str, Any]:
        """The rule, JSON-ready."""
        return {field: getattr(self, field) for field in Retention.__slots__}
