"""A table under a schema of pandera, in the process of a custom expectation: every row that breaks it, not the first.

Needs the extra `pandera`.
"""

from typing import Any

import polars as pl
from pandera.errors import SchemaErrors

from everloop.data.contracts.schemas import as_schema

_NAMED = 5


def failing(schema: Any, table: pl.LazyFrame) -> tuple[pl.DataFrame, str]:
    """The rows that break a schema, and the checks that were broken, in words; no words when it holds.

    Models and schemas of `pandera.pandas` get a pandas table.
    """
    rows = table.collect()
    pandas = ".polars" not in type(as_schema(schema)).__module__
    try:
        schema.validate(rows.to_pandas() if pandas else rows, lazy=True)
    except SchemaErrors as error:
        cases = error.failure_cases
        found = cases.to_dict("records") if pandas else cases.to_dicts()
        numbers = sorted({int(case["index"]) for case in found if _is_number(case["index"])})
        broken = list(dict.fromkeys(f"{case['check']} of {case['column']}" for case in found))
        more = f" and {len(broken) - _NAMED} more" if len(broken) > _NAMED else ""
        return rows[numbers], ", ".join(broken[:_NAMED]) + more
    return rows.clear(), ""


def _is_number(value: Any) -> bool:
    return value is not None and value == value and not isinstance(value, str)  # noqa: PLR0124 - NaN is not itself
