"""Retention rules: for names of a kind, how many of the newest versions and how many days are kept. Pure values."""

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Literal, get_args

from everloop.core.errors import InvalidInput

RetainedKind = Literal["data", "predictions"]
KINDS: tuple[str, ...] = get_args(RetainedKind)


@dataclass(frozen=True, slots=True)
class Retention:
    """Keep the newest `versions` and everything of the last `days`; what neither keeps may go.

    `name` is a glob over datasets (of kind `data`); with `tag`, only tables with a column of that tag are meant.
    Predictions know no versions: their log segments go by age. Raises `InvalidInput` for a rule that keeps nothing.
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
        if self.versions < 1 or self.days < 0 or (self.kind == "predictions" and not self.days):
            raise InvalidInput("a rule keeps at least the newest version", hint="versions >= 1; predictions need days")

    def covers(self, name: str, manifest: Mapping[str, Any]) -> bool:
        """Whether the rule is about a version of this name."""
        tags = manifest.get("tags", {}).values()
        return fnmatchcase(name, self.name) and (not self.tag or self.tag in tags)

    def manifest(self) -> dict[str, Any]:
        """The rule, JSON-ready."""
        return {field: getattr(self, field) for field in Retention.__slots__}
