"""The operations `bisect.plan`, `bisect.record` and `bisect.show`. Running happens where the workspace's files are."""

from typing import Any

from everloop.catalog import facts, steps, versions
from everloop.catalog.context import Context
from everloop.catalog.making import uses
from everloop.catalog.operation import Answer, Command, operation
from everloop.core.errors import InvalidInput
from everloop.core.grants import Target
from everloop.core.version import Version
from everloop.flows.bisect import answer
from everloop.flows.bisect.settings import Sides, sides
from everloop.flows.compute.profiles import MILLION

SEEDS = 6
"""Paired seeds; fewer than 5 say little about noise."""


class Question(Command):
    """A good and a bad version of one name, and the metric that got worse."""

    good: str
    bad: str
    metric: str
    seeds: int = SEEDS


class PlanView(Answer):
    """What a bisection would run."""

    step: str
    players: list[str]
    equal: dict[str, str]
    """Factors that are not swapped, with the reason."""
    combinations: int
    runs: int
    """At most; what is in the cache is not run again."""
    seconds: float
    """About, by what the good version's step took; narrowing comes on top."""
    costs: dict[str, float]
    """About, by currency, where that step was paid for."""
    text: str


class RecordAnswer(Command):
    """What a bisection found."""

    name: str
    found: dict[str, Any]


class Recorded(Answer):
    """An answer as it is kept."""

    evidence: str
    found: dict[str, Any]
    labels: dict[str, str]
    text: str


class OfEvidence(Command):
    """The evidence of a bisection."""

    version: str


@operation("bisect.plan", needs="read", reads=True)
def plan(ctx: Context, cmd: Question) -> PlanView:
    """Say what a bisection would swap and run, and about how long that takes; runs nothing."""
    found = sides(ctx, cmd.good, cmd.bad)
    return plan_of(ctx, cmd, found)


def plan_of(ctx: Context, cmd: Question, found: Sides) -> PlanView:
    """The plan for two sides that are at hand; raises `InvalidInput` for fewer than 3 seeds."""
    if cmd.seeds < 3:
        raise InvalidInput(f"{cmd.seeds} seeds tell nothing about noise", hint="6 is the default, 3 the least")
    combinations = 2 ** len(found.players)
    with ctx.read() as tx:
        good = versions.find(tx, ctx.project, cmd.good)
        made = steps.made(tx, ctx.project, [good.id])[good.id]
        paid = [one for one in uses.of_recipes(tx, ctx.project, [made.recipe]) if one.cost]
    seconds = made.seconds * combinations * cmd.seeds
    costs = {one.currency: one.cost / MILLION * combinations * cmd.seeds for one in paid}
    lines = [
        f"{found.step}: {', '.join(found.players) or 'nothing'} swapped, {combinations} mixtures x {cmd.seeds} seeds",
        f"at most {combinations * cmd.seeds} runs of {made.seconds:.3g} s, about {seconds:.3g} s, less what is cached",
        *(f"about {currency} {amount:.4g} of compute, less what is cached" for currency, amount in costs.items()),
        "narrowing inside the guilty factor comes on top: 3 to 12 runs for each probe of it",
        *(f"{factor}: {reason}" for factor, reason in found.equal.items()),
    ]
    return PlanView(
        step=found.step,
        players=list(found.players),
        equal=dict(found.equal),
        combinations=combinations,
        runs=combinations * cmd.seeds,
        seconds=seconds,
        costs=costs,
        text="\n".join(lines),
    )


def _on(_ctx: Context, cmd: RecordAnswer) -> Target:
    return Target("evidence", cmd.name)


@operation("bisect.record", needs="run.write", on=_on)
def record(ctx: Context, cmd: RecordAnswer) -> Recorded:
    """Keep an answer as evidence of the two versions. No policy asks for it, so whoever may run may write it."""
    ids = [cmd.found.get(side) for side in ("good", "bad")]
    with ctx.read() as tx:
        rows = [versions.get(tx, ctx.project, str(identity)) for identity in ids]
    inputs = tuple(zip(("good", "bad"), (row.id for row in rows), strict=True))
    version = Version("evidence", f"bisect.{cmd.name}"[:128], {**cmd.found, "question": "bisect"}, inputs)
    with ctx.write() as tx:
        versions.put(tx, ctx.project, version, actor=ctx.actor.name, at=ctx.now())
        payload = {"good": ids[0], "bad": ids[1], "metric": cmd.found.get("metric"), "evidence": version.id}
        facts.append(tx, ctx.project, ctx.fact("version.bisected", str(ids[1]), payload))
    return _recorded(ctx, version.id)


@operation("bisect.show", needs="read", reads=True)
def show(ctx: Context, cmd: OfEvidence) -> Recorded:
    """What a bisection found, by its evidence."""
    with ctx.read() as tx:
        row = versions.find(tx, ctx.project, cmd.version)
    if row.manifest.get("question") != "bisect":
        raise InvalidInput(f"{row.key} is no bisection", hint="everloop bisect GOOD BAD --metric M makes one")
    return _recorded(ctx, row.id)


def _recorded(ctx: Context, identity: str) -> Recorded:
    with ctx.read() as tx:
        row = versions.get(tx, ctx.project, identity)
        labels = versions.labels(tx, ctx.project, [row.manifest["good"], row.manifest["bad"], row.id])
    return Recorded(
        evidence=row.id, found=dict(row.manifest), labels=labels, text="\n".join(answer.lines(row.manifest))
    )
