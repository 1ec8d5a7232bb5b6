"""Rollouts from a terminal: what came of predictions, and what guardrails say of it."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from everloop.cli.output import output
from everloop.cli.session import session
from everloop.core.errors import InvalidInput

Environment = Annotated[str, typer.Option("--env")]


def add_to(endpoints: typer.Typer) -> None:
    """Register the commands of this module."""
    endpoints.command("feedback")(feedback)
    endpoints.command("push")(push)
    endpoints.command("guardrails")(guardrails)


def feedback(
    name: str,
    metric: str,
    values: Annotated[
        Path, typer.Argument(help='Lines of {"prediction": ID, "value": NUMBER}; - reads standard input.')
    ],
    environment: Environment = "production",
) -> None:
    """Say what came of predictions, by a metric of business: the value of each, by its prediction id."""
    text = sys.stdin.read() if str(values) == "-" else values.read_text()
    given = [_line(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    with session.client() as client:
        told = client.call("feedback.add", endpoint=name, metric=metric, values=given, environment=environment)
    output.show(told, f"{told.taken} values of {metric}")


def _line(number: int, line: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise InvalidInput(f"line {number} is no JSON object", hint='{"prediction": "…", "value": 1.5}')
    return value


def push(
    name: str,
    metric: str,
    *,
    revision: Annotated[str, typer.Option(help="Its number, or its id.")],
    count: Annotated[int, typer.Option(min=1, help="Of how many.")],
    total: Annotated[float, typer.Option(help="Their sum.")],
    squares: Annotated[float | None, typer.Option(help="The sum of their squares; without it each is 0 or 1.")] = None,
    at: Annotated[str, typer.Option(help="Event time; empty: now.")] = "",
    environment: Environment = "production",
) -> None:
    """Say how a revision does by a metric that only somebody else can count."""
    figure = {"revision": revision, "count": count, "total": total, "squares": squares, "at": at}
    with session.client() as client:
        told = client.call("feedback.push", endpoint=name, metric=metric, environment=environment, **figure)
    output.show(told, f"a figure of {metric} over {count}")


def guardrails(name: str, environment: Environment = "production") -> None:
    """What each guardrail on answers, feedback and labels looks like now, and what went back before."""
    with session.client() as client:
        found = client.call("endpoints.guardrails", name=name, environment=environment)
    if output.as_json:
        output.show(found)
        return
    columns = ["guard", "value", "sure", "limit", "rows", "champion_rows", "least", "breached"]
    output.rows(found.guardrails, columns, empty="no guardrail is judged now", title="guardrails")
    output.rows(found.reverts, ["at", "kind", "revision", "reason"], empty="nothing went back", title="went back")
