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
    endpoints.command("experiment")(experiment)
    endpoints.command("share")(share)


def feedback(
    name: str,
    metric: str,
    values: Annotated[
        Path, typer.Argument(help='Lines of {"prediction": ID, "value": NUMBER}; - reads standard input.')
    ],
    environment: Environment = "production",
) -> None:
    """Say what came of predictions, by a metric of business: the value of each, by its prediction id."""
    try:
        text = sys.stdin.read() if str(values) == "-" else values.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        told = getattr(error, "strerror", "") or "it is no text in UTF-8"
        raise InvalidInput(f"{values} cannot be read: {told}", hint="a file of lines of JSON, or - for stdin") from None
    given = [_line(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    with session.client() as client:
        told = client.call("feedback.add", endpoint=name, metric=metric, values=given, environment=environment)
    strange = f"; {told.unknown} are of no prediction of {name} that is known yet" if told.unknown else ""
    output.show(told, f"{told.taken} values of {metric}{strange}")


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


def experiment(name: str, environment: Environment = "production") -> None:
    """Champion and challengers: who has which share, and how much better each challenger is, surely."""
    with session.client() as client:
        found = client.call("endpoints.show", name=name, environment=environment).experiment
    arms = []
    for arm, its in found.get("arms", {}).items():
        names = ("at", "champion_rows", "rows", "low", "difference", "high")
        last = dict(zip(names, its["course"][-1], strict=True)) if its["course"] else {}
        arms.append({"challenger": arm, **{key: its[key] for key in ("share", "state", "reason")}, **last})
    columns = ["challenger", "share", "state", "champion_rows", "rows", "low", "difference", "high", "reason"]
    output.rows(arms, columns, empty="no experiment runs")


def share(
    name: str,
    shares: Annotated[list[str], typer.Argument(help="challenger=percent, for example deep=20; 0 takes it out.")],
    environment: Environment = "production",
) -> None:
    """Give an experiment's challengers other shares; keys that need not move stay with their revision."""
    parsed = {arm: percent for arm, _, percent in (text.partition("=") for text in shares)}
    if not all(arm and percent.isdecimal() for arm, percent in parsed.items()) or len(parsed) < len(shares):
        wrong = f"{' '.join(shares)} are no shares, one percentage for each challenger"
        raise InvalidInput(wrong, hint="everloop endpoints share delay deep=20 plain=10")
    given = {arm: int(percent) for arm, percent in parsed.items()}
    with session.client() as client:
        told = client.call("endpoints.share", name=name, shares=given, environment=environment)
    output.show(told, ", ".join(f"{arm} {percent} %" for arm, percent in told.shares.items()))


def guardrails(name: str, environment: Environment = "production") -> None:
    """What each guardrail on answers, feedback and labels looks like now, and what went back before."""
    with session.client() as client:
        found = client.call("endpoints.guardrails", name=name, environment=environment)
    if output.as_json:
        output.show(found)
        return
    columns = ["guard", "challenger", "value", "sure", "limit", "rows", "champion_rows", "least", "breached"]
    output.rows(found.guardrails, columns, empty="no guardrail is judged now", title="guardrails")
    output.rows(found.reverts, ["at", "kind", "revision", "reason"], empty="nothing went back", title="went back")
