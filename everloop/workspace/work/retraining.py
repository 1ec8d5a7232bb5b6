"""A fired rule at work: build in a sandbox of its own from production's code and today's data, open a change."""

from collections.abc import Mapping
from typing import Any

from everloop.catalog import facts, refs, versions
from everloop.catalog.context import Context
from everloop.catalog.governance import changes
from everloop.catalog.operation import invoke
from everloop.changes import proposing
from everloop.changes.ancestry import snapshot_of
from everloop.changes.proposing import Propose
from everloop.core.errors import Conflict, NotFound
from everloop.workspace.build import Built, Request, build, code_tree
from everloop.workspace.code import project_of
from everloop.workspace.work.executors import executor_of

PRODUCTION = "production"


def retrain(ctx: Context, payload: Mapping[str, Any], *, tracking_uri: str = "") -> dict[str, Any]:
    """Train `payload["model"]` again in `payload["environment"]` and propose the result to production.

    The code is that of production's snapshot; the data is what the sources hold now. Returns the change's number,
    or says that the model came out the same, which needs no change. Raises what building raises.
    """
    model, environment, reason = payload["model"], payload["environment"], payload["reason"]
    snapshot, module = live_code(ctx, model)
    project, origin = project_of(ctx, snapshot, module)
    code = code_tree(ctx, project, origin)
    executor = executor_of(ctx, project.assets(), code)
    request = Request(
        environment, (f"model/{model}",), base=PRODUCTION, message=f"Retrained: {reason}", tracking_uri=tracking_uri
    )
    try:
        built = build(ctx, project, origin, request, executor=executor, code=code)
    finally:
        executor.close()
    return _proposed(ctx, model, built, reason)


def live_code(ctx: Context, model: str) -> tuple[str, str]:
    """Production's snapshot, and the module whose function trained `model`; raises `NotFound`."""
    with ctx.read() as tx:
        snapshot = refs.get(tx, ctx.project, refs.env_ref(PRODUCTION))
        entries = snapshot_of(tx, ctx.project, snapshot).entries if snapshot else {}
        trainer = entries.get(f"trainer/{model}")
        if snapshot is None or trainer is None:
            raise NotFound(f"production holds no trainer of {model}", hint="merge a change that defines it first")
        function = versions.get(tx, ctx.project, trainer).manifest["function"]
    return snapshot, str(function).partition(":")[0]


def _proposed(ctx: Context, model: str, built: Built, reason: str) -> dict[str, Any]:
    made = built.results.outputs[f"model/{model}"]
    with ctx.read() as tx:  # the sandbox is this task's own: its change is there when an earlier attempt opened it
        before = changes.find(tx, ctx.project, source=built.environment, limit=1)
    if before:
        return {"model": made, "change": before[0].number, "reason": reason}
    command = Propose(
        source=built.environment,
        target=PRODUCTION,
        title=f"Retrain {model}",
        description=f"Opened by the retrain rule: {reason}.",
    )
    try:
        change = invoke(ctx, proposing.propose, command)
    except Conflict as error:  # nothing differs: the data had not changed
        with ctx.write() as tx:
            facts.append(tx, ctx.project, ctx.fact("retrain.unchanged", model, {"reason": error.message}))
        return {"model": made, "change": None, "reason": error.message}
    return {"model": made, "change": change.number, "reason": reason}
