"""Tables of runs, their columns, saved views."""

import math

import pytest

from everloop.catalog.operation import find_operation, invoke
from everloop.catalog.tracking import experiments, points, runs
from everloop.catalog.tracking.rows import Point
from everloop.core.errors import InvalidInput, NotFound, PermissionDenied
from everloop.models.tracking import table
from everloop.workspace.operations import load_operations

load_operations()


def ask(context, name, /, **fields):
    op = find_operation(name)
    return invoke(context, op, op.command(**fields))


@pytest.fixture
def made(context):
    """Five runs in two experiments; their ids, oldest first."""
    found = []
    with context.write() as tx:
        homes = [experiments.create(tx, context.project, name, at=1) for name in ("first", "second")]
        for number in range(5):
            at = 1_000_000 * (number + 1)
            run = runs.create(tx, context.project, experiment=homes[number % 2], actor="ada", at=at)
            value = (0.1, 0.9, math.nan, 0.5, math.inf)[number]
            points.log(tx, context.project, run.number, [Point("auc", value, at)])
            runs.log_params(tx, run, [("depth", str(number)), *([("rare", "x")] if number == 3 else [])])
            runs.finish(tx, context.project, run.id, status="FINISHED", at=at + (5 - number) * 1_000_000)
            found.append(run.id)
        runs.set_tags(tx, runs.find(tx, context.project, found[0]), {"mlflow.source.git.commit": "abc"})
    return found


def test_cells_are_those_of_the_chosen_columns_in_their_order(context, made):
    found = ask(context, "runs.table", columns=("params.rare", "metrics.auc", "tags.none", "params.depth"))
    assert [row.id for row in found.rows] == made[::-1]
    assert [row.cells for row in found.rows] == [
        (None, "Infinity", None, "4"),
        ("x", 0.5, None, "3"),
        (None, "NaN", None, "2"),
        (None, 0.9, None, "1"),
        (None, 0.1, None, "0"),
    ]
    assert (found.total, found.more, found.token) == (5, False, "")
    assert [row.code for row in found.rows] == ["", "", "", "", "abc"]


@pytest.mark.parametrize(
    ("order", "wanted"),
    [
        ("metrics.auc DESC", [4, 1, 3, 0, 2]),
        ("metrics.auc ASC", [0, 3, 1, 4, 2]),
        ("params.depth DESC", [4, 3, 2, 1, 0]),
        ("params.rare ASC", [3, 4, 2, 1, 0]),
        ("duration DESC", [0, 1, 2, 3, 4]),
        ("start_time ASC", [0, 1, 2, 3, 4]),
    ],
)
def test_any_column_orders_and_pages_neither_repeat_nor_skip(context, made, order, wanted):
    seen, token = [], ""
    while True:
        page = ask(context, "runs.table", order_by=(order,), limit=2, token=token)
        seen += [made.index(row.id) for row in page.rows]
        token = page.token
        if not token:
            break
    assert seen == wanted


def test_durations_are_filtered_in_seconds(context, made):
    found = ask(context, "runs.table", filter="duration >= 4")
    assert sorted(made.index(row.id) for row in found.rows) == [0, 1]
    assert {row.seconds for row in found.rows} == {4.0, 5.0}


def test_counting_stops_and_says_so(context, made, monkeypatch):
    monkeypatch.setattr(table, "COUNTED", 3)
    found = ask(context, "runs.table", limit=1)
    assert (found.total, found.more) == (3, True)
    assert ask(context, "runs.table", limit=1, count=False).total is None


def test_experiments_are_meant_by_id_or_name(context, made):
    every = ask(context, "runs.table", experiments=("first",))
    assert [made.index(row.id) for row in every.rows] == [4, 2, 0]
    assert ask(context, "runs.table", experiments=("first", "second")).total == 5
    with pytest.raises(NotFound):
        ask(context, "runs.table", experiments=("third",))


@pytest.mark.parametrize("column", ["auc", "metrics", "metrics.", "datasets.name"])
def test_what_is_no_column_is_refused(context, made, column):
    with pytest.raises(InvalidInput, match="is no column"):
        ask(context, "runs.table", columns=(column,))


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("metrics.auc > ", ""),
        ("metrics.auc >> 1", ">"),
        ("metrics.auc > 1 or params.depth = '1'", "or"),
        ("metrics.auc = 'x'", "metrics.auc"),
        ("depth = '1'", "depth"),
        ("params.depth = 'open", "'open"),
        ("models.x = 1", "models.x"),
    ],
)
def test_a_mistake_in_a_filter_has_its_place(context, made, text, at):
    with pytest.raises(InvalidInput) as caught:
        ask(context, "runs.table", filter=text)
    assert caught.value.details["reason"]
    assert text[caught.value.details["place"] :].startswith(at)
    if not at:
        assert caught.value.details["place"] == len(text)


def test_columns_are_counted_commonest_first(context, made, monkeypatch):
    found = ask(context, "runs.columns")
    assert [(one.key, one.runs) for one in found.params] == [("depth", 5), ("rare", 1)]
    assert [(one.key, one.runs) for one in found.metrics] == [("auc", 5)]
    assert (found.runs, found.whole) == (5, True)
    monkeypatch.setattr(table, "LOOKED_AT", 1)
    newest = ask(context, "runs.columns")
    assert ([one.key for one in newest.params], newest.runs, newest.whole) == (["depth"], 1, False)


def test_runs_are_edited_deleted_and_restored(context, made):
    ask(context, "runs.edit", run=made[0], name="renamed", note="see <b>this</b>", tags={"team": "core"})
    assert ask(context, "runs.show", run=made[0]).run.name == "renamed"
    assert ask(context, "runs.origin", run=made[0]).note == "see <b>this</b>"
    ask(context, "runs.edit", run=made[0], note="", remove=("team", "was never there"))
    tags = ask(context, "runs.show", run=made[0]).run.tags
    assert "team" not in tags
    assert "mlflow.note.content" not in tags
    ask(context, "runs.delete", runs=tuple(made[:2]))
    assert ask(context, "runs.table").total == 3
    with pytest.raises(InvalidInput):
        ask(context, "runs.edit", run=made[0], name="again")
    assert {row.stage for row in ask(context, "runs.table", view="deleted").rows} == {"deleted"}
    ask(context, "runs.restore", runs=tuple(made[:2]))
    assert ask(context, "runs.table").total == 5


@pytest.mark.parametrize("key", ["", " ", "mlflow.user", "everloop.code", "a\nb", "x" * 300])
def test_tags_of_programs_are_not_for_people(context, made, key):
    with pytest.raises(InvalidInput):
        ask(context, "runs.edit", run=made[0], tags={key: "mine"})


def test_views_are_saved_replaced_and_deleted(context, context_of, sqlite_catalog):
    ask(context, "views.save", page="runs", name=" best ", query="order=metrics.auc+DESC")
    ask(context, "views.save", page="runs", name="best", query="order=metrics.auc+ASC")
    ask(context, "views.save", page="models", name="best", query="search=x")
    (found,) = ask(context, "views.list", page="runs").views
    assert (found.name, found.query, found.actor) == ("best", "order=metrics.auc+ASC", context.actor.name)
    assert ask(context, "views.delete", page="runs", name="best").views == ()
    with pytest.raises(NotFound):
        ask(context, "views.delete", page="runs", name="best")
    with pytest.raises(InvalidInput):
        ask(context, "views.save", page="runs", name="  ", query="")
    reader = context_of(sqlite_catalog, roles=["viewer"])
    with pytest.raises(PermissionDenied):
        ask(reader, "views.save", page="runs", name="mine", query="")
