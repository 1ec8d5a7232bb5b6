import dataclasses
import json
import re

import numpy as np
import pytest
from watch_world import BEGIN

from everloop.catalog import chain, facts, refs, versions
from everloop.catalog.governance import annotations
from everloop.catalog.governance.annotations import Annotation
from everloop.catalog.operating import alarms as rows
from everloop.catalog.operation import invoke
from everloop.core.clock import DAY
from everloop.core.errors import InvalidInput, NotFound
from everloop.core.snapshot import Snapshot
from everloop.core.version import Version
from everloop.features.definitions import FeatureViewDef, last
from everloop.watch.baseline import baseline_of, model_scorer
from everloop.watch.definitions import Window
from everloop.watch.evaluate import evaluate
from everloop.watch.operations import Evaluate, OfView, distributions, evaluate_window
from everloop.watch.triggers import due_windows


def look(world, day, **more):
    start = BEGIN + (60 + day) * DAY
    return evaluate(world.ctx, world.monitor, Window(start, start + DAY), score=model_scorer(world.ctx), **more)


def test_quiet_days_are_ok_and_leave_evidence(world):
    world.serve(0)
    world.serve(1)
    reports = [look(world, 0), look(world, 1)]
    assert [r.state for r in reports] == ["ok", "ok"]
    assert not reports[1].alarms
    with world.ctx.read() as tx:
        evidence = versions.get(tx, world.ctx.project, reports[1].evidence)
        pinned = {e.from_id for e in versions.upstream(tx, world.ctx.project, evidence.id, depth=1)}
    assert pinned == {world.model, world.revision}
    body = json.loads(world.ctx.store.get(evidence.manifest["object"]))
    assert body["rows"] == 400
    assert "achieved on the reference replayed" in body["baseline"]["budget"]
    assert {c["column"] for c in body["columns"]} == {"origin__load", "weather__wind", "distance", "prediction"}


def test_a_views_features_are_shown_against_training(world, context_of):
    """Nulls and quantiles of both; of a tagged column nulls only, to whoever may not read the tag."""
    view = FeatureViewDef("weather", "log", "origin", [last("speed", name="wind"), last("rain")], event_time="at")
    made = Version("view", view.name, view.manifest())
    with world.ctx.write() as tx:
        old = refs.get(tx, world.ctx.project, "env/production")
        snapshot = Snapshot(
            {**versions.get(tx, world.ctx.project, old).manifest["entries"], made.key: made.id}
        ).version()
        for version in (made, snapshot):
            world.put(tx, version)
        refs.move(tx, world.ctx.project, "env/production", old=old, new=snapshot.id, actor="ada", at=world.ctx.now())
    asked = OfView(view="weather")
    assert invoke(world.ctx, distributions, asked).columns == []
    half = {"weather__wind": lambda values: np.where(np.arange(len(values)) % 2, values + 3, np.nan)}
    world.serve(0, change=lambda inputs: {name: half.get(name, lambda v: v)(v) for name, v in inputs.items()})
    look(world, 0)
    world.clock.advance(BEGIN + 62 * DAY)
    look(world, 1)  # a day without traffic hides nothing
    (seen,) = invoke(world.ctx, distributions, asked).columns
    assert (seen.column, seen.monitor, seen.rows, seen.state) == ("weather__wind", "delay", 400, "fault")
    assert seen.nulls == (0, 0.5)
    assert seen.quantiles[1][2] - seen.quantiles[0][2] == pytest.approx(3, abs=0.8)
    viewer = context_of(world.ctx.catalog, name="eve", roles=["viewer"])
    with world.ctx.write() as tx:
        annotations.put(
            tx, world.ctx.project, Annotation("view", "weather", "wind", "tag", "personal", "confirmed", "sam", 1)
        )
    (masked,) = invoke(viewer, distributions, asked).columns
    assert (masked.nulls, masked.quantiles, masked.text) == ((0, 0.5), (), seen.text)
    world.serve(2, change=lambda inputs: {**inputs, "weather__wind": inputs["weather__wind"] + 3})
    look(world, 2)  # the model is not of this view: its report tells values to whoever may read the tag
    assert "median" in invoke(world.ctx, distributions, asked).columns[0].text
    (masked,) = invoke(viewer, distributions, asked).columns
    assert re.fullmatch(r"moved by [\d.]+ sd", masked.text)
    with pytest.raises(NotFound, match="no feature view"):
        invoke(world.ctx, distributions, OfView(view="nothing"))


def test_of_a_tagged_column_nothing_that_is_written_down_names_values(world):
    """Evidence, alarm, summary and facts are read by anybody."""
    with world.ctx.write() as tx:
        for column in ("weather__wind", "origin__load"):
            annotations.put(
                tx, world.ctx.project, Annotation("model", "delay", column, "tag", "personal", "confirmed", "sam", 1)
            )
    stuck = {
        "origin__load": lambda values: np.full(len(values), 7.125),
        "weather__wind": lambda values: values + 41_000,
    }
    world.serve(0, change=lambda inputs: {name: stuck.get(name, lambda v: v)(v) for name, v in inputs.items()})
    report = look(world, 0)
    chain.seal(world.ctx.catalog, world.ctx.clock)
    with world.ctx.read() as tx:
        body = world.ctx.store.get(versions.get(tx, world.ctx.project, report.evidence).manifest["object"]).decode()
        told = [dataclasses.asdict(fact) for fact in facts.tail(tx, world.ctx.project)]
    columns = {column["column"]: column for column in json.loads(body)["columns"]}
    assert columns["origin__load"]["text"] == "constant column: every one of 400 values is the same"
    moved = r"100\.0% well outside the range of training; moved by [\d.]+ sd"
    assert re.fullmatch(moved, columns["weather__wind"]["text"])
    everything = json.dumps([body, report.summary, [alarm.title for alarm in report.alarms], told], default=str)
    assert report.alarms
    assert not re.search(r"7\.125|e\+04|\b4[01]\d{3}\.", everything)


def test_late_labels_are_judged_when_mature_then_and_now(world):
    for day in range(2):
        world.serve(day)
    report = look(world, 1)
    judged = report.judged
    assert judged.body["rows"] == 400  # noon of day 0 to noon of day 1
    assert judged.body["known_then"]["coverage"] == pytest.approx(0.97, abs=0.03)
    figure = judged.body["known_now"]["figure"]
    assert figure["low"] < figure["value"] < figure["high"]
    assert judged.standing in ("met", "uncertain")
    (area, accuracy) = judged.body["estimates"]
    assert area["assumption"] == "estimate, assumes no concept drift"
    assert area["low"] - 0.05 < figure["value"] < area["high"] + 0.05
    assert accuracy["metric"] == "accuracy"
    assert judged.figures["estimate_error"] < 0.08


def test_a_shift_of_two_columns_is_one_alarm_within_two_windows(world):
    def storm(inputs):
        return {**inputs, "weather__wind": inputs["weather__wind"] + 3, "origin__load": inputs["origin__load"] * 1.3}

    world.serve(0)
    look(world, 0)
    for day in (1, 2):
        world.serve(day, change=storm)
        report = look(world, day)
    assert report.state == "drift"
    (alarm,) = report.alarms
    assert (alarm.state, alarm.kind) == ("alarm", "drift")
    assert {"weather__wind", "origin__load"} <= set(alarm.columns)
    assert alarm.onset == BEGIN + 61 * DAY


def test_a_change_of_unit_is_an_alarm_at_once(world):
    world.serve(0, change=lambda inputs: {**inputs, "weather__wind": inputs["weather__wind"] * 1000})
    report = look(world, 0)
    assert report.state == "fault"
    (alarm,) = report.alarms
    assert (alarm.state, alarm.blocks_retraining) == ("alarm", True)
    assert "unit change: looks like x1000" in alarm.title


def test_a_change_of_concept_shows_in_labels_only(world):
    for day in range(4):
        world.serve(day, concept=lambda chances: 1 - chances)
        report = look(world, day)
    assert report.state == "breach"
    assert {alarm.kind for alarm in report.alarms} == {"performance"}
    assert report.alarms[0].state == "alarm"
    assert report.judged.body["estimates"][0]["value"] > 0.6 > report.judged.figures["roc_auc"]


def test_looking_again_appends_and_keeps_alarms(world):
    world.serve(0, change=lambda inputs: {**inputs, "weather__wind": inputs["weather__wind"] + 4})
    first, again = look(world, 0), look(world, 0)
    assert first.alarms[0].state == "suspect"
    assert not again.alarms
    with world.ctx.read() as tx:
        assert len(rows.evaluations(tx, world.ctx.project, "delay")) == 2
        assert rows.find(tx, world.ctx.project)[0].history == "1"


def test_nobody_asked(world):
    world.serve(0)
    world.clock.advance(BEGIN + 63 * DAY)
    report = look(world, 1)
    assert (report.state, report.alarms) == ("no traffic", ())


def test_small_windows_cannot_tell(world):
    world.serve(0, rows=40)
    assert look(world, 0).state == "cannot tell"


def test_the_operation_takes_the_newest_whole_window(world):
    world.serve(0)
    world.clock.advance(BEGIN + 61 * DAY + 3)
    seen = invoke(world.ctx, evaluate_window, Evaluate(monitor="delay"))
    assert (seen.start, seen.until, seen.state) == (BEGIN + 60 * DAY, BEGIN + 61 * DAY, "ok")
    assert not due_windows(world.ctx, world.monitor)
    with pytest.raises(NotFound, match="monitor/other"):
        invoke(world.ctx, evaluate_window, Evaluate(monitor="other"))


def test_a_baseline_is_made_once(world):
    score = model_scorer(world.ctx)
    made = baseline_of(world.ctx, world.model, DAY, 1, score)
    again = baseline_of(world.ctx, world.model, DAY, 1)
    assert again.to_json() == made.to_json()
    assert made.replay.windows == 58
    assert made.chances is not None
    assert "prediction" in made.reference.columns


def test_empty_windows_are_refused():
    with pytest.raises(InvalidInput):
        Window(5, 5)
