"""Operations of rollouts: feedback by prediction, figures of a revision, and what guardrails look like now."""

import math
from typing import Any

from everloop.catalog import facts, versions
from everloop.catalog.context import Context
from everloop.catalog.operating import feedback, predictions, rollouts
from everloop.catalog.operating.feedback import Value
from everloop.catalog.operation import Answer, Command, operation
from everloop.core.clock import Micros, iso, parse_time
from everloop.core.errors import InvalidInput, NotFound
from everloop.core.grants import Target
from everloop.serving.graph.nodes import named
from everloop.serving.rollout.evidence import Evidence
from everloop.serving.rollout.experiments import of_state, served, shares_of
from everloop.serving.rollout.judging import Finding
from everloop.serving.rollout.state import Plan, Rollout
from everloop.serving.rollout.trying import WISH

MOST_VALUES = 50_000
_LARGEST = 1e15


class GivenFeedback(Command):
    """The value of a metric for one prediction."""

    prediction: str
    value: float
    at: str = ""
    """Event time in ISO 8601; empty: now. A later one corrects."""


class AddFeedback(Command):
    """What came of an endpoint's predictions, by a metric of business: revenue, a click (1 or 0), minutes saved."""

    endpoint: str
    metric: str
    values: list[GivenFeedback]
    environment: str = "production"


class FeedbackAdded(Answer):
    """How many were taken; those that were there already count too."""

    taken: int
    unknown: int = 0
    """Of predictions that this endpoint did not make, as far as is known by now: they may still be on their way."""


class PushMetric(Command):
    """A figure of one revision that was counted elsewhere: of how many, their sum, and the sum of their squares."""

    endpoint: str
    metric: str
    revision: str
    """Its number, or its id."""
    count: int
    total: float
    squares: float | None = None
    """Without it every value was 0 or 1."""
    at: str = ""
    """Event time; the same figure of the same time again changes nothing. Empty: now."""
    environment: str = "production"


class AskGuardrails(Command):
    """The guardrails of an endpoint's rollout."""

    name: str
    environment: str = "production"


class GuardrailView(Answer):
    """One guardrail now."""

    guard: str
    value: float | None
    """How far from the champion, in the direction of harm."""
    sure: float | None
    """At least how far, surely; none while there are too few rows."""
    limit: float
    rows: int
    champion_rows: int
    least: int
    breached: bool
    window: list[str]
    predictions: list[str]
    challenger: str = ""
    """Of an experiment, whose answers it is about; empty: those of the revision on its way."""


class ShareOut(Command):
    """Other shares of the keys for an experiment's challengers; 0 takes one out of the traffic."""

    name: str
    shares: dict[str, int]
    """Percent of each challenger that is named; others keep theirs."""
    environment: str = "production"


class Shared(Answer):
    """What every challenger will have."""

    shares: dict[str, int]


class Reverted(Answer):
    """One time that a revision went back, or could not serve."""

    at: str
    kind: str
    revision: str
    serving: str
    reason: str
    evidence: dict[str, Any]


class Guarded(Answer):
    """What an endpoint's guardrails say now, and when they turned a revision back."""

    guardrails: list[GuardrailView]
    reverts: list[Reverted]


def _on_endpoint(_ctx: Context, cmd: Any) -> Target:
    name: str = getattr(cmd, "name", "") or getattr(cmd, "endpoint", "") or "*"
    return Target("endpoint", name, cmd.environment)


@operation("feedback.add", needs="label.write", on=_on_endpoint)
def add_feedback(ctx: Context, cmd: AddFeedback) -> FeedbackAdded:
    """Say what came of predictions; the same value again changes nothing, a later one corrects."""
    if len(cmd.values) > MOST_VALUES:
        raise InvalidInput(f"{len(cmd.values)} values at once", hint=f"send at most {MOST_VALUES} in one call")
    named(cmd.metric, "a metric")
    now = ctx.now()
    values = []
    for given in cmd.values:
        number = _finite(given.value)
        values.append(Value(cmd.metric, number, number * number, _moment(given.at, now), prediction=given.prediction))
    with ctx.write() as tx:
        feedback.add(tx, ctx.project, cmd.endpoint, values, actor=ctx.actor.name, recorded=ctx.wall())
        told = {"metric": cmd.metric, "count": len(values)}
        facts.append(tx, ctx.project, ctx.fact("feedback.added", cmd.endpoint, told))
    with ctx.read() as tx:
        unknown = predictions.strangers(tx, ctx.project, cmd.endpoint, (given.prediction for given in cmd.values))
    return FeedbackAdded(taken=len(values), unknown=unknown)


@operation("feedback.push", needs="label.write", on=_on_endpoint)
def push_metric(ctx: Context, cmd: PushMetric) -> FeedbackAdded:
    """Say how a revision does by a metric that only somebody else can count."""
    named(cmd.metric, "a metric")
    squares = _finite(cmd.total if cmd.squares is None else cmd.squares)
    if cmd.count < 1 or squares < 0 or squares * cmd.count < _finite(cmd.total) ** 2 * (1 - 1e-9):
        raise InvalidInput(
            f"{cmd.count} values cannot have the sum {cmd.total} and squares of {squares}",
            hint="count, sum of values, sum of their squares",
        )
    with ctx.write() as tx:
        revision = _revision(tx, ctx, cmd)
        value = Value(cmd.metric, cmd.total, squares, _moment(cmd.at, ctx.now()), revision=revision, count=cmd.count)
        feedback.add(tx, ctx.project, cmd.endpoint, [value], actor=ctx.actor.name, recorded=ctx.wall())
        told = {"metric": cmd.metric, "revision": revision, "count": cmd.count, "total": cmd.total}
        facts.append(tx, ctx.project, ctx.fact("feedback.pushed", cmd.endpoint, told))
    return FeedbackAdded(taken=1)


def _revision(tx: Any, ctx: Context, cmd: PushMetric) -> str:
    spec = f"revision/{cmd.endpoint}@{cmd.revision}" if cmd.revision.isdigit() else cmd.revision
    row = versions.find(tx, ctx.project, spec)
    if (row.kind, row.name) != ("revision", cmd.endpoint):
        raise NotFound(
            f"{cmd.revision} is no revision of {cmd.endpoint}", hint="everloop endpoints show says which are"
        )
    return row.id


def _finite(value: float) -> float:
    if not math.isfinite(value) or abs(value) > _LARGEST:
        raise InvalidInput(f"the value {value} is no number that can be added up", hint="a finite number below 1e15")
    return value


def _moment(text: str, now: Micros) -> Micros:
    try:
        return parse_time(text) if text else now
    except ValueError as error:
        raise InvalidInput(f"a value's time: {error}", hint="ISO 8601, for example 2013-05-01T12:00:00Z") from error


@operation("endpoints.share", needs="experiment.write", on=_on_endpoint)
def share_out(ctx: Context, cmd: ShareOut) -> Shared:
    """Give an experiment's challengers other shares; only as many keys as must meet another revision then."""
    with ctx.write() as tx:
        told = rollouts.of(tx, ctx.project, cmd.environment).get(cmd.name)
        trial = of_state(Rollout.from_told(told)) if told else None
        if trial is None or not trial.began:
            raise NotFound(f"{cmd.name} has no running experiment", hint="everloop endpoints show says what it does")
        running = {name: arm.share for name, arm in trial.arms.items() if arm.state == "running"}
        unknown = sorted(set(cmd.shares) - set(running))
        if unknown:
            raise InvalidInput(f"{', '.join(unknown)} is not compared now", hint="one of " + ", ".join(running))
        shares = {**shares_of(trial), **cmd.shares}
        if min(shares.values(), default=0) < 0 or sum(shares.values()) >= 100:
            raise InvalidInput(f"shares {shares}", hint="whole percents that leave some for the champion")
        payload = {"environment": cmd.environment, "shares": cmd.shares}
        facts.append(tx, ctx.project, ctx.fact(WISH, cmd.name, payload))
    return Shared(shares=shares)


@operation("endpoints.guardrails", needs="read", on=_on_endpoint, reads=True)
def ask_guardrails(ctx: Context, cmd: AskGuardrails) -> Guarded:
    """What each guardrail on answers, feedback and labels looks like now, and the last times that one was broken."""
    with ctx.read() as tx:
        told = rollouts.of(tx, ctx.project, cmd.environment).get(cmd.name)
        if told is None:
            raise NotFound(f"{cmd.environment} has no endpoint {cmd.name!r}", hint="merge one into it first")
        state = Rollout.from_told(told)
        plan = Plan()
        if state.target:
            endpoint = versions.get(tx, ctx.project, state.target).manifest["endpoint"]
            plan = Plan.from_manifest(versions.get(tx, ctx.project, endpoint).manifest)
        past = facts.tail(tx, ctx.project, kinds=("rollout.reverted", "rollout.failed"), subject=cmd.name, limit=20)
    return Guarded(
        guardrails=[GuardrailView(**one.told(), challenger=arm) for arm, one in _looked_at(ctx, cmd.name, state, plan)],
        reverts=[
            Reverted(
                at=iso(fact.at),
                kind=fact.kind.partition(".")[2],
                revision=fact.payload["revision"],
                serving=fact.payload["serving"],
                reason=fact.payload["reason"],
                evidence={k: v for k, v in fact.payload.items() if k not in ("revision", "serving", "reason")},
            )
            for fact in past
            if fact.payload.get("environment") == cmd.environment
        ],
    )


def _looked_at(ctx: Context, name: str, state: Rollout, plan: Plan) -> list[tuple[str, Finding]]:
    """What guardrails find of the revision on its way (as an empty name), and of challengers by theirs."""
    evidence = Evidence()
    found: list[tuple[str, Finding]] = []
    if state.previous and state.phase in ("canary", "live"):
        pair = (state.target, state.previous)
        found = [("", one) for one in evidence.findings(ctx, name, pair, plan.guards, state.entered)]
    trial = of_state(state)
    if trial is None or not trial.began:
        return found
    for arm, its in served(trial).items():
        pair = (its.revision, trial.champion)
        found += [(arm, one) for one in evidence.findings(ctx, name, pair, plan.guards, trial.began)]
    return found
