"""Searches in parts, and curves that are thinned: against the plain way of saying what they are."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everloop.catalog.engine import Catalog
from everloop.catalog.tracking import experiments, points, querying, runs
from everloop.catalog.tracking.rows import Point

PROJECT = "flights"
COUNT = itertools.count()
VALUES = st.sampled_from([None, math.nan, -math.inf, -1.0, 0.0, 0.5, 0.5, 2.0, math.inf])


@pytest.fixture(scope="module")
def catalogs(tmp_path_factory):
    """A catalog that all examples share; each has experiments of its own."""
    catalog = Catalog.open(tmp_path_factory.mktemp("orders") / "catalog.db")
    yield catalog
    catalog.close()


def paged(tx, homes, size, **asked):
    """Every id of a search, page by page."""
    found, token = [], ""
    while True:
        page = querying.search(tx, PROJECT, homes, limit=size, token=token, **asked)
        found += [run.id for run in page.rows]
        token = page.token
        if not token:
            return found
        assert len(page.rows) == size


def written(tx, name, rows):
    """Runs with values of the metric `m` in three experiments: (id, start, value, parameter)."""
    homes = [experiments.create(tx, PROJECT, f"{name} {index}", at=0) for index in range(3)]
    made = []
    for index, (value, start, letter) in enumerate(rows):
        run = runs.create(tx, PROJECT, experiment=homes[index % 3], actor="ada", at=start)
        runs.log_params(tx, run, [("p", letter)])
        if value is not None:
            points.log(tx, PROJECT, run.number, [Point("m", value, 0)])
        made.append((run.id, start, value, letter))
    return homes, made


def ranked(made, *, descending):
    """The order of the protocol: numbers, then NaN, then nothing; newest first among equals, then by id."""

    def place(row):
        identity, start, value, _ = row
        if value is None or math.isnan(value):
            return (2 if value is None else 1, 0, -start, identity)
        return (0, -value if descending else value, -start, identity)

    return [row[0] for row in sorted(made, key=place)]


ROWS = st.lists(st.tuples(VALUES, st.integers(1, 4), st.sampled_from("ab")), max_size=12)


@pytest.mark.parametrize("order", [[], ["metrics.m DESC"]])
def test_in_no_experiment_there_is_no_run(tracked, order):
    assert querying.search(tracked.tx, PROJECT, [], order_by=order).rows == ()
    assert querying.search(tracked.tx, PROJECT, ["no number"], filter_text="metrics.m > 1", order_by=order).rows == ()


@given(rows=ROWS, size=st.integers(1, 5), descending=st.booleans())
def test_pages_by_a_metric_over_experiments_are_the_whole_order(catalogs, rows, size, descending):
    with catalogs.write() as tx:
        homes, made = written(tx, f"x{next(COUNT)}", rows)
        direction = "DESC" if descending else "ASC"
        order = [f"metrics.m {direction}"]
        assert paged(tx, [*homes, homes[0]], size, order_by=order) == ranked(made, descending=descending)
        some = [row for row in made if row[3] == "a"]
        assert paged(tx, homes, size, order_by=order, filter_text="params.p = 'a'") == ranked(
            some, descending=descending
        )
        newest = [row[0] for row in sorted(made, key=lambda row: (-row[1], row[0]))]
        assert paged(tx, homes, size) == newest


@pytest.mark.parametrize("few", [0, 1000])
def test_a_rare_condition_finds_what_trying_every_run_finds(tracked, monkeypatch, few):
    monkeypatch.setattr(querying, "_FEW", few)  # 0: no condition is rare
    for index in range(12):
        tracked.run(
            params={"p": "x" * 150 + str(index % 4)}, metrics={"m": float(index), "n": 1.0}, name=f"r{index % 5}"
        )
    every = querying.search(tracked.tx, PROJECT, ["0"], order_by=["metrics.m"]).rows

    def found(text):
        return [
            run.metrics[0].value
            for run in querying.search(tracked.tx, PROJECT, ["0"], filter_text=text, order_by=["metrics.m"]).rows
        ]

    assert len(every) == 12
    assert found(f"params.p = '{'x' * 150}2'") == [2.0, 6.0, 10.0]
    assert found("metrics.m >= 9") == [9.0, 10.0, 11.0]
    assert found("attributes.run_name = 'r3'") == [3.0, 8.0]
    assert found("params.p = 'x'") == []
    assert querying.count(tracked.tx, PROJECT, ["0"], filter_text="metrics.m < 4", most=100) == 4


def test_a_bare_history_is_the_history(tracked):
    run = tracked.run()
    values = [0.5, math.inf, math.nan, -math.inf, 1e300]
    points.log(tracked.tx, PROJECT, run.number, [Point("m", value, 9 - i, i) for i, value in enumerate(values)])
    whole = points.history(tracked.tx, PROJECT, run.id, "m").rows
    bare = points.whole_history(tracked.tx, run.number, "m")
    assert [(p.step, p.at, p.stored, int(math.isnan(p.value))) for p in whole] == [tuple(row) for row in bare]
    assert points.whole_history(tracked.tx, run.number, "other") == []


@pytest.mark.parametrize("most", [2, 3, 4, 10, 40, 400, 2000])
def test_a_thinned_curve_keeps_its_ends_and_spikes(tracked, most):
    run = tracked.run()
    values = [math.sin(step / 30) for step in range(1000)]
    values[0], values[333], values[334], values[777], values[999] = 5.0, 100.0, -100.0, math.nan, math.nan
    points.log(tracked.tx, PROJECT, run.number, [Point("m", value, i, i) for i, value in enumerate(values)])
    ask = {"start": None, "end": None, "most": most}
    thin = points.history_thinned(tracked.tx, PROJECT, run.id, "m", **ask)
    assert len(thin) <= most
    assert [thin[0].value, thin[0].step, thin[-1].step] == [5.0, 0, 999]
    assert math.isnan(thin[-1].value)
    assert [point.step for point in thin] == sorted({point.step for point in thin})
    if most >= 4:
        assert {100.0, -100.0} <= {point.value for point in thin}
    between = points.history_thinned(tracked.tx, PROJECT, run.id, "m", start=100, end=104, most=most)
    assert [between[0].step, between[-1].step] == [100, 104]
    assert points.history_thinned(tracked.tx, "another", run.id, "m", **ask) == []
    assert points.history_thinned(tracked.tx, PROJECT, run.id, "other", **ask) == []
