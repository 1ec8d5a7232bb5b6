"""Making things: run, refresh, reproduce."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from rich.markup import escape

from everloop.cli.output import Steps, output
from everloop.cli.session import session
from everloop.core.errors import InvalidInput
from everloop.core.ports import Line
from everloop.core.settings import FLOWS_RAY
from everloop.flows.engine import Origin, State
from everloop.flows.reproduce import Now
from everloop.server.local import loopback_server
from everloop.workspace.build import Built, Request, build, code_tree, refresh
from everloop.workspace.direct import user_name
from everloop.workspace.home import bind
from everloop.workspace.opened import Workspace
from everloop.workspace.operations import load_operations
from everloop.workspace.work.executors import executor_of
from everloop.workspace.work.reproducing import mirror_wheels, reproduce_version

Sandbox = Annotated[str, typer.Option("--on", help="The sandbox to build on; by default your own.")]
Cluster = Annotated[
    str,
    typer.Option("--ray", envvar=FLOWS_RAY, help="host:port of a Ray cluster for the steps; token: RAY_AUTH_TOKEN."),
]


def add_to(app: typer.Typer) -> None:
    """Register the commands of this module."""
    app.command()(run)
    app.command(name="refresh")(refresh_data)
    app.command()(reproduce)


def run(
    targets: Annotated[list[str] | None, typer.Argument(help="Assets by name; every model when left out.")] = None,
    *,
    on: Sandbox = "",
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="asset.parameter=value, for tunable parameters.")
    ] = None,
    again: Annotated[bool, typer.Option("--again", help="Run also what is unchanged.")] = False,
    message: Annotated[str, typer.Option("--message", "-m")] = "",
    ray: Cluster = "",
) -> None:
    """Capture, build and train in a sandbox. What is unchanged is not run again."""
    with opened() as (workspace, uri):
        request = Request(
            on or f"sandbox/{user_name()}/main",
            tuple(targets or ()),
            params=_parameters(set_ or []),
            cached=not again,
            message=message,
            tracking_uri=uri,
        )
        with output.progress("planning") as steps:
            built = _build(workspace, request, steps, ray)
    rows = [
        {"step": d.step, "version": d.output, "seconds": d.seconds, "reused": d.reused, "leaks": d.leaks}
        for d in built.results.steps
    ]
    if output.as_json:
        held = {"environment": built.environment, "snapshot": built.snapshot, "steps": rows}
        output.show(held | {"flow": built.results.flow, "parked": list(built.results.parked)})
        return
    output.rows(rows, ["step", "version", "seconds", "reused"], empty="nothing to do")
    for done in built.results.steps:
        if done.leaks:
            output.say(f"[yellow]{done.step} read what it does not declare:[/] {escape(', '.join(done.leaks))}")
    if built.results.parked:
        waits = ", ".join(built.results.parked)
        output.say(f"[yellow]it waits for {waits}[/]: everloop flows approve {built.results.flow} NAME")
        return
    output.say(f"[bold]{built.environment}[/] holds it; propose it with: everloop propose {built.environment}")


def refresh_data(
    environment: Annotated[str, typer.Option("--env", help="Whose data heads move.")] = "production",
    ray: Cluster = "",
) -> None:
    """Bring an environment's data up to date; heads move when the blocking expectations pass."""
    project = session.project()
    with opened() as (workspace, _), output.progress("refreshing") as steps:
        ctx = session.context(workspace, environment)
        origin = Origin(session.root, session.settings.module, project.name)
        code = code_tree(ctx, project, origin)
        executor = executor_of(ctx, project.assets(), code, ray)
        try:
            made = refresh(ctx, project, origin, environment, executor=executor, code=code, progress=shown(steps))
        finally:
            executor.close()
    rows = [
        {
            "dataset": name,
            "version": identity,
            "expectations": f"{sum(r.passed for r in results)} of {len(results)} hold",
        }
        for name, (identity, results) in made.items()
    ]
    output.rows(rows, ["dataset", "version", "expectations"], empty="no datasets")


def reproduce(
    version: Annotated[str, typer.Argument(help="model/delay, model/delay@7, or an id.")],
    *,
    here: Annotated[
        bool, typer.Option("--here", help="In the environment of this process, whatever the record says.")
    ] = False,
    tree: Annotated[
        bool, typer.Option("--working-tree", help="With the code of this folder: what would come out now?")
    ] = False,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="parameter=value, in place of the recorded one.")
    ] = None,
    mirror: Annotated[bool, typer.Option("--mirror", help="First keep the wheels that it needs in the store.")] = False,
    judge: Annotated[
        bool,
        typer.Option("--judge", help="Have a worker do it and record the signed verdict, which a policy can ask for."),
    ] = False,
) -> None:
    """Run the recorded recipe again in a clean process and compare what comes out, byte by byte."""
    # code, inputs and parameters are those of the record; its environment is made again by uv where it is not this one
    if judge:
        with session.client() as client:
            found = client.call("checks.reproduce", version=version)
        output.show(found, f"task {found.id} is {found.state}; `everloop tasks` shows its result")
        return
    with opened() as (workspace, _), output.progress(f"reproducing {version}"):
        ctx = session.context(workspace)
        if mirror:
            kept, count = mirror_wheels(ctx, version)
            output.say(f"{count} wheels are kept as {kept}")
        params = _parameters([f"it.{one}" for one in set_ or []]).get("it", {})
        now = Now(root=session.root if tree else None, params=params)
        verdict = reproduce_version(ctx, version, here=here, now=now)
    text = f"[bold]{verdict.tier}[/] in {verdict.seconds:.1f} s" + "".join(
        f"\n  differs: {escape(factor)}" for factor in verdict.factors
    )
    output.show(verdict, text)
    if not verdict.same:
        raise typer.Exit(1)


@contextmanager
def opened() -> Iterator[tuple[Workspace, str]]:
    """The workspace here, and the address of a tracking server for the mlflow client inside steps."""
    load_operations()
    with session.workspace() as workspace, loopback_server(workspace) as uri:
        yield workspace, uri


def _build(workspace: Workspace, request: Request, steps: Steps, cluster: str) -> Built:
    project = session.project()
    bind(workspace.home, "sandbox", "files", str(session.root))
    origin = Origin(session.root, session.settings.module, project.name)
    ctx = session.context(workspace, request.environment)
    code = code_tree(ctx, project, origin)
    executor = executor_of(ctx, project.assets(), code, cluster)
    how: dict[str, Any] = {"progress": shown(steps), "say": steps.step, "said": _said}
    try:
        return build(ctx, project, origin, request, executor=executor, code=code, **how)
    finally:
        executor.close()


def shown(steps: Steps) -> Any:
    """Says how far the steps of a run are."""

    def progress(step: str, state: State, seconds: float) -> None:
        steps.step(f"{step} {state}" + (f" in {seconds:.1f} s" if state == "done" else ""))

    return progress


def _said(step: str, line: Line) -> None:
    """What a step prints, on stderr with its name: the answer of the command has stdout for itself."""
    name = step.partition("/")[2]
    output.err.print(f"{name} | {line.text}", markup=False, highlight=False, soft_wrap=True, style="dim")


def _parameters(given: list[str]) -> dict[str, dict[str, Any]]:
    """`delay.max_depth=4` as {"delay": {"max_depth": 4}}; raises `InvalidInput`."""
    found: dict[str, dict[str, Any]] = {}
    for text in given:
        path, equals, value = text.partition("=")
        asset, dot, name = path.rpartition(".")
        if not equals or not dot:
            raise InvalidInput(f"{text!r} sets nothing", hint="--set delay.learning_rate=0.05")
        try:
            found.setdefault(asset, {})[name] = json.loads(value)
        except ValueError:
            found.setdefault(asset, {})[name] = value
    return found
