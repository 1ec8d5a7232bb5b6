"""Data heads: the newest version of a dataset in an environment, moved by a standing grant when its contract holds."""

from collections.abc import Sequence

from everloop import data
from everloop.catalog import facts, refs
from everloop.catalog.context import Context
from everloop.core.errors import PolicyRefused
from everloop.core.grants import SANDBOX
from everloop.core.ids import short
from everloop.data.expect import Expectation, ExpectationResult

PARENT = "production"
"""Whose heads a sandbox reads where it has none of its own, unless it was made from another environment."""


def head(ctx: Context, environment: str, dataset: str, *, parent: str = PARENT) -> str | None:
    """The id of the newest version of `dataset` there. A sandbox without a head of its own reads its parent's."""
    with ctx.read() as tx:
        own = refs.get(tx, ctx.project, refs.head_ref(environment, dataset))
        if own is None and environment.startswith(SANDBOX):
            own = refs.get(tx, ctx.project, refs.head_ref(parent, dataset))
    return own


def advance_head(
    ctx: Context, environment: str, dataset: str, version: str, expectations: Sequence[Expectation] = ()
) -> tuple[ExpectationResult, ...]:
    """Check a version's expectations and move the environment's head to it by compare-and-swap.

    The results are recorded as a fact either way. Raises `PolicyRefused` when a blocking expectation fails (the
    version stays, for inspection), and `Conflict` when somebody else moved the head meanwhile.
    """
    name = refs.head_ref(environment, dataset)
    with ctx.read() as tx:
        old = refs.get(tx, ctx.project, name)
    manifest = data.manifest_of(ctx, version)
    results = data.check_expectations(
        data.paths_of(ctx, manifest), expectations, tags=manifest["tags"], key=manifest["key"], now=ctx.now()
    )
    blocking = [result for result in results if result.blocks]
    if old == version and not blocking:
        return results
    payload = {
        "environment": environment,
        "version": version,
        "old": old,
        "moved": not blocking,
        "results": [result.payload() for result in results],
    }
    with ctx.write() as tx:
        facts.append(tx, ctx.project, ctx.fact("data.checked", f"data/{dataset}", payload))
        if not blocking:
            refs.move(
                tx,
                ctx.project,
                name,
                old=old,
                new=version,
                actor=ctx.actor.name,
                at=ctx.now(),
                reason="blocking expectations hold",
            )
    if blocking:
        raise PolicyRefused(
            f"data/{dataset} stays where it is in {environment}: {_told(blocking)}",
            hint=f"the version is kept for inspection: everloop data show {short(version)}",
            version=version,
            results=[result.payload() for result in results],
        )
    return results


def _told(blocking: Sequence[ExpectationResult]) -> str:
    return "; ".join(f"{result.expectation} fails ({result.observed})" for result in blocking)
