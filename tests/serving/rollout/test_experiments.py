"""Experiments, alone: how keys are dealt, what a step decides, and who becomes the champion."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everloop.core.errors import DefinitionError
from everloop.serving.definitions import EndpointDef
from everloop.serving.rollout.declared import Business, Experiment
from everloop.serving.rollout.experiments import PLACES, Reading, Trial, begun, deal, routed, split_of, step, trial_of
from everloop.serving.rollout.judging import Finding
from everloop.serving.rollout.sequential import Sums
from everloop.serving.rollout.state import Counts, Observed, Plan, Rollout
from everloop.serving.rollout.trying import promoted

DAY = 86_400_000_000
ENDPOINT = EndpointDef(
    "delay", "delay", challengers={"deep": "deep", "plain": "plain"},
    experiment=Experiment(Business("clicks", least=50), shares={"deep": 20, "plain": 10}, key="who", most="3d"),
).manifest()  # fmt: skip
SAID = ENDPOINT["experiment"]
ARMS = {"deep": "b3:deep", "plain": "b3:plain"}
READY = Observed(frozenset(("b3:champion", *ARMS.values())))
EMPTY = ((PLACES, ""),)


def owners(runs):
    places = []
    for upto, name in runs:
        places += [name] * (upto - len(places))
    return places


def stepped(trial, observed=READY, now=1, readings=None, wish=(0, {})):
    trial, events = step(trial, SAID, Plan(), observed, readings=readings or {}, wish=wish, now=now)
    assert trial_of(json.loads(json.dumps(trial.told()))) == trial
    return trial, [(e.kind, e.payload.get("state")) for e in events]


def begin():
    trial, events = stepped(begun(SAID, ARMS, "b3:champion", None))
    assert events == [("experiment_started", None)]
    return trial


@given(st.lists(st.dictionaries(st.sampled_from("abc"), st.integers(0, 33)), min_size=1, max_size=6))
def test_only_keys_that_must_move_do(steps):
    runs, before = EMPTY, {}
    for wanted in steps:
        old, runs = owners(runs), deal(runs, wanted)
        new = owners(runs)
        assert {name: new.count(name) for name in "abc"} == {n: wanted.get(n, 0) * 100 for n in "abc"}
        moved = sum(a != b for a, b in zip(old, new, strict=True))
        grown = sum(max(wanted.get(n, 0) - before.get(n, 0), 0) for n in "abc")
        shrunk = sum(max(before.get(n, 0) - wanted.get(n, 0), 0) for n in "abc")
        assert moved <= max(grown, shrunk) * 100 + min(grown, shrunk) * 100
        for name in "abc":  # whoever grows keeps all its keys, and whoever shrinks gets no new one
            if wanted.get(name, 0) >= before.get(name, 0):
                assert all(new[i] == name for i, owner in enumerate(old) if owner == name)
            if wanted.get(name, 0) <= before.get(name, 0):
                assert all(old[i] == name for i, owner in enumerate(new) if owner == name)
        before = wanted


def test_challengers_get_keys_once_all_are_ready():
    trial = begun(SAID, ARMS, "b3:champion", None)
    half = Observed(frozenset(("b3:champion", "b3:deep")))
    trial, events = stepped(trial, half)
    assert (trial.began, events, trial.routed()) == (0, [], [("b3:deep", 0), ("b3:plain", 0)])
    trial, events = stepped(trial, now=5)
    assert (trial.began, events) == (5, [("experiment_started", None)])
    assert trial.slots() == [(2000, "b3:deep"), (3000, "b3:plain"), (PLACES, "b3:champion")]
    state = Rollout("b3:champion", "b3:old", "settled", experiment=trial.told())
    assert routed(state, state.weights(Plan())) == [
        ("b3:champion", 70), ("b3:old", 0), ("b3:deep", 20), ("b3:plain", 10),
    ]  # fmt: skip
    assert split_of("delay", ENDPOINT, state).key == "who"
    assert split_of("delay", ENDPOINT, Rollout("b3:next", "b3:champion", "canary", experiment=trial.told())) is None


def test_one_that_cannot_serve_stays_out():
    broken = Observed(READY.ready - {"b3:plain"}, {"b3:plain": "it does not load"})
    trial, events = stepped(begun(SAID, ARMS, "b3:champion", None), broken)
    assert events == [("experiment_decided", "failed"), ("experiment_started", None)]
    assert trial.routed() == [("b3:deep", 20)]
    failing = Observed(READY.ready, {}, {"b3:deep": Counts(100, 50)})
    trial, events = stepped(trial, failing)
    assert events == [("experiment_decided", "failed")]
    assert "requests failed" in trial.arms["deep"].reason
    assert trial.slots() == [(PLACES, "b3:champion")]


def finding(sure, guard="drift"):
    return Finding(guard, 0.9, sure, 0.25, 200, 200, 100, 1, 2, ("p7",))


def test_a_challenger_that_breaks_a_guardrail_loses_its_keys_also_when_it_was_better():
    trial, events = stepped(begin(), readings={"deep": Reading(findings=(finding(0.1),))})
    assert events == []  # not surely
    trial, events = step(
        trial, SAID, Plan(), READY, readings={"deep": Reading(findings=(finding(0.5),))}, wish=(0, {}), now=2
    )
    assert [(e.payload["state"], e.payload["guardrail"]["predictions"]) for e in events] == [("failed", ["p7"])]
    assert trial.arms["deep"].reason.startswith("drift: 0.9 from the champion")
    assert "deep" not in owners(trial.dealt)
    much = Reading(Sums(2000, 400, 400), Sums(2000, 1600, 1600))
    won, _ = stepped(begin(), readings={"deep": much})
    assert (won.arms["deep"].state, won.arms["deep"].share) == ("won", 20)
    worse = replace(much, findings=(finding(0.5, "quality brier"),))
    lost, events = stepped(won, readings={"deep": worse})
    assert events == [("experiment_decided", "failed")]
    assert lost.arms["deep"].share == 0


def test_better_and_worse_are_decided_and_the_course_is_kept():
    trial = begin()
    for rows in range(10, 2000, 10):
        champion = Sums(rows, rows * 0.3, rows * 0.3)
        readings = {
            "deep": Reading(champion, Sums(rows, rows * 0.5, rows * 0.5), ("p1",)),
            "plain": Reading(champion, Sums(rows, rows * 0.1, rows * 0.1)),
        }
        trial, _ = stepped(trial, readings=readings, now=rows)
        if rows < 50:
            assert {arm.state for arm in trial.arms.values()} == {"running"}  # too few rows to say anything
    assert (trial.arms["deep"].state, trial.arms["deep"].share) == ("won", 20)  # it keeps its keys until it is champion
    assert (trial.arms["plain"].state, trial.arms["plain"].share) == ("lost", 0)
    course = trial.arms["deep"].course
    assert len(course) < 100
    assert course[0][3] <= course[0][4] <= course[0][5]
    assert course[-1][3] > 0
    assert trial.slots() == [(2000, "b3:deep"), (PLACES, "b3:champion")]


def test_it_ends_undecided():
    trial, events = stepped(begin(), now=4 * DAY)
    assert events == [("experiment_decided", "undecided")] * 2
    assert trial.routed() == []


def test_other_shares_are_taken_up_once():
    trial, events = stepped(begin(), wish=(7, {"plain": 30}))
    assert events == [("experiment_shares", None)]
    assert trial.slots() == [(2000, "b3:deep"), (5000, "b3:plain"), (PLACES, "b3:champion")]
    assert stepped(trial, wish=(7, {"plain": 30}))[1] == []


def test_the_same_names_keep_their_keys_in_the_next_trial():
    trial = begin()
    again = begun(SAID, ARMS, "b3:champion", trial)
    assert again is trial
    other = begun(SAID, {**ARMS, "plain": "b3:newer"}, "b3:next", trial)
    assert (other.began, other.dealt) == (0, trial.dealt)
    alone = begun({**SAID, "shares": {"plain": 10}}, {"plain": "b3:newer"}, "b3:next", trial)
    assert owners(alone.dealt)[2000:3000] == ["plain"] * 1000
    assert set(owners(alone.dealt)[:2000]) == {""}


def test_who_wins_becomes_the_graph():
    made = promoted(ENDPOINT, "deep")
    assert made["graph"]["model"] == "deep"
    assert list(made["challengers"]) == ["plain"]
    assert made["experiment"]["shares"] == {"plain": 10}
    last = promoted({**ENDPOINT, "challengers": {"deep": ENDPOINT["challengers"]["deep"]}}, "deep")
    assert not {"challengers", "experiment"} & last.keys()
    assert isinstance(Trial("b3:1", {}).slots(), list)


@pytest.mark.parametrize(
    "wrong",
    [
        {"challengers": {"deep": "deep"}},
        {"experiment": Experiment(Business("m"))},
        {"challengers": {"a name": "deep"}, "experiment": Experiment(Business("m"))},
        {"challengers": {"deep": 7}, "experiment": Experiment(Business("m"))},
    ],
)
def test_half_an_experiment_is_refused(wrong):
    with pytest.raises(DefinitionError):
        EndpointDef("delay", "delay", **wrong)
