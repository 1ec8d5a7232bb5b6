"""Judging a proposed data version by its contract: for workers, which record what it finds as evidence."""

from typing import Any

from everloop import data
from everloop.catalog import refs, versions
from everloop.catalog.context import Context
from everloop.checks.request import CheckRequest, Finding
from everloop.core.errors import EverloopError
from everloop.data.definitions import Contract


def judge_contract(ctx: Context, request: CheckRequest) -> Finding:
    """Count every expectation of the definition `request.check_id` over the data version that is proposed.

    Blocking ones decide; the report holds all of them, with failing rows (masked where tagged).
    """
    ((dataset, identity),) = request.heads.items()
    try:
        with ctx.read() as tx:
            contract = Contract.from_manifest(versions.get(tx, ctx.project, request.check_id).manifest)
            old = refs.get(tx, ctx.project, refs.head_ref(request.environment, dataset))
        results = data.check_version(
            ctx,
            identity,
            contract.expect,
            environment=request.environment,
            previous=old if old != identity else None,
            tags=contract.tags,
        )
    except EverloopError as error:
        return Finding("error", error.message, hint=error.hint, report={"error": error.problem()})
    blocking = [r for r in results if r.blocks]
    warned = [r for r in results if not r.passed and not r.blocks]
    report: dict[str, Any] = {"dataset": dataset, "results": [r.payload() for r in results]}
    figures = {"expectations": str(len(results)), "blocking": str(len(blocking)), "warnings": str(len(warned))}
    if blocking:
        told = "; ".join(f"{r.expectation} fails ({r.observed})" for r in blocking)
        return Finding("failed", told, figures, report)
    told = "".join(f"; warns: {r.expectation} ({r.observed})" for r in warned)
    return Finding("passed", f"{len(results) - len(warned)} of {len(results)} expectations hold{told}", figures, report)
