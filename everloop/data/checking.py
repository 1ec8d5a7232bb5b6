"""Expectations checked over a whole table, by DuckDB in one pass, with the rows that fail (masked where tagged)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, TypeAlias

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from everloop.core.clock import Micros, iso, parse_duration
from everloop.core.errors import InvalidInput
from everloop.data.codec import scan_sql
from everloop.data.content.schema import logical_type
from everloop.data.engine import connect, literal, quoted, select
from everloop.data.expect import MASK, RELATIONS, Expectation, ExpectationResult

EXAMPLES = 5
Table: TypeAlias = Sequence[Path] | pl.DataFrame | pl.LazyFrame | pa.Table


def check_expectations(
    table: Table,
    expectations: Sequence[Expectation],
    *,
    tags: Mapping[str, str] | None = None,
    key: Sequence[str] = (),
    now: Micros = 0,
) -> tuple[ExpectationResult, ...]:
    """Check all expectations over a table or the Parquet files of a version (`paths(ctx, id)`).

    `now` is the event time that `fresh` compares with. Columns that are not there fail their expectation, they do
    not raise. Raises `InvalidInput` for a bound that does not fit its column's type.
    """
    if not expectations:
        return ()
    with connect() as engine:
        source, types = _attached(engine, table)
        check = _Check(engine, source, types, dict(tags or {}), tuple(key), now)
        counts = check.count([e for e in expectations if e.kind not in RELATIONS and check.missing(e) is None])
        return tuple(check.result(e, counts) for e in expectations)


def broken_rows(rows: pa.Table, expectations: Sequence[Expectation]) -> list[tuple[Expectation, list[int]]]:
    """The numbers of the rows that break each of these expectations, which are about single rows."""
    if not expectations or not rows.num_rows:
        return []
    with connect() as engine:
        source, types = _attached(engine, rows.append_column(_NUMBER, pa.array(range(rows.num_rows))))
        check = _Check(engine, source, types, {}, (), 0)
        return [(e, check.broken(e)) for e in expectations]


def failing_table(table: Table, expectation: Expectation, limit: int) -> pa.Table | None:
    """The rows that break an expectation, `limit` of them at most, all columns; None for one that is not about rows."""
    with connect() as engine:
        source, types = _attached(engine, table)
        check = _Check(engine, source, types, {}, (), 0)
        condition = None if check.missing(expectation) else check.failing(expectation)
        if condition is None:
            return None
        return engine.sql(select("*", source, condition, f"limit {limit}")).to_arrow_table()


_NUMBER = "everloop:row number"


def _attached(engine: duckdb.DuckDBPyConnection, table: Table) -> tuple[str, dict[str, str]]:
    if isinstance(table, pl.LazyFrame):
        table = table.collect()
    if isinstance(table, pl.DataFrame):
        table = table.to_arrow()
    if isinstance(table, pa.Table):
        engine.register("given", table)
        return "given", {f.name: logical_type(f.type) for f in table.schema}
    files = list(table)
    return scan_sql(files), {f.name: logical_type(f.type) for f in pq.read_schema(files[0])}


@dataclass(slots=True)
class _Check:
    """One table under check."""

    engine: duckdb.DuckDBPyConnection
    source: str
    types: Mapping[str, str]
    tags: Mapping[str, str]
    key: tuple[str, ...]
    now: Micros
    rows: int = 0

    def missing(self, expectation: Expectation) -> str | None:
        return next((c for c in expectation.columns if c not in self.types), None)

    def count(self, expectations: Sequence[Expectation]) -> dict[Expectation, Any]:
        """The figure that each expectation is about, all in one pass; `unique` takes a pass of its own."""
        single = [e for e in expectations if e.kind != "unique"]
        figures = [f for e in single if (f := self._figure(e)) is not None]
        asked = [e for e in single if self._figure(e) is not None]
        self.rows, *found = self._row(select(", ".join(["count(*)", *figures]), self.source))
        counts = dict(zip(asked, found, strict=True))
        for e in expectations:
            if e.kind == "unique":
                counts[e] = self._row(select("coalesce(sum(rows), 0)::bigint", f"({self._repeated(e)})"))[0]
        return counts

    def broken(self, e: Expectation) -> list[int]:
        """The numbers of rows that break it, in order."""
        query = select(quoted(_NUMBER), self.source, str(self._broken(e)), "order by all")
        return [int(number) for (number,) in self.engine.execute(query).fetchall()]

    def failing(self, e: Expectation) -> str | None:
        """The condition of the rows that are to blame; None for what is not about rows."""
        if e.kind == "unique":
            columns = ", ".join(quoted(c) for c in e.columns)
            return f"({columns}) in ({select(columns, f'({self._repeated(e)})')})"
        return f"{quoted(e.columns[0])} is null" if e.kind == "null_share" else self._broken(e)

    def result(self, e: Expectation, counts: Mapping[Expectation, Any]) -> ExpectationResult:
        if e.kind in RELATIONS:
            return ExpectationResult(e, passed=True, observed="not checked here: it is about versions")
        absent = self.missing(e)
        if absent is not None:
            return ExpectationResult(e, passed=False, observed=f"there is no column {absent!r}")
        if e.kind in ("columns", "dtype", "row_count"):
            return self._shape(e)
        if e.kind == "null_share":
            share = counts[e] / self.rows if self.rows else 0.0
            return ExpectationResult(e, share <= float(e.param("at_most")), f"{share:.4%} null", counts[e])
        if e.kind == "fresh":
            return self._fresh(e, counts[e])
        failing = int(counts[e])
        observed = f"{failing} of {self.rows} rows" if failing else f"{self.rows} rows hold"
        return ExpectationResult(e, failing == 0, observed, failing, self._examples(e) if failing else ())

    def _shape(self, e: Expectation) -> ExpectationResult:
        if e.kind == "columns":
            return ExpectationResult(e, passed=True, observed="all there")
        if e.kind == "dtype":
            actual = self.types[e.columns[0]]
            return ExpectationResult(e, actual == e.param("type"), actual)
        low, high = e.param("at_least"), e.param("at_most")
        fits = (low is None or self.rows >= low) and (high is None or self.rows <= high)
        return ExpectationResult(e, fits, f"{self.rows} rows")

    def _fresh(self, e: Expectation, newest: int | None) -> ExpectationResult:
        if newest is None:
            return ExpectationResult(e, passed=False, observed="there is no time at all")
        fits = newest >= self.now - parse_duration(e.param("within"))
        return ExpectationResult(e, fits, f"newest is {iso(newest)}")

    def _figure(self, e: Expectation) -> str | None:
        if e.kind == "fresh":
            return f"epoch_us(max({quoted(e.columns[0])})::timestamptz)"
        if e.kind == "null_share":
            return f"count(*) filter (where {quoted(e.columns[0])} is null)"
        broken = self._broken(e)
        return None if broken is None else f"count(*) filter (where {broken})"

    def _broken(self, e: Expectation) -> str | None:
        """The condition of a row that breaks it; None for what is not about single rows."""
        columns = [quoted(c) for c in e.columns]
        if e.kind == "not_null":
            return " or ".join(f"{c} is null" for c in columns)
        if e.kind == "between":
            bounds = [
                f"{columns[0]} {sign} {self._bound(e, which)}"
                for which, sign in (("lower", "<"), ("upper", ">"))
                if e.param(which) is not None
            ]
            nan = [f"isnan({columns[0]})"] if self.types[e.columns[0]].startswith("float") else []
            return " or ".join(bounds + nan)
        if e.kind == "one_of":
            return f"{columns[0]} not in ({', '.join(self._value(e, v) for v in e.param('values'))})"
        if e.kind == "matches":
            return f"not regexp_full_match({columns[0]}, {literal(e.param('pattern'))})"
        if e.kind == "ordered":
            return f"{columns[0]} > {columns[1]}"
        return None

    def _value(self, e: Expectation, value: str | int | bool) -> str:
        textual = self.types[e.columns[0]] == "string"
        return literal(str(value) if textual and not isinstance(value, str) else value)

    def _bound(self, e: Expectation, which: str) -> str:
        value, type_ = e.param(which), self.types[e.columns[0]]
        if type_.startswith(("int", "uint", "float", "decimal")):
            try:
                return str(Decimal(str(value)))
            except InvalidOperation:
                raise InvalidInput(f"{e}: {value!r} is no number, but the column is {type_}") from None
        if type_.startswith("timestamp"):
            return f"{literal(str(value))}::timestamptz" + ("" if "," in type_ else " at time zone 'UTC'")
        return f"{literal(str(value))}::{'date' if type_ == 'date' else 'varchar'}"

    def _repeated(self, e: Expectation) -> str:
        columns = ", ".join(quoted(c) for c in e.columns)
        there = " and ".join(f"{quoted(c)} is not null" for c in e.columns)
        return select(f"{columns}, count(*) as rows", self.source, there, f"group by {columns} having rows > 1")

    def _examples(self, e: Expectation) -> tuple[Mapping[str, str], ...]:
        if e.kind == "unique":
            shown = ", ".join(f"{quoted(c)}::varchar as {quoted(c)}" for c in e.columns)
            query = select(f"{shown}, rows", f"({self._repeated(e)})", rest=f"order by all limit {EXAMPLES}")
        else:
            wanted = [c for c in dict.fromkeys([*self.key, *e.columns]) if c in self.types]
            shown = ", ".join(f"{quoted(c)}::varchar as {quoted(c)}" for c in wanted)
            query = select(shown, self.source, str(self._broken(e)), f"limit {EXAMPLES}")
        found = self.engine.execute(query)
        names = [column[0] for column in found.description or ()]
        return tuple({n: self._shown(n, v) for n, v in zip(names, row, strict=True)} for row in found.fetchall())

    def _shown(self, column: str, value: Any) -> str:
        if value is None:
            return "null"
        return MASK if column in self.tags else str(value)

    def _row(self, query: str) -> tuple[Any, ...]:
        try:
            row = self.engine.execute(query).fetchone()
        except (duckdb.ConversionException, duckdb.BinderException) as error:
            text = str(error).splitlines()[0]
            raise InvalidInput(
                f"an expectation does not fit its column: {text}", hint="compare its bounds with the column's type"
            ) from error
        assert row is not None
        return row
