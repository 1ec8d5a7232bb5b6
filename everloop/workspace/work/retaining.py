"""The operations of retention: rules, what they would let go, and the bytes that versions hold."""

from typing import Any

from everloop.catalog import facts
from everloop.catalog.context import Context
from everloop.catalog.governance import redactions
from everloop.catalog.operation import Answer, Command, operation
from everloop.core.clock import DAY
from everloop.core.grants import Target
from everloop.data.retention import expiring
from everloop.data.retention.rules import RetainedKind, Retention
from everloop.data.retention.usage import usage
from everloop.serving.erasure.expiring import expire_segments

RULE = "data.retention"


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


class AskUsage(Command):
    """Bytes that versions hold; of one dataset when it is named."""

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
    )


@operation("data.usage", needs="read", on=_everything, reads=True)
def show_usage(ctx: Context, cmd: AskUsage) -> UsageView:
    """Bytes that each version holds alone and shares."""
    found = usage(ctx, cmd.name)
    fields = ("id", "label", "alone", "shared", "expired")
    return UsageView(versions=[{field: getattr(one, field) for field in fields} for one in found])
