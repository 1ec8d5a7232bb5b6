"""What a comparison of two versions says."""

from dataclasses import dataclass
from typing import Literal

Factor = Literal[
    "rows",
    "columns",
    "code",
    "parameter",
    "package",
    "python",
    "platform",
    "cpu",
    "blas",
    "threads",
    "seed",
    "reads",
    "contract",
    "policy",
    "definition",
    "input",
    "output",
    "people",
]
"""What kind of thing differs. `reads`: something that a step read and nobody declared; `output`: what came out."""
Matters = Literal["yes", "no", "unknown"]
"""Whether a difference can have changed the versions that were asked about."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that is not the same on both sides."""

    factor: Factor
    name: str
    """Which one: a parameter, a package, a column, a piece of code."""
    old: str = ""
    new: str = ""
    matters: Matters = "yes"
    reason: str = ""
    """Why it matters, or cannot."""
    hunk: str = ""
    """A unified diff, for code."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two versions that play the same part on the two sides; one of them is empty where only one side has it."""

    path: tuple[str, ...]
    """The roles that lead here from the versions that were asked about."""
    kind: str
    old: str
    new: str
    old_label: str
    new_label: str
    differences: tuple[Difference, ...]
    root: bool
    """Whether something differs here that does not come from what it was made of."""
    step: str = ""
    """The asset whose step made both; empty when nothing recorded did."""


@dataclass(frozen=True, slots=True)
class Why:
    """Everything that differs between two versions, nearest first."""

    old: str
    new: str
    old_label: str
    new_label: str
    pairs: tuple[Pair, ...]
    shared: int
    """Versions of the lineage that both sides have: nothing above them can matter, so they are not looked at."""

    @property
    def same(self) -> bool:
        """Whether both are one version."""
        return self.old == self.new


def is_cause(one: Difference, *, made: bool) -> bool:
    """Whether a difference can be where others come from. Rows and columns of a table that a step made came out."""
    return one.factor not in ("output", "input", "people") and not (made and one.factor in ("rows", "columns"))
