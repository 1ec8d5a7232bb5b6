"""Seals of runs as operations: an immutable version of what a run held, for those who must cite it."""

from typing import Any

from pydantic import Field

from everloop.catalog import facts, versions
from everloop.catalog.context import Context
from everloop.catalog.keeping import seals
from everloop.catalog.operation import Answer, operation
from everloop.catalog.tracking import runs
from everloop.catalog.versions import VersionRow
from everloop.core.grants import Target
from everloop.models.runs import RunNamed


class SealView(Answer):
    """A seal of a run: a version whose manifest holds all that the run held."""

    run: str
    id: str
    number: int
    at: int
    actor: str
    status: str
    changed: tuple[str, ...] = ()
    """Parts of the run that are different now: `tags`, `params`, `series`, `files`, …"""
    manifest: dict[str, Any] = Field(default_factory=dict)
    """Whole, where one was made; empty in lists."""


class SealList(Answer):
    """Seals of a run, newest first."""

    seals: tuple[SealView, ...]


def _on(_ctx: Context, cmd: RunNamed) -> Target:
    return Target("run", cmd.run)


@operation("runs.seal", needs="run.write", on=_on)
def seal_run(ctx: Context, cmd: RunNamed) -> SealView:
    """Keep what a run holds now as an immutable version; a run that did not change has the same seal again."""
    made = seals.seal(ctx.catalog, ctx.project, cmd.run, actor=ctx.actor.name, at=ctx.now())
    with ctx.write() as tx:
        if made.new:
            payload = {"seal": made.id, "number": made.number}
            facts.append(tx, ctx.project, ctx.fact("run.sealed", f"run/{cmd.run}", payload))
        row = versions.find(tx, ctx.project, f"run/{made.name}@{made.number}")
    return _view(row, ()).model_copy(update={"manifest": dict(row.manifest)})


@operation("runs.seals", needs="read", on=_on, reads=True)
def list_seals(ctx: Context, cmd: RunNamed) -> SealList:
    """The seals of a run, each with what of the run changed since."""
    with ctx.read() as tx:
        found = seals.of_run(tx, ctx.project, cmd.run)
        now = seals.outline(tx, ctx.project, runs.get(tx, ctx.project, cmd.run)) if found else {}
    return SealList(seals=tuple(_view(row, tuple(seals.changed(row.manifest, now))) for row in found))


def _view(row: VersionRow, changed: tuple[str, ...]) -> SealView:
    return SealView(
        run=str(row.manifest["run"]),
        id=row.id,
        number=row.number,
        at=row.at,
        actor=row.actor,
        status=str(row.manifest["status"]),
        changed=changed,
    )
