"""Champion and challengers side by side: who gets which keys, and when the metric has told them apart. Pure.

Keys are dealt by 10,000 places, and a key's place is its hash with a salt. Who a place belongs to is kept: when shares
change, only as many places change hands as must, so every other key keeps its revision, whatever restarts.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import msgspec

from everloop.core.clock import Micros
from everloop.serving.rollout.judging import Finding
from everloop.serving.rollout.sequential import Interval, Sums, interval
from everloop.serving.rollout.state import Event, Observed, Plan, Rollout, breached
from everloop.serving.table import PLACES, Split

_GROWN = 1.05
"""The course of an interval is kept each time that rows have grown so."""
State = Literal["starting", "running", "won", "lost", "undecided", "failed"]
Runs = tuple[tuple[int, str], ...]


@dataclass(frozen=True, slots=True)
class Arm:
    """A challenger."""

    revision: str
    share: int
    """Percent of the keys."""
    state: State = "starting"
    reason: str = ""
    course: tuple[tuple[float, ...], ...] = ()
    """(time, champion's rows, own rows, low, difference, high): how much better it is, over time."""


@dataclass(frozen=True, slots=True)
class Trial:
    """Where an experiment stands."""

    champion: str
    arms: Mapping[str, Arm]
    dealt: Runs = ((PLACES, ""),)
    """(up to a place, challenger), the champion as an empty name."""
    began: Micros = 0
    """When keys were dealt first; 0 while challengers start."""
    heard: int = 0
    """Position of the newest wish for other shares that was taken up."""
    change: int = 0
    """The change that makes a challenger the champion, once it was opened."""

    def told(self) -> dict[str, Any]:
        """As JSON; `trial_of` reads it."""
        told: dict[str, Any] = msgspec.to_builtins(self)
        return told

    def routed(self) -> list[tuple[str, int]]:
        """Revisions of challengers that must run, with their share of the traffic."""
        gone = ("failed", "lost", "undecided")
        return [(arm.revision, arm.share) for arm in self.arms.values() if arm.share or arm.state not in gone]

    def slots(self) -> list[tuple[int, str]]:
        """(up to a place, revision) for the routing table."""
        revisions = {"": self.champion, **{name: arm.revision for name, arm in self.arms.items()}}
        return [(upto, revisions[name]) for upto, name in self.dealt]


@dataclass(frozen=True, slots=True)
class Reading:
    """The metric of champion and challenger so far, and what the challenger's guardrails look like."""

    champion: Sums = field(default_factory=Sums)
    its: Sums = field(default_factory=Sums)
    ids: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()


def trial_of(told: Mapping[str, Any]) -> Trial | None:
    """What `told` wrote; None when there is none."""
    return msgspec.convert(told, Trial) if told else None


def begun(said: Mapping[str, Any], arms: Mapping[str, str], champion: str, before: Trial | None) -> Trial:
    """The trial of these revisions; the same one goes on, and another deals the same names the same keys."""
    now = {name: arm.revision for name, arm in before.arms.items()} if before else {}
    if before is not None and (before.champion, now) == (champion, dict(arms)):
        return before
    made = {name: Arm(revision, 0) for name, revision in arms.items()}
    dealt = before.dealt if before else ((PLACES, ""),)
    kept = deal(dealt, {name: share for name, share in _shares(dealt).items() if name in said["shares"]})
    return Trial(champion, made, kept, heard=before.heard if before else 0)


def deal(before: Runs, shares: Mapping[str, int]) -> Runs:
    """Places for these shares (percent; the champion has the rest), with as few as possible that change hands."""
    places = _places(before)
    held: dict[str, list[int]] = {}
    for place, name in enumerate(places):
        held.setdefault(name, []).append(place)
    wanted = {name: share * PLACES // 100 for name, share in shares.items() if share}
    for name, mine in held.items():
        for place in mine[wanted.get(name, 0) :] if name else ():
            places[place] = ""
    free = [place for place, name in enumerate(places) if not name]
    for name, count in wanted.items():
        missing = max(count - len(held.get(name, ())), 0)
        for place in free[:missing]:
            places[place] = name
        free = free[missing:]
    return _runs(places)


def step(
    trial: Trial,
    said: Mapping[str, Any],
    plan: Plan,
    observed: Observed,
    *,
    readings: Mapping[str, Reading],
    wish: tuple[int, Mapping[str, int]],
    now: Micros,
) -> tuple[Trial, tuple[Event, ...]]:
    """The next state of an experiment as declared (`said`); `wish`: position and shares that somebody asked for."""
    events: list[Event] = []
    trial = _ready(trial, observed, events)
    if not trial.began:
        if any(arm.state == "starting" for arm in trial.arms.values()):
            return trial, tuple(events)
        running = {name: replace(arm, share=said["shares"][name]) for name, arm in _running(trial).items()}
        trial = replace(trial, arms={**trial.arms, **running}, began=now)
        events.append(Event("experiment_started", {"champion": trial.champion, "shares": shares_of(trial)}))
    if wish[0] > trial.heard:
        asked = {n: replace(arm, share=wish[1].get(n, arm.share)) for n, arm in _running(trial).items()}
        trial = replace(trial, arms={**trial.arms, **asked}, heard=wish[0])
        events.append(Event("experiment_shares", {"shares": shares_of(trial)}))
    late = now - trial.began > said["most_micros"]
    for name, arm in served(trial).items():
        reading = readings.get(name)
        changed = _guarded(arm, plan, observed, reading)
        if changed is None:
            changed = _decided(arm, said, reading, now, late=late) if arm.state == "running" else arm
        if changed.state != arm.state:
            events.append(Event("experiment_decided", _decision(name, changed, readings.get(name))))
        if changed != arm:
            trial = replace(trial, arms={**trial.arms, name: changed})
    dealt = deal(trial.dealt, shares_of(trial))
    return (trial if dealt == trial.dealt else replace(trial, dealt=dealt)), tuple(events)


def gain(better: str, reading: Reading, alpha: float) -> Interval:
    """By how much a challenger is better than the champion."""
    found = interval(reading.champion, reading.its, alpha)
    return found if better == "higher" else Interval(-found.high, -found.difference, -found.low)


def of_state(state: Rollout) -> Trial | None:
    """The experiment that runs now; None while the champion itself is rolled out."""
    trial = trial_of(state.experiment) if state.phase in ("live", "settled") else None
    return trial if trial is not None and trial.champion == state.target else None


def routed(state: Rollout, weights: list[tuple[str, int]]) -> list[tuple[str, int]]:
    """Revisions with their weights, and behind them challengers, who take from the champion."""
    trial = of_state(state)
    arms = trial.routed() if trial else []
    taken = sum(share for _, share in arms)
    return [*((i, weight - taken if i == state.target else weight) for i, weight in weights), *arms]


def split_of(name: str, endpoint: Mapping[str, Any], state: Rollout) -> Split | None:
    """How keys are dealt, while an experiment runs."""
    trial, said = of_state(state), endpoint.get("experiment")
    if trial is None or said is None or not trial.began:
        return None
    return Split(said["salt"] or name, said["key"], trial.champion, trial.slots())


def shares_of(trial: Trial) -> dict[str, int]:
    """Percent of each challenger."""
    return {name: arm.share for name, arm in trial.arms.items()}


def served(trial: Trial) -> dict[str, Arm]:
    """Challengers that callers meet, or may meet again."""
    return {name: arm for name, arm in trial.arms.items() if arm.state == "running" or arm.share}


def _running(trial: Trial) -> dict[str, Arm]:
    return {name: arm for name, arm in trial.arms.items() if arm.state == "running"}


def _ready(trial: Trial, observed: Observed, events: list[Event]) -> Trial:
    """Challengers that started, or cannot."""
    arms = dict(trial.arms)
    for name, arm in trial.arms.items():
        problem = observed.problems.get(arm.revision)
        if problem and arm.state in ("starting", "running"):
            arms[name] = replace(arm, state="failed", share=0, reason=f"it cannot serve: {problem}")
            events.append(Event("experiment_decided", _decision(name, arms[name], None)))
        elif arm.state == "starting" and arm.revision in observed.ready:
            arms[name] = replace(arm, state="running")
    return trial if arms == trial.arms else replace(trial, arms=arms)


def _guarded(arm: Arm, plan: Plan, observed: Observed, reading: Reading | None) -> Arm | None:
    """The guardrails of rollouts hold for challengers too: failures and latency, answers, feedback, labels."""
    counted = observed.counts.get(arm.revision)
    breach = breached(plan, counted) if counted else None
    if breach is None and (broken := _broken(reading)) is not None:
        breach = broken.reason
    return replace(arm, state="failed", share=0, reason=breach) if breach else None


def _broken(reading: Reading | None) -> Finding | None:
    return next((finding for finding in reading.findings if finding.breached), None) if reading else None


def _decided(arm: Arm, said: Mapping[str, Any], reading: Reading | None, now: Micros, *, late: bool) -> Arm:
    if reading is not None and min(reading.champion.count, reading.its.count) > 0:
        arm, found = _followed(arm, said, reading, now)
        if min(reading.champion.count, reading.its.count) >= said["metric"]["least"]:
            if found.low > 0:
                return replace(arm, state="won", reason=f"better by {found.low:.4g} to {found.high:.4g}")
            if found.high < 0:
                return _ended(arm, "lost", said["lost"], f"worse by {-found.high:.4g} to {-found.low:.4g}")
    if late:
        return _ended(arm, "undecided", said["undecided"], "the metric did not tell it from the champion in time")
    return arm


def _ended(arm: Arm, state: State, then: str, reason: str) -> Arm:
    return replace(arm, state=state, share=0 if then == "stop" else arm.share, reason=reason)


def _followed(arm: Arm, said: Mapping[str, Any], reading: Reading, now: Micros) -> tuple[Arm, Interval]:
    """The arm with the newest point of its course, where rows have grown enough, and its interval now."""
    found = gain(said["metric"]["better"], reading, float(said["alpha"]) / len(said["shares"]))
    rows = reading.champion.count + reading.its.count
    if arm.course and rows < (arm.course[-1][1] + arm.course[-1][2]) * _GROWN:
        return arm, found
    bounds = (max(found.low, -1e300), found.difference, min(found.high, 1e300))
    point = (float(now), float(reading.champion.count), float(reading.its.count), *bounds)
    return replace(arm, course=(*arm.course, point)), found


def _decision(name: str, arm: Arm, reading: Reading | None) -> dict[str, Any]:
    said: dict[str, Any] = {"challenger": name, "revision": arm.revision, "state": arm.state, "reason": arm.reason}
    if reading is not None and arm.state != "failed":
        said |= {"champion_rows": reading.champion.count, "rows": reading.its.count}
        said |= {"champion_mean": reading.champion.mean, "mean": reading.its.mean, "predictions": list(reading.ids)}
    elif (broken := _broken(reading)) is not None:
        said["guardrail"] = broken.told()
    return said


def _places(runs: Runs) -> list[str]:
    places: list[str] = []
    for upto, name in runs:
        places += [name] * (upto - len(places))
    return places


def _runs(places: list[str]) -> Runs:
    runs: list[tuple[int, str]] = []
    for place, name in enumerate(places, 1):
        if runs and runs[-1][1] == name:
            runs[-1] = (place, name)
        else:
            runs.append((place, name))
    return tuple(runs)


def _shares(runs: Runs) -> dict[str, int]:
    places = _places(runs)
    return {name: places.count(name) * 100 // PLACES for name in {*places} - {""}}
