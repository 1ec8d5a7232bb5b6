"""Verdicts of reproductions: recorded by workers alone, signed, and what a policy may ask for.

A policy with `"reproduced": "canonical"` lets a change bring in a model only after a worker ran its recipe again and
the same came out, by its bytes or at least by its canonical digest.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from everloop.catalog import facts, tasks, versions
from everloop.catalog.context import Context
from everloop.catalog.engine import Tx
from everloop.catalog.governance import redactions
from everloop.catalog.operation import Answer, Command, operation
from everloop.core.grants import Target
from everloop.core.policy import TIERS, CheckState
from everloop.core.snapshot import Delta
from everloop.core.version import Version

FACT = "version.reproduced"
STATEMENT = "https://everloop.dev/reproduction/v1"
TASK = "flow.reproduce"

Tier = Literal["bit", "canonical", "functional", "numeric", "statistical", "different"]


class RecordVerdict(Command):
    """What came of running a version's recipe again."""

    version: str
    tier: Tier
    factors: list[str]
    again: str
    """The version that came out."""
    difference: str = ""
    """The largest difference of the answers, as text, where they were compared."""
    environment: str = ""
    """`here` or `rebuilt`."""


class VerdictView(Answer):
    """A recorded verdict."""

    version: str
    tier: str
    factors: list[str]
    again: str
    evidence: str
    statement: str
    """The object with the signed statement (DSSE); empty in a workspace without a key."""
    actor: str
    at: int


class OfVersion(Command):
    """A version by id, prefix, `kind/name` or `kind/name@7`."""

    version: str


class Asked(Answer):
    """The task in which a worker will do it."""

    id: str
    state: str


@operation("checks.reproduce", needs="task.write")
def ask(ctx: Context, cmd: OfVersion) -> Asked:
    """Have a worker reproduce a version and record the signed verdict."""
    with ctx.read() as tx:
        row = versions.find(tx, ctx.project, cmd.version)
    with ctx.write() as tx:
        body, dedupe = {"version": row.id}, row.id
        task = tasks.enqueue(tx, ctx.project, TASK, body, actor=ctx.actor.name, now=ctx.wall(), dedupe=dedupe)
    return Asked(id=task, state="queued")


class VerdictList(Answer):
    """The newest verdict on a version, or none."""

    verdicts: list[VerdictView]


def _on(_ctx: Context, _cmd: RecordVerdict) -> Target:
    return Target("check", "reproduced")


@operation("checks.reproduced", needs="check.record", on=_on)
def record(ctx: Context, cmd: RecordVerdict) -> VerdictView:
    """Record and sign a verdict, as evidence of the version. Only workers may: others could write what suits them."""
    with ctx.read() as tx:
        row = versions.get(tx, ctx.project, cmd.version)
    told = {
        "version": row.id,
        "tier": cmd.tier,
        "factors": list(cmd.factors),
        "again": cmd.again,
        "difference": cmd.difference,
        "environment": cmd.environment,
    }
    statement = _signed(ctx, row.key, told)
    manifest = {**told, "report": statement} if statement else told
    version = Version("evidence", f"reproduced.{row.kind}.{row.name}"[:128], manifest, (("subject", row.id),))
    with ctx.write() as tx:
        versions.put(tx, ctx.project, version, actor=ctx.actor.name, at=ctx.now())
        payload = {**told, "evidence": version.id, "statement": statement}
        facts.append(tx, ctx.project, ctx.fact(FACT, row.id, payload))
    return VerdictView(
        version=row.id,
        tier=cmd.tier,
        factors=cmd.factors,
        again=cmd.again,
        evidence=version.id,
        statement=statement,
        actor=ctx.actor.name,
        at=ctx.now(),
    )


@operation("checks.reproduction", needs="read", reads=True)
def reproduction(ctx: Context, cmd: OfVersion) -> VerdictList:
    """The newest recorded verdict on a version."""
    with ctx.read() as tx:
        row = versions.find(tx, ctx.project, cmd.version)
        found = _latest(tx, ctx.project, row.id)
        if found is None:
            return VerdictList(verdicts=[])
        evidence = versions.get(tx, ctx.project, found["evidence"])
    return VerdictList(
        verdicts=[
            VerdictView(
                version=row.id,
                tier=found["tier"],
                factors=found["factors"],
                again=found["again"],
                evidence=found["evidence"],
                statement=found["statement"],
                actor=evidence.actor,
                at=evidence.at,
            )
        ]
    )


def states(tx: Tx, project: str, delta: Delta, wanted: str) -> Iterator[CheckState]:
    """For every model that a delta brings in, whether it was reproduced as closely as a policy wants (a tier)."""
    for key, found in _verdicts(tx, project, delta, wanted):
        state: Literal["missing", "passed", "failed"] = "missing"
        if found is not None:
            state = "passed" if near_enough(found, wanted) else "failed"
        yield CheckState(f"reproduced>={wanted} ({key})", state)


def missing(tx: Tx, project: str, delta: Delta, wanted: str) -> list[str]:
    """The models that a delta brings in, by key, which a policy wants reproduced and nobody has."""
    return [key for key, found in _verdicts(tx, project, delta, wanted) if found is None]


def _verdicts(tx: Tx, project: str, delta: Delta, wanted: str) -> Iterator[tuple[str, Mapping[str, Any] | None]]:
    for key, (_, new) in sorted(delta.items()):
        if wanted and new is not None and key.startswith("model/"):
            yield key, _latest(tx, project, new)


def near_enough(found: Mapping[str, Any], wanted: str) -> bool:
    """Whether a verdict's tier is the wanted one or a nearer one."""
    return found["tier"] in TIERS[: TIERS.index(wanted) + 1]


def _latest(tx: Tx, project: str, version: str) -> dict[str, Any] | None:
    found = redactions.latest(tx, project, (FACT,), version)
    return found[1] if found is not None else None


def _signed(ctx: Context, key: str, told: Mapping[str, Any]) -> str:
    if ctx.key is None:
        return ""
    envelope = ctx.key.sign(STATEMENT, {key: str(told["version"])}, told)
    return ctx.store.put(json.dumps(envelope, sort_keys=True, separators=(",", ":")).encode())
