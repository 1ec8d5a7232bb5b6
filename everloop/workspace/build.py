"""Build: capture what is needed, make what is asked, and put the result on a sandbox as one snapshot."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from everloop.catalog import refs, versions
from everloop.catalog.context import Context
from everloop.catalog.engine import Tx
from everloop.catalog.governance import annotations
from everloop.catalog.governance.annotations import Annotation
from everloop.catalog.making.flows import Flow
from everloop.catalog.operation import invoke
from everloop.changes import environments
from everloop.changes.environments import Commit, CreateSandbox
from everloop.core.errors import InvalidInput
from everloop.core.grants import SANDBOX
from everloop.core.ports import Executor
from everloop.data.capturing import Captured, capture
from everloop.data.definitions import DatasetDef, Files, Folder, SourceDef
from everloop.data.expect import ExpectationResult
from everloop.data.heads import advance_head
from everloop.flows.assets import Asset, plan
from everloop.flows.engine import Options, Origin, Progress, Results, run
from everloop.flows.identity import Tree, closure_hash, project_tree
from everloop.flows.observation.observed import Said
from everloop.project import Project
from everloop.project.described import Described, said_of
from everloop.workspace.codecs import CODECS
from everloop.workspace.definitions import definition_versions
from everloop.workspace.flows.computing import check_endpoints, profiles_for
from everloop.workspace.runs import TrackedRuns


@dataclass(frozen=True, slots=True)
class Request:
    """What to build, and how."""

    environment: str
    targets: tuple[str, ...] = ()
    """Assets by key or name; empty means every model of the project."""
    base: str = "production"
    """What a new sandbox starts from."""
    params: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    cached: bool = True
    message: str = ""
    tracking_uri: str = ""
    workers: int = 2
    given: Mapping[str, str] = field(default_factory=dict)
    """Versions of sources that are not captured anew: a run that goes on stays with what it began with."""
    flow: Flow | None = None
    """A run to go on with, which this process took over; None: a new one."""


@dataclass(frozen=True, slots=True)
class Built:
    """What a build made."""

    environment: str
    snapshot: str
    captured: Mapping[str, Captured]
    results: Results
    contracts: Mapping[str, tuple[ExpectationResult, ...]]


def build(
    ctx: Context,
    project: Project,
    origin: Origin,
    request: Request,
    *,
    executor: Executor,
    code: Tree | None = None,
    progress: Progress | None = None,
    say: Callable[[str], None] = lambda _text: None,
    said: Said | None = None,
) -> Built:
    """Build the targets into the sandbox of `request`, creating it when it is new.

    Raises `InvalidInput` for an environment that is no sandbox (protected ones move by changes only),
    `PolicyRefused` when a blocking expectation fails, and what compute profiles, capturing and steps raise. What was
    made before an error stays in the cache; the sandbox moves only when everything is there. `said` shows what steps
    print. `code` are the project's files where they were read already, as an executor on a cluster needs them.
    """
    if not request.environment.startswith(SANDBOX):
        raise InvalidInput(
            f"{request.environment} is protected", hint="build into a sandbox, such as sandbox/ada/tuning, then propose"
        )
    check_endpoints(ctx, project.endpoints.values(), project.profiles, request.environment)
    _ensure_sandbox(ctx, request)
    assets = project.assets()
    steps = plan(assets, request.targets or [f"model/{name}" for name in project.trainers] or list(assets))
    captured = _capture(ctx, project, origin, steps, request, say=say)
    given = {**request.given, **{f"data/{name}": made.id for name, made in captured.items()}}
    code = code or code_tree(ctx, project, origin)
    with ctx.write() as tx:  # a build of sources has no step that would record it
        versions.put(tx, ctx.project, code.version, actor=ctx.actor.name, at=ctx.now())
    sink = TrackedRuns(ctx, request.tracking_uri, code)
    results = run(
        ctx,
        steps,
        origin=origin,
        executor=executor,
        codecs=CODECS,
        runs=sink,
        options=Options(
            given=given,
            params=request.params,
            cached=request.cached,
            workers=request.workers,
            environ=sink.environ,
            code=code.version,
            flow=request.flow,
            environment=request.environment,
            profiles=profiles_for(ctx, project.profiles),
            request=to_json(replace(request, given=given), origin, code),
        ),
        progress=progress,
        said=said,
    )
    if results.parked:  # the sandbox moves when everything is there
        return Built(request.environment, "", captured, results, {})
    contracts = _advance(ctx, project, results, request.environment)
    snapshot = _commit(ctx, project, origin, results, request)
    return Built(request.environment, snapshot, captured, results, contracts)


def to_json(request: Request, origin: Origin, code: Tree) -> dict[str, Any]:
    """What another process needs to go on with a build."""
    return {
        "environment": request.environment,
        "targets": list(request.targets),
        "base": request.base,
        "params": {key: dict(values) for key, values in request.params.items()},
        "cached": request.cached,
        "message": request.message,
        "given": dict(request.given),
        "module": origin.module,
        "code": code.version.id,
        "commit": code.commit,
    }


def refresh(
    ctx: Context,
    project: Project,
    origin: Origin,
    environment: str,
    *,
    executor: Executor,
    code: Tree | None = None,
    progress: Progress | None = None,
) -> dict[str, tuple[str, tuple[ExpectationResult, ...]]]:
    """Bring an environment's data up to date: capture every source, make every dataset, move the heads.

    This is the standing grant at work: heads move when blocking expectations pass, also in protected
    environments. Returns {dataset: (version id, results)}.
    """
    assets = project.assets()
    targets = [key for key, asset in assets.items() if asset.kind == "data"]
    steps = plan(assets, targets)
    captured = _capture(ctx, project, origin, steps, Request(environment), say=lambda _text: None)
    given = {f"data/{name}": made.id for name, made in captured.items()}
    results = run(
        ctx,
        steps,
        origin=origin,
        executor=executor,
        codecs=CODECS,
        options=Options(
            given=given,
            workers=2,
            code=(code or code_tree(ctx, project, origin)).version,
            title="data of " + environment,
            environment=environment,
            profiles=profiles_for(ctx, project.profiles),
        ),
        progress=progress,
    )
    contracts = _advance(ctx, project, results, environment)
    found = {name: (made.id, made.results) for name, made in captured.items()}
    return found | {name: (results.outputs[f"data/{name}"], checked) for name, checked in contracts.items()}


def code_of(origin: Origin) -> Callable[[Callable[..., Any]], str]:
    """The closure hash of a function of the project at `origin`."""
    return lambda function: closure_hash(function, origin.root).hash


def code_tree(ctx: Context, project: Project, origin: Origin) -> Tree:
    """The project's files without those that its sources read."""
    return project_tree(origin.root, ctx.store, origin.name, data_files(project))


def data_files(project: Project) -> list[str]:
    """Globs of the files that the sources of a project read: they are versioned as data, and are no code."""
    tables = project.tables.values()
    origins = [t.origin for t in tables if isinstance(t, SourceDef)]
    patterns = [one.pattern for one in origins if isinstance(one, Files)]
    return patterns + [pattern for one in origins if isinstance(one, Folder) for pattern in one.globs()]


def _ensure_sandbox(ctx: Context, request: Request) -> None:
    with ctx.read() as tx:
        there = refs.get(tx, ctx.project, refs.env_ref(request.environment)) is not None
    if not there:
        command = CreateSandbox(environment=request.environment, base=request.base)
        invoke(ctx, environments.create_sandbox, command)


def _capture(
    ctx: Context,
    project: Project,
    origin: Origin,
    steps: Sequence[Asset],
    request: Request,
    *,
    say: Callable[[str], None],
) -> dict[str, Captured]:
    made: dict[str, Captured] = {}
    for asset in steps:
        table = project.tables.get(asset.name) if asset.kind == "data" else None
        if isinstance(table, SourceDef) and asset.key not in request.given:
            say(f"capturing {table.name}")
            made[table.name] = capture(ctx, table, request.environment, root=_files_root(ctx, origin))
    return made


def _files_root(ctx: Context, origin: Origin) -> Any:
    bound = ctx.bindings.get("files")
    return origin.root if bound is None else type(origin.root)(bound)


def _advance(
    ctx: Context, project: Project, results: Results, environment: str
) -> dict[str, tuple[ExpectationResult, ...]]:
    checked: dict[str, tuple[ExpectationResult, ...]] = {}
    for key, identity in results.outputs.items():
        table = project.tables.get(key.removeprefix("data/"))
        if isinstance(table, DatasetDef):
            checked[table.name] = advance_head(ctx, environment, table.name, identity, table.contract.expect)
    return checked


def _commit(ctx: Context, project: Project, origin: Origin, results: Results, request: Request) -> str:
    made = definition_versions(project, code_of(origin))
    with ctx.write() as tx:
        versions.put_many(tx, ctx.project, made.values(), actor=ctx.actor.name, at=ctx.now())
        for key in made:
            _describe(ctx, tx, key, said_of(project.made.get(key), project.described.get(key, Described())))
    with ctx.read() as tx:
        head = refs.get(tx, ctx.project, refs.env_ref(request.environment))
        held = environments.view(tx, ctx.project, request.environment).entries if head else {}
    entries: dict[str, str | None] = {key: None for key in held if _owned(key) and key not in made}
    entries |= {key: version.id for key, version in made.items()}
    entries |= {key: identity for key, identity in results.outputs.items() if key.startswith("model/")}
    entries[f"code/{origin.name}"] = results.code
    message = request.message or f"Build of {', '.join(request.targets) or 'all models'}"
    done = invoke(ctx, environments.commit, Commit(environment=request.environment, entries=entries, message=message))
    return done.snapshot


def _describe(ctx: Context, tx: Tx, key: str, said: Described) -> None:
    """What the code says of a definition, in the place of what it said before; data stands for its definition."""
    kind, _, name = key.partition("/")
    place = {"source": "data", "dataset": "data", "trainer": "model"}.get(kind, kind)
    words = [
        Annotation(place, name, part, word, value, "code", ctx.actor.name, ctx.now())
        for part, word, value in said.words
    ]
    annotations.replace_code(tx, ctx.project, place, name, words)


def _owned(key: str) -> bool:
    """Definitions that the project's file owns: one that it no longer holds leaves the snapshot."""
    kind = key.partition("/")[0]
    return kind in {
        "source",
        "dataset",
        "view",
        "service",
        "trainer",
        "objective",
        "check",
        "endpoint",
        "monitor",
        "retrain",
        "compute",
    }
