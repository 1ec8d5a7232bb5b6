"""What a metric lost by."""

from typing import Annotated

import typer
from rich.markup import escape

from everloop.cli.assets import Cluster, opened
from everloop.cli.output import output
from everloop.cli.session import session
from everloop.flows.bisect.operations import SEEDS, Question
from everloop.flows.bisect.running import Budget
from everloop.workspace.bisecting import bisect as bisect_versions


def add_to(app: typer.Typer) -> None:
    """Register the commands of this module."""
    app.command()(bisect)


def bisect(
    good: Annotated[str, typer.Argument(help="model/delay@6, or an id.")],
    bad: Annotated[str, typer.Argument(help="A later version of the same name.")],
    *,
    metric: Annotated[str, typer.Option("--metric", help="What got worse: roc_auc, or a number of a value.")],
    seeds: Annotated[int, typer.Option("--seeds", help="Paired seeds for each mixture.")] = SEEDS,
    plan: Annotated[bool, typer.Option("--plan", help="Only say what would be run.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before running.")] = False,
    max_runs: Annotated[int | None, typer.Option("--max-runs", help="Stop after so many executed steps.")] = None,
    max_seconds: Annotated[float | None, typer.Option("--max-seconds", help="Stop after so many seconds.")] = None,
    inside: Annotated[bool, typer.Option(help="Narrow inside the factor that lost most.")] = True,
    ray: Cluster = "",
) -> None:
    """What a metric lost by: factors of two versions swapped, run again, their shares with intervals."""
    # what was run is cached: a stopped bisection goes on when it is asked again
    with session.client() as client:
        found = client.call("bisect.plan", good=good, bad=bad, metric=metric, seeds=seeds)
    if plan:
        output.show(found, escape(found.text))
        return
    output.say(escape(found.text))
    if not (yes or output.as_json or typer.confirm("Run it?", default=True)):
        raise typer.Exit(1)
    with opened() as (workspace, _), output.progress("bisecting") as shown:
        answer = bisect_versions(
            session.context(workspace),
            Question(good=good, bad=bad, metric=metric, seeds=seeds),
            budget=Budget(max_runs, max_seconds),
            inside=inside,
            root=session.root,
            cluster=ray,
            told=shown.step,
        )
    output.show(answer, escape(answer.text) + f"\nkept as {answer.labels[answer.evidence]}")
