"""Sums over traces, spans and assessments: counts, averages and percentiles by dimension and time.

The database groups and sums; percentiles, which SQLite lacks, are taken here from the values of each group.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Double,
    FromClause,
    Row,
    Select,
    cast,
    func,
    literal,
    literal_column,
    select,
)

from everloop.catalog.engine import Tx
from everloop.catalog.genai.searching import numbers_of
from everloop.catalog.tables.genai import assessments, spans, trace_metadata, trace_tags, traces
from everloop.catalog.tracking.filters import Condition, parse_filter
from everloop.catalog.tracking.search import child_text, compare_text
from everloop.core.clock import SECOND, Micros, iso
from everloop.core.errors import InvalidInput

_MOST_VALUES = 500_000
_MOST_POINTS = 1000
TIME = "time_bucket"
_MILLI = 1000.0
_NANO_MILLI = 1_000_000.0

Columns = Mapping[str, ColumnElement[Any]]


@dataclass(frozen=True, slots=True)
class Aggregation:
    """COUNT, SUM, AVG, MIN, MAX, or PERCENTILE with its percent."""

    kind: str
    percent: float = 0.0

    @property
    def label(self) -> str:
        """How the answer names it."""
        return f"P{self.percent}" if self.kind == "PERCENTILE" else self.kind


@dataclass(frozen=True, slots=True)
class Point:
    """The figures of one group."""

    dimensions: Mapping[str, str]
    values: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Question:
    """What is summed: a metric of a view, by dimensions, over a span of time cut in pieces of `every` seconds."""

    view: str
    metric: str
    aggregations: tuple[Aggregation, ...]
    dimensions: tuple[str, ...] = ()
    filters: tuple[str, ...] = ()
    every: int | None = None
    start: Micros | None = None
    end: Micros | None = None


@dataclass(frozen=True, slots=True)
class _View:
    """What a view sums over: its rows, and which names mean which columns."""

    rows: FromClause
    metrics: Columns
    dimensions: Columns
    filters: Columns


_VIEWS = {
    "TRACES": _View(
        traces,
        {
            "trace_count": literal(1),
            "session_count": traces.c.session,
            "latency": cast(traces.c.duration, Double) / _MILLI,
            "input_tokens": traces.c.input_tokens,
            "output_tokens": traces.c.output_tokens,
            "total_tokens": traces.c.total_tokens,
            "cache_read_input_tokens": traces.c.cache_read_tokens,
            "cache_creation_input_tokens": traces.c.cache_creation_tokens,
        },
        {"trace_name": traces.c.name, "trace_status": traces.c.status},
        {"trace.status": traces.c.status, "trace.name": traces.c.name},
    ),
    "SPANS": _View(
        spans.join(traces, traces.c.number == spans.c.trace),
        {
            "span_count": literal(1),
            "latency": cast(spans.c.duration, Double) / _NANO_MILLI,
            "input_cost": spans.c.input_cost,
            "output_cost": spans.c.output_cost,
            "total_cost": spans.c.total_cost,
        },
        {
            "span_name": spans.c.name,
            "span_type": spans.c.type,
            "span_status": spans.c.status,
            "span_model_name": spans.c.model,
            "span_model_provider": spans.c.provider,
        },
        {"span.name": spans.c.name, "span.type": spans.c.type, "span.status": spans.c.status},
    ),
    "ASSESSMENTS": _View(
        assessments.join(traces, traces.c.number == assessments.c.trace),
        {"assessment_count": literal(1), "assessment_value": assessments.c.number},
        {"assessment_name": assessments.c.name, "assessment_value": assessments.c.value},
        {"assessment.name": assessments.c.name, "assessment.type": assessments.c.kind},
    ),
}


def ask(
    tx: Tx, project: str, experiment_ids: Collection[str], question: Question, *, limit: int = _MOST_POINTS
) -> list[Point]:
    """The figures of each group, ordered by its dimensions, `limit` at most; raises `InvalidInput`.

    Values that are missing count nowhere. Raises `InvalidInput` when percentiles would need more than 500,000 values.
    """
    view = _VIEWS[question.view]
    groups = _groups(view, question)
    value = _named(view.metrics, question.metric, "metric_name")
    wanted = [
        traces.c.project == project,
        traces.c.experiment.in_(numbers_of(experiment_ids)),
        value.is_not(None),
        *(column.is_not(None) for column in groups.values()),
        *(_filter(tx, view, text) for text in question.filters),
    ]
    if question.start is not None:
        wanted.append(traces.c.at >= question.start)
    if question.end is not None:
        wanted.append(traces.c.at <= question.end)
    labelled = [column.label(f"group_{index}") for index, column in enumerate(groups.values())]
    summed = [one for one in question.aggregations if one.kind != "PERCENTILE"]
    figures = [_sum(one.kind, value, question.metric).label(f"sum_{index}") for index, one in enumerate(summed)]
    rows: Select[Any] = (
        select(*labelled, *(figures or [func.count().label("rows")])).select_from(view.rows).where(*wanted)
    )
    found = tx.execute(rows.group_by(*groups.values()).order_by(*groups.values()).limit(limit)).all()
    percentiles = [one for one in question.aggregations if one.kind == "PERCENTILE"]
    values = _values(tx, select(*labelled, value).select_from(view.rows).where(*wanted)) if percentiles else {}
    points = []
    for row in found:
        key = tuple(row)[: len(groups)]
        answers = {one.label: figure for one, figure in zip(summed, tuple(row)[len(groups) :], strict=False)}
        answers |= {one.label: percentile(values.get(key, []), one.percent) for one in percentiles}
        shown = {name: _shown(name, part) for name, part in zip(groups, key, strict=True)}
        points.append(Point(shown, {name: float(answer or 0) for name, answer in answers.items()}))
    return points


def percentile(values: Sequence[float], percent: float) -> float:
    """The percentile by linear interpolation of sorted values, as PostgreSQL's `percentile_cont`; 0 of none."""
    if not values:
        return 0.0
    place = (len(values) - 1) * percent / 100
    below = int(place)
    above = min(below + 1, len(values) - 1)
    return values[below] + (values[above] - values[below]) * (place - below)


def _groups(view: _View, question: Question) -> dict[str, ColumnElement[Any]]:
    groups = {name: _named(view.dimensions, name, "dimensions") for name in question.dimensions}
    if question.every is not None:
        # written out: PostgreSQL does not see that two parameters are one, and would not group by it
        every: ColumnElement[int] = literal_column(str(int(question.every) * SECOND), BigInteger)
        groups[TIME] = traces.c.at - traces.c.at % every
    return groups


def _sum(kind: str, value: ColumnElement[Any], metric: str) -> ColumnElement[Any]:
    if kind == "COUNT":
        return func.count(value.distinct()) if metric == "session_count" else func.count(value)
    if metric.endswith("_count"):
        raise InvalidInput(f"Invalid aggregation '{kind}' for metric '{metric}'", hint="counts are aggregated by COUNT")
    summed: ColumnElement[Any] = getattr(func, kind.lower())(value)
    return summed


def _filter(tx: Tx, view: _View, text: str) -> ColumnElement[bool]:
    clauses = [_condition(tx, view, one) for one in parse_filter(text, _FILTERED)]
    if len(clauses) != 1:
        raise InvalidInput(f"Invalid filter '{text}': one condition is expected", hint="trace.status = 'OK'")
    return clauses[0]


_FILTERED = {word: word for word in ("trace", "span", "assessment")}


def _condition(tx: Tx, view: _View, condition: Condition) -> ColumnElement[bool]:
    entity, key = condition.field.entity, condition.field.key
    child, dot, name = key.partition(".")
    if entity == "trace" and dot and child in {"tag", "metadata"}:
        table = trace_tags if child == "tag" else trace_metadata
        return child_text(tx, table, [table.c.parent == traces.c.number, table.c.key == name.strip("`")], condition)
    known = {**_VIEWS["TRACES"].filters, **view.filters}
    return compare_text(tx, _named(known, f"{entity}.{key}", "filters"), condition)


def _named(columns: Columns, name: str, what: str) -> ColumnElement[Any]:
    if name not in columns:
        raise InvalidInput(f"Invalid {what} '{name}'", hint="one of " + ", ".join(sorted(columns)))
    return columns[name]


def _values(tx: Tx, statement: Select[Any]) -> dict[tuple[Any, ...], list[float]]:
    found: dict[tuple[Any, ...], list[float]] = defaultdict(list)
    rows: list[Row[Any]] = list(tx.execute(statement.limit(_MOST_VALUES + 1)))
    if len(rows) > _MOST_VALUES:
        raise InvalidInput(f"percentiles of more than {_MOST_VALUES} values", hint="narrow the time or the filters")
    for row in rows:
        cells = tuple(row)
        found[cells[:-1]].append(float(cells[-1]))
    for values in found.values():
        values.sort()
    return found


def _shown(name: str, part: Any) -> str:
    if name == TIME:
        return iso(int(part))
    text = str(part)
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] == '"' else text
