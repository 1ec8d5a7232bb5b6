"""Runs of flows, all commands: those of `flows_asked`, and going on with a run, which loads what builds."""

import typer

from everloop.cli.assets import opened
from everloop.cli.flows_asked import Id, flows, tell
from everloop.cli.output import output
from everloop.cli.session import session
from everloop.workspace.flows import resuming


def add_to(app: typer.Typer) -> None:
    """Register the commands of this module."""
    app.add_typer(flows, name="flows")


@flows.command("resume")
def resume(flow: Id) -> None:
    """Go on with a run whose process died, that failed, or that was approved; what it committed is reused."""
    if session.settings.server:
        with session.client() as client:
            tell(client.call("flows.resume", flow=flow))
        return
    with opened() as (workspace, uri), output.progress(f"resuming {flow}"):
        ctx = session.context(workspace)
        built = resuming.resume(ctx, flow, tracking_uri=uri)
    parked = built.results.parked
    said = f"waits for {', '.join(parked)}" if parked else f"{built.environment} holds it"
    output.show({"flow": flow, "snapshot": built.snapshot, "parked": list(parked)}, said)
