"""The workspace as a whole: init, up, verify, tasks, audit, and any operation by name."""

import getpass
import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from everloop.catalog.governance import access
from everloop.catalog.operation import operations
from everloop.changes.access import link
from everloop.cli.output import output
from everloop.cli.session import session
from everloop.core.errors import EverloopError, InvalidInput, NotFound
from everloop.core.settings import Settings, is_loopback, to_environment
from everloop.server.up import LINK
from everloop.workspace import home as layout
from everloop.workspace.initial import initialise
from everloop.workspace.opened import Workspace
from everloop.workspace.operations import load_operations


def add_to(app: typer.Typer) -> None:
    """Register the commands of this module."""
    app.command()(init)
    app.command()(up)
    app.command()(worker)
    app.command()(verify)
    app.command(name="operations")(list_operations)
    app.command()(call)
    app.command()(tasks)
    app.command()(audit)
    app.command()(bind)


def init(
    policy: Annotated[
        str, typer.Option(help="solo: one person may approve their own changes; team: four eyes.")
    ] = "solo",
) -> None:
    """Make a workspace here: catalog, object store, signing key, environments with their first policy."""
    if policy not in ("solo", "team"):
        raise InvalidInput(f"{policy!r} is no policy", hint="solo or team")
    settings = session.settings
    snapshot = initialise(settings, getpass.getuser(), policy, session.root)  # type: ignore[arg-type]
    output.show(
        {"home": str(settings.home), "project": settings.project, "policy": policy, "production": snapshot},
        f"workspace [bold]{settings.home}[/] with project [bold]{settings.project}[/], policy {policy}",
    )


def up(
    host: Annotated[str | None, typer.Option(help="Bind address; any other than loopback demands tokens.")] = None,
    port: Annotated[int | None, typer.Option(help="Port; 0 takes a free one.")] = None,
    workers: Annotated[int | None, typer.Option(help="Task workers.")] = None,
    replay: Annotated[bool | None, typer.Option(help="Take event time from a replayer instead of the machine.")] = None,
    user: Annotated[str, typer.Option(help="Whose sign-in link is printed; by default this machine's user.")] = "",
) -> None:
    """Start server, worker and gateway behind one address, until Ctrl-C."""
    for name, value in (("host", host), ("port", port), ("workers", workers), ("replay", replay)):
        if value is not None:
            session.flags[name] = value
    settings = session.settings
    if not layout.exists(settings.home):
        initialise(settings, getpass.getuser(), "solo", session.root)
        output.say(
            f"made a workspace in {settings.home} with the policy solo (everloop init --policy team for four eyes)"
        )
    with Workspace.open(settings) as workspace:  # migrations happen here, once, before several processes open it
        path = sign_in_link(workspace, user or getpass.getuser())
    if not is_loopback(settings.host):
        output.say(
            "not a loopback address: every request needs a token, and traffic is not encrypted; put TLS before it"
        )
    become_supervisor(settings, path)


def sign_in_link(workspace: Workspace, user: str) -> str:
    """The path of a new one-time link for `user`; raises `NotFound` naming who there is."""
    with workspace.catalog.write() as tx:
        people = [known.name for known in access.all_users(tx) if known.kind == "person"]
        if user not in people:
            raise NotFound(
                f"there is no user {user} to sign in", hint=f"everloop up --user NAME, of {', '.join(sorted(people))}"
            )
        return link(tx, user, at=workspace.clock.wall()).path


def worker() -> None:
    """Do tasks (checks, retraining, refreshing) and the loop's duties, until Ctrl-C; `up` has some too."""
    settings = session.settings
    check_home(settings.home)
    env = {**os.environ, **to_environment(settings)}
    sys.stdout.flush()
    os.execve(sys.executable, [sys.executable, "-P", "-m", "everloop.server.worker"], env)  # noqa: S606 - as above


def become_supervisor(settings: Settings, path: str) -> None:
    """Replace this process by the supervisor, which loads next to nothing."""
    env = {**os.environ, **to_environment(settings), LINK: path}
    sys.stdout.flush()
    os.execve(sys.executable, [sys.executable, "-P", "-m", "everloop.server.up"], env)  # noqa: S606 - our own interpreter and module


def verify() -> None:
    """Walk objects, versions, lineage, pointers and the audit chain; exit code 1 names the first broken link."""
    with session.client() as client, output.progress("verifying"):
        found = client.call("system.verify")
    if not found.findings:
        output.show(found, "[green]everything holds[/]: objects, versions, lineage, pointers and the chain of facts")
        return
    output.rows(found.findings, ["area", "subject", "reason"], empty="", title=f"{len(found.findings)} broken")
    raise typer.Exit(1)


def list_operations() -> None:
    """Everything that Everloop can be asked, with the permission that it needs."""
    load_operations()
    rows = [{"operation": op.name, "needs": op.needs, "does": op.summary} for op in operations().values()]
    output.rows(rows, ["operation", "needs", "does"], empty="")


def call(
    operation: Annotated[str, typer.Argument(help="An operation, such as changes.show.")],
    arguments: Annotated[list[str] | None, typer.Argument(help="field=value; values are JSON or plain text.")] = None,
) -> None:
    """Ask any operation by name."""
    fields: dict[str, Any] = {}
    for argument in arguments or []:
        name, equals, text = argument.partition("=")
        if not equals:
            raise InvalidInput(f"{argument!r} is not of the form field=value", hint="changes.show number=3")
        try:
            fields[name] = json.loads(text)
        except ValueError:
            fields[name] = text
    with session.client() as client:
        output.show(client.call(operation, **fields))


def tasks() -> None:
    """What workers did and have to do, newest first."""
    with session.client() as client:
        output.rows(
            client.call("tasks.list").tasks, ["id", "kind", "state", "actor", "attempt", "error"], empty="no tasks"
        )


def audit(
    kind: Annotated[str, typer.Option(help="Only this kind; audit.* for acts.")] = "",
    subject: Annotated[str, typer.Option(help="Only about this subject.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 30,
) -> None:
    """The log of facts, newest first: who did what to what, and every change of state."""
    with session.client() as client:
        found = client.call("audit.facts", kind=kind, subject=subject, limit=limit).facts
    output.rows(found, ["position", "at", "actor", "kind", "subject"], empty="nothing yet")


def bind(
    name: Annotated[str, typer.Argument(help="The binding that sources name.")],
    value: Annotated[str, typer.Argument(help="A database URL or a folder.")],
    environment: Annotated[
        str,
        typer.Option("--env", "--environment", help="production, staging, sandbox (all of them), or * for every one."),
    ] = "*",
) -> None:
    """Set the value of a binding for an environment; sandboxes never see that of production."""
    layout.bind(session.settings.home, environment, name, value)
    output.show({"name": name, "environment": environment}, f"{name} is bound for {environment}")


def check_home(home: Path) -> None:
    """Raise with a hint when there is no workspace."""
    if not layout.exists(home):
        raise EverloopError(f"{home} is no workspace", hint="everloop init")
