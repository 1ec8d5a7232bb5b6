"""The run: definitions, data contracts, tests, a build in a sandbox, the checks of the target; then the change."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from everloop.catalog import refs
from everloop.catalog.context import Context
from everloop.catalog.governance import changes as rows
from everloop.catalog.operation import invoke
from everloop.changes import environments, proposing
from everloop.changes.environments import CreateSandbox
from everloop.changes.policies import checked_environment, effective_policy, is_sandbox
from everloop.changes.proposing import Numbered, Propose
from everloop.changes.standing import Standing
from everloop.core.errors import Conflict, EverloopError, InvalidInput, PermissionDenied
from everloop.core.ports import Executor
from everloop.core.settings import Settings
from everloop.flows.engine import Origin
from everloop.flows.identity import Tree
from everloop.project import Project
from everloop.project.loading import load_project
from everloop.workspace.build import Request, build, code_of, code_tree
from everloop.workspace.ci import contracts, examining, suite
from everloop.workspace.ci.differences import Differences, differences
from everloop.workspace.ci.findings import Case, Report, Stage, skipped
from everloop.workspace.definitions import definition_versions
from everloop.workspace.work.executors import executor_of

DEFINITIONS, BUILD = "definitions", "build"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a CI run is asked."""

    root: Path
    """The project's folder."""
    module: str
    sandbox: str
    target: str = "production"
    propose: bool = False
    """Whether to open the change, or update the open one, when everything is green."""
    title: str = ""
    tracking_uri: str = ""
    cluster: str = ""
    """A Ray cluster for the steps, `host:port` of its head; empty: that of `EVERLOOP_FLOWS_RAY`, or this machine."""


def run_ci(ctx: Context, settings: Settings, wanted: Wanted, say: Callable[[str], None] = lambda _text: None) -> Report:
    """Run everything and say what was found; a stage that fails stops those that need it, and no other.

    The sandbox is reset to what the target holds, so that the report says what *this* code would change. Raises
    `InvalidInput` and `NotFound` for a wrong target or sandbox, before anything is done, and `PermissionDenied`; what
    the project does wrong is in the report.
    """
    _check_places(ctx, wanted)
    ctx = replace(ctx, bindings={**ctx.bindings, "files": str(wanted.root)})
    say("loading definitions")
    definitions, project = _definitions(wanted)
    report = Report(project.name if project else "", wanted.target, wanted.sandbox, (definitions,))
    if project is None:
        return report
    origin = Origin(wanted.root, wanted.module, project.name)
    code = code_tree(ctx, project, origin)
    executor = executor_of(ctx, project.assets(), code, wanted.cluster)
    try:
        say("data contracts")
        held = contracts.check_contracts(ctx, project, origin, executor)
        say("the project's tests")
        tested = suite.run_tests(wanted.root)
        say("build")
        built, snapshot = _not_reached(BUILD), ""
        if held.green:
            built, snapshot = _built(ctx, project, origin, wanted, executor=executor, code=code)
    finally:
        executor.close()
    report = replace(report, stages=(definitions, held, tested, built), snapshot=snapshot)
    if not snapshot:
        return replace(report, stages=(*report.stages, _not_reached(examining.NAME)))
    say("checks")
    checked, found = _checked(ctx, settings, wanted)
    report = replace(report, stages=(*report.stages, checked), differences=found)
    if wanted.propose and report.green and found.definitions:
        report = replace(report, change=_propose(ctx, project, origin, wanted, snapshot))
    return report


def _check_places(ctx: Context, wanted: Wanted) -> None:
    if is_sandbox(checked_environment(wanted.target)):
        raise InvalidInput(f"{wanted.target} is a sandbox", hint="--target production, or staging")
    if not is_sandbox(checked_environment(wanted.sandbox)):
        raise InvalidInput(f"{wanted.sandbox} is no sandbox", hint="--sandbox sandbox/ci/main")
    with ctx.read() as tx:
        effective_policy(tx, ctx.project, wanted.target)


def _definitions(wanted: Wanted) -> tuple[Stage, Project | None]:
    began = time.monotonic()
    try:
        project = load_project(wanted.root, wanted.module)
        made = definition_versions(project, code_of(Origin(wanted.root, wanted.module, project.name)))
    except EverloopError as error:
        return Stage(DEFINITIONS, (Case("load and wire", "failed", error.message, error.hint),)), None
    said = f"{len(made)} definitions, {len(project.trainers)} models"
    seconds = time.monotonic() - began
    return Stage(DEFINITIONS, (Case("load and wire", "passed", said, seconds=seconds),), seconds), project


def _built(
    ctx: Context, project: Project, origin: Origin, wanted: Wanted, *, executor: Executor, code: Tree
) -> tuple[Stage, str]:
    began = time.monotonic()
    with ctx.read() as tx:
        there = refs.get(tx, ctx.project, refs.env_ref(wanted.sandbox)) is not None
    try:
        if there:
            invoke(ctx, environments.reset, CreateSandbox(environment=wanted.sandbox, base=wanted.target))
        request = Request(wanted.sandbox, base=wanted.target, message="CI build", tracking_uri=wanted.tracking_uri)
        made = build(ctx, project, origin, request, executor=executor, code=code)
    except PermissionDenied:  # no fault of the project's
        raise
    except EverloopError as error:
        trace = str(error.details.get("traceback", ""))
        return Stage(BUILD, (Case("build", "failed", error.message, error.hint, trace),), time.monotonic() - began), ""
    cases = [Case(d.step, "passed", "reused" if d.reused else "made", seconds=d.seconds) for d in made.results.steps]
    return Stage(BUILD, tuple(cases) or (Case("build", "passed"),), time.monotonic() - began), made.snapshot


def _checked(ctx: Context, settings: Settings, wanted: Wanted) -> tuple[Stage, Differences]:
    try:
        standing: Standing | None = proposing.preview(ctx, _proposal(wanted, "preview"))
    except Conflict as error:  # the target holds all of it already
        standing, why = None, error.message
    found = differences(ctx, standing.delta if standing else {}, wanted.sandbox, wanted.target)
    if standing is None:
        return skipped(examining.NAME, why), found
    return examining.run_checks(ctx, settings, standing), found


def _propose(ctx: Context, project: Project, origin: Origin, wanted: Wanted, snapshot: str) -> int:
    with ctx.read() as tx:
        opened = rows.find(tx, ctx.project, state="open", target=wanted.target, limit=1000)
    own = next((change for change in opened if change.source == wanted.sandbox), None)
    if own is None:
        commit = code_tree(ctx, project, origin).commit[:12]
        title = wanted.title or (f"{project.name} at {commit}" if commit else f"{project.name} from {wanted.sandbox}")
        return invoke(ctx, proposing.propose, _proposal(wanted, title)).number
    if own.head != snapshot:
        invoke(ctx, proposing.update, Numbered(number=own.number))
    return own.number


def _proposal(wanted: Wanted, title: str) -> Propose:
    return Propose(source=wanted.sandbox, target=wanted.target, title=title, description="Opened by everloop ci.")


def _not_reached(stage: str) -> Stage:
    return skipped(stage, "not reached: see what failed before")
