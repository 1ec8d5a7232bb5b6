"""Recording what a check found: its evidence version, and the result that changes ask for."""

import json
from collections.abc import Callable, Mapping
from typing import Any, Literal

from pydantic import Field

from everloop.catalog import facts, versions
from everloop.catalog.context import Context
from everloop.catalog.governance import results
from everloop.catalog.keeping import seals
from everloop.catalog.operation import Answer, Command, invoke, operation
from everloop.checks.execute import Resolve, execute
from everloop.checks.request import CheckRequest, Finding
from everloop.core.errors import InvalidInput
from everloop.core.grants import Target
from everloop.core.version import Version

_JUDGES = ("check", "source", "dataset")
"""What a result may be of: a check, or the contract in the definition of a dataset."""


class RecordResult(Command):
    """What a check found for a delta."""

    environment: str
    delta_id: str
    name: str
    check_id: str
    objective_id: str = ""
    subjects: dict[str, str] = Field(default_factory=dict)
    heads: dict[str, str] = Field(default_factory=dict)
    state: Literal["passed", "failed", "error"]
    summary: str
    figures: dict[str, str] = Field(default_factory=dict)
    report: str = ""
    """Object with the whole report, as JSON."""


class ResultView(Answer):
    """A recorded result."""

    name: str
    state: Literal["passed", "failed", "error"]
    summary: str
    figures: dict[str, str]
    evidence: str
    check_id: str
    actor: str
    at: int


def evidence(cmd: RecordResult, known: frozenset[str], runs: Mapping[str, str] | None = None) -> Version:
    """The evidence version: what was checked, on what, with which outcome.

    It holds no time and no name of who ran it: the same check on the same versions that finds the same is the same
    evidence, so that running it again leaves approvals alive. `known` says which ids are versions; those are edges.
    So are `runs`, {model version: seal of the run that made it}: lineage only, because a run that was tagged since is
    no other finding.
    """
    manifest: dict[str, Any] = {
        "check": cmd.check_id,
        "objective": cmd.objective_id,
        "environment": cmd.environment,
        "delta": cmd.delta_id,
        "subjects": cmd.subjects,
        "heads": cmd.heads,
        "state": cmd.state,
        "summary": cmd.summary,
        "figures": cmd.figures,
        "report": cmd.report,
    }
    roles = {"check": cmd.check_id, "objective": cmd.objective_id}
    roles |= {f"subject:{name}": identity for name, identity in cmd.subjects.items()}
    roles |= {f"data:{name}": identity for name, identity in cmd.heads.items()}
    inputs = tuple((role, identity) for role, identity in sorted(roles.items()) if identity in known)
    inputs += tuple((f"run:{name}", runs[one]) for name, one in sorted(cmd.subjects.items()) if runs and one in runs)
    return Version("evidence", cmd.name, manifest, inputs)


def _target(_ctx: Context, cmd: RecordResult) -> Target:
    return Target("check", cmd.name, cmd.environment)


@operation("checks.record", needs="check.record", on=_target)
def record(ctx: Context, cmd: RecordResult) -> ResultView:
    """Record what a check found, with its evidence. Only workers may: whoever could write evidence could forge it."""
    pinned = {cmd.check_id, cmd.objective_id, *cmd.subjects.values(), *cmd.heads.values()} - {""}
    with ctx.read() as tx:
        manifests = versions.manifests(tx, ctx.project, pinned)
    for identity, kinds in ((cmd.check_id, _JUDGES), (cmd.objective_id, ("objective",))):
        if identity and manifests.get(identity, {}).get("kind") not in kinds:
            raise InvalidInput(
                f"{identity} is no {kinds[0]} of this project", hint="record the result of a known check"
            )
    models = [one for one in cmd.subjects.values() if manifests.get(one, {}).get("kind") == "model"]
    cited = seals.cited(ctx.catalog, ctx.project, models, actor=ctx.actor.name, at=ctx.now())
    version = evidence(cmd, frozenset(manifests), cited)
    row = results.Result(
        cmd.check_id, cmd.objective_id, cmd.name, cmd.delta_id, cmd.environment, cmd.subjects, cmd.heads, version.id,
        cmd.state, cmd.summary, ctx.actor.name, ctx.now(), cmd.figures,
    )  # fmt: skip
    with ctx.write() as tx:
        versions.put(tx, ctx.project, version, actor=ctx.actor.name, at=row.at)
        results.record(tx, ctx.project, row)
        payload = {"state": cmd.state, "delta": cmd.delta_id, "evidence": version.id, "summary": cmd.summary}
        facts.append(tx, ctx.project, ctx.fact("check.finished", cmd.name, payload))
    return view(row)


def view(row: results.Result) -> ResultView:
    """A result as operations answer it."""
    return ResultView(
        name=row.name,
        state=row.state,
        summary=row.summary,
        figures=dict(row.figures),
        evidence=row.evidence,
        check_id=row.check_id,
        actor=row.actor,
        at=row.at,
    )


def record_finding(ctx: Context, request: CheckRequest, finding: Finding) -> ResultView:
    """Store the report as an object and record the finding through the operation, so with permission and audit."""
    report = {**finding.report, "hint": finding.hint} if finding.hint else finding.report
    stored = ctx.store.put(json.dumps(report, sort_keys=True, separators=(",", ":")).encode())
    cmd = RecordResult(
        environment=request.environment,
        delta_id=request.delta_id,
        name=request.name,
        check_id=request.check_id,
        objective_id=request.objective_id,
        subjects=dict(request.subjects),
        heads=dict(request.heads),
        state=finding.state,
        summary=finding.summary,
        figures=dict(finding.figures),
        report=stored,
    )
    return invoke(ctx, record, cmd)


def run_check(ctx: Context, request: CheckRequest, function: Callable[..., Any], resolve: Resolve) -> ResultView:
    """Execute here and record: for workers, which accept user code in the process of a task."""
    return record_finding(ctx, request, execute(request, function, resolve))
