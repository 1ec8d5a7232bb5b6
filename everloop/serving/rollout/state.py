"""Rolling a revision out: a pure state machine. `step` turns what is wanted and what was observed into what to do.

    starting -> [shadow ->] canary -> live -> settled
    any before settled -> reverted: the revision before serves on, and the one that broke is not tried again
    starting -> failed: there was nothing before to go back to

Guardrails are judged by the lower bound of Wilson's interval (one-sided, 99 %): a share of failures is a
breach once the counted requests can hardly be explained by the allowed share. So a broken revision goes
after a handful of requests, and bad luck with few requests does not count.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from everloop.core.clock import MINUTE, Micros
from everloop.serving.gateway.stats import upper
from everloop.serving.rollout.judging import Finding

Phase = Literal["none", "starting", "shadow", "canary", "live", "settled", "reverted", "failed"]
_Z = 2.326  # one-sided 99 %
_LEAST = 3  # failures before anything is concluded
_WATCH: Micros = 10 * MINUTE  # how long a revision that took over at once is watched
_SLOW_SHARE = 0.01


@dataclass(frozen=True, slots=True)
class Counts:
    """What gateways counted for one revision; only ever grows. `latency` maps buckets to requests."""

    requests: int = 0
    errors: int = 0
    latency: Mapping[int, int] = field(default_factory=dict)
    differ: int = 0
    """Of a shadow: answers that differed from what the caller got."""

    def since(self, base: "Counts") -> "Counts":
        """What was added to `base`; everything when the counting began anew."""
        if base.requests > self.requests:
            return self
        added = {bucket: count - base.latency.get(bucket, 0) for bucket, count in self.latency.items()}
        return Counts(self.requests - base.requests, self.errors - base.errors, added, self.differ - base.differ)

    def plus(self, other: "Counts") -> "Counts":
        """Both together."""
        buckets = {b: self.latency.get(b, 0) + other.latency.get(b, 0) for b in self.latency.keys() | other.latency}
        differ = self.differ + other.differ
        return Counts(self.requests + other.requests, self.errors + other.errors, buckets, differ)

    def slower_than(self, micros: int) -> int:
        """Answers that surely took longer: the bucket that holds `micros` is not counted."""
        return sum(count for bucket, count in self.latency.items() if bucket > 0 and upper(bucket - 1) > micros)


@dataclass(frozen=True, slots=True)
class Plan:
    """How an endpoint rolls out, from its manifest."""

    steps: tuple[int, ...] = (100,)
    hold_micros: Micros = 0
    hold_requests: int = 0
    errors_ppm: int = 20_000
    p99_micros: int = 0
    shadow_ppm: int = 0
    """Of a million questions, how many are copied to a new revision before it gets traffic; 0: none."""
    shadow_micros: Micros = 0
    shadow_requests: int = 0
    differ_ppm: int = 1_000_000
    guards: tuple[Mapping[str, Any], ...] = ()
    """Guardrails on what is answered, as they are declared."""

    @property
    def watch_micros(self) -> Micros:
        """How long a live revision is watched at least, because evidence of it comes late."""
        return max((guard.get("watch_micros", 0) for guard in self.guards), default=0)

    @classmethod
    def from_manifest(cls, endpoint: Mapping[str, Any]) -> "Plan":
        """The plan that an endpoint's manifest holds."""
        rollout, guardrails = endpoint["rollout"], endpoint["guardrails"]
        hold = rollout["hold"]
        shadow = rollout.get("shadow", {})
        return cls(
            tuple(rollout["steps"]),
            hold.get("micros", 0),
            hold.get("requests", 0),
            guardrails["errors_ppm"],
            guardrails["p99_micros"],
            shadow.get("share_ppm", 0),
            shadow.get("hold", {}).get("micros", 0),
            shadow.get("hold", {}).get("requests", 0),
            shadow.get("differ_ppm", 1_000_000),
            tuple(guardrails.get("guards", ())),
        )


@dataclass(frozen=True, slots=True)
class Observed:
    """What gateways say."""

    ready: frozenset[str] = frozenset()
    """Revisions that every running gateway has warm."""
    problems: Mapping[str, str] = field(default_factory=dict)
    """Revisions that cannot serve, and why."""
    counts: Mapping[str, Counts] = field(default_factory=dict)
    shadows: Mapping[str, Counts] = field(default_factory=dict)
    """What was counted of copies that revisions answered."""
    findings: tuple[Finding, ...] = ()
    """What the target's answers, feedback and labels say against the champion's."""


@dataclass(frozen=True, slots=True)
class Rollout:
    """Where an endpoint stands."""

    target: str = ""
    """The revision that is wanted."""
    previous: str = ""
    """The revision before, kept warm."""
    phase: Phase = "none"
    place: int = 0
    """Index of the canary step."""
    since: Micros = 0
    base: Counts = Counts()
    """The target's counts when the step began."""
    reason: str = ""
    evidence: Mapping[str, Any] = field(default_factory=dict)
    blocked: str = ""
    """Why the environment's newest definition makes no revision (a model is missing, parts do not fit)."""
    entered: Micros = 0
    """When the target got its first traffic."""
    experiment: Mapping[str, Any] = field(default_factory=dict)
    """Champion and challengers, as `rollout.experiments` tells it; empty without one."""
    simpler: str = ""
    """The revision of the fallback's graph, where there is one."""

    def weights(self, plan: Plan) -> list[tuple[str, int]]:
        """Live revisions with their share in percent; the one that enters comes first."""
        if self.phase == "none" or not self.target:
            return []
        if self.phase == "reverted":
            return [(self.previous, 100)]
        if not self.previous:
            return [(self.target, 100)]
        share = {"starting": 0, "shadow": 0, "canary": plan.steps[min(self.place, len(plan.steps) - 1)]}.get(
            self.phase, 100
        )
        return [(self.target, share), (self.previous, 100 - share)]

    @property
    def champion(self) -> str:
        """The revision that callers mostly meet, and that a new one would be compared with."""
        return self.target if self.phase in ("live", "settled", "failed") else self.previous or self.target

    def with_blocked(self, why: str) -> "Rollout":
        """The same state, saying why the newest definition makes no revision."""
        return self if why == self.blocked else replace(self, blocked=why)

    def told(self) -> dict[str, Any]:
        """As JSON; `from_told` reads it."""
        return {
            "target": self.target,
            "previous": self.previous,
            "phase": self.phase,
            "place": self.place,
            "since": self.since,
            "base": [
                self.base.requests,
                self.base.errors,
                {str(b): n for b, n in self.base.latency.items()},
                self.base.differ,
            ],
            "reason": self.reason,
            "evidence": dict(self.evidence),
            "blocked": self.blocked,
            "entered": self.entered,
            **({"experiment": dict(self.experiment)} if self.experiment else {}),
            **({"simpler": self.simpler} if self.simpler else {}),
        }

    @classmethod
    def from_told(cls, told: Mapping[str, Any]) -> "Rollout":
        """Read what `told` wrote."""
        requests, errors, latency, *differ = told["base"]
        base = Counts(requests, errors, {int(bucket): count for bucket, count in latency.items()}, *differ)
        return cls(**{**told, "base": base})


@dataclass(frozen=True, slots=True)
class Event:
    """Something to record as a fact `rollout.<kind>`."""

    kind: str
    payload: Mapping[str, Any]


def step(
    state: Rollout, desired: str, plan: Plan, observed: Observed, now: Micros
) -> tuple[Rollout, tuple[Event, ...]]:
    """The next state, and what to record. Doing nothing returns the same state."""
    if desired and desired != state.target:
        return _begin(state, desired, observed, now)
    if state.phase == "starting":
        return _starting(state, plan, observed, now)
    if state.phase == "shadow":
        return _shadowed(state, plan, observed, now)
    if state.phase in ("canary", "live"):
        return _guarded(state, plan, observed, now)
    if state.phase == "failed" and state.target in observed.ready:
        return _enter(state, "live", "live", observed, now)
    return state, ()


def _begin(state: Rollout, desired: str, observed: Observed, now: Micros) -> tuple[Rollout, tuple[Event, ...]]:
    nothing_serves = state.phase in ("none", "failed") or (state.phase == "starting" and not state.previous)
    champion = "" if nothing_serves else state.champion
    if state.phase == "reverted" and desired == state.previous:
        return replace(state, target=desired, previous="", phase="settled", since=now, reason="", evidence={}), ()
    if desired == state.previous and desired in observed.ready:
        back = Rollout(desired, state.target, "live", 0, now, observed.counts.get(desired, Counts()))
        back = replace(back, entered=now, experiment=state.experiment)
        return back, (Event("rolled_back", {"revision": desired, "from": state.target}),)
    previous = "" if champion == desired else champion
    begun = Rollout(desired, previous, "starting", 0, now, experiment=state.experiment)
    return begun, (Event("started", {"revision": desired, "previous": previous}),)


def _starting(state: Rollout, plan: Plan, observed: Observed, now: Micros) -> tuple[Rollout, tuple[Event, ...]]:
    problem = observed.problems.get(state.target)
    if problem is not None:
        return _break(state, f"it cannot serve: {problem}", {"problem": problem}, now)
    if state.target not in observed.ready:
        return state, ()
    if state.previous and plan.shadow_ppm:
        base = observed.shadows.get(state.target, Counts())
        entered = replace(state, phase="shadow", since=now, base=base)
        return entered, (Event("shadow", {"revision": state.target, "previous": state.previous}),)
    return _take_traffic(state, plan, observed, now)


def _take_traffic(state: Rollout, plan: Plan, observed: Observed, now: Micros) -> tuple[Rollout, tuple[Event, ...]]:
    state = replace(state, entered=now)
    if not state.previous or plan.steps[0] == 100:
        return _enter(state, "live", "live", observed, now)
    return _enter(state, "canary", "step", observed, now, share=plan.steps[0])


def _shadowed(state: Rollout, plan: Plan, observed: Observed, now: Micros) -> tuple[Rollout, tuple[Event, ...]]:
    counted = observed.shadows.get(state.target, Counts()).since(state.base)
    problem = observed.problems.get(state.target)
    breach = f"it cannot serve: {problem}" if problem else breached(plan, counted) or _differs(plan, counted)
    if breach is not None:
        return _break(state, breach, {**evidence_of(counted), "differ": counted.differ}, now)
    held = counted.requests >= plan.shadow_requests if plan.shadow_requests else now - state.since >= plan.shadow_micros
    return _take_traffic(state, plan, observed, now) if held else (state, ())


def _differs(plan: Plan, counted: Counts) -> str | None:
    allowed = plan.differ_ppm / 1e6
    if counted.differ < _LEAST or wilson_lower(counted.differ, counted.requests) <= allowed:
        return None
    return f"{counted.differ} of {counted.requests} answers differ from those that callers got, {allowed:.2%} may"


def _enter(
    state: Rollout, phase: Phase, kind: str, observed: Observed, now: Micros, *, place: int = 0, share: int = 100
) -> tuple[Rollout, tuple[Event, ...]]:
    base = observed.counts.get(state.target, Counts())
    entered = replace(state, phase=phase, place=place, since=now, base=base, reason="", evidence={})
    return entered, (Event(kind, {"revision": state.target, "previous": state.previous, "percent": share}),)


def _guarded(state: Rollout, plan: Plan, observed: Observed, now: Micros) -> tuple[Rollout, tuple[Event, ...]]:
    counted = observed.counts.get(state.target, Counts()).since(state.base)
    breach = breached(plan, counted)
    if breach is not None and state.previous:
        return _break(state, breach, evidence_of(counted), now)
    broken = next((finding for finding in observed.findings if finding.breached), None)
    if broken is not None and state.previous:
        return _break(state, broken.reason, {**evidence_of(counted), "guardrail": broken.told()}, now)
    if not _held(plan, counted, now - state.since, watched=state.phase == "live"):
        return state, ()
    if state.phase == "live":
        settled = replace(state, phase="settled", since=now)
        return settled, (Event("settled", {"revision": state.target, **evidence_of(counted)}),)
    place = state.place + 1
    if place >= len(plan.steps) or plan.steps[place] == 100:
        return _enter(state, "live", "live", observed, now)
    return _enter(state, "canary", "step", observed, now, place=place, share=plan.steps[place])


def _held(plan: Plan, counted: Counts, elapsed: Micros, *, watched: bool) -> bool:
    """Whether a step has lasted long enough; a revision that is live is watched for one hold more."""
    if watched and elapsed < plan.watch_micros:
        return False
    if plan.hold_requests:
        return counted.requests >= plan.hold_requests
    return elapsed >= (plan.hold_micros or (_WATCH if watched else 0))


def _break(state: Rollout, reason: str, evidence: Mapping[str, Any], now: Micros) -> tuple[Rollout, tuple[Event, ...]]:
    phase: Phase = "reverted" if state.previous else "failed"
    broken = replace(state, phase=phase, since=now, reason=reason, evidence=dict(evidence))
    payload = {"revision": state.target, "serving": state.previous, "reason": reason, **evidence}
    return broken, (Event(phase, payload),)


def evidence_of(counted: Counts) -> dict[str, Any]:
    """The figures that a decision was made on."""
    return {
        "requests": counted.requests,
        "errors": counted.errors,
        "latency": {str(upper(bucket)): count for bucket, count in sorted(counted.latency.items()) if count},
    }


def breached(plan: Plan, counted: Counts) -> str | None:
    """Why the counted requests break a guardrail; None when they do not."""
    allowed = plan.errors_ppm / 1e6
    if counted.errors >= _LEAST and wilson_lower(counted.errors, counted.requests) > allowed:
        return f"{counted.errors} of {counted.requests} requests failed, {allowed:.2%} are allowed"
    if plan.p99_micros:
        slow = counted.slower_than(plan.p99_micros)
        answered = sum(counted.latency.values())
        if slow >= _LEAST and wilson_lower(slow, answered) > _SLOW_SHARE:
            return f"{slow} of {answered} answers took longer than {plan.p99_micros / 1000:g} ms, 1% may"
    return None


def wilson_lower(hits: int, of: int) -> float:
    """Lower end of Wilson's score interval for a share (Wilson 1927), one-sided 99 %."""
    if of == 0:
        return 0.0
    share, square = min(hits, of) / of, _Z * _Z
    spread = _Z * math.sqrt(share * (1 - share) / of + square / (4 * of * of))
    return (share + square / (2 * of) - spread) / (1 + square / of)
