"""Runs of flows: how far they are, ending them, deciding in them; going on with them is in `flows`."""

from typing import Annotated, Any

import typer

from everloop.cli.output import output
from everloop.cli.session import session

flows = typer.Typer(help="Runs of flows: state, steps, cancel, approve, resume.", no_args_is_help=True)
Id = Annotated[str, typer.Argument(help="The run, as `everloop flows list` shows it.")]
Step = Annotated[str, typer.Argument(help="The approval that waits, by name.")]
Comment = Annotated[str, typer.Option("--message", "-m", help="What to say with it.")]
_COLUMNS = ["id", "title", "state", "environment", "actor", "created", "ended"]
_STEPS = ["step", "state", "attempt", "seconds", "label", "why"]


def add_to(app: typer.Typer) -> None:
    """Register the commands of this module."""
    app.add_typer(flows, name="flows")


@flows.command("list")
def list_flows(
    state: Annotated[str, typer.Option("--state", help="running, parked, done, failed or cancelled.")] = "",
    limit: Annotated[int, typer.Option("--limit", help="How many, newest first.")] = 20,
) -> None:
    """Runs of flows, newest first."""
    with session.client() as client:
        found = client.call("flows.list", state=state, limit=limit).flows
    output.rows([one.model_dump(mode="json") for one in found], _COLUMNS, empty="nothing was run yet")


@flows.command("show")
def show(flow: Id) -> None:
    """A run with its steps: state, time, what came out, why it ran or was reused."""
    with session.client() as client:
        found = client.call("flows.show", flow=flow, reasons=True)
    tell(found)


@flows.command("cancel")
def cancel(flow: Id) -> None:
    """End a run: its steps are ended, nothing more is committed, what it made stays reusable."""
    with session.client() as client:
        tell(client.call("flows.cancel", flow=flow))


@flows.command("approve")
def approve(flow: Id, step: Step, message: Comment = "") -> None:
    """Approve a step that waits; a worker goes on with the run."""
    with session.client() as client:
        tell(client.call("flows.decide", flow=flow, step=step, approved=True, comment=message))


@flows.command("refuse")
def refuse(flow: Id, step: Step, message: Comment = "") -> None:
    """Refuse a step that waits: the run ends."""
    with session.client() as client:
        tell(client.call("flows.decide", flow=flow, step=step, approved=False, comment=message))


def tell(found: Any) -> None:
    """Show a run with its steps."""
    if output.as_json:
        output.show(found)
        return
    row = found.flow
    counts = ", ".join(f"{count} {state}" for state, count in sorted(row.counts.items()))
    output.say(f"[bold]{row.id}[/] {row.state}: {counts}" + (f"; {row.error}" if row.error else ""))
    steps = [
        one.model_dump(mode="json")
        | {"why": one.why or one.reason, "seconds": (one.ended - one.began) / 1e6 if one.began and one.ended else None}
        for one in found.steps
    ]
    output.rows(steps, _STEPS, empty="no steps")
