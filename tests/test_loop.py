"""Every stage of one turn of the loop, on real processes, by the numbers that it left behind."""

import json

import pytest
from loop_story import FIRST
from shop_house import A_DAY, BEGIN, processes_of

from everloop.catalog import chain
from everloop.catalog.tracking import points, runs
from everloop.catalog.verify import verify
from everloop.core.clock import DAY, iso
from everloop.core.errors import PermissionDenied, PolicyRefused


def test_a_build_captures_makes_and_trains(story):
    steps = {done.step: done for done in story.built.results.steps}
    assert set(steps) == {
        "data/orders",
        "data/outcomes",
        "frame/comeback_rows",
        "frame/comeback_training",
        "frame/comeback_holdout",
        "model/comeback",
    }
    assert story.built.captured["till"].rows == 20 * A_DAY
    assert [result.passed for result in story.built.contracts["orders"]] == [True] * 3


def test_what_the_worker_built_is_not_built_again_by_people(story):
    # in a process of its own, as people build: what a thousand tests loaded here is no part of their code
    done = story.shop.cli("run", "--on", "sandbox/ada/again", "--json", check=True)
    steps = {step["step"]: step for step in json.loads(done.stdout)["steps"]}
    assert {name for name, step in steps.items() if not step["reused"]} == set()
    assert steps["model/comeback"]["version"] == story.retrained.result["model"]


def test_the_step_s_own_mlflow_client_wrote_its_run(story):
    ctx = story.shop.context()
    made = next(done for done in story.built.results.steps if done.step == "model/comeback")
    with ctx.read() as tx:
        run = runs.find(tx, "shop", made.run)
        logged = {point.key: point.value for point in points.newest(tx, [run.number])[run.number]}
    assert run.status == "FINISHED"
    assert logged["rows"] == pytest.approx(14.75 * A_DAY, rel=0.02)  # 20 days, 5 kept, a quarter of a day unknown yet
    assert 0.7 < logged["roc_auc"] < 0.95


def test_nobody_approves_their_own_and_nothing_merges_unchecked(story):
    assert isinstance(story.early, PolicyRefused), story.early
    assert isinstance(story.own, PermissionDenied | PolicyRefused), story.own
    assert [(check.name, check.state) for check in story.first.checks] == [
        ("good_enough", "passed"),
        ("units_kept", "passed"),
    ]
    assert story.merged.state == "merged"
    assert story.merged.approvers == ["grace"]


def test_every_question_was_answered_and_logged(story):
    shop = story.shop
    assert [reply.status_code for reply, _ in story.answers] == [200] * (6 * A_DAY)
    ada = shop.person("ada")
    for reply, row in story.answers[:: A_DAY // 2]:
        said = reply.json()
        kept = ada.call("predictions.get", id=said["prediction_id"])
        assert kept.at == iso(row["at"])
        assert kept.inputs["amount"] == row["amount"]
        assert kept.keys == {"place": row["place"]}
        assert next(iter(kept.answer.values())) == pytest.approx(said["predictions"][0])
        assert kept.label == row["returned"]


def test_online_features_are_those_of_training(story):
    ada = story.shop.person("ada")
    reply, row = story.answers[A_DAY - 1]
    kept = ada.call("predictions.get", id=reply.json()["prediction_id"])
    seen = {name: value for name, value in kept.inputs.items() if name.startswith("place_outcomes__")}
    assert len(seen) == 2
    mean, count = (next(v for k, v in seen.items() if part in k) for part in ("mean", "count"))
    assert 0 < mean < 1
    assert 0 < count <= 2 * A_DAY
    assert row["place"] in "abc"


def test_quiet_days_raise_nothing_and_drift_raises_one_alarm(story):
    assert story.quiet.state == "done"
    assert (len(story.quiet.result["evaluated"]), story.quiet.result["fired"]) == (1, [])
    assert not story.before_drift
    assert len(story.ticked.result["evaluated"]) == 4
    assert [(alarm.state, alarm.endpoint) for alarm in story.alarms] == [("alarm", "comeback")]
    assert "amount" in story.alarms[0].title
    assert len(story.ticked.result["fired"]) == 1


def test_the_alarm_retrained_on_newer_days_and_opened_a_change(story):
    result = story.retrained.result
    assert result["model"] != story.built.results.outputs["model/comeback"]
    assert story.second.authors != ["grace"]
    assert {check.name for check in story.second.checks} == {"good_enough", "units_kept"}
    ada = story.shop.person("ada")
    upstream = ada.call("lineage.show", version=result["model"])
    assert any(node.kind == "data" for node in upstream.nodes)


def test_the_challenger_went_through_a_canary(story):
    assert story.landed is not None, [(c.name, c.state, c.summary) for c in story.second.checks]
    assert {r.weight for r in story.canary.revisions} == {50}
    revisions = [reply.json()["revision"] for reply in story.during]
    assert set(revisions) == {story.live.target, story.canary.target}
    assert story.settled.target == story.canary.target != story.live.target


def test_rollback_brings_the_first_revision_back(story):
    assert story.back.serving == story.live.serving
    held = story.shop.person("ada").call("environments.show", environment="production")
    assert held.entries["model/comeback"] == story.built.results.outputs["model/comeback"]
    then = story.shop.person("ada").call(
        "environments.live_at", environment="production", time=iso(BEGIN + (FIRST + 1) * DAY)
    )
    assert then.approvers == ["grace"]


def test_one_answer_traces_to_rows_code_and_people(story):
    reply, _ = story.answers[0]
    traced = story.shop.person("vera").call("predictions.trace", id=reply.json()["prediction_id"])
    assert (traced.change, traced.authors, traced.approvers) == (story.first.number, ["ada"], ["grace"])
    kinds = {origin.label.partition("/")[0] for origin in traced.origins}
    assert {"model", "frame", "data", "code", "runtime", "endpoint", "service", "view"} <= kinds


def test_the_model_s_recipe_gives_the_same_bytes(story):
    done = story.shop.cli("reproduce", story.built.results.outputs["model/comeback"], "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout)["tier"] == "bit"


def test_everything_holds_at_the_end(story):
    shop = story.shop
    found = shop.person("ada").call("system.verify")
    assert found.findings == []
    workspace = shop.workspace
    assert verify(workspace.catalog, workspace.store, key=workspace.key.public) == []
    with workspace.catalog.read() as tx:
        assert chain.verify_chain(tx, "shop", key=workspace.key.public) is None
    assert set(shop.pids.values()) <= set(processes_of(shop.home))
