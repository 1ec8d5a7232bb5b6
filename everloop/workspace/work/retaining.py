"""The operations of retention: rules, what they would let go, and the bytes that versions hold."""

from collections.abc import Sequence
from typing import Any

from everloop.catalog import facts
from everloop.catalog.context import Context
from everloop.catalog.genai import traces
from everloop.catalog.governance import redactions
from everloop.catalog.keeping import aging
from everloop.catalog.operation import Answer, Command, operation
from everloop.catalog.tracking import experiments, runs
from everloop.core.clock import DAY
from everloop.core.grants import Target
from everloop.data.retention import expiring
from everloop.data.retention.rules import RetainedKind, Retention
from everloop.data.retention.usage import usage
from everloop.serving.erasure.expiring import expire_segments
from everloop.workspace import work

RULE = "data.retention"
AGED = "data.aged"
"""Runs or traces went by a rule."""
_SOME = 500


class Retain(Command):
    """Set the rule for a kind, a glob of names and a tag; `off` removes it."""

    kind: RetainedKind
    name: str = "*"
    tag: str = ""
    versions: int = 1
    days: float = 0.0
    off: bool = False


class Rules(Answer):
    """The rules in force."""

    rules: list[dict[str, Any]]


class AskExpire(Command):
    """Apply the rules; a dry run only says what would go."""

    dry_run: bool = True


class Expired(Answer):
    """What goes, or went."""

    dry_run: bool
    versions: list[dict[str, Any]]
    bytes: int
    segments: int
    runs: list[str]
    traces: int


class AskUsage(Command):
    """Bytes that versions hold; of one asset when it is named: a dataset, or `kind/name`."""

    name: str = ""


class UsageView(Answer):
    """Figures of each version, the largest first."""

    versions: list[dict[str, Any]]


def _everything(_ctx: Context, _cmd: Any) -> Target:
    return Target("data", "*")


def rules_of(ctx: Context) -> list[Retention]:
    """The rules in force."""
    with ctx.read() as tx:
        said = redactions.rules(tx, ctx.project, RULE)
    return [Retention(**rule) for rule in said.values() if rule]


@operation("data.retain", needs="data.erase", on=_everything)
def retain(ctx: Context, cmd: Retain) -> Rules:
    """Set or remove a retention rule; the worker applies the rules daily."""
    rule = Retention(cmd.kind, cmd.name, cmd.tag, cmd.versions, cmd.days)
    with ctx.write() as tx:
        subject = f"{cmd.kind}/{cmd.name}#{cmd.tag}"
        facts.append(tx, ctx.project, ctx.fact(RULE, subject, {} if cmd.off else rule.manifest()))
    return Rules(rules=[found.manifest() for found in rules_of(ctx)])


@operation("data.expire", needs="data.erase", on=_everything)
def expire(ctx: Context, cmd: AskExpire) -> Expired:
    """Let go what no retention rule keeps, or say what would go; holds and pointers win over rules."""
    return apply_rules(ctx, dry_run=cmd.dry_run)


def apply_rules(ctx: Context, *, dry_run: bool) -> Expired:
    """The same, as the worker does it every day."""
    rules = rules_of(ctx)
    going = expiring.plan(ctx, rules) if dry_run else expiring.expire(ctx, rules)
    days = [rule.days for rule in rules if rule.kind == "predictions"]
    before = ctx.wall() - int(max(days) * DAY) if days else 0
    return Expired(
        dry_run=dry_run,
        versions=[{"id": one.id, "name": one.name, "number": one.number, "bytes": one.bytes} for one in going],
        bytes=sum(one.bytes for one in going),
        segments=expire_segments(ctx, before, dry_run=dry_run),
        runs=_runs(ctx, rules, dry_run=dry_run),
        traces=_traces(ctx, rules, dry_run=dry_run),
    )


def _runs(ctx: Context, rules: Sequence[Retention], *, dry_run: bool) -> list[str]:
    """The runs that no rule keeps: they are deleted, as a person deletes them, and come back within the grace."""
    kept: list[set[str]] = []
    with ctx.read() as tx:
        for rule, named in _experiments(ctx, tx, rules, "runs"):
            before = ctx.now() - int(rule.days * DAY)
            kept.append(set(aging.old_runs(tx, ctx.project, named, before, keep=rule.versions)))
    going = sorted(set().union(*kept)) if kept else []
    if going and not dry_run:
        with ctx.write() as tx:
            for run in going:
                runs.delete_run(tx, ctx.project, run, at=ctx.now())
            facts.append(tx, ctx.project, ctx.fact(AGED, "runs", {"runs": going}))
    return going


def _traces(ctx: Context, rules: Sequence[Retention], *, dry_run: bool) -> int:
    count = 0
    with ctx.read() as tx:
        found = [
            aging.old_traces(tx, ctx.project, named, ctx.now() - int(rule.days * DAY))
            for rule, named in _experiments(ctx, tx, rules, "traces")
        ]
    for experiment, ids in {e: ids for one in found for e, ids in one.items()}.items():
        count += len(ids)
        for start in range(0, 0 if dry_run else len(ids), _SOME):
            some = ids[start : start + _SOME]
            with ctx.write() as tx:
                traces.delete_some(tx, ctx.project, experiment, identities=some)
                facts.append(tx, ctx.project, ctx.fact(AGED, f"experiment/{experiment}", {"traces": len(some)}))
    return count


def _experiments(ctx: Context, tx: Any, rules: Sequence[Retention], kind: str) -> list[tuple[Retention, list[str]]]:
    """The rules of a kind that decide for some experiments: where several cover one, the one that keeps longest."""
    mine = sorted((rule for rule in rules if rule.kind == kind), key=lambda rule: (-rule.days, -rule.versions))
    chosen: dict[int, list[str]] = {}
    for identity, name in sorted(experiments.names(tx, ctx.project).items()) if mine else ():
        place = next((at for at, rule in enumerate(mine) if rule.names(name)), None)
        if place is not None:
            chosen.setdefault(place, []).append(identity)
    return [(mine[place], named) for place, named in chosen.items()]


class AskSweep(Command):
    """Remove bytes that nothing names any more; a dry run only says which."""

    dry_run: bool = True


class SweptView(Answer):
    """What a sweep removed, or would remove, over all projects of the workspace."""

    dry_run: bool
    removed: int
    """Objects that nothing names."""
    bytes: int
    kept: int
    leftovers: int
    """Half-written files of processes that died."""
    packs: int
    """Packs of files that are written again, for too much in them is wanted by no version."""
    freed: int
    """Bytes of files that are in no pack afterwards."""
    grace_days: float


@operation("data.sweep", needs="data.erase", on=_everything)
def sweep(ctx: Context, cmd: AskSweep) -> SweptView:
    """Remove bytes that nothing names any more and that nobody put within the grace; the worker does it daily."""
    found = work.sweeping.sweep_store(ctx, dry_run=cmd.dry_run)
    return SweptView(dry_run=cmd.dry_run, grace_days=work.sweeping.GRACE / DAY, **found)


@operation("data.usage", needs="read", on=_everything, reads=True)
def show_usage(ctx: Context, cmd: AskUsage) -> UsageView:
    """Bytes that each version holds alone and shares."""
    found = usage(ctx, cmd.name)
    fields = ("id", "label", "alone", "shared", "expired")
    return UsageView(versions=[{field: getattr(one, field) for field in fields} for one in found])
