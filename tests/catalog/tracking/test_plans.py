"""What the databases do for a search: they walk indexes, and never look at points. Read off their own plans."""

import random

import pytest
from sqlalchemy import event, text

from everloop.catalog.tables.tracking import run_params, run_tags, series
from everloop.catalog.tables.tracking import runs as run_rows
from everloop.catalog.tracking import experiments, points, querying, runs

PROJECT = "flights"
RUNS = 3000
FIRST = 1_000_000  # beyond the numbers that the database gives


def fill(tx):
    """Runs in two experiments with two metrics, a parameter and a tag, straight into the tables."""
    experiments.ensure_default(tx, PROJECT, 0)
    other = int(experiments.create(tx, PROJECT, "other", at=0))
    dice = random.Random(7)
    made, measured, params, tags = [], [], [], []
    for number in range(FIRST + 1, FIRST + RUNS + 1):
        home = other if number % 3 == 0 else 0
        made.append(
            {
                "number": number,
                "project": PROJECT,
                "id": f"{number:032x}",
                "experiment": home,
                "name": f"r{number - FIRST}",
            }
            | {"status": "FINISHED", "actor": "ada", "stage": "active", "start": number - FIRST, "artifact_uri": ""}
        )
        for key in ("auc", "loss"):
            row = {"run": number, "key": key, "step": 0, "at": 0, "value": dice.random(), "nan": 0}
            measured.append({**row, "project": PROJECT, "experiment": home})
        params += [{"parent": number, "key": "seed", "value": str(number - FIRST)}]
        params += [{"parent": number, "key": "model", "value": "tree" if number % 2 else "forest"}]
        tags.append({"parent": number, "key": "mlflow.runName", "value": f"r{number - FIRST}"})
    for table, rows in ((run_rows, made), (series, measured), (run_params, params), (run_tags, tags)):
        tx.execute(table.insert(), rows)


@pytest.fixture
def plans(catalog):
    """Runs a search and gives the plans of all its statements, as one text."""
    with catalog.write() as tx:
        fill(tx)
    with catalog.write() as tx:
        tx.execute(text("ANALYZE"))

    def ask(work):
        seen = []

        def note(_connection, _cursor, statement, parameters, _context, _many):
            seen.append((statement, parameters))

        with catalog.read() as tx:
            event.listen(tx, "before_cursor_execute", note)
            work(tx)
            event.remove(tx, "before_cursor_execute", note)
            if catalog.dialect == "postgresql":  # which reads small tables whole, whatever their indexes
                tx.execute(text("SET LOCAL enable_seqscan = off"))
            explain = "EXPLAIN QUERY PLAN " if catalog.dialect == "sqlite" else "EXPLAIN "
            assert seen
            told = [str(row[-1]) for asked in seen for row in tx.exec_driver_sql(explain + asked[0], asked[1])]
        return "\n".join(told)

    return ask


def search(**asked):
    return lambda tx: querying.search_rows(tx, PROJECT, ["0"], limit=20, **asked)


@pytest.mark.parametrize(
    "asked",
    [
        {"order_by": ["metrics.auc DESC"]},
        {"order_by": ["metrics.auc"]},
        {"order_by": ["metrics.auc DESC"], "filter_text": "metrics.loss > 0.2 AND params.model = 'tree'"},
    ],
)
def test_a_search_by_a_metric_walks_its_index_and_sorts_no_more_than_equal_values(plans, catalog, asked):
    plan = plans(search(**asked))
    assert "ix_metric_series_value" in plan
    assert "metric_points" not in plan
    if catalog.dialect == "sqlite":
        assert "USE TEMP B-TREE FOR ORDER BY" not in plan
    else:
        assert "Incremental Sort" in plan
        assert "Seq Scan on runs" not in plan
        assert "Seq Scan on metric_series" not in plan


ONE_EXPERIMENT = {
    "ix_runs_project_experiment_start_id": "100000 100000 100000 1 1",
    "sqlite_autoindex_runs_1": "100000 100000 1",
    "ix_metric_series_value": "500000 500000 500000 100000 100000 1 1",
    "sqlite_autoindex_metric_series_1": "500000 5 1",
}
"""What SQLite counts of 100,000 runs of five metrics in one experiment: its planner would rather sort them all."""


def test_all_runs_in_one_experiment_are_walked_too(plans, catalog):
    if catalog.dialect == "sqlite":
        with catalog.write() as tx:
            for index, counted in ONE_EXPERIMENT.items():
                assert tx.execute(
                    text("UPDATE sqlite_stat1 SET stat = :counted WHERE idx = :index"),
                    {"counted": counted, "index": index},
                ).rowcount
            tx.execute(text("CREATE TABLE passing (x)"))  # then every connection reads the schema and the counts anew
            tx.execute(text("DROP TABLE passing"))
    plan = plans(search(order_by=["metrics.auc DESC"]))
    assert "ix_metric_series_value" in plan
    assert ("USE TEMP B-TREE FOR ORDER BY" if catalog.dialect == "sqlite" else "Seq Scan on runs") not in plan


def test_the_newest_runs_come_from_the_index(plans, catalog):
    plan = plans(search())
    assert "ix_runs_project_experiment_start_id" in plan
    assert ("USE TEMP B-TREE FOR ORDER BY" if catalog.dialect == "sqlite" else "Seq Scan on runs") not in plan


@pytest.mark.parametrize(
    ("text", "index"),
    [
        ("params.seed = '77'", "ix_run_params_value"),
        ("attributes.run_name = 'r77'", "ix_run_tags_value"),
        ("metrics.loss < 0.001", "ix_metric_series_value"),
    ],
)
def test_a_rare_condition_is_where_a_search_starts(plans, text, index):
    plan = plans(search(filter_text=text, order_by=["metrics.auc DESC"]))
    assert index in plan
    assert "Seq Scan on run" not in plan
    assert "SCAN run" not in plan
    assert "metric_points" not in plan


def test_reading_a_series_never_scans_the_points(plans, catalog):
    with catalog.write() as tx:
        run = runs.create(tx, PROJECT, experiment="0", actor="ada", at=5)
        for key in range(20):
            points.log(tx, PROJECT, run.number, [points.Point(f"m{key}", float(i), i, i) for i in range(200)])
    with catalog.write() as tx:
        tx.execute(text("ANALYZE"))

    def read(tx):
        points.history(tx, PROJECT, run.id, "m3", limit=10)
        points.whole_history(tx, run.number, "m3")
        points.history_thinned(tx, PROJECT, run.id, "m3", start=3, end=150, most=40)

    plan = plans(read)
    assert "metric_points" in plan
    assert "Seq Scan on metric_points" not in plan
    assert "SCAN metric_points" not in plan
