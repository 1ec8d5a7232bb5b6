"""The rollout's state machine, alone."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everloop.serving.gateway.stats import bucket, quantile, upper
from everloop.serving.rollout.state import Counts, Observed, Plan, Rollout, breached, step, wilson_lower

CANARY = Plan((5, 25, 100), hold_micros=100)
OLD, NEW = "old", "new"
LIVE = Rollout(OLD, "", "settled", 0, 0)
WARM = frozenset((OLD, NEW))


def walk(state, plan, *observations, desired=NEW):
    """Step through (now, Observed) pairs; returns the last state and all kinds of events."""
    kinds = []
    for now, observed in observations:
        state, events = step(state, desired, plan, observed, now)
        kinds += [event.kind for event in events]
    return state, kinds


def seen(requests=0, errors=0, latency=None, ready=WARM, problems=None):
    return Observed(ready, problems or {}, {NEW: Counts(requests, errors, latency or {})})


def test_a_canary_climbs_its_steps_and_settles():
    times = [(0, seen(ready={OLD})), (10, seen(ready={OLD})), (20, seen()), (119, seen()), (120, seen())]
    state, kinds = walk(LIVE, CANARY, *times)
    assert (state.weights(CANARY), kinds) == ([(NEW, 25), (OLD, 75)], ["started", "step", "step"])
    state, kinds = walk(state, CANARY, (219, seen()), (220, seen()))
    assert (state.weights(CANARY), kinds) == ([(NEW, 100), (OLD, 0)], ["live"])
    state, kinds = walk(state, CANARY, (319, seen()), (320, seen()), (999, seen()))
    assert (state.phase, kinds) == ("settled", ["settled"])


def test_a_hold_may_count_requests():
    plan = Plan((50, 100), hold_requests=100)
    state, _ = walk(LIVE, plan, (0, seen()), (1, seen(7)), (2, seen(106)))
    assert state.phase == "canary"
    state, kinds = walk(state, plan, (3, seen(107)))
    assert kinds == ["live"]


def test_the_first_revision_has_nothing_to_wait_for():
    state, kinds = walk(Rollout(), CANARY, (0, seen(ready=frozenset())), (1, seen(ready={NEW})))
    assert (state.weights(CANARY), kinds) == ([(NEW, 100)], ["started", "live"])


@pytest.mark.parametrize("phase", ["canary", "live"])
def test_errors_turn_it_back_once(phase):
    plan = CANARY if phase == "canary" else Plan((100,))
    state, _ = walk(LIVE, plan, (0, seen()), (1, seen()), (2, seen(10, 0)))
    assert state.phase == phase
    state, kinds = walk(state, plan, (3, seen(14, 4)), (4, seen(14, 4)), (5000, seen(14, 4)))
    assert kinds == ["reverted"]
    assert state.weights(plan) == [(OLD, 100)]
    assert state.evidence["errors"] == 4
    state, kinds = walk(state, plan, (6000, Observed(WARM)), desired=OLD)
    assert (state.phase, state.target, kinds) == ("settled", OLD, [])


def test_what_was_counted_before_the_step_does_not_count():
    state, _ = walk(LIVE, CANARY, (0, seen(50, 50)), (1, seen(50, 50)), (2, seen(60, 50)))
    assert state.phase == "canary"


def test_slow_answers_break_the_latency_bound():
    plan = Plan((5, 100), hold_micros=100, p99_micros=100_000)
    fast, slow = {bucket(5000): 100}, {bucket(5000): 100, bucket(400_000): 10}
    assert breached(plan, Counts(100, 0, fast)) is None
    assert "longer than 100 ms" in breached(plan, Counts(110, 0, slow))


def test_a_revision_that_cannot_start_never_gets_traffic():
    state, kinds = walk(LIVE, CANARY, (0, seen()), (1, seen(ready={OLD}, problems={NEW: "no such package"})))
    assert (state.phase, kinds, state.weights(CANARY)) == ("reverted", ["started", "reverted"], [(OLD, 100)])
    assert "no such package" in state.reason


def test_the_first_revision_that_cannot_start_has_failed_and_may_heal():
    state, kinds = walk(
        Rollout(), CANARY, (0, seen(ready=frozenset())), (1, seen(ready=frozenset(), problems={NEW: "x"}))
    )
    assert (state.phase, kinds) == ("failed", ["started", "failed"])
    state, kinds = walk(state, CANARY, (2, seen(ready={NEW})))
    assert (state.phase, kinds) == ("live", ["live"])


def test_rolling_back_to_a_warm_revision_is_one_step():
    state, _ = walk(LIVE, Plan((100,)), (0, seen()), (1, seen()))
    state, kinds = walk(state, Plan((100,)), (2, seen()), desired=OLD)
    assert (kinds, state.weights(Plan((100,)))) == (["rolled_back"], [(OLD, 100), (NEW, 0)])


def test_a_newer_revision_replaces_one_that_is_on_its_way():
    state, _ = walk(LIVE, CANARY, (0, seen()), (1, seen()))
    state, _ = walk(state, CANARY, (2, seen()), desired="newer")
    assert (state.target, state.previous, state.phase) == ("newer", OLD, "starting")


observations = st.builds(
    lambda ready, failed, requests, errors: Observed(
        frozenset(ready), dict.fromkeys(failed, "broken"), {r: Counts(requests, min(errors, requests)) for r in "abc"}
    ),
    st.sets(st.sampled_from("abc")),
    st.sets(st.sampled_from("abc"), max_size=1),
    st.integers(0, 100),
    st.integers(0, 100),
)


@given(st.lists(st.tuples(st.sampled_from(["", "a", "b", "c"]), observations), max_size=30))
def test_whatever_happens_weights_make_100_and_states_survive_json(story):
    state, now, served = Rollout(), 0, False
    for desired, observed in story:
        now += 40
        state, events = step(state, desired, CANARY, observed, now)
        weights = state.weights(CANARY)
        assert not weights or sum(weight for _, weight in weights) == 100
        assert len({revision for revision, _ in weights}) == len(weights)
        served = served or bool(weights)
        assert bool(weights) == served  # once an endpoint serves, it never stops to
        assert Rollout.from_told(json.loads(json.dumps(state.told()))) == state
        assert all(event.payload for event in events)


@given(st.integers(1, 500), st.integers(0, 500))
def test_the_lower_bound_is_below_the_share(of, hits):
    hits = min(hits, of)
    assert 0 <= wilson_lower(hits, of) <= hits / of + 1e-12


@given(st.integers(0, 2**38))
def test_buckets_hold_what_lies_in_them(micros):
    index = bucket(micros)
    assert max(micros, 4) < upper(index)
    assert index == 0 or micros >= upper(index - 1)
    assert quantile([1 if n == index else 0 for n in range(200)], 0.99) == upper(index)


SHADOW = Plan((50, 100), hold_micros=100, shadow_ppm=1_000_000, shadow_requests=200, differ_ppm=100_000)


def copied(requests=0, errors=0, differ=0):
    return Observed(WARM, {}, {NEW: Counts()}, {NEW: Counts(requests, errors, {}, differ)})


def test_a_shadow_answers_copies_before_it_gets_traffic():
    state, kinds = walk(LIVE, SHADOW, (0, copied()), (1, copied(7)), (2, copied(206, 0, 15)))
    assert (state.phase, state.weights(SHADOW), kinds) == ("shadow", [(NEW, 0), (OLD, 100)], ["started", "shadow"])
    state, kinds = walk(state, SHADOW, (3, copied(207, 0, 15)))
    assert (state.weights(SHADOW), kinds) == ([(NEW, 50), (OLD, 50)], ["step"])
    assert Rollout.from_told(json.loads(json.dumps(state.told()))) == state


@pytest.mark.parametrize(("errors", "differ", "why"), [(20, 0, "requests failed"), (0, 60, "answers differ")])
def test_a_shadow_that_fails_or_differs_never_gets_traffic(errors, differ, why):
    state, kinds = walk(LIVE, SHADOW, (0, copied()), (1, copied()), (2, copied(100, errors, differ)))
    assert (state.phase, kinds) == ("reverted", ["started", "shadow", "reverted"])
    assert why in state.reason
    assert state.evidence["differ"] == differ


def test_the_first_revision_has_nothing_to_shadow():
    state, kinds = walk(Rollout(), SHADOW, (0, copied()), (1, copied()))
    assert (state.phase, kinds) == ("live", ["started", "live"])
