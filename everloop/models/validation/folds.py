"""How rows are split for cross-validation, as values: `el.folds.time_series(5, gap="1d")`.

Every split is checked before it is given out: a group on both sides, a training row that was not known when validation
began, or equal times on both sides of a cut is an error, whoever made the split.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from everloop.core.clock import parse_duration
from everloop.core.errors import DefinitionError
from everloop.models import validation

if TYPE_CHECKING:
    from everloop.models.validation.splitting import Fold

KINDS = ("time_series", "purged", "grouped", "stratified")


@dataclass(frozen=True, slots=True)
class Folds:
    """A way to split; made by the functions of this module."""

    kind: str
    n: int
    gap: int = 0
    """Microseconds (or units of a numeric time) between what a training row knew last and the start of validation."""
    window: int | None = None
    """Train on so much time before validation only; None: on all of it."""
    by: str = ""
    """The column whose groups are kept on one side."""
    seed: int = 0

    def split(self, *, time: Any = None, known: Any = None, groups: Any = None, label: Any = None) -> "list[Fold]":
        """The folds of rows with these columns, each an array of a value a row.

        `time` is when a row's question was asked, `known` when its label was known (not before `time`). Raises
        `DataError` for a column that is missing or has nulls, for too few rows, times, groups or rows of a class.
        """
        return validation.splitting.split(self, time=time, known=known, groups=groups, label=label)

    def manifest(self) -> dict[str, Any]:
        """JSON-ready, without what does not matter."""
        said = {name: getattr(self, name) for name in self.__slots__}
        return {name: value for name, value in said.items() if value not in ("", None) and (value or name == "seed")}


def time_series(n: int = 5, *, gap: str | int = 0, window: str | int | None = None, by: str = "") -> Folds:
    """Train on the past, validate on what comes next, `n` times; equal times are never cut apart.

    A training row's label was known `gap` before validation begins (its `known` time where there is one). `window`
    leaves out what is older. With `by`, groups that are validated are taken out of training as well.
    """
    return _made(Folds("time_series", n, _amount(gap), None if window is None else _amount(window), by))


def purged(n: int = 5, *, embargo: str | int = 0) -> Folds:
    """Validate on each stretch of time, train on what is before and after it, less all that overlaps it.

    Rows whose time from question to label overlaps that of a validated row are left out, and so is what follows within
    `embargo` (López de Prado, Advances in Financial Machine Learning, 2018, chapter 7).
    """
    return _made(Folds("purged", n, _amount(embargo)))


def grouped(by: str, n: int = 5) -> Folds:
    """Each group (a customer, an aircraft) is on one side only; folds of about one size."""
    if not by:
        raise DefinitionError("groups of which column?", hint='el.folds.grouped("customer")')
    return _made(Folds("grouped", n, by=by))


def stratified(n: int = 5, *, seed: int = 0) -> Folds:
    """Each fold has the classes in the same shares (a label of many numbers: its deciles). For rows without a time."""
    return _made(Folds("stratified", n, seed=seed))


def from_manifest(said: dict[str, Any]) -> Folds:
    """The folds that `Folds.manifest` described."""
    return _made(Folds(**said))


def _made(folds: Folds) -> Folds:
    if folds.n < 2 or folds.gap < 0 or (folds.window is not None and folds.window <= 0) or folds.kind not in KINDS:
        raise DefinitionError(f"rows cannot be split like this: {folds}", hint="two folds at least, gap from 0")
    return folds


def _amount(amount: str | int) -> int:
    if not isinstance(amount, str):
        return amount
    try:
        return parse_duration(amount)
    except ValueError as error:
        raise DefinitionError(str(error), hint='for example "1d"') from None
