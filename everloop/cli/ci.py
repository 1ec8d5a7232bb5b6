"""`everloop ci`: the one command for a team's CI."""

from pathlib import Path
from typing import Annotated

import typer

from everloop.cli.assets import Cluster
from everloop.cli.output import output
from everloop.cli.session import session
from everloop.core.errors import EverloopError
from everloop.server.local import loopback_server
from everloop.workspace.ci.findings import Report
from everloop.workspace.ci.junit import junit
from everloop.workspace.ci.markdown import markdown
from everloop.workspace.ci.pipeline import Wanted, run_ci
from everloop.workspace.operations import load_operations

RED, WRONG = 1, 2


def add_to(app: typer.Typer) -> None:
    """Register the command of this module."""
    app.command(epilog="Exit code 0: green; 1: red; 2: cannot be asked so (no workspace, no such environment).")(ci)


def ci(  # noqa: PLR0917 - typer's way: one parameter an option
    target: Annotated[str, typer.Option(help="The protected environment to compare with and to propose to.")] = (
        "production"
    ),
    propose: Annotated[bool, typer.Option("--propose", help="When green: open the change, or update it.")] = False,
    report: Annotated[Path | None, typer.Option(help="Write a Markdown report here.")] = None,
    junit_file: Annotated[Path | None, typer.Option("--junit", help="Write JUnit XML here.")] = None,
    sandbox: Annotated[
        str, typer.Option(help="Where to build; reset to the target first. Yours, `ci`, if empty.")
    ] = "",
    title: Annotated[str, typer.Option(help="Title of the change.")] = "",
    ray: Cluster = "",
) -> None:
    """All of a project's checks for a CI: definitions, data contracts, tests, a build, the target's checks."""
    try:
        found = _run(target, sandbox, title, propose=propose, ray=ray)
    except EverloopError as error:
        output.fail(error)
        raise typer.Exit(WRONG) from error
    text = markdown(found)
    if report is not None:
        report.write_text(text, encoding="utf-8")
    if junit_file is not None:
        junit_file.write_bytes(junit(found))
    output.show({"green": found.green, **_fields(found)}, _told(found))
    if not found.green:
        raise typer.Exit(RED)


def _run(target: str, sandbox: str, title: str, *, propose: bool, ray: str) -> Report:
    load_operations()
    settings = session.settings
    with session.workspace() as workspace, loopback_server(workspace) as uri, output.progress("ci") as steps:
        actor = session.context(workspace).actor
        place = sandbox or f"sandbox/{actor.name}/ci"
        wanted = Wanted(session.root, settings.module, place, target, propose, title, uri, ray)
        return run_ci(session.context(workspace, place), workspace.settings, wanted, steps.step)


def _fields(found: Report) -> dict[str, object]:
    return {name: getattr(found, name) for name in found.__dataclass_fields__}


def _told(found: Report) -> str:
    lines = []
    for stage in found.stages:
        bad = [case for case in stage.cases if case.state == "failed"]
        good = sum(case.state == "passed" for case in stage.cases)
        mark = "[red]red[/]" if bad else "[green]green[/]" if good else "[dim]skipped[/]"
        lines.append(f"{mark} [bold]{stage.name}[/] {good} of {len(stage.cases)} in {stage.seconds:.1f} s")
        for case in bad:
            lines.append(f"  [red]{_plain(case.name)}[/]: {_plain(case.summary)}")
            lines += [f"  [dim]{_plain(case.hint)}[/]"] if case.hint else []
    if found.change is not None:
        lines.append(f"change [bold]#{found.change}[/] is open: everloop changes show {found.change}")
    return "\n".join(lines)


def _plain(text: str) -> str:
    return text.replace("[", r"\[")
