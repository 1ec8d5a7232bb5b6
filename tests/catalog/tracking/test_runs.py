"""Runs, their points and the search, on both databases."""

import base64
import json
import math
import threading
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everloop.catalog.engine import Catalog
from everloop.catalog.tracking import experiments, inputs, points, querying, runs
from everloop.catalog.tracking.rows import DatasetInput, ModelLink, Point
from everloop.core.errors import Conflict, InvalidInput, NotFound

PROJECT = "flights"


def found(tracked, text="", order=(), **more):
    page = querying.search(tracked.tx, PROJECT, ["0"], filter_text=text, order_by=order, **more)
    return [run.id for run in page.rows]


def test_a_run_holds_what_was_logged(tracked):
    run = tracked.run(name="first", params={"a": "1"}, tags={"t": "x"}, metrics={"m": 0.5})
    runs.set_tags(tracked.tx, run, {"t": "y", "u": "z"})
    loaded = runs.get(tracked.tx, PROJECT, run.id)
    assert loaded.params == {"a": "1"}
    assert loaded.tags == {"t": "y", "u": "z", "mlflow.runName": "first"}
    assert [(point.key, point.value) for point in loaded.metrics] == [("m", 0.5)]
    assert loaded.artifact_uri == f"mlflow-artifacts:/0/{run.id}/artifacts"
    with pytest.raises(NotFound):
        runs.get(tracked.tx, "another", run.id)


def test_params_are_written_once(tracked):
    run = tracked.run(params={"a": "1"})
    runs.log_params(tracked.tx, run, [("a", "1"), ("b", "2"), ("b", "2")])
    with pytest.raises(InvalidInput, match="Changing param values is not allowed"):
        runs.log_params(tracked.tx, run, [("a", "2")])
    with pytest.raises(InvalidInput):
        runs.log_params(tracked.tx, run, [("c", "1"), ("c", "2")])


def test_the_name_is_kept_twice_and_the_same(tracked):
    run = tracked.run()
    assert run.tags["mlflow.runName"] == run.name != ""
    runs.set_tags(tracked.tx, run, {"mlflow.runName": "tagged"})
    assert runs.get(tracked.tx, PROJECT, run.id).name == "tagged"
    runs.change(tracked.tx, PROJECT, run.id, name="changed")
    assert runs.get(tracked.tx, PROJECT, run.id).tags["mlflow.runName"] == "changed"
    with pytest.raises(InvalidInput):
        tracked.run(name="a", tags={"mlflow.runName": "b"})


def test_deleted_runs_are_hidden_and_come_back(tracked):
    run = tracked.run()
    runs.delete_run(tracked.tx, PROJECT, run.id, at=5)
    assert found(tracked) == []
    assert found(tracked, view="deleted") == found(tracked, view="all") == [run.id]
    with pytest.raises(InvalidInput, match="must be in the 'active' state"):
        runs.change(tracked.tx, PROJECT, run.id, status="FINISHED")
    runs.restore(tracked.tx, PROJECT, run.id)
    assert found(tracked) == [run.id]


def test_a_finished_run_can_be_resumed_and_tagged(tracked):
    run = tracked.run()
    runs.finish(tracked.tx, PROJECT, run.id, status="FINISHED", at=9)
    runs.set_tags(tracked.tx, run, {"later": "yes"})
    runs.change(tracked.tx, PROJECT, run.id, status="RUNNING")
    again = runs.get(tracked.tx, PROJECT, run.id)
    assert (again.status, again.end, again.tags["later"]) == ("RUNNING", 9, "yes")
    with pytest.raises(InvalidInput):
        runs.change(tracked.tx, PROJECT, run.id, status="DONE")


def test_nan_and_infinities_are_values(tracked):
    values = {"nan": math.nan, "up": math.inf, "down": -math.inf, "tiny": 5e-324, "zero": -0.0}
    run = tracked.run(metrics=values)
    loaded = {point.key: point.value for point in runs.get(tracked.tx, PROJECT, run.id).metrics}
    assert math.isnan(loaded.pop("nan"))
    assert loaded == {key: value for key, value in values.items() if key != "nan"}
    (point,) = points.history(tracked.tx, PROJECT, run.id, "nan").rows
    assert math.isnan(point.value)
    assert found(tracked, "metrics.up > 1e300") == [run.id]
    assert found(tracked, "metrics.nan = 0") == []


def test_repeated_points_are_passed_over_and_the_newest_is_kept(tracked):
    run = tracked.run()
    rows = [Point("m", 1.0, 10, 1), Point("m", 2.0, 20, 3), Point("m", 3.0, 30, 2), Point("m", 2.0, 20, 3)]
    for _ in range(2):
        points.log(tracked.tx, PROJECT, run.number, rows)
    history = points.history(tracked.tx, PROJECT, run.id, "m").rows
    assert [(p.at, p.step, p.value) for p in history] == [(10, 1, 1.0), (20, 3, 2.0), (30, 2, 3.0)]
    (newest,) = runs.get(tracked.tx, PROJECT, run.id).metrics
    assert (newest.step, newest.value) == (3, 2.0)
    points.log(tracked.tx, PROJECT, run.number, [Point("m", 9.0, 5, 3)])  # older at the same step
    assert runs.get(tracked.tx, PROJECT, run.id).metrics[0].value == 2.0


def test_histories_page_to_the_end(tracked):
    run = tracked.run()
    points.log(tracked.tx, PROJECT, run.number, [Point("m", float(i), i % 7, i) for i in range(100)])
    seen, token = [], ""
    while True:
        page = points.history(tracked.tx, PROJECT, run.id, "m", limit=9, token=token)
        seen.extend(page.rows)
        token = page.token
        if not token:
            break
    assert len(seen) == 100
    assert seen == sorted(seen, key=lambda p: (p.at, p.step))
    assert len(points.history(tracked.tx, PROJECT, run.id, "m", limit=1_000_000_000).rows) == 100
    with pytest.raises(InvalidInput):
        points.history(tracked.tx, PROJECT, run.id, "other", limit=9, token=page.token or "AAAA")


def test_a_sample_has_the_ends_of_every_run(tracked):
    one, two = tracked.run(), tracked.run()
    points.log(tracked.tx, PROJECT, one.number, [Point("m", float(i), i, i) for i in range(1000)])
    points.log(tracked.tx, PROJECT, two.number, [Point("m", float(i), i, i) for i in range(333, 577)])
    sample = points.history_at_steps(tracked.tx, PROJECT, [one.id, two.id], "m", start=None, end=None, most=20)
    steps = {run.id: [p.step for p in sample if p.run == run.id] for run in (one, two)}
    assert (steps[one.id][0], steps[one.id][-1]) == (0, 999)
    assert (steps[two.id][0], steps[two.id][-1]) == (333, 576)
    assert len(steps[one.id]) <= 24
    inside = points.history_at_steps(tracked.tx, PROJECT, [one.id], "m", start=10, end=12, most=20)
    assert [p.step for p in inside] == [10, 11, 12]


def test_filters_find_what_they_say(tracked):
    one = tracked.run(name="One", params={"lr": "0.1", "k": "a_b"}, tags={"stage": "Dev"}, metrics={"auc": 0.9})
    two = tracked.run(name="two", params={"lr": "0.2", "k": "axb"}, tags={"stage": "dev"}, metrics={"auc": 0.7})
    three = tracked.run(name="three")
    runs.finish(tracked.tx, PROJECT, three.id, status="FINISHED", at=tracked.at)
    data = DatasetInput("iris", "d1", "local", "{}", tags={inputs.CONTEXT_TAG: "train"})
    inputs.log_datasets(tracked.tx, PROJECT, two, [data, data])
    expected = {
        "metrics.auc > 0.8": [one],
        "metrics.auc != 0.9": [two],
        "params.lr = '0.1' and tags.stage = 'Dev'": [one],
        "params.lr != '0.1'": [two],
        "params.lr IS NULL": [three],
        "params.lr IS NOT NULL": [one, two],
        "tags.stage LIKE 'D%'": [one],
        "tags.stage ILIKE 'D%'": [one, two],
        "params.k LIKE 'a_b'": [one, two],
        "attributes.run_name LIKE '%ne'": [one],
        "run_name = 'two'": [two],
        "status = 'FINISHED'": [three],
        "attributes.status IN ('RUNNING')": [one, two],
        f"run_id NOT IN ('{one.id}')": [two, three],
        f"start_time > {one.start // 1000}": [two, three],
        "user_id = 'ada'": [one, two, three],
        "dataset.name = 'iris' and dataset.context LIKE 'tr%'": [two],
        "dataset.digest != 'd1'": [],
        "tags.`no such tag` = 'x'": [],
        "metrics.auc > 1e400": [],
        "start_time < 99999999999999999999999999": [one, two, three],
    }
    for text, wanted in expected.items():
        assert set(found(tracked, text)) == {run.id for run in wanted}, text


@pytest.mark.parametrize(
    "text",
    ["metrics.a = 'x'", "metrics.a LIKE 'x'", "params.a = 1", "params.a > 'x'", "nothing = 1", "dataset.size = 'x'"],
)
def test_filters_refuse_the_wrong_type(tracked, text):
    tracked.run()
    with pytest.raises(InvalidInput):
        found(tracked, text)


def test_like_is_not_glob(tracked):
    star = tracked.run(params={"p": "a*[b]?"})
    tracked.run(params={"p": "axyz"})
    assert found(tracked, "params.p LIKE 'a*[b]?'") == [star.id]
    assert found(tracked, "params.p LIKE '%*%'") == [star.id]


def test_orders_put_missing_and_nan_last(tracked):
    values = {"a": 0.5, "b": math.nan, "c": math.inf, "d": -1.0, "e": None}
    made = {key: tracked.run(metrics={} if value is None else {"m": value}) for key, value in values.items()}
    names = {run.id: key for key, run in made.items()}
    assert [names[i] for i in found(tracked, order=["metrics.m ASC"])] == ["d", "a", "c", "b", "e"]
    assert [names[i] for i in found(tracked, order=["metrics.m DESC"])] == ["c", "a", "d", "b", "e"]
    assert [names[i] for i in found(tracked)] == ["e", "d", "c", "b", "a"]
    assert [names[i] for i in found(tracked, order=["start_time ASC"])] == ["a", "b", "c", "d", "e"]
    with pytest.raises(InvalidInput):
        found(tracked, order=["metrics.m SIDEWAYS"])


def test_pages_reach_the_end_while_runs_are_added(tracked):
    every = [tracked.run(metrics={"m": float(i % 3)} if i % 4 else {}).id for i in range(23)]
    seen, token = [], ""
    while True:
        page = querying.search(tracked.tx, PROJECT, ["0"], order_by=["metrics.m DESC"], limit=5, token=token)
        seen += [run.id for run in page.rows]
        token = page.token
        if not token:
            break
        tracked.run(metrics={"m": 100.0})  # lands before the place, and must not shift it
    assert sorted(seen) == sorted(every)
    first = querying.search(tracked.tx, PROJECT, ["0"], limit=5)
    for wrong in (first.token + "x", "not base64!", first.token[:-4]):
        with pytest.raises(InvalidInput):
            querying.search(tracked.tx, PROJECT, ["0"], limit=5, token=wrong)
    with pytest.raises(InvalidInput):
        querying.search(tracked.tx, PROJECT, ["0"], filter_text="metrics.m > 1", limit=5, token=first.token)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.floats()), min_size=1, max_size=12))
def test_the_summary_is_the_greatest_point(tmp_path_factory, rows):
    catalog = _shared(tmp_path_factory)
    with catalog.write() as tx:
        experiments.ensure_default(tx, PROJECT, 0)
        run = runs.create(tx, PROJECT, experiment="0", actor="ada", at=1)
        for step, at, value in rows:  # one by one, and in the order given
            points.log(tx, PROJECT, run.number, [Point("m", value, at, step)])
        points.log(tx, PROJECT, run.number, [Point("m", value, at, step) for step, at, value in rows])
        (newest,) = runs.get(tx, PROJECT, run.id).metrics
        best = max((Point("m", value, at, step) for step, at, value in rows), key=lambda p: p.rank)
        assert newest.rank == best.rank
        distinct = {(p.step, p.at, p.stored, math.isnan(p.value)) for p in (Point("m", v, a, s) for s, a, v in rows)}
        assert len(points.history(tx, PROJECT, run.id, "m").rows) == len(distinct)


_catalogs = []


def _shared(factory):
    if not _catalogs:
        _catalogs.append(Catalog.open(factory.mktemp("shared") / "catalog.db"))
    return _catalogs[0]


def test_experiments_count_up_and_hold_their_names(catalog):
    with catalog.write() as tx:
        assert experiments.create(tx, PROJECT, "one", at=1, tags={"a": "b"}) == "1"
        assert experiments.create(tx, PROJECT, "two", at=2) == "2"
        assert experiments.create(tx, "another", "one", at=2) == "1"
        with pytest.raises(Conflict, match=r"Experiment\(name=one\) already exists"):
            experiments.create(tx, PROJECT, "one", at=3)
        experiments.delete_experiment(tx, PROJECT, "1", at=4)
        with pytest.raises(Conflict, match="deleted"):
            experiments.rename(tx, PROJECT, "2", "one", at=4)
        with pytest.raises(InvalidInput):
            runs.create(tx, PROJECT, experiment="1", actor="ada", at=1)
        experiments.restore(tx, PROJECT, "1", at=5)
        with pytest.raises(InvalidInput, match="Default"):
            experiments.delete_experiment(tx, PROJECT, "0", at=4)
    with catalog.read() as tx:
        names = [one.name for one in experiments.search(tx, PROJECT).rows]
        assert names == ["two", "one", "Default"]
        assert [one.name for one in experiments.search(tx, PROJECT, filter_text="tags.a = 'b'").rows] == ["one"]
        assert [one.name for one in experiments.search(tx, PROJECT, filter_text="name ILIKE '%O%'").rows] == [
            "two",
            "one",
        ]
        for missing in ("7", "-1", "x", "9" * 40, "\uff11"):
            with pytest.raises(NotFound):
                experiments.get(tx, PROJECT, missing)


def test_writers_in_parallel_lose_nothing(catalog):
    with catalog.write() as tx:
        experiments.ensure_default(tx, PROJECT, 0)
        run = runs.create(tx, PROJECT, experiment="0", actor="ada", at=1)
    failures = []

    def write(offset):
        try:
            for i in range(10):
                rows = [Point(f"m{key}", float(i), i, offset * 10 + i) for key in range(8)]
                with catalog.write() as tx:
                    points.log(tx, PROJECT, run.number, rows[:: 1 if offset % 2 else -1])
                    experiments.create(tx, PROJECT, f"e{offset}.{i}", at=1)
        except Exception as error:  # noqa: BLE001 - shown by the test
            failures.append(error)

    threads = [threading.Thread(target=write, args=(offset,)) for offset in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    with catalog.read() as tx:
        assert all(len(points.history(tx, PROJECT, run.id, f"m{key}").rows) == 40 for key in range(8))
        assert {point.step for point in runs.get(tx, PROJECT, run.id).metrics} == {39}
        ids = [int(one.id) for one in experiments.search(tx, PROJECT).rows]
        assert sorted(ids) == list(range(41))


def test_a_forged_token_is_refused_here_and_not_by_the_database(tracked):
    for _ in range(3):
        tracked.run(params={"p": "x"})
    asked = {"order_by": ["params.p", "metrics.m"], "limit": 1}
    token = querying.search(tracked.tx, PROJECT, ["0"], **asked).token
    owner, *places = json.loads(base64.urlsafe_b64decode(token))
    for index in range(len(places)):
        for wrong in (None, [], {}, True, "\x00", "\ud800", 2**70, 0.5, "text"):
            forged = [*places[:index], wrong, *places[index + 1 :]]
            sent = base64.urlsafe_b64encode(json.dumps([owner, *forged]).encode()).decode()
            with suppress(InvalidInput):
                querying.search(tracked.tx, PROJECT, ["0"], token=sent, **asked)


def test_the_widest_search_is_one_statement(tracked):
    run = tracked.run(params={"p": "x"})
    text = " AND ".join(["params.p = 'x'"] * 99 + ["run_id IN (" + ", ".join([f"'{run.id}'"] * 5000) + ")"])
    order = [f"metrics.m{i}" for i in range(20)]
    assert found(tracked, text, order) == [run.id]
    page = querying.search(tracked.tx, PROJECT, [str(i) for i in range(10_000)], filter_text=text, order_by=order)
    assert len(page.rows) == 1


def test_links_to_models_are_kept(tracked):
    run = tracked.run()
    inputs.link_models(tracked.tx, run, "in", [ModelLink("m-1")])
    inputs.link_models(tracked.tx, run, "out", [ModelLink("m-2", 3), ModelLink("m-2", 3)])
    loaded = runs.get(tracked.tx, PROJECT, run.id)
    assert loaded.models_in == (ModelLink("m-1"),)
    assert loaded.models_out == (ModelLink("m-2", 3),)
