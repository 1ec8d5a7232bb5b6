"""Schemas of pandera as expectations of ours.

What has an equal among our expectations becomes that one: it is counted over the whole table in one pass, by rows that
stream, and masked where columns are tagged. What has none (functions, whole-table checks, `strict`, `ordered`) is left
to pandera: one custom expectation runs the schema in a process of its own (`contracts.validating`).
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

import polars as pl
import pyarrow as pa

from everloop.core.errors import EverloopError, InvalidInput
from everloop.data import expect
from everloop.data.content.schema import logical_type
from everloop.data.expect import Expectation, Severity

_Equal = Callable[[str, Mapping[str, Any], Severity], Expectation | None]


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _above(column: str, told: Mapping[str, Any], severity: Severity) -> Expectation | None:
    least = told["min_value"]  # the next whole number: only of columns that hold whole numbers, see `_equal`
    return expect.between(column, least + 1, severity=severity) if _whole(least) else None


def _below(column: str, told: Mapping[str, Any], severity: Severity) -> Expectation | None:
    most = told["max_value"]
    return expect.between(column, None, most - 1, severity=severity) if _whole(most) else None


def _range(column: str, told: Mapping[str, Any], severity: Severity) -> Expectation | None:
    if not (told.get("include_min", True) and told.get("include_max", True)):
        return None
    return expect.between(column, told["min_value"], told["max_value"], severity=severity)


def _listed(column: str, values: Any, severity: Severity) -> Expectation | None:
    listed = list(values)
    return expect.one_of(column, listed, severity=severity) if all(isinstance(v, str | int) for v in listed) else None


def _text(column: str, pattern: Any, severity: Severity) -> Expectation | None:
    """Texts that a pattern matches as a whole; None for one that RE2 would read otherwise."""
    if not isinstance(pattern, str) or re.search(r"\(\?[=!<]|\\[1-9]|\\Z|\(\?P[=>]", pattern):
        return None
    return expect.matches(column, pattern, severity=severity)


def _length(told: Mapping[str, Any]) -> str:
    exact, least, most = told.get("exact_value"), told.get("min_value"), told.get("max_value")
    if exact is not None:
        return f"(?s:.{{{exact}}})"
    return f"(?s:.{{{least or 0},{'' if most is None else most}}})"


_EQUAL: Mapping[str, _Equal] = {
    "greater_than_or_equal_to": lambda c, told, s: expect.between(c, told["min_value"], severity=s),
    "less_than_or_equal_to": lambda c, told, s: expect.between(c, None, told["max_value"], severity=s),
    "greater_than": _above,
    "less_than": _below,
    "in_range": _range,
    "isin": lambda c, told, s: _listed(c, told["allowed_values"], s),
    "equal_to": lambda c, told, s: _listed(c, [told["value"]], s),
    "str_matches": lambda c, told, s: _text(c, f"(?s:(?:{_pattern(told)}).*)", s),
    "str_contains": lambda c, told, s: _text(c, f"(?s:.*(?:{_pattern(told)}).*)", s),
    "str_startswith": lambda c, told, s: _text(c, f"(?s:{re.escape(told['string'])}.*)", s),
    "str_endswith": lambda c, told, s: _text(c, f"(?s:.*{re.escape(told['string'])})", s),
    "str_length": lambda c, told, s: _text(c, _length(told), s),
}


def _pattern(told: Mapping[str, Any]) -> str:
    pattern = told["pattern"]
    return str(getattr(pattern, "pattern", pattern))


def translated(schema: Any, at: str, severity: Severity) -> tuple[Expectation, ...]:
    """The expectations of a pandera schema or model.

    Raises `InvalidInput` for another thing, and for a schema that pandera has to check itself and that has no name by
    which a process of its own could find it.
    """
    if not is_schema(schema):
        raise InvalidInput(f"{schema!r} is no schema of pandera", hint="a DataFrameModel or a DataFrameSchema")
    made, rest = _translated(as_schema(schema), severity)
    if rest:
        where = at or (f"{schema.__module__}:{schema.__qualname__}" if isinstance(schema, type) else "")
        if not where:
            raise InvalidInput(
                f"pandera has to check {', '.join(rest)} itself, and cannot find this schema by a name",
                hint='expect.pandera(schema, at="module:name")',
            )
        made.append(expect.custom(where, severity=severity))
    return tuple(made)


def as_schema(schema: Any) -> Any:
    """The schema of a model, or the schema itself."""
    return schema.to_schema() if hasattr(schema, "to_schema") else schema


def is_schema(value: Any) -> bool:
    """Whether it is a schema or a model of pandera, which need not be loaded to ask."""
    kinds = value.__mro__ if isinstance(value, type) else type(value).__mro__
    return any(kind.__module__.partition(".")[0] == "pandera" for kind in kinds) and hasattr(value, "validate")


def _translated(schema: Any, severity: Severity) -> tuple[list[Expectation], list[str]]:
    """What has an equal, and the words for what has none."""
    made: list[Expectation] = []
    rest = [word for word in ("strict", "ordered") if getattr(schema, word, False)]
    rest += [check.name or "a check of the whole table" for check in schema.checks or ()]
    rest += ["parsers"] if getattr(schema, "parsers", None) else []
    rest += ["its index"] if getattr(schema, "index", None) is not None else []
    required = [name for name, column in schema.columns.items() if column.required]
    if required:
        made.append(expect.columns(*required, severity=severity))
    for name, column in schema.columns.items():
        if getattr(column, "regex", False) or not column.required:
            rest.append(f"column {name!r}")  # ours fail where a column is not there
            continue
        type_ = _type(column)
        if type_ is not None and not (column.coerce or schema.coerce):
            made.append(expect.dtype(name, type_, severity=severity))
        if not column.nullable:
            made.append(expect.not_null(name, severity=severity))
        if column.unique:
            made.append(expect.unique(name, severity=severity))
        for check in column.checks:
            equal = _equal(name, check, type_, severity)
            made += [equal] if equal is not None else []
            rest += [check.name or f"a check of {name!r}"] if equal is None else []
    together = schema.unique
    if together:
        made.append(expect.unique(*([together] if isinstance(together, str) else together), severity=severity))
    return made, rest


def _equal(column: str, check: Any, type_: str | None, severity: Severity) -> Expectation | None:
    make = _EQUAL.get(check.name)
    plain = check.ignore_na and not check.groupby and make is not None
    if not plain or (check.name in ("greater_than", "less_than") and not (type_ or "").startswith(("int", "uint"))):
        return None
    assert make is not None
    try:
        return make(column, check.statistics, "warn" if check.raise_warning else severity)
    except EverloopError:
        return None  # a bound or a pattern that ours do not take


def _type(column: Any) -> str | None:
    """The logical type of a column, by the dtype of Polars or pandas; None where it names none of ours."""
    told = getattr(column.dtype, "type", None)
    try:
        if isinstance(told, pl.DataType) or (isinstance(told, type) and issubclass(told, pl.DataType)):
            return logical_type(pl.Series("x", [], dtype=told).to_arrow().type)
        if told is None or str(told) in ("object", "category"):
            return None
        named = getattr(told, "pyarrow_dtype", None)
        return logical_type(named if named is not None else pa.from_numpy_dtype(told))
    except (pa.ArrowException, EverloopError, TypeError, ValueError, NotImplementedError):
        return "string" if str(told) in ("str", "string", "string[python]", "string[pyarrow]") else None
