"""What a project's code says of its assets beside their definitions: owner, description, labels, columns.

It is no part of any version: to describe a table better makes no new version of it. What a person says on a page stands
before it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from everloop.core.errors import InvalidInput
from everloop.features.definitions import FeatureViewDef

Word = Literal["owner", "description", "label"]
_LONGEST, _LONG = 200, 10_000


@dataclass(frozen=True, slots=True)
class Described:
    """Words about one asset; raises `InvalidInput` for words that are none, or too long."""

    owner: str = ""
    description: str = ""
    labels: Sequence[str] = ()
    columns: Mapping[str, str] = field(default_factory=dict)
    """Column -> what it means: units, origin, what a null says."""

    def __post_init__(self) -> None:
        """Check every word."""
        if isinstance(self.labels, str):
            raise InvalidInput(f"labels={self.labels!r} is one text", hint=f"labels=[{self.labels!r}]")
        named = [("owner", self.owner, _LONGEST), ("description", self.description, _LONG)]
        named += [("a label", label, _LONGEST) for label in self.labels]
        named += [(f"what is said of {column!r}", text, _LONG) for column, text in self.columns.items()]
        for what, text, longest in named:
            if not isinstance(text, str) or len(text) > longest:
                raise InvalidInput(f"{what} is no text of at most {longest} characters")

    @property
    def words(self) -> list[tuple[str, Word, str]]:
        """(column, field, value) of all that is said; the column is empty for the asset itself."""
        own: list[tuple[str, Word, str]] = [("", "owner", self.owner), ("", "description", self.description)]
        own += [("", "label", label) for label in dict.fromkeys(self.labels)]
        own += [(column, "description", text) for column, text in self.columns.items()]
        return [(column, name, value.strip()) for column, name, value in own if value.strip()]


def said_of(made: Any, said: Described) -> Described:
    """All that the code says of a definition: of a view also what its features are described by where they are made."""
    if not isinstance(made, FeatureViewDef):
        return said
    own = {feature.name: feature.description for feature in made.features if feature.description}
    return replace(said, columns=own | dict(said.columns))
