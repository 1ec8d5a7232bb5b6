"""Changes: propose, review, approve, merge, revert."""

from typing import Annotated, Any

import typer

from everloop.cli.output import cell, output
from everloop.cli.session import session
from everloop.core.errors import InvalidInput

Number = Annotated[str, typer.Argument(help="The change's number, with or without #.")]
changes = typer.Typer(help="Changes to protected environments.", no_args_is_help=True)


def add_to(app: typer.Typer) -> None:
    """Register the commands of this module."""
    for command in (propose, check, approve, merge, revert, diff):
        app.command()(command)
    app.add_typer(changes, name="changes")


def propose(
    source: Annotated[str, typer.Argument(help="The sandbox (or snapshot) to propose.")],
    target: Annotated[str, typer.Option("--to", help="The protected environment.")] = "production",
    title: Annotated[str, typer.Option()] = "",
    description: Annotated[str, typer.Option()] = "",
) -> None:
    """Open a change: what the source would make different in the target, with the checks that it needs."""
    with session.client() as client:
        made = client.call(
            "changes.propose",
            source=source,
            target=target,
            title=title or f"{source} to {target}",
            description=description,
        )
    _show(made)


def check(
    number: Number,
    again: Annotated[bool, typer.Option("--again", help="Also what failed or raised.")] = False,
) -> None:
    """Queue the checks that a change still needs; a worker runs them: only workers record evidence."""
    with session.client() as client:
        found = client.call("changes.check", number=_number(number), again=again)
    rows = [{"check": request["name"], "looks_at": request["candidate"]} for request in found.pending]
    output.rows(rows, ["check", "looks_at"], empty="every check that it needs has a result")
    if rows:
        output.say("a worker runs them: everloop up has one, everloop worker is one")


def approve(number: Number, comment: Annotated[str, typer.Option()] = "") -> None:
    """Approve a change as it stands now; the approval dies when its content, policy or evidence changes."""
    with session.client() as client:
        _show(client.call("changes.approve", number=_number(number), comment=comment))


def merge(number: Number) -> None:
    """Merge a change whose checks passed and approvals hold."""
    with session.client() as client:
        _show(client.call("changes.merge", number=_number(number)))


def revert(number: Number) -> None:
    """Open a change that takes back a merged one."""
    with session.client() as client:
        _show(client.call("changes.revert", number=_number(number)))


def diff(
    source: Annotated[str, typer.Argument(help="An environment.")],
    target: Annotated[str, typer.Argument(help="Another.")] = "production",
) -> None:
    """What is different between two environments."""
    with session.client() as client:
        new, old = (client.call("environments.show", environment=name) for name in (source, target))
    keys = sorted(k for k in new.entries.keys() | old.entries.keys() if new.entries.get(k) != old.entries.get(k))
    labels = {**old.labels, **new.labels}
    rows = [
        {"key": k, target: labels.get(old.entries.get(k, ""), "-"), source: labels.get(new.entries.get(k, ""), "-")}
        for k in keys
    ]
    output.rows(rows, ["key", target, source], empty=f"{source} and {target} hold the same")


@changes.command("list")
def list_changes(state: Annotated[str, typer.Option(help="open, merged, closed or reverted.")] = "") -> None:
    """Changes, newest first."""
    with session.client() as client:
        found = client.call("changes.list", **({"state": state} if state else {})).changes
    output.rows(found, ["number", "title", "state", "source", "target", "authors", "approvers"], empty="no changes")


@changes.command("show")
def show(number: Number) -> None:
    """One change: what differs, its checks, its approvals, why it may or may not merge."""
    with session.client() as client:
        _show(client.call("changes.show", number=_number(number)))


@changes.command("comment")
def comment(number: Number, text: Annotated[str, typer.Argument()]) -> None:
    """Say something about a change."""
    with session.client() as client:
        _show(client.call("changes.comment", number=_number(number), text=text))


@changes.command("close")
def close(number: Number) -> None:
    """Give up an open change."""
    with session.client() as client:
        _show(client.call("changes.close", number=_number(number)))


def _number(text: str) -> int:
    digits = text.removeprefix("#")
    if not digits.isdigit():
        raise InvalidInput(f"{text!r} is no change", hint="changes have numbers: everloop changes list")
    return int(digits)


def _show(change: Any) -> None:
    if output.as_json:
        output.show(change)
        return
    state = f"[{_colour(change.state)}]{change.state}[/]"
    source = change.source or "snapshot"
    output.say(f"[bold]#{change.number}[/] {cell('title', change.title)}  {state}  ({source} → {change.target})")
    output.rows(change.differences, ["key", "old_label", "new_label"], empty="nothing differs")
    if change.checks:
        output.rows(change.checks, ["label", "state", "summary"], empty="")
    if change.approvals:
        output.rows(change.approvals, ["actor", "alive", "comment"], empty="")
    for note in change.notes:
        output.say(f"[yellow]{note}[/]")
    if change.state == "open":
        output.say("[green]ready to merge[/]" if change.mergeable else "not yet: " + "; ".join(change.reasons))


def _colour(state: str) -> str:
    return {"open": "cyan", "merged": "green"}.get(state, "dim")
