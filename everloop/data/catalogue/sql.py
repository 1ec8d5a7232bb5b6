"""What the columns of a query are made from, read off its text by sqlglot (extra `sql`).

Only values count: a column that a query filters or joins by decides which rows there are, not what is in them. Where
the text does not tell (`select *` of a table nobody described, a statement that sqlglot cannot read), the column may
come from anything that the query reads: column `*`, operator `unknown`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError
from sqlglot.lineage import Node, lineage

_AGGREGATES: Mapping[type[exp.Expr], str] = {
    exp.Avg: "mean",
    exp.Sum: "sum",
    exp.Count: "count",
    exp.Min: "min",
    exp.Max: "max",
}
_DIGESTS = (exp.MD5, exp.MD5Digest, exp.SHA, exp.SHA2)
_ORDER = ("unknown", "combine", "min", "max", "sum", "mean", "hash", "count", "copy")
"""Of two things done one after the other, the earlier in this list is what is said of both."""


@dataclass(frozen=True, slots=True)
class SqlOrigin:
    """A column of a table outside, and what the query does with it."""

    table: str
    column: str
    operator: str


def origins(query: str, names: Sequence[str], *, dialect: str | None = None) -> dict[str, tuple[SqlOrigin, ...]]:
    """What each of the columns `names` of a query's answer is made from."""
    try:
        parsed = sqlglot.parse_one(query, dialect=dialect)
    except SqlglotError:
        parsed = exp.Null()
    if not isinstance(parsed, exp.Query):
        return dict.fromkeys(names, (SqlOrigin("*", "*", "unknown"),))
    tables = sorted({_table(one) for one in parsed.find_all(exp.Table)} - {c.alias for c in parsed.find_all(exp.CTE)})
    anything = tuple(SqlOrigin(table, "*", "unknown") for table in tables)
    return {name: _column(name, parsed, dialect, anything) for name in names}


def _column(name: str, parsed: exp.Expr, dialect: str | None, anything: tuple[SqlOrigin, ...]) -> tuple[SqlOrigin, ...]:
    try:
        found = dict.fromkeys(_leaves(lineage(name, parsed.copy(), {}, dialect=dialect), "copy"))
    except (SqlglotError, ValueError, KeyError):  # no such column: hidden behind a star
        return anything
    if any(one.column == "*" for one in found):
        return anything
    return tuple(found)


def _leaves(node: Node, operator: str) -> list[SqlOrigin]:
    if isinstance(node.expression, exp.Table):
        column = node.name.rpartition(".")[2].strip('"')
        return [SqlOrigin(_table(node.expression), column, operator)]
    if isinstance(node.expression, exp.Star):
        return [SqlOrigin("*", "*", "unknown")]
    done = _combined(operator, _operator(node.expression))
    return [leaf for below in node.downstream for leaf in _leaves(below, done)]


def _combined(one: str, other: str) -> str:
    return min(one, other, key=_ORDER.index)


def _operator(expression: exp.Expr) -> str:
    """What a projection does with the columns in it, by its outermost function."""
    plain = expression.unalias() if isinstance(expression, exp.Alias) else expression
    if isinstance(plain, exp.Column):
        return "copy"
    if isinstance(plain, _DIGESTS):
        return "hash"
    if isinstance(plain, exp.Select | exp.SetOperation | exp.Subquery):
        return "copy"  # its projections stand below it
    return next((name for kind, name in _AGGREGATES.items() if isinstance(plain, kind)), "combine")


def _table(table: exp.Table) -> str:
    return ".".join(part.name for part in table.parts)
