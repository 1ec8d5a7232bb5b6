"""Hypothesis strategies: definitions, events and questions that crowd around the edges of windows."""

import itertools
from dataclasses import dataclass
from typing import Any

import polars as pl
from hypothesis import assume
from hypothesis import strategies as st

from everloop.core.clock import DAY, HOUR, MINUTE, SECOND
from everloop.features import definitions as el
from everloop.features.definitions import FeatureServiceDef, FeatureViewDef
from everloop.features.definitions.feature import FUNCTIONS
from everloop.features.expressions import col, when
from everloop.features.states.facts import atoms_of

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
FILTERS = [
    None,
    None,
    None,
    ("kind", "==", "a"),
    ("kind", "!=", "a"),
    ("kind", ">", "a"),
    ("kind", "in", ["ä", "b"]),
    ("x", ">", 0.1),
    ("y", "<=", 2),
    ("y", "not in", [0, 3]),
    [("x", "<", 5), ("kind", "==", "a")],
    el.any_of(("y", "==", 1), el.all_of(("x", ">=", 0), ("kind", "!=", "b"))),
]

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
FILTERS.append(EXPRESSIONS["flag"])
TEXT = when(col("y") > 1).then(col("kind", "text")).otherwise("other")

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


filters = st.sampled_from(FILTERS)
windows = st.sampled_from(WINDOWS)
ages = st.sampled_from([None, *WINDOWS])
few = st.integers(1, 4)
columns = st.sampled_from(["x", "y"])
kept = st.sampled_from([("x", "number"), ("y", "number"), ("y", "integer"), ("kind", "text")])
edges = st.sampled_from([[0], [-2, 0, 1, 3], ["-9e3", "9e3"]])


def scaled(make: Any, **more: Any) -> st.SearchStrategy[el.Feature]:
    """A function of the scaled numbers of a column."""

    def with_scale(column: str) -> st.SearchStrategy[el.Feature]:
        scales = st.sampled_from([0, 2, 6] if column == "x" else [0, 6, 12])
        return st.builds(make, st.just(column), over=windows, scale=scales, where=filters, **more)

    return columns.flatmap(with_scale)


def keeping(make: Any, **more: Any) -> st.SearchStrategy[el.Feature]:
    """A function that keeps values of a column."""
    return kept.flatmap(lambda c: st.builds(make, st.just(c[0]), kind=st.just(c[1]), where=filters, **more))


counts = st.builds(el.count, over=windows, where=filters)
sums = scaled(el.sum)
MAKERS = {
    "count": counts,
    "sum": sums,
    "mean": scaled(el.mean),
    "variance": scaled(el.variance, sample=st.booleans()),
    "stddev": scaled(el.stddev, sample=st.booleans()),
    "min": scaled(el.min),
    "max": scaled(el.max),
    "first": keeping(el.first, over=ages),
    "last": keeping(el.last, ttl=ages),
    "last_k": keeping(el.last_k, k=few, ttl=ages),
    "top_k": keeping(el.top_k, k=few, over=windows),
    "distinct": st.builds(
        el.distinct,
        st.sampled_from(["x", "y", "kind"]),
        over=windows,
        where=filters,
        sketch=st.sampled_from([0, 0, 16]),
    ),
    "ratio": st.permutations([counts, sums]).flatmap(lambda parts: st.builds(el.ratio, *parts)),
    "histogram": scaled(el.histogram, edges=edges),
    "quantile": scaled(el.quantile, q=st.sampled_from([0, 0.5, 0.95, "0.333", 1]), bits=st.sampled_from([1, 7, 20])),
}
assert set(MAKERS) == FUNCTIONS
of_columns = st.sampled_from(sorted(MAKERS)).flatmap(MAKERS.__getitem__)
computed = st.sampled_from(sorted(EXPRESSIONS)).flatmap(
    lambda name: st.one_of(
        st.builds(
            lambda make, over, where: make(EXPRESSIONS[name], over=over, scale=2, name=name, where=where),
            st.sampled_from([el.sum, el.mean, el.variance, el.min, el.max]),
            windows,
            filters,
        ),
        st.builds(el.last, st.just(EXPRESSIONS[name]), name=st.just(name), where=filters),
        st.builds(el.last_k, st.just(TEXT), k=few, kind=st.just("text"), name=st.just(name)),
        st.builds(el.distinct, st.just(TEXT), over=windows, name=st.just(name), where=filters),
    )
)
features = st.one_of(of_columns, of_columns, of_columns, computed)


@st.composite
def views(draw: Any) -> FeatureViewDef:
    chosen = draw(st.lists(features, min_size=1, max_size=5, unique_by=lambda f: f.name))
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


@st.composite
def chains(draw: Any) -> Case:
    """A view that reads a view of another entity (which may read one, too), over the same facts."""
    case = draw(cases())
    below = case.view
    assume(all(abs(edge) < 2**53 for f in below.features for edge in f.edges))  # more is no manifest
    if draw(st.booleans()):
        below = draw(_reading("w", "id", below))
    above = draw(_reading("u", draw(st.sampled_from(["kind", "id", "place"])), below))
    moments = st.one_of(times, *_edges(above, case.rows))
    entities = {"kind": ["a", "b", "c", None], "id": [0, 1, 2, None], "place": ["a", "b", None]}[above.entity[0]]
    asked = draw(st.lists(st.tuples(st.sampled_from(entities), moments), min_size=1, max_size=8))
    return Case(above, case.rows, asked, case.batches)


@st.composite
def _reading(draw: Any, name: str, entity: str, below: FeatureViewDef) -> FeatureViewDef:
    given = dict(zip(below.outputs, below.features, strict=True))
    plain = [column for column, f in given.items() if f.output in {"integer", "number"}]
    made = [el.count(over=draw(windows), where=draw(filters))]
    for column in plain[:3]:
        over = draw(windows)
        made.append(
            draw(
                st.sampled_from(
                    [
                        el.mean(column, over=over, scale=0),
                        el.max(column, over=over, scale=0),
                        el.last(column),
                        el.sum(col(column) + Y.fill_null(0), over=over, scale=0, name=f"{column}_more"),
                        el.count(over=over, where=(column, ">", 1), name=f"{column}_high"),
                    ]
                )
            )
        )
    made += [el.last(c, kind="text") for c, f in given.items() if f.output == "text"][:1]
    key = draw(st.sampled_from([(), ("id",), ("kind", "event", "id")]))
    slack = draw(st.sampled_from([HOUR, DAY, 30 * DAY]))
    return FeatureViewDef(
        name, "facts", entity, made, event_time="event", known_time="known", key=key, slack=slack, reads=[below]
    )


def _edges(view: FeatureViewDef, facts: list[dict[str, Any]]) -> list[st.SearchStrategy[int]]:
    """Times at which an answer may change, and their neighbours."""
    whole = [fact for fact in facts if fact["event"] is not None and fact["known"] is not None]
    if not whole:
        return []
    begins = {fact[column] for fact in whole for column in ("event", "known")}
    ends = set()
    for event, f in itertools.product({fact["event"] for fact in whole}, atoms_of(view)):
        if f.window is not None:
            ends.add(event // f.hop * f.hop + f.hop + f.window if f.hop else event + f.window)
    nudges = st.sampled_from([0, 1, -1])
    return [st.builds(int.__add__, st.sampled_from(sorted(edges)), nudges) for edges in (begins, ends) if edges]
