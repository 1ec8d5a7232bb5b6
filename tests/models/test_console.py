"""Console output, kept in batches and read by line numbers."""

import pytest

from everloop.catalog.operation import invoke
from everloop.catalog.tracking import artifacts, experiments, runs
from everloop.core.errors import NotFound, PermissionDenied
from everloop.core.ports import Line
from everloop.models import console
from everloop.models.console import ReadConsole
from everloop.workspace.runs import TrackedRuns


@pytest.fixture
def run(context):
    return TrackedRuns(context).start("model/delay", {}, {})


def lines(*numbers, width=1):
    return [Line(1_000_000 * n, "err" if n % 3 == 0 else "out", f"{n} {'x' * width}") for n in numbers]


def read(context, owner, **options):
    return invoke(context, "runs.console", ReadConsole(run=owner, **options))


def test_lines_come_back_in_order_with_stream_and_time(context, run):
    empty = read(context, run)
    assert (empty.lines, empty.position, empty.total, empty.ended) == ((), 0, 0, False)
    console.append(context, run, [Line(1_000_000, "out", "épreuve\r\u2028"), Line(2_000_000, "err", "")])
    found = read(context, run)
    assert [(line.number, line.stream, line.text) for line in found.lines] == [
        (0, "out", "épreuve\r\u2028"),
        (1, "err", ""),
    ]
    assert found.lines[1].at.startswith("1970-01-01T00:00:02")


def test_a_reader_follows_by_position_whatever_the_batches(context, run):
    seen, position = [], 0
    for first in range(0, 200, 2):  # more batches than are kept apart
        console.append(context, run, lines(first, first + 1))
        if first % 3 == 0:
            page = read(context, run, after=position, limit=5)
            seen += [line.number for line in page.lines]
            position = page.position
    while (page := read(context, run, after=position, limit=7)).lines:
        seen += [line.number for line in page.lines]
        position = page.position
    assert seen == list(range(200))
    with context.read() as tx:
        assert len(artifacts.tree(tx, context.project, f"console:{run}")) < 70
    assert [line.number for line in read(context, run, tail=True, limit=3).lines] == [197, 198, 199]


def test_the_oldest_go_when_it_is_too_much_and_numbers_go_on(context, run):
    for first in range(0, 100, 10):
        console.append(context, run, lines(*range(first, first + 10), width=1000), limit=25_000)
    found = read(context, run)
    assert (found.first, found.total) == (70, 100)
    assert found.lines[0].text.startswith("70 ")
    assert found.position == 100


def test_an_ended_run_holds_one_object(context, run):
    sink = TrackedRuns(context)
    for start in range(0, 10, 2):
        sink.write(run, lines(start, start + 1), first=start == 0)
    sink.write(run, lines(10), last=True)
    sink.finish(run, status="FINISHED", metrics={})
    with context.read() as tx:
        assert len(artifacts.tree(tx, context.project, f"console:{run}")) == 1
        assert artifacts.tree(tx, context.project, run) == []
        assert runs.find(tx, context.project, run).status == "FINISHED"
    found = read(context, run)
    assert found.ended
    assert [line.text for line in found.lines] == [line.text for line in lines(*range(11))]


def test_a_step_without_a_run_is_read_by_its_recipe(context):
    recipe = "b3:" + "5" * 64
    with pytest.raises(NotFound):
        read(context, recipe)
    console.append(context, recipe, lines(1))
    assert read(context, recipe).ended
    console.forget(context, recipe)
    with pytest.raises(NotFound):
        read(context, recipe)


def test_who_may_not_read_runs_may_not_read_what_they_print(context, run, context_of):
    with pytest.raises(PermissionDenied):
        read(context_of(context.catalog, roles=()), run)


def test_another_projects_run_is_not_found(context, run, context_of):
    with pytest.raises(NotFound):
        read(context_of(context.catalog, project="elsewhere"), run)


def test_an_unknown_run_is_not_found(context):
    with context.write() as tx:
        experiments.create(tx, context.project, "x", at=1)
    with pytest.raises(NotFound):
        read(context, "0" * 32)
