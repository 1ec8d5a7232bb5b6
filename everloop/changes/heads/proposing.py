"""Proposing data: versions that are there already, for heads that move by review."""

from pydantic import Field

from everloop.catalog.context import Context
from everloop.catalog.operation import Command, operation
from everloop.changes.heads.contracts import PREFIX, heads_among
from everloop.changes.policies import checked_environment, effective_policy, head_of, is_sandbox
from everloop.changes.proposing import open_new, proposal_of
from everloop.changes.views import ChangeView
from everloop.core.errors import Conflict, InvalidInput
from everloop.core.grants import Target
from everloop.core.snapshot import Delta
from everloop.data.heads import find_version


class ProposeData(Command):
    """Offer data versions to a protected environment, as its next heads."""

    versions: list[str] = Field(min_length=1)
    """Ids, or `name@7`; one for each dataset."""
    target: str
    title: str = Field("", max_length=200)
    description: str = ""
    enqueue: bool = True
    """Whether tasks are made for the checks that it needs."""


def _on(_ctx: Context, cmd: ProposeData) -> Target:
    return Target("change", "new", cmd.target)


@operation("changes.propose_data", needs="change.propose", on=_on)
def propose_data(ctx: Context, cmd: ProposeData) -> ChangeView:
    """Open a change that moves data heads; their contracts, and the checks that read these datasets, are its checks.

    Authors are who proposes and who made the versions. Raises `NotFound`, `InvalidInput`, `Conflict` when a head is
    there already.
    """
    if is_sandbox(checked_environment(cmd.target)):
        raise InvalidInput(f"{cmd.target} needs no change", hint="its heads move by capture and build")
    found = [find_version(ctx, spec) for spec in cmd.versions]
    names = [row.name for row in found]
    strange = next((row for row in found if row.kind != "data"), None)
    if strange is not None:
        raise InvalidInput(f"{strange.kind}/{strange.name} is no data", hint="name data versions, as flights@7")
    if len(set(names)) < len(names):
        raise InvalidInput("two versions of one dataset cannot both be its head", hint="name one version of each")
    for row in found:
        ctx.need("read", Target("data", row.name))
    with ctx.read() as tx:
        effective_policy(tx, ctx.project, cmd.target)
        base = head_of(tx, ctx.project, cmd.target)
        now = heads_among(tx, ctx.project, cmd.target, [PREFIX + name for name in names])
    wanted = {PREFIX + row.name: row.id for row in found}
    delta: Delta = {key: (now.get(key), new) for key, new in sorted(wanted.items()) if now.get(key) != new}
    if not delta:
        raise Conflict(f"{cmd.target} has these heads already", hint="nothing is left to change")
    title = cmd.title or ", ".join(f"{row.name} v{row.number}" for row in found)[:190]
    change = proposal_of(
        ctx,
        title=title,
        description=cmd.description,
        target=cmd.target,
        base=base,
        head=base,
        delta=delta,
        authors={ctx.actor.name, *(row.actor for row in found)},
    )
    return open_new(ctx, change, enqueue=cmd.enqueue)
