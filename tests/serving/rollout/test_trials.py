"""Champion and challengers with real gateways: keys stay, a winner is proposed and, once reviewed, serves."""

from dataclasses import replace

import pytest
import serving_models
from serving_house import Place
from test_controller import NUMBERS, Shop, model_version

from everloop.catalog import chain, facts
from everloop.catalog.operation import invoke
from everloop.changes import merging, proposing, reviewing
from everloop.core.clock import ReplayClock
from everloop.core.errors import InvalidInput, NotFound
from everloop.serving import operations
from everloop.serving.definitions import AllAtOnce, EndpointDef, Guardrails
from everloop.serving.ingest import ingest
from everloop.serving.rollout import operations as rolling
from everloop.serving.rollout.declared import Business, Default, Drift, Experiment, Quality, Simpler

START = 1_400_000_000_000_000
KEYS = range(200)


@pytest.fixture
def shop(context_of, sqlite_catalog, tmp_path):
    place = Place(tmp_path)
    ctx = replace(context_of(sqlite_catalog, clock=ReplayClock(START), project="shop"), key=place.key)
    experiment = Experiment(Business("clicks", least=30), shares={"deep": 20, "plain": 20}, key="hour")
    challengers = {"deep": "deep", "plain": "plain"}
    endpoint = EndpointDef("delay", "delay", rollout=AllAtOnce(), challengers=challengers, experiment=experiment)
    yield Shop(ctx, place, endpoint)
    place.close()


def dealt(gateway):
    """(prediction id, answer) of each key."""
    found = {}
    for key in KEYS:
        answer = gateway.predict({"distance": 1.0, "hour": key}).json()
        found[key] = (answer["prediction_id"], answer["predictions"][0])
    return found


def values(found):
    return {key: value for key, (_, value) in found.items()}


def running(shown):
    arms = (shown.experiment if shown else {}).get("arms", {})
    return arms and {arm["state"] for arm in arms.values()} == {"running"}


def settle(shop, gateway):
    shop.controller.reconcile([shop.ctx])
    shop.place.sequence = shop.controller._table.sequence
    gateway.ready()


def test_keys_stay_until_the_better_one_is_proposed_and_merged(shop):
    gateway = shop.place.gateway()
    deep, plain = (
        model_version(shop.ctx, n, serving_models.Values(v), NUMBERS) for n, v in (("deep", 2.0), ("plain", 3.0))
    )
    shop.release(serving_models.Values(1.0), deep, plain)
    shown = shop.reconcile_until(running, seconds=40)
    settle(shop, gateway)
    assert [r.weight for r in shown.revisions] == [60, 20, 20]
    first = dealt(gateway)
    assert set(values(first).values()) == {1.0, 2.0, 3.0}
    gateway.kill()
    gateway.restart()
    gateway.ready()
    shop.place.until(lambda said: {its["state"] for its in said["endpoints"]["shop.delay"].values()} == {"ready"})
    assert values(dealt(gateway)) == values(first)  # whatever restarts

    invoke(shop.ctx, "endpoints.share", rolling.ShareOut(name="delay", shares={"deep": 50}))
    chain.seal(shop.ctx.catalog, shop.ctx.clock)
    settle(shop, gateway)
    second = dealt(gateway)
    moved = {key for key in KEYS if values(first)[key] != values(second)[key]}
    assert moved
    assert {values(first)[key] for key in moved} == {1.0}  # only the champion's keys moved
    assert {values(second)[key] for key in moved} == {2.0}
    for wrong in ({"deep": 90}, {"nobody": 5}, {"deep": -1}):
        with pytest.raises(InvalidInput):
            invoke(shop.ctx, "endpoints.share", rolling.ShareOut(name="delay", shares=wrong))
    with pytest.raises(NotFound):
        invoke(shop.ctx, "endpoints.share", rolling.ShareOut(name="other", shares={"deep": 5}))

    ingest(shop.ctx.catalog, shop.place.home)
    clicked = {1.0: 0.0, 2.0: 1.0, 3.0: 0.0}
    for found in (first, second):
        given = [rolling.GivenFeedback(prediction=i, value=clicked[v]) for i, v in found.values()]
        invoke(shop.ctx, "feedback.add", rolling.AddFeedback(endpoint="delay", metric="clicks", values=given))
    shown = shop.reconcile_until(lambda s: s.experiment["change"])
    assert shown.experiment["arms"]["deep"]["state"] == "won"
    assert shown.experiment["arms"]["plain"]["state"] == "running"  # as good as the champion
    assert shown.experiment["arms"]["deep"]["course"][-1][3] > 0
    change = shown.experiment["change"]
    listed = invoke(shop.ctx, reviewing.list_changes, reviewing.ListChanges(state="open")).changes
    assert [c.number for c in listed] == [change]  # the policy wants a review: nothing was merged
    assert values(dealt(gateway)) == values(second)

    invoke(shop.ctx, reviewing.approve, reviewing.Approve(number=change))
    invoke(shop.ctx, merging.merge, proposing.Numbered(number=change))
    target = shown.target
    shown = shop.reconcile_until(lambda s: s.target != target and running(s), seconds=40)
    settle(shop, gateway)
    assert list(shown.experiment["arms"]) == ["plain"]
    third = dealt(gateway)
    assert set(values(third).values()) == {2.0, 3.0}
    was_plain = {key for key in KEYS if values(second)[key] == 3.0}
    assert {key for key in KEYS if values(third)[key] == 3.0} == was_plain  # the same keys, by the same salt


@pytest.mark.parametrize("guard", [Drift(at_most=0.2, least=20), Quality("absolute", worse=0.5, least=20)])
def test_a_challenger_is_guarded_by_its_answers_and_by_late_labels(shop, guard):
    shop.endpoint = replace(shop.endpoint, guardrails=Guardrails(also=[guard]))
    gateway = shop.place.gateway()
    deep, plain = (
        model_version(shop.ctx, n, serving_models.Values(v), NUMBERS) for n, v in (("deep", 9.0), ("plain", 1.0))
    )
    shop.release(serving_models.Values(1.0), deep, plain)
    shop.reconcile_until(running, seconds=40)
    settle(shop, gateway)
    answered = dealt(gateway)
    ingest(shop.ctx.catalog, shop.place.home)
    if isinstance(guard, Quality):
        shop.controller.reconcile([shop.ctx])
        assert running(shop.shown())  # labels are late
        labels = [operations.GivenLabel(prediction=identity, value=1.0) for identity, _ in answered.values()]
        invoke(shop.ctx, "labels.add", operations.AddLabels(endpoint="delay", labels=labels))
    shown = shop.reconcile_until(lambda s: s.experiment["arms"]["deep"]["state"] == "failed")
    assert shown.experiment["arms"]["deep"]["share"] == 0
    assert shown.experiment["arms"]["plain"]["state"] == "running"
    chain.seal(shop.ctx.catalog, shop.ctx.clock)
    with shop.ctx.read() as tx:
        (told,) = facts.tail(tx, "shop", kinds=("rollout.experiment_decided",), subject="delay", limit=5)
    evidence = told.payload["guardrail"]
    assert evidence["guard"] == ("drift" if isinstance(guard, Drift) else "quality absolute")
    assert evidence["value"] == pytest.approx(1.0 if isinstance(guard, Drift) else 8.0)
    assert set(evidence["predictions"]) == {identity for identity, value in answered.values() if value == 9.0}
    left = invoke(shop.ctx, "endpoints.guardrails", rolling.AskGuardrails(name="delay")).guardrails
    assert {(one.challenger, one.breached) for one in left} == {("plain", False)}
    settle(shop, gateway)
    assert set(values(dealt(gateway)).values()) == {1.0}


def test_one_that_does_not_load_leaves_the_endpoint_as_it_was(shop):
    gateway = shop.place.gateway()
    deep, plain = (
        model_version(shop.ctx, n, m, NUMBERS)
        for n, m in (("deep", serving_models.Unloadable()), ("plain", serving_models.Values(3.0)))
    )
    shop.release(serving_models.Values(1.0), deep, plain)
    shop.reconcile_until(lambda s: s and s.experiment and s.experiment["arms"]["deep"]["state"] == "failed", seconds=40)
    shown = shop.reconcile_until(lambda s: s.experiment["arms"]["plain"]["state"] == "running", seconds=40)
    settle(shop, gateway)
    assert [r.weight for r in shown.revisions] == [80, 20]
    assert set(values(dealt(gateway)).values()) == {1.0, 3.0}


def test_the_graph_of_a_fallback_is_kept_warm_beside_the_revision(shop):
    fallback = ["previous", Simpler("plain"), Default({"prediction": 9.0})]
    shop.endpoint = EndpointDef("delay", "delay", rollout=AllAtOnce(), fallback=fallback)
    gateway = shop.place.gateway()
    plain = model_version(shop.ctx, "plain", serving_models.Values(3.0), NUMBERS)
    shop.release(serving_models.Values(1.0, breaks=True), plain)
    shown = shop.reconcile_until(lambda s: s and s.phase == "live" and len(s.revisions) == 2, seconds=40)
    assert [r.weight for r in shown.revisions] == [100, 0]
    settle(shop, gateway)
    answer = gateway.predict({"distance": 1.0, "hour": 1}).json()
    assert (answer["predictions"], answer["fallback_kind"]) == ([3.0], "simpler")

    broken = model_version(shop.ctx, "plain", serving_models.Unloadable(), NUMBERS)
    shop.release(serving_models.Values(1.0, breaks=True), broken)
    shown = shop.reconcile_until(lambda s: len(s.revisions) == 1, seconds=60)  # it serves without
    settle(shop, gateway)
    answer = gateway.predict({"distance": 1.0, "hour": 1}).json()
    assert (answer["predictions"], answer["fallback_kind"]) == ([9.0], "default")
