"""What `select=` of a model says: how many inputs, and what an input must show to stay."""

from collections.abc import Collection
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from everloop.core.errors import DefinitionError


@dataclass(frozen=True, slots=True)
class Select:
    """A rule that chooses among the columns of a model's feature service; made by `el.select`.

    A column stays when its permutation importance lies above what shuffled labels give, in enough windows of time,
    and it does not answer the question all by itself. Of those that stay, the `at_most` most important are taken.
    """

    at_most: int = 0
    """0: all that stay."""
    stability: str = "0.5"
    """The share of time windows in which a column must matter, as a decimal text (identity holds no floats)."""
    leak: str = "0.995"
    """A column that alone reaches this score (ROC AUC, or squared rank correlation) is left out as a leak; 1: never."""
    windows: int = 4
    repeats: int = 3
    """Shuffles of each column."""
    nulls: int = 8
    """Fits to shuffled labels."""
    rows: int = 20_000
    """At most as many rows are looked at, evenly over time."""
    seed: int = 0
    keep: tuple[str, ...] = ()
    """Columns that stay in any case."""

    def __post_init__(self) -> None:
        """Accept one name for `keep`."""
        keep: Any = self.keep
        object.__setattr__(self, "keep", (keep,) if isinstance(keep, str) else tuple(keep))

    def manifest(self) -> dict[str, Any]:
        """Canonical-JSON-ready."""
        return {name: list(v) if isinstance(v := getattr(self, name), tuple) else v for name in self.__slots__}


def need_kept(rule: Select | None, columns: Collection[str]) -> Select | None:
    """The rule; raises `DefinitionError` for a column that it keeps and the service does not have."""
    gone = [name for name in rule.keep if name not in columns] if rule is not None else []
    if gone:
        said = f"select keeps {gone[0]!r}, which the model's service does not have"
        raise DefinitionError(
            said, hint="it has " + (", ".join(get_close_matches(gone[0], columns)) or ", ".join(columns))
        )
    return rule


def select(at_most: int = 0, *, stability: float = 0.5, leak: float = 0.995, **more: Any) -> Select:
    """How a model's inputs are chosen: `@project.model(…, select=el.select(20))`; see `Select`."""
    rule = Select(at_most, str(stability), str(leak), **more)
    fits = 0 <= float(rule.stability) <= 1 and 0 < float(rule.leak) <= 1 and rule.at_most >= 0
    if not fits or rule.windows < 2 or rule.repeats < 1 or rule.nulls < 2 or rule.rows < 100:
        raise DefinitionError(
            f"{rule} chooses nothing",
            hint="stability 0 to 1, leak up to 1, two windows and two nulls at least, 100 rows at least",
        )
    return rule
