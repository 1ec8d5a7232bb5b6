"""Figures over traces: sums by dimension and time, and how two filters go together."""

import math
from collections.abc import Mapping
from typing import Any

from everloop.catalog.context import Context
from everloop.catalog.genai import metrics, searching
from everloop.core.grants import Target
from everloop.server.mlflow.endpoint import Endpoint
from everloop.server.mlflow.wire import Arguments, invalid, number

_VIEWS = {1: "TRACES", 2: "SPANS", 3: "ASSESSMENTS"}
_AGGREGATIONS = {1: "COUNT", 2: "SUM", 3: "AVG", 4: "PERCENTILE", 5: "MIN", 6: "MAX"}


def ask_metrics(ctx: Context, args: Arguments) -> Mapping[str, Any]:
    """POST 3.0 traces/metrics."""
    every = args.integer("time_interval_seconds") if args.has("time_interval_seconds") else None
    if every is not None and not 1 <= every <= 10**9:
        raise invalid("time_interval_seconds", every, "a positive number of seconds is expected")
    question = metrics.Question(
        view=args.choice("view_type", _VIEWS, "TRACES"),
        metric=args.text("metric_name"),
        aggregations=tuple(_aggregation(part) for part in args.parts("aggregations")),
        dimensions=tuple(args.texts("dimensions")),
        filters=tuple(args.texts("filters")),
        every=every,
        start=args.moment("start_time_ms") if args.has("start_time_ms") else None,
        end=args.moment("end_time_ms") if args.has("end_time_ms") else None,
    )
    if not question.aggregations:
        raise invalid("aggregations", [], "at least one is expected")
    with ctx.read() as tx:
        points = metrics.ask(tx, ctx.project, args.texts("experiment_ids"), question, limit=args.limit(1000, 1000))
    return {
        "data_points": [
            {
                "metric_name": question.metric,
                "dimensions": dict(point.dimensions),
                "values": {name: number(value) for name, value in point.values.items()},
            }
            for point in points
        ]
    }


def correlation(ctx: Context, args: Arguments) -> Mapping[str, Any]:
    """POST 3.0 traces/calculate-filter-correlation: normalised pointwise mutual information of two filters.

    Source: G. Bouma, Normalized (pointwise) mutual information in collocation extraction, 2009; the smoothed one adds
    one half to each cell of the table of counts.
    """
    homes, first, second = args.texts("experiment_ids"), args.text("filter_string1"), args.text("filter_string2")
    base = args.text("base_filter", "")
    with ctx.read() as tx:
        total, one, other, both = (
            searching.counted(tx, ctx.project, homes, [base, *filters])
            for filters in ((), (first,), (second,), (first, second))
        )
    answer: dict[str, Any] = {
        "npmi_smoothed": number(_npmi(total + 2.0, one + 1.0, other + 1.0, both + 0.5)),
        "filter1_count": one,
        "filter2_count": other,
        "joint_count": both,
        "total_count": total,
    }
    if total and one and other:
        answer["npmi"] = number(_npmi(total, one, other, both))
    return answer


def on_experiments(_ctx: Context, args: Arguments) -> Target:
    """The experiment, when one is asked about; else experiments in general."""
    named = args.texts("experiment_ids")
    return Target("experiment", named[0] if len(named) == 1 else "*")


def _aggregation(part: Arguments) -> metrics.Aggregation:
    kind = part.choice("aggregation_type", _AGGREGATIONS, "COUNT")
    percent = part.double("percentile_value") if kind == "PERCENTILE" else 0.0
    if not 0 <= percent <= 100:
        raise invalid("percentile_value", percent, "it lies between 0 and 100")
    return metrics.Aggregation(kind, percent)


def _npmi(total: float, one: float, other: float, both: float) -> float:
    if both == 0:
        return -1.0
    if both == total:
        return 1.0
    return math.log(both * total / (one * other)) / -math.log(both / total)


ENDPOINTS = (
    Endpoint("POST", "traces/metrics", ask_metrics, on_experiments, reads=True, api="3.0"),
    Endpoint("POST", "traces/calculate-filter-correlation", correlation, on_experiments, reads=True, api="3.0"),
)
