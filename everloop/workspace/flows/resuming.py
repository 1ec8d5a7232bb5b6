"""Going on with a run in another process: after an approval, after its process died, or because somebody asked."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from everloop.catalog import versions
from everloop.catalog.context import Context
from everloop.catalog.making import flows
from everloop.catalog.making.flows import Flow
from everloop.core.errors import Conflict, InvalidInput, Unavailable
from everloop.core.ids import short
from everloop.flows.engine import Origin, owner
from everloop.flows.running.operations import is_lost
from everloop.project.loading import load_project
from everloop.workspace.build import Built, Request, build, code_tree
from everloop.workspace.code import written
from everloop.workspace.work.executors import executor_of


def resume(ctx: Context, identity: str, *, tracking_uri: str = "") -> Built:
    """Take a run over and go on with it, with the code that it began with; what it committed is reused.

    Raises `Conflict` when its process still lives or it was cancelled, `InvalidInput` for one that cannot be gone on
    with elsewhere, and what building raises.
    """
    with ctx.read() as tx:
        flow = flows.get(tx, ctx.project, identity)
    if not flow.request:
        raise InvalidInput(f"the run {identity} cannot be gone on with from here", hint="ask whoever started it")
    if flow.state == "running" and not is_lost(ctx, flow):
        raise Conflict(f"the run {identity} is being worked on by {flow.owner}", hint="wait, or cancel it")
    with ctx.write() as tx:
        taken = flows.take_over(tx, ctx.project, flow, owner=owner(), now=ctx.wall())
    return _go_on(ctx, taken, tracking_uri)


def perform(ctx: Context, payload: Mapping[str, Any], *, tracking_uri: str = "") -> dict[str, Any]:
    """The task that goes on with a run. A live driver has it come again.

    Nothing to do for one that has ended, unless somebody wanted it to go on `again` from just there (its token).
    """
    with ctx.read() as tx:
        flow = flows.get(tx, ctx.project, str(payload["flow"]))
    if flow.state not in flows.OPEN and payload.get("again") != flow.token:
        return {"flow": flow.id, "state": flow.state}
    try:
        built = resume(ctx, flow.id, tracking_uri=tracking_uri)
    except Conflict as error:
        raise Unavailable(error.message, hint=error.hint) from error
    return {"flow": flow.id, "snapshot": built.snapshot, "parked": list(built.results.parked)}


def _go_on(ctx: Context, flow: Flow, tracking_uri: str) -> Built:
    asked = dict(flow.request)
    module, code = str(asked.pop("module")), str(asked.pop("code"))
    asked.pop("commit", "")
    with ctx.read() as tx:
        row = versions.get(tx, ctx.project, code)
    folder = written(ctx, row.manifest, ctx.home / "code" / short(code))
    origin = Origin(folder, module, row.name)
    project = load_project(folder, module)
    request = replace(Request(**asked | {"targets": tuple(asked["targets"])}), tracking_uri=tracking_uri, flow=flow)
    tree = code_tree(ctx, project, origin)
    executor = executor_of(ctx, project.assets(), tree)
    try:
        return build(ctx, project, origin, request, executor=executor, code=tree)
    finally:
        executor.close()
