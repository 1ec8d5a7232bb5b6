"""Operations of replay parity: compare now, and what was found before."""

from typing import Any

from pydantic import Field

from everloop.catalog import versions
from everloop.catalog.context import Context
from everloop.catalog.operating import alarms, predictions, rollouts
from everloop.catalog.operation import Answer, Command, operation
from everloop.core.clock import DAY, Micros
from everloop.core.errors import InvalidInput, NotFound
from everloop.core.grants import Target
from everloop.data.sensitive.masking import hidden_of
from everloop.features.operations import pinned
from everloop.watch import parity


class Parity(Command):
    """Which predictions to compute again. Times in microseconds; without them: since the last comparison."""

    endpoint: str
    environment: str = "production"
    start: Micros | None = None
    until: Micros | None = None
    sample: int = 1000


class DifferenceRow(Answer):
    """A served value that batch does not agree with."""

    prediction: str
    at: Micros
    entity: dict[str, str]
    column: str
    served: Any
    batch: Any


class ParityView(Answer):
    """What a comparison found."""

    endpoint: str
    start: Micros
    until: Micros
    at: Micros
    state: str
    """`equal`, `different`, or `cannot tell`."""
    summary: str
    figures: dict[str, float]
    evidence: str
    rows: tuple[DifferenceRow, ...] = ()


class OfEndpoint(Command):
    """The comparisons of an endpoint, newest first."""

    endpoint: str
    environment: str = "production"
    limit: int = Field(50, ge=1)


class Parities(Answer):
    """Comparisons, newest first."""

    parities: list[ParityView]


def _endpoint(_ctx: Context, cmd: Any) -> Target:
    return Target("endpoint", cmd.endpoint, cmd.environment)


@operation("features.parity", needs="check.run", on=_endpoint)
def compare(ctx: Context, cmd: Parity) -> ParityView:
    """Compute a sample of served features again in batch, as of their time; a difference is an alarm."""
    if not 1 <= cmd.sample <= 100_000:
        raise InvalidInput(f"a sample of {cmd.sample} is not taken", hint="1 to 100000 predictions")
    until = ctx.now() if cmd.until is None else cmd.until
    start = _since(ctx, cmd.endpoint, until) if cmd.start is None else cmd.start
    if start >= until:
        raise InvalidInput("the window is empty", hint="start lies before until")
    found = parity.replay.replay(ctx, cmd.endpoint, cmd.environment, start, until, sample=cmd.sample)
    if not found.sampled:
        _need_endpoint(ctx, cmd)
    figures = {"sampled": found.sampled, "judged": found.judged, "values": found.values, "later": found.later}
    return ParityView(
        endpoint=cmd.endpoint,
        start=start,
        until=until,
        at=ctx.now(),
        state=found.state,
        summary=found.summary,
        figures={**figures, "different": len(found.differences)},
        evidence=found.evidence,
        rows=_shown(ctx, cmd, found.differences[: parity.replay.SHOWN]),
    )


def _need_endpoint(ctx: Context, cmd: Parity) -> None:
    """Raise `NotFound` for an endpoint that is not in the environment and never answered."""
    there = pinned(ctx, cmd.environment, "endpoint")
    with ctx.read() as tx:
        asked = predictions.newest(tx, ctx.project, cmd.endpoint, limit=1)
    if cmd.endpoint not in there and not asked:
        hint = "it has " + (", ".join(there) or "none")
        raise NotFound(f"{cmd.environment} has no endpoint {cmd.endpoint!r}", hint=hint)


def _since(ctx: Context, endpoint: str, until: Micros) -> Micros:
    """Where the last comparison that could tell ended; a day ago before the first."""
    with ctx.read() as tx:
        before = alarms.evaluations(tx, ctx.project, f"parity.{endpoint}", limit=20)
    told = [e.until for e in before if e.state != "cannot tell" and e.until < until]
    return max(told, default=until - DAY)


def _shown(ctx: Context, cmd: Parity, differences: Any) -> tuple[DifferenceRow, ...]:
    """Rows with what the asker may not see left out."""
    hidden: frozenset[str] = frozenset()
    with ctx.read() as tx:
        state = rollouts.of(tx, ctx.project, cmd.environment).get(cmd.endpoint)
        row = versions.get(tx, ctx.project, state["target"]) if state and state.get("target") else None
    if row is not None:
        hidden = hidden_of(ctx, row, cmd.environment)
    return tuple(
        DifferenceRow(
            prediction=d.prediction,
            at=d.at,
            entity={k: v for k, v in d.entity.items() if k not in hidden},
            column=d.column,
            served=None if d.column in hidden else d.served,
            batch=None if d.column in hidden else d.batch,
        )
        for d in differences
    )


@operation("features.parities", needs="read", on=_endpoint, reads=True)
def list_parities(ctx: Context, cmd: OfEndpoint) -> Parities:
    """What comparisons of served with batch features found, newest first."""
    with ctx.read() as tx:
        found = alarms.evaluations(tx, ctx.project, f"parity.{cmd.endpoint}", limit=min(cmd.limit, 500))
    return Parities(
        parities=[
            ParityView(
                endpoint=cmd.endpoint,
                start=e.start,
                until=e.until,
                at=e.at,
                state=e.state,
                summary=e.summary,
                figures=dict(e.figures),
                evidence=e.evidence,
            )
            for e in found
        ]
    )
