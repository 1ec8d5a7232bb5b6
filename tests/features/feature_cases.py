"""Hypothesis strategies: definitions, events and questions that crowd around the edges of windows."""

import itertools
from dataclasses import dataclass
from typing import Any

import polars as pl
from hypothesis import strategies as st

from everloop.core.clock import DAY, HOUR, MINUTE, SECOND
from everloop.features import definitions as el
from everloop.features.definitions import FeatureServiceDef, FeatureViewDef
from everloop.features.expressions import col, when

START = 1_362_873_600 * SECOND  # 2013-03-10, when New York's clocks change: nothing may happen then
SCHEMA = {
    "id": pl.Int64,
    "place": pl.String,
    "event": pl.Int64,
    "known": pl.Int64,
    "x": pl.Float64,
    "y": pl.Int64,
    "kind": pl.String,
}
WINDOWS = ["1m", "7m", "1h", "90m", "11h", "12h", "1d", "12d", "20d"]
FILTERS = [None, None, ("kind", "==", "a"), ("kind", "!=", "a"), ("x", ">", 0.1), ("y", "<=", 2)]

X, Y = col("x"), col("y")
EXPRESSIONS = {
    "product": X * Y + 1,
    "ratio": X / Y,
    "whole": col("y", "int64") * 3 - 1,
    "chosen": when(col("kind") == "a").then(X).otherwise(-Y),
    "filled": X.fill_null(Y),
    "hour": col("event", "time").hour(),
    "flag": col("kind").is_null() | (X > 0.1),
}
"""Columns that are computed of a fact, by name."""

steps = st.one_of(
    st.integers(-40, 40).map(lambda n: n * 5 * MINUTE),
    st.integers(-30, 30).map(lambda n: n * HOUR),
    st.integers(-25, 25).map(lambda n: n * DAY),
)
times = st.builds(
    lambda step, nudge: START + step + nudge, steps, st.sampled_from([0, 0, 0, 1, -1, MINUTE, SECOND + 1])
)
delays = st.sampled_from([0, 0, 0, 1, 5 * MINUTE, HOUR, 13 * HOUR, 3 * DAY, -HOUR, -1, None])
numbers = st.one_of(
    st.none(),
    st.sampled_from([0.0, -0.0, 0.1, 0.2, 0.3, 0.5e-6, 1.5e-6, -2.5, float("nan"), 1e12, -9e12]),
    st.floats(-1e9, 1e9, allow_subnormal=False),
)


@st.composite
def features(draw: Any) -> el.Feature:
    where = draw(st.sampled_from(FILTERS))
    column = draw(st.sampled_from(["x", "y"]))
    over = draw(st.sampled_from(WINDOWS))
    computed = draw(st.sampled_from([*[""] * 6, *EXPRESSIONS]))
    if computed == "flag":
        where = EXPRESSIONS[computed]
    function = draw(st.sampled_from(["count", "sum", "mean", "min", "max", "last"]))
    if function == "count":
        return el.count(over=over, where=where)
    if computed and function == "last":
        return el.last(EXPRESSIONS[computed], name=computed, where=where)
    if computed:
        return getattr(el, function)(EXPRESSIONS[computed], over=over, scale=2, name=computed, where=where)
    if function == "last":
        return el.last(column, ttl=draw(st.sampled_from([None, *WINDOWS])), where=where)
    scale = draw(st.sampled_from([0, 2, 6])) if column == "x" else draw(st.sampled_from([0, 6, 12]))
    return getattr(el, function)(column, over=over, scale=scale, where=where)


@st.composite
def views(draw: Any) -> FeatureViewDef:
    chosen = draw(st.lists(features(), min_size=1, max_size=5, unique_by=lambda f: f.name))
    slack = draw(st.sampled_from([MINUTE, HOUR, DAY, 30 * DAY]))
    key = draw(st.sampled_from([(), ("id",), ("kind", "event", "id")]))
    return FeatureViewDef("v", "facts", "place", chosen, event_time="event", known_time="known", key=key, slack=slack)


@st.composite
def rows(draw: Any, pool: list[int], late: list[int | None]) -> dict[str, Any]:
    event = draw(st.sampled_from([*pool * 3, None]))
    delay = draw(st.sampled_from(late))
    return {
        "id": draw(st.integers(0, 3)),
        "place": draw(st.sampled_from(["a", "a", "a", "b", None])),
        "event": event,
        "known": None if delay is None else (START if event is None else event) + delay,
        "x": draw(numbers),
        "y": draw(st.one_of(st.none(), st.integers(0, 4))),
        "kind": draw(st.sampled_from(["a", "a", "b", "ä", None])),
    }


@dataclass(frozen=True)
class Case:
    """A view, facts (some twice), questions, and an order of delivery."""

    view: FeatureViewDef
    rows: list[dict[str, Any]]
    questions: list[tuple[str | None, int]]
    batches: list[list[dict[str, Any]]]

    @property
    def service(self) -> FeatureServiceDef:
        return FeatureServiceDef("s", [self.view])

    @property
    def spine(self) -> pl.DataFrame:
        return pl.DataFrame(
            {"place": [p for p, _ in self.questions], "asked": [t for _, t in self.questions]},
            schema={"place": pl.String, "asked": pl.Int64},
        )


@st.composite
def cases(draw: Any) -> Case:
    view = draw(views())
    # Few times, so that facts meet: ties, shared tiles, folds right before a redelivery.
    pool = draw(st.lists(times, min_size=1, max_size=4))
    late = draw(st.lists(delays, min_size=1, max_size=3))
    facts = draw(st.lists(rows(pool, late), max_size=12))
    twice = draw(st.lists(st.sampled_from(facts), max_size=6)) if facts else []
    edges = _edges(view, facts)
    moments = st.one_of(times, *edges, *edges, *edges)
    asked = draw(st.lists(st.tuples(st.sampled_from([*"aaaaabc", None]), moments), min_size=1, max_size=12))
    order = draw(st.permutations(facts + twice))
    cuts = sorted(draw(st.lists(st.integers(0, len(order)), max_size=5)))
    batches = [order[i:j] for i, j in zip([0, *cuts], [*cuts, len(order)], strict=True)]
    return Case(view, facts + twice, asked, batches)


def _edges(view: FeatureViewDef, facts: list[dict[str, Any]]) -> list[st.SearchStrategy[int]]:
    """Times at which an answer may change, and their neighbours."""
    whole = [fact for fact in facts if fact["event"] is not None and fact["known"] is not None]
    if not whole:
        return []
    begins = {fact[column] for fact in whole for column in ("event", "known")}
    ends = set()
    for event, f in itertools.product({fact["event"] for fact in whole}, view.features):
        if f.window is not None:
            ends.add(event // f.hop * f.hop + f.hop + f.window if f.hop else event + f.window)
    nudges = st.sampled_from([0, 1, -1])
    return [st.builds(int.__add__, st.sampled_from(sorted(edges)), nudges) for edges in (begins, ends) if edges]
