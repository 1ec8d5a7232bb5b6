"""How the columns of a dataset may change from one version to the next.

By itself a column is added (older rows hold nulls there), and a number widened: integers, floats, decimals, each to the
smallest type that holds all its values. A column is dropped, renamed or given another type only when an `Evolution`
says so, by the option of an edit or in the source's definition. Everything else is refused.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from everloop.core.errors import InvalidInput


@dataclass(frozen=True, slots=True)
class Evolution:
    """What is told to change: columns that go, new names by old ones, types by (new) name as `data show` names them.

    It holds for the dataset whichever way rows still come: a column that is dropped is left out of them, one with its
    old name gets the new one, and one of another type is converted, each value without loss.
    Raises `InvalidInput` when it contradicts itself.
    """

    drop: Sequence[str] = ()
    rename: Mapping[str, str] = field(default_factory=dict)
    retype: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Freeze and check."""
        drop = (self.drop,) if isinstance(self.drop, str) else tuple(self.drop)
        object.__setattr__(self, "drop", drop)
        object.__setattr__(self, "rename", dict(self.rename))
        object.__setattr__(self, "retype", dict(self.retype))
        new = list(self.rename.values())
        twice = [name for name in new if new.count(name) > 1]
        both = [*twice, *(name for name in drop if name in self.rename or name in new or name in self.retype)]
        if both:
            raise InvalidInput(f"what is to become of the column {both[0]!r}?", hint="one thing for each column")

    def __bool__(self) -> bool:
        """Whether anything is told."""
        return bool(self.drop or self.rename or self.retype)

    def name(self, column: str) -> str | None:
        """What a column is called from now on; None for one that goes."""
        return None if column in self.drop else self.rename.get(column, column)

    def manifest(self) -> dict[str, Any]:
        """In canonical-JSON-ready form."""
        return {"drop": list(self.drop), "rename": dict(self.rename), "retype": dict(self.retype)}


UNCHANGED = Evolution()
"""Nothing is told."""
