"""Seals: what a run was stays, though clients tag and resume it."""

import math

import pytest

from everloop.catalog import versions
from everloop.catalog.keeping import seals
from everloop.catalog.operation import find_operation, invoke
from everloop.catalog.tracking import artifacts, experiments, inputs, points, registry, runs
from everloop.catalog.tracking.rows import DatasetInput, Point
from everloop.catalog.verify import verify
from everloop.checks.card_facts import card
from everloop.checks.record import RecordResult, record
from everloop.core.errors import NotFound
from everloop.core.version import Version
from everloop.workspace.operations import load_operations

load_operations()


@pytest.fixture
def context(each_context):
    return each_context


def ask(context, name, /, **fields):
    op = find_operation(name)
    return invoke(context, op, op.command(**fields))


@pytest.fixture
def run(context):
    with context.write() as tx:
        home = experiments.create(tx, context.project, "tuning", at=1)
        made = runs.create(tx, context.project, experiment=home, actor="ada", at=5)
        runs.log_params(tx, made, [("depth", "6")])
        points.log(tx, context.project, made.number, [Point("auc", 0.1 * step, step, step) for step in range(9)])
        points.log(tx, context.project, made.number, [Point("loss", math.nan, 1), Point("worst", math.inf, 1)])
        stored = context.store.put(b"weights")
        artifacts.put(tx, context.project, made.id, "model/weights", identity=stored, size=7, at=5)
        inputs.log_datasets(tx, context.project, made, [DatasetInput("rows", "d1", "local", "{}")])
        runs.finish(tx, context.project, made.id, status="FINISHED", at=9)
    return made


def sealed(context, identity):
    with context.read() as tx:
        return versions.get(tx, context.project, identity).manifest


def test_a_run_that_is_tagged_and_resumed_after_its_seal_still_has_the_sealed_content(context, run):
    seal = ask(context, "runs.seal", run=run.id)
    held = sealed(context, seal.id)
    assert (held["params"], held["metrics"]["auc"]) == ({"depth": "6"}, {"value": "0.8", "step": 8, "at": 8})
    assert (held["metrics"]["loss"]["value"], held["metrics"]["worst"]["value"]) == ("nan", "inf")
    assert set(held["files"]) == {"model/weights"}
    assert held["datasets"][0]["name"] == "rows"
    with context.write() as tx:
        runs.set_tags(tx, run, {"verdict": "good"})
        runs.change(tx, context.project, run.id, status="RUNNING")
        runs.log_params(tx, run, [("late", "1")])
        points.log(tx, context.project, run.number, [Point("auc", 0.4, 100, 3)])  # not the newest: only the history
        stored = context.store.put(b"other weights")
        artifacts.put(tx, context.project, run.id, "model/weights", identity=stored, size=13, at=9)
    assert sealed(context, seal.id) == held == seal.manifest
    (seen,) = ask(context, "runs.seals", run=run.id).seals
    assert seen.changed == ("files", "params", "series", "status", "tags")
    again = ask(context, "runs.seal", run=run.id)
    assert (again.number, again.status) == (2, "RUNNING")
    assert again.manifest["series"]["auc"]["digest"] != held["series"]["auc"]["digest"]
    assert [(one.number, one.changed != ()) for one in ask(context, "runs.seals", run=run.id).seals] == [
        (2, False),
        (1, True),
    ]
    assert verify(context.catalog, context.store) == []


def test_a_run_that_did_not_change_has_one_seal(context, run):
    first, second = (ask(context, "runs.seal", run=run.id) for _ in range(2))
    assert first == second
    with pytest.raises(NotFound):
        ask(context, "runs.seal", run="0" * 32)


def test_evidence_and_cards_cite_what_the_run_was_when_it_was_judged(context, run):
    with context.write() as tx:
        model = registry.register(tx, context.project, "delay", actor="ada", at=10)
        files = {"weights": context.store.put(b"weights")}
        made = registry.create_version(
            tx, context.project, model, source="runs:/x", actor="ada", at=10, files=files, run=run.id
        )
        judge = Version("check", "better", {})
        versions.put(tx, context.project, judge, actor="ada", at=10)
    asked = RecordResult(
        environment="staging",
        delta_id="b3:" + "1" * 64,
        name="better",
        check_id=judge.id,
        subjects={"delay": made.version},
        state="passed",
        summary="it is",
    )
    view = invoke(context, record, asked)
    with context.write() as tx:
        runs.set_tags(tx, run, {"verdict": "good"})
        cited = [e.from_id for e in versions.upstream(tx, context.project, view.evidence, 1) if e.role == "run:delay"]
        assert [one.id for one in seals.of_run(tx, context.project, run.id)] == cited
    assert "verdict" not in sealed(context, cited[0])["tags"]
    (row,) = [row for section in card(context, made.version).sections for row in section.rows if row.proof in cited]
    assert run.id in row.text
    assert invoke(context, record, asked).evidence == view.evidence  # tags are no other finding
