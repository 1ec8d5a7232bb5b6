"""Guardrails on what is answered, alone: losses, one value of an answer, findings and how a rollout takes them."""

import json

import pytest

from everloop.core.errors import DefinitionError
from everloop.serving.definitions import BlueGreen, EndpointDef, Guardrails
from everloop.serving.rollout.declared import Business, Drift, Experiment, Quality
from everloop.serving.rollout.judging import Sample, answer_of, judge, loss
from everloop.serving.rollout.state import Counts, Observed, Plan, Rollout, step

WINDOW = (0, 60_000_000)


def sample(values, name="p"):
    return Sample(tuple(f"{name}{i}" for i in range(len(values))), tuple(values))


@pytest.mark.parametrize(
    ("metric", "answer", "label", "expected"),
    [
        ("accuracy", 0.7, 1, 1.0),
        ("accuracy", 0.7, False, 0.0),
        ("accuracy", "late", "late", 1.0),
        ("accuracy", 3.0, 3, 1.0),
        ("brier", 0.7, 1, 0.09),
        ("absolute", 4.0, 6, 2.0),
        ("squared", 4.0, 6, 4.0),
        ("absolute", "x", 6, None),
        ("brier", 0.5, None, None),
        ("accuracy", 0.5, {"a": 1}, None),
    ],
)
def test_what_a_label_says(metric, answer, label, expected):
    found = loss(metric, answer, label)
    assert found == (None if expected is None else pytest.approx(expected))


def test_one_value_of_an_answer():
    assert answer_of([[0.3, 0.7]]) == 0.7
    assert answer_of(["late", 3]) == 3.0
    assert answer_of(["late"]) == "late"
    assert answer_of([float("nan")]) is None
    assert answer_of([[1, 2, 3]]) is None


def test_drift_needs_rows_and_a_sure_distance():
    guard = Drift(at_most=0.3, least=200).manifest()
    alike = sample([i % 10 for i in range(400)])
    assert not judge(guard, alike, alike, WINDOW).breached
    apart = sample([5 + i % 10 for i in range(400)])
    found = judge(guard, apart, alike, WINDOW)
    assert found.value == 0.5
    assert not found.breached  # it may well be, but is not sure yet
    assert judge(guard, sample(["a"] * 400), sample(["b"] * 400), WINDOW).breached
    assert not judge(guard, sample(["a"] * 150), sample(["b"] * 400), WINDOW).breached  # too few rows


@pytest.mark.parametrize(("better", "good", "bad"), [("higher", 1.0, 0.0), ("lower", 0.0, 1.0)])
def test_a_metric_breaks_in_its_direction_only(better, good, bad):
    guard = Business("clicks", worse=0.05, better=better, least=50).manifest()
    noise = [i % 5 for i in range(200)]
    champion = sample([good if n else bad for n in noise])
    worse = sample([bad if n else good for n in noise])
    found = judge(guard, worse, champion, WINDOW)
    assert found.breached
    assert found.ids[-1] == "p199"
    assert "clicks" in found.reason
    assert not judge(guard, champion, worse, WINDOW).breached
    assert json.loads(json.dumps(found.told()))["breached"] is True


def test_a_finding_turns_a_live_revision_back():
    guard = Quality("brier", least=2, watch="1h").manifest()
    found = judge(guard, sample([1.0] * 100), sample([0.0] * 100), WINDOW)
    plan = Plan(guards=(guard,))
    state = Rollout("new", "old", "live", 0, 0, entered=1)
    ready = frozenset(("new", "old"))
    seen = Observed(ready, {}, {"new": Counts(1000)})
    state, events = step(state, "new", plan, seen, 59 * 60_000_000)  # the hold is over, the watch is not
    assert (state.phase, events) == ("live", ())
    broken, events = step(state, "new", plan, Observed(ready, {}, {"new": Counts(1000)}, {}, (found,)), 5)
    assert (broken.phase, events[0].kind) == ("reverted", "reverted")
    assert events[0].payload["guardrail"]["predictions"][-1] == "p99"
    assert Rollout.from_told(json.loads(json.dumps(broken.told()))) == broken


def test_old_states_are_read():
    told = Rollout("new", "old", "live").told()
    told.pop("entered")
    assert Rollout.from_told(told).entered == 0


def test_definitions():
    also = [Drift(), Business("revenue", watch="1d"), Quality("accuracy")]
    said = EndpointDef("d", "m", rollout=BlueGreen("5m"), guardrails=Guardrails(also=also)).manifest()
    assert said["rollout"] == {"rollout": "blue_green", "steps": [100], "hold": {"micros": 300_000_000}}
    assert [g["guard"] for g in said["guardrails"]["guards"]] == ["drift", "business", "quality"]
    assert Plan.from_manifest(said).watch_micros == 86_400_000_000
    assert "guards" not in EndpointDef("d", "m").manifest()["guardrails"]


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Drift(at_most=1.5),
        lambda: Drift(least=0),
        lambda: Business("a metric"),
        lambda: Business("m", worse=-1),
        lambda: Business("m", better="up"),
        lambda: Business("m", watch="soon"),
        lambda: Quality("auc"),
        lambda: Guardrails(also=["drift"]),
        lambda: BlueGreen("0s"),
        lambda: Experiment("revenue"),
        lambda: Experiment(Business("m"), alpha=0.7),
        lambda: Experiment(Business("m"), shares={"a": 60, "b": 40}),
        lambda: Experiment(Business("m"), won="celebrate"),
        lambda: Experiment(Business("m")).manifest(()),
        lambda: Experiment(Business("m"), shares={"a": 5}).manifest(("b",)),
    ],
)
def test_wrong_definitions_are_refused(wrong):
    with pytest.raises(DefinitionError):
        wrong()
