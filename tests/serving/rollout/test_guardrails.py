"""Guardrails on answers, feedback and labels, with real gateways: a bad revision goes back with its evidence."""

from dataclasses import replace

import pytest
import serving_models
from serving_house import Place
from test_controller import Shop, ask

from everloop.catalog import chain
from everloop.catalog.operating import predictions
from everloop.catalog.operation import invoke
from everloop.core.clock import ReplayClock
from everloop.core.errors import InvalidInput, NotFound
from everloop.serving import operations
from everloop.serving.definitions import BlueGreen, Canary, EndpointDef, Guardrails
from everloop.serving.ingest import ingest
from everloop.serving.rollout import operations as rolling
from everloop.serving.rollout.declared import Business, Drift, Quality

START = 1_400_000_000_000_000


@pytest.fixture
def shop(context_of, sqlite_catalog, tmp_path):
    place = Place(tmp_path)
    clock = ReplayClock(START)
    ctx = replace(context_of(sqlite_catalog, clock=clock, project="shop"), key=place.key)
    made = Shop(ctx, place, EndpointDef("delay", "delay"))
    made.clock = clock
    yield made
    place.close()


def rolled(shop, rollout, guard, first, second):
    """Two revisions, the second on its way; returns the gateway."""
    shop.endpoint = EndpointDef("delay", "delay", rollout=rollout, guardrails=Guardrails(also=[guard]))
    gateway = shop.place.gateway()
    shop.release(first)
    shop.reconcile_until(lambda s: s and s.phase == "live")
    ask(gateway, 60)
    ingest(shop.ctx.catalog, shop.place.home)
    shop.release(second)
    shop.reconcile_until(lambda s: s.phase == ("live" if isinstance(rollout, BlueGreen) else "canary"))
    shop.place.sequence = shop.controller._table.sequence
    return gateway.ready()


def test_answers_that_are_distributed_otherwise(shop):
    guard = Drift(at_most=0.2, least=50)
    gateway = rolled(shop, Canary([50, 100], hold="10m"), guard, serving_models.Values(1.0), serving_models.Values(9.0))

    def more():
        ask(gateway, 60)
        ingest(shop.ctx.catalog, shop.place.home)

    shown = shop.reconcile_until(lambda s: s.phase == "reverted", each=more, seconds=40)
    evidence = shown.evidence["guardrail"]
    assert evidence["guard"] == "drift"
    assert evidence["value"] == 1.0 > evidence["sure"] > 0.2
    assert evidence["rows"] >= 50
    prediction = invoke(shop.ctx, "predictions.get", operations.PredictionQuery(id=evidence["predictions"][-1]))
    assert prediction.revision == shown.target
    guarded = invoke(shop.ctx, "endpoints.guardrails", rolling.AskGuardrails(name="delay"))
    assert guarded.guardrails == []  # nothing is guarded any more


def test_feedback_by_prediction_and_pushed_figures_turn_back_within_seconds_of_the_evidence(shop):
    guard = Business("revenue", worse=1.0, least=20)
    gateway = rolled(shop, BlueGreen("1h"), guard, serving_models.Values(1.0), serving_models.Values(2.0))
    with shop.ctx.read() as tx:
        before = [row.id for row in predictions.newest(tx, "shop", "delay", 60)]
    give(shop, before, 10.0)
    after = [answer.json()["prediction_id"] for answer in ask(gateway, 60)]
    ingest(shop.ctx.catalog, shop.place.home)
    give(shop, after[:10], 1.0)
    shop.controller.reconcile([shop.ctx])
    assert shop.shown().phase == "live"  # ten values are too few
    now = invoke(shop.ctx, "endpoints.guardrails", rolling.AskGuardrails(name="delay")).guardrails[0]
    assert (now.rows, now.champion_rows, now.sure, now.breached) == (10, 60, None, False)
    number = next(r.number for r in shop.shown().revisions if r.id == shop.shown().target)
    figure = {"endpoint": "delay", "metric": "revenue", "revision": str(number), "at": "2014-05-13T17:00:00Z"}
    for _ in range(2):  # the same figure again changes nothing
        invoke(shop.ctx, "feedback.push", rolling.PushMetric(**figure, count=50, total=50.0, squares=60.0))
    shown = shop.reconcile_until(lambda s: s.phase == "reverted")
    evidence = shown.evidence["guardrail"]
    assert (evidence["rows"], evidence["champion_rows"]) == (60, 60)
    assert evidence["value"] == pytest.approx(10.05 - (10.5 + 50) / 60)
    assert set(evidence["predictions"]) == set(after[:10])


def give(shop, ids, value):
    values = [rolling.GivenFeedback(prediction=i, value=value + n % 2 * 0.1) for n, i in enumerate(ids)]
    invoke(shop.ctx, "feedback.add", rolling.AddFeedback(endpoint="delay", metric="revenue", values=values))


def test_late_labels_reach_a_revision_that_is_live(shop):
    guard = Quality("absolute", worse=0.5, least=30, watch="1d")
    gateway = rolled(shop, BlueGreen("1m"), guard, serving_models.Values(1.0), serving_models.Values(4.0))
    with shop.ctx.read() as tx:
        before = [row.id for row in predictions.newest(tx, "shop", "delay", 60)]
    after = [answer.json()["prediction_id"] for answer in ask(gateway, 60)]
    ingest(shop.ctx.catalog, shop.place.home)
    shop.clock.advance(START + 3_600_000_000)
    shop.controller.reconcile([shop.ctx])
    assert shop.shown().phase == "live"  # it is watched for a day, because labels are late
    labels = [operations.GivenLabel(prediction=identity, value=1.0) for identity in before + after]
    invoke(shop.ctx, "labels.add", operations.AddLabels(endpoint="delay", labels=labels))
    shown = shop.reconcile_until(lambda s: s.phase == "reverted")
    assert shown.evidence["guardrail"]["guard"] == "quality absolute"
    assert shown.evidence["guardrail"]["value"] == pytest.approx(3.0)
    chain.seal(shop.ctx.catalog, shop.ctx.clock)
    reverts = invoke(shop.ctx, "endpoints.guardrails", rolling.AskGuardrails(name="delay")).reverts
    assert [r.reason for r in reverts] == [shown.reason]
    assert reverts[0].evidence["guardrail"]["window"][1] > reverts[0].evidence["guardrail"]["window"][0]


def test_feedback_that_makes_no_sense_is_refused(shop):
    wrong = [
        ("feedback.add", rolling.AddFeedback(endpoint="d", metric="a metric", values=[])),
        ("feedback.add", rolling.AddFeedback(endpoint="d", metric="m", values=[{"prediction": "p", "value": 1e300}])),
        (
            "feedback.add",
            rolling.AddFeedback(endpoint="d", metric="m", values=[{"prediction": "p", "value": 1, "at": "x"}]),
        ),
        ("feedback.push", rolling.PushMetric(endpoint="d", metric="m", revision="1", count=0, total=0)),
        ("feedback.push", rolling.PushMetric(endpoint="d", metric="m", revision="1", count=2, total=9, squares=1)),
    ]
    for name, command in wrong:
        with pytest.raises(Exception, match=r".") as refused:
            invoke(shop.ctx, name, command)
        assert refused.value.status in (400, 422)
    with pytest.raises(NotFound):
        invoke(shop.ctx, "feedback.push", rolling.PushMetric(endpoint="d", metric="m", revision="1", count=2, total=1))
    with pytest.raises(NotFound):
        invoke(shop.ctx, "endpoints.guardrails", rolling.AskGuardrails(name="nobody"))
    assert InvalidInput.status == 400
