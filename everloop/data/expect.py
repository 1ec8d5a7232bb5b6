"""Expectations: small values that say what must hold of a table.

`severity` is `block` (a head does not move to data that breaks it) or `warn`.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from importlib import import_module
from typing import Any, Literal, get_args

from everloop.core.clock import iso, micros, parse_duration
from everloop.core.errors import InvalidInput

Severity = Literal["block", "warn"]
Test = Literal["ks", "psi", "tv"]
Bound = int | float | str | date | datetime

KINDS = (
    "unique",
    "not_null",
    "between",
    "one_of",
    "matches",
    "row_count",
    "fresh",
    "dtype",
    "null_share",
    "ordered",
    "columns",
    "references",
    "row_change",
    "drift",
    "custom",
)
RELATIONS = frozenset({"references", "row_change", "drift", "custom"})
"""Kinds that a table alone cannot answer: they look at other versions, or run the author's code."""
_BARE = frozenset({"row_count", "row_change", "custom"})
"""Kinds that name no column."""
MASK = "•••"
"""What stands for values of tagged columns wherever rows are shown."""
_LONG = 200


@dataclass(frozen=True, slots=True)
class Expectation:
    """One expectation. Make it with the functions of this module; parameters are text or integers, never floats."""

    kind: str
    columns: tuple[str, ...] = ()
    params: tuple[tuple[str, Any], ...] = ()
    severity: str = "block"

    def __post_init__(self) -> None:
        """Check kind, columns and severity; raises `InvalidInput`."""
        if self.kind not in KINDS:
            raise InvalidInput(f"{self.kind!r} is not an expectation", hint="one of " + ", ".join(KINDS))
        if self.severity not in get_args(Severity):
            raise InvalidInput(f"{self.severity!r} is not a severity", hint="block or warn")
        if self.kind not in _BARE and not self.columns:
            raise InvalidInput(f"expect.{self.kind} names no column")
        if not all(isinstance(c, str) and c for c in self.columns):
            raise InvalidInput(f"expect.{self.kind} needs names of columns, not {self.columns!r}")

    def __str__(self) -> str:
        """How it reads: `between(distance, lower=0, upper=6000)`."""
        inside = [*self.columns, *(f"{k}={_shown(v)}" for k, v in self.params if v is not None)]
        return f"{self.kind}({', '.join(inside)})"

    def param(self, name: str) -> Any:
        """One parameter, None where it was not given."""
        return dict(self.params).get(name)

    def manifest(self) -> dict[str, Any]:
        """Canonical-JSON-ready form."""
        params = {k: list(v) if isinstance(v, tuple) else v for k, v in self.params if v is not None}
        return {"expect": self.kind, "columns": list(self.columns), "severity": self.severity, "params": params}

    @classmethod
    def from_manifest(cls, manifest: Mapping[str, Any]) -> "Expectation":
        """Rebuild what `manifest` wrote."""
        params = {k: tuple(v) if isinstance(v, list) else v for k, v in manifest.get("params", {}).items()}
        return cls(manifest["expect"], tuple(manifest["columns"]), tuple(params.items()), manifest["severity"])


@dataclass(frozen=True, slots=True)
class ExpectationResult:
    """How one expectation went."""

    expectation: Expectation
    passed: bool
    observed: str
    """What was found, in a few words."""
    failing: int = 0
    """How many rows break it, where it is about rows."""
    examples: tuple[Mapping[str, str], ...] = ()
    """Some of these rows: the concerned columns, and the key."""
    pinned: Mapping[str, str] = field(default_factory=dict)
    """Other versions that it looked at: the head of a dataset that is referred to, the version compared with."""

    @property
    def blocks(self) -> bool:
        """Whether a head must not move because of it."""
        return not self.passed and self.expectation.severity == "block"

    def payload(self) -> dict[str, Any]:
        """JSON-ready, for facts and answers."""
        return {
            "expectation": str(self.expectation),
            "severity": self.expectation.severity,
            "passed": self.passed,
            "observed": self.observed,
            "failing": self.failing,
            "examples": [dict(example) for example in self.examples],
            "pinned": dict(self.pinned),
        }


def _shown(value: Any) -> str:
    text = "[" + ", ".join(map(str, value)) + "]" if isinstance(value, tuple) else str(value)
    return text if len(text) <= _LONG else text[: _LONG - 1] + "…"


def _make(kind: str, columns: tuple[str, ...], severity: Severity, /, **params: Any) -> Expectation:
    return Expectation(kind, columns, tuple((k, v) for k, v in params.items() if v is not None), severity)


def _bound(value: Bound | None, what: str) -> int | str | None:
    """Integers stay, everything else becomes text: identity fields hold no floats."""
    if value is None or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise InvalidInput(f"{what} cannot be {value}", hint="leave the bound out")
        return repr(value)
    if isinstance(value, datetime):
        return iso(micros(value)) if value.tzinfo else value.isoformat()
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, str):
        return value
    raise InvalidInput(f"{what} cannot be {value!r}", hint="a number, a date, a datetime or ISO text")


def unique(*columns: str, severity: Severity = "block") -> Expectation:
    """No two rows hold the same values in `columns` together (rows with a null among them do not count)."""
    return _make("unique", columns, severity)


def not_null(*columns: str, severity: Severity = "block") -> Expectation:
    """None of `columns` holds a null."""
    return _make("not_null", columns, severity)


def between(
    column: str, lower: Bound | None = None, upper: Bound | None = None, *, severity: Severity = "block"
) -> Expectation:
    """Every value lies in [lower, upper]; nulls pass, NaN fails. Times are dates, datetimes or ISO text."""
    if lower is None and upper is None:
        raise InvalidInput(f"expect.between({column!r}) has no bound", hint="give a lower bound, an upper one, or both")
    return _make("between", (column,), severity, lower=_bound(lower, "lower"), upper=_bound(upper, "upper"))


def one_of(column: str, values: Sequence[str | int | bool], *, severity: Severity = "block") -> Expectation:
    """Every value is one of `values`; nulls pass."""
    if isinstance(values, str) or not values or not all(isinstance(v, str | int) for v in values):
        raise InvalidInput(f"expect.one_of({column!r}) needs a list of texts, integers or booleans")
    return _make("one_of", (column,), severity, values=tuple(values))


def matches(column: str, pattern: str, *, severity: Severity = "block") -> Expectation:
    """The whole of every text matches a regular expression (RE2 syntax); nulls pass."""
    try:
        re.compile(pattern)
    except re.error as error:
        raise InvalidInput(f"expect.matches({column!r}): {error}", hint="a regular expression") from error
    return _make("matches", (column,), severity, pattern=pattern)


def row_count(at_least: int | None = None, at_most: int | None = None, *, severity: Severity = "block") -> Expectation:
    """The table has that many rows."""
    if at_least is None and at_most is None:
        raise InvalidInput("expect.row_count has no bound")
    return _make("row_count", (), severity, at_least=at_least, at_most=at_most)


def fresh(column: str, within: str, *, severity: Severity = "block") -> Expectation:
    """The newest time in `column` is no older than `within` (`36h`) at event time now; an empty table fails."""
    try:
        parse_duration(within)
    except ValueError as error:
        raise InvalidInput(f"expect.fresh({column!r}): {error}") from error
    return _make("fresh", (column,), severity, within=within)


def dtype(column: str, type: str, *, severity: Severity = "block") -> Expectation:  # noqa: A002 - reads as authors say it
    """The column has that logical type: `int64`, `float64`, `string`, `timestamp[us,UTC]`, `decimal(12,2)`."""
    return _make("dtype", (column,), severity, type=type)


def null_share(column: str, at_most: float, *, severity: Severity = "block") -> Expectation:
    """At most that share of the rows (0 to 1) is null."""
    if not 0 <= at_most <= 1:
        raise InvalidInput(f"expect.null_share({column!r}): {at_most} is not a share between 0 and 1")
    return _make("null_share", (column,), severity, at_most=repr(float(at_most)))


def ordered(smaller: str, larger: str, *, severity: Severity = "block") -> Expectation:
    """In every row `smaller` ≤ `larger`, where both are there."""
    return _make("ordered", (smaller, larger), severity)


def columns(*names: str, severity: Severity = "block") -> Expectation:
    """The table has these columns."""
    return _make("columns", names, severity)


def references(
    column: str | Sequence[str], dataset: str, to: str | Sequence[str] | None = None, *, severity: Severity = "block"
) -> Expectation:
    """Every value (of several columns: every combination) is there in the head of another dataset; nulls pass.

    `to` names the columns there, by default those of the same names.
    """
    ours = (column,) if isinstance(column, str) else tuple(column)
    theirs = ours if to is None else (to,) if isinstance(to, str) else tuple(to)
    if len(ours) != len(theirs):
        raise InvalidInput(f"expect.references: {len(ours)} columns cannot refer to {len(theirs)}")
    return _make("references", ours, severity, dataset=dataset, to=None if theirs == ours else theirs)


def row_change(
    at_least: float | None = None, at_most: float | None = None, *, severity: Severity = "block"
) -> Expectation:
    """The number of rows changes by a share in [at_least, at_most] of the previous version's: `at_least=-0.1`."""
    if at_least is None and at_most is None:
        raise InvalidInput("expect.row_change has no bound", hint="at_least=-0.1: at most a tenth of the rows goes")
    bounds = {"at_least": _bound(at_least, "at_least"), "at_most": _bound(at_most, "at_most")}
    return _make("row_change", (), severity, **bounds)


def drift(
    column: str, at_most: float, *, test: Test = "ks", against: str = "previous", severity: Severity = "warn"
) -> Expectation:
    """The distribution lies at most that far from the one of the previous version, or of `against` (`flights@7`).

    `test`: `ks` (Kolmogorov-Smirnov distance, numbers), `tv` (total variation distance, values), `psi` (population
    stability index, both). It is measured on the profiles' sketches, so no row is read.
    """
    if test not in get_args(Test):
        raise InvalidInput(f"expect.drift({column!r}): {test!r} is no test", hint="ks, psi or tv")
    if not at_most >= 0 or not math.isfinite(at_most):
        raise InvalidInput(f"expect.drift({column!r}): {at_most} is no distance", hint="a number from 0 on")
    return _make("drift", (column,), severity, at_most=repr(float(at_most)), test=test, against=against)


def custom(function: str, *, severity: Severity = "block") -> Expectation:
    """What a function of the project says, `module:function`, which runs in a process of its own.

    It gets a Polars LazyFrame, and answers a boolean, a number of rows that break it, or a frame of these rows.
    """
    module, colon, name = function.partition(":")
    if not (colon and module and name):
        raise InvalidInput(f"expect.custom({function!r}) names no function", hint="module:function")
    return _make("custom", (), severity, function=function)


def pandera(schema: Any, *, at: str = "", severity: Severity = "block") -> tuple[Expectation, ...]:
    """The expectations of a `DataFrameModel` or `DataFrameSchema` of pandera (extra `pandera`), for Polars or pandas.

    Write `expect=[*expect.pandera(Flights)]`. What has an equal here becomes it; the rest is one custom expectation
    that runs the schema, which then must have a name: a model's own, or `at="module:name"`. A check with
    `raise_warning` warns. Nothing is converted: `coerce` only takes away what is said of types. Raises `InvalidInput`.
    """
    found: tuple[Expectation, ...] = import_module("everloop.data.contracts.schemas").translated(schema, at, severity)
    return found
