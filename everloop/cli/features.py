"""Features: views and services, look-ups online, materialising."""

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Group
from rich.table import Table

from everloop import features as views
from everloop.cli.output import NOTHING, cell, fields, output
from everloop.cli.session import session
from everloop.core.clock import DAY, HOUR, MINUTE, SECOND, iso
from everloop.core.errors import InvalidInput
from everloop.features.definitions.words import length

features = typer.Typer(help="Feature views and services.", no_args_is_help=True)


def add_to(app: typer.Typer) -> None:
    """Register the commands of this module."""
    app.add_typer(features, name="features")


@features.command("list")
def list_features(environment: Annotated[str, typer.Option("--env")] = "production") -> None:
    """Views and services of an environment, and how fresh they are online."""
    with session.client() as client:
        listed = client.call("features.list", environment=environment)
    table = _titled("view", "entity", "facts of", "features", "filled up to")
    for view in listed.views:
        names = "\n".join(name.partition("__")[2] for name in view.features)
        cells = (view.name, ", ".join(view.entity), view.source, names)
        table.add_row(*(cell("", text) for text in cells), _moment(view.watermark))
    output.show(listed, table if listed.views else f"[dim]{environment} holds no feature view[/dim]")


@features.command("get")
def get(
    service: Annotated[str, typer.Argument(help="A feature service.")],
    entities: Annotated[list[str], typer.Argument(help="column=value for each entity column.")],
    environment: Annotated[str, typer.Option("--env")] = "production",
) -> None:
    """Look features up online, as the gateway does."""
    row = {}
    for entity in entities:
        column, equals, value = entity.partition("=")
        if not equals:
            raise InvalidInput(f"{entity!r} is not of the form column=value", hint="for example origin=JFK")
        row[column] = value
    with session.client() as client:
        found = client.call("features.get", service=service, entities=[row], environment=environment)
    (values,) = found.values
    told = {
        "as known at": _moment(found.at),
        **{f"{v} is filled up to": _moment(at) if at else "never" for v, at in found.watermarks.items()},
    }
    for view in found.unknown:
        told[f"{view}"] = "holds no fact of this entity: these are the values over nothing"
    table = _titled("feature", "value")
    for name, value in (values | dict.fromkeys(found.masked, "•••")).items():
        shown = ", ".join(map(str, value)) if isinstance(value, list) else value
        table.add_row(cell("", name), NOTHING if shown is None else cell("", str(shown)))
    output.show(found, Group(table, "", fields(told)))


@features.command("show")
def show(
    view: Annotated[str, typer.Argument(help="A feature view.")],
    environment: Annotated[str, typer.Option("--env")] = "production",
) -> None:
    """A view: its features, how far it is filled, where its facts come from, who uses it."""
    with session.client() as client:
        shown = client.call("features.show", view=view, environment=environment)
        counts = client.call("features.counts", view=view, environment=environment)
    told = {**shown.model_dump(mode="json"), "counts": counts.model_dump(mode="json")}
    output.show(told, Group(fields({**_facts(shown), **_counted(counts)}), "", _features(shown.features)))


def _counted(counts: Any) -> dict[str, Any]:
    """What had no good answer, and which events were refused."""
    told: dict[str, Any] = {}
    if counts.gateways:
        reasons = {
            "of unknown entities": counts.unknown,
            "while too old": counts.stale,
            "while the store was silent": counts.unfed,
            "refused": counts.refused,
        }
        some = [f"{count} {reason}" for reason, count in reasons.items() if count]
        told["rows asked for"] = f"{counts.rows} since the gateway began" + (": " + ", ".join(some) if some else "")
    if counts.feed is not None:
        feed = counts.feed
        told["events of its feed"] = f"{feed.rows} taken, {feed.dead} refused ({feed.by_view} by this view)"
        if feed.dataset:
            told["dead letters"] = [f"data/{feed.dataset}", *(f"{_moment(one.at)} {one.reason}" for one in feed.newest)]
        if feed.error:
            told["feed"] = feed.error
    return told


def _facts(shown: Any) -> dict[str, Any]:
    """What stands above the table of a view's features."""
    times = shown.event_time, shown.known_time
    return {
        "name": f"{shown.name} v{shown.number}, in {shown.environment}",
        "version": shown.version,
        "description": shown.description,
        "owner": shown.owner,
        "labels": shown.labels,
        "facts of": shown.source + ("" if shown.source_version else f" ({shown.environment} holds no data of it)"),
        "with features of": [read.name for read in shown.reads],
        "entity": ", ".join(shown.entity),
        "happens at, known at": ", ".join(times),
        "filled up to": _moment(shown.watermark) if shown.watermark else "never",
        "behind now": "" if shown.lag is None else _about(shown.lag),
        "used by": [f"{used.kind} {used.name}" for used in shown.used_by],
    }


def _features(shown: Any) -> Table:
    table = _titled("feature", "what", "gives", "tags", "description")
    for one in shown:
        name = one.output.partition("__")[2]
        cells = (name, one.text, one.gives, ", ".join(one.tags), one.description)
        table.add_row(*(cell("", text) for text in cells))
    return table


@features.command("history")
def history(  # noqa: PLR0917 - typer's way: one parameter an option
    service: Annotated[str, typer.Argument(help="A feature service.")],
    questions: Annotated[Path, typer.Argument(help="Parquet or CSV: entity columns and a time.")],
    at: Annotated[str, typer.Option(help="The column with the time of each question.")],
    out: Annotated[Path, typer.Option(help="Where the frame goes, as Parquet.")],
    environment: Annotated[str, typer.Option("--env")] = "production",
    ray: Annotated[str, typer.Option(help="host:port of a Ray cluster's head that computes it.")] = "",
    parts: Annotated[int, typer.Option(min=0, help="Tasks for each view on the cluster; 0: one a CPU.")] = 0,
) -> None:
    """Answer questions point in time, in batch: each row with what was known strictly before its time.

    A cluster that asks for a token gets it from RAY_AUTH_TOKEN.
    """
    if not out.parent.is_dir():
        raise InvalidInput(f"there is no folder {out.parent}", hint="make it, or choose another --out")
    cluster = _cluster(ray, parts) if ray else None
    with session.workspace() as workspace, output.progress("asking"):
        ctx = session.context(workspace, environment)
        frame = views.answering.answered(ctx, environment, service, questions, at, cluster=cluster)
        frame.write_parquet(out)
    output.show({"rows": frame.height, "columns": frame.columns, "file": str(out)})


def _cluster(address: str, parts: int) -> Any:
    if find_spec("ray") is None:
        raise InvalidInput("Ray is not installed", hint="pip install everloop[ray]")
    return views.cluster.Cluster(address, os.environ.get("RAY_AUTH_TOKEN", ""), parts)


@features.command("materialize")
def materialize(
    views: Annotated[list[str] | None, typer.Argument(help="These views only; all without.")] = None,
    environment: Annotated[str, typer.Option("--env")] = "production",
) -> None:
    """Bring the online store up to the environment's data heads."""
    with session.client() as client, output.progress("materializing"):
        found = client.call("features.materialize", environment=environment, views=views or [])
    table = _titled("view", "version", "facts", "new")
    for view in found.views:
        table.add_row(*(cell("", getattr(view, name)) for name in ("view", "version", "facts", "new")))
    output.show(found, table if found.views else f"[dim]{environment} holds no feature view[/dim]")


@features.command("distributions")
def distributions(
    view: Annotated[str, typer.Argument(help="A feature view.")],
    environment: Annotated[str, typer.Option("--env")] = "production",
) -> None:
    """How each feature looks online against training, as the monitors saw it last: 5 | 50 | 95 %, or shares."""
    with session.client() as client:
        found = client.call("features.distributions", view=view, environment=environment)
    table = _titled("column", "state", "without a value", "in training", "online")
    for one in found.columns:
        nulls = " → ".join(f"{100 * share:.3g} %" for share in one.nulls)
        table.add_row(*(cell("", text) for text in (one.column, one.state, nulls, *_both(one))))
        if one.state in {"drift", "fault"}:
            table.add_row(f"  [dim]{cell('', one.text)}[/dim]")
    output.show(found, table if found.columns else "[dim]no monitor has looked at it[/dim]")


def _both(one: Any) -> list[str]:
    """Training's values and the online ones: 5, 50 and 95 %, or the most frequent."""
    if one.quantiles:
        return [" | ".join(f"{part[i]:.4g}" for i in (0, 2, 4)) for part in one.quantiles]
    return [", ".join(f"{level[0]} {100 * level[side]:.3g} %" for level in one.levels[:4]) for side in (1, 2)]


@features.command("parity")
def parity(
    endpoint: Annotated[str, typer.Argument(help="An endpoint that looks features up.")],
    environment: Annotated[str, typer.Option("--env")] = "production",
    sample: Annotated[int, typer.Option(min=1, help="How many predictions to compute again.")] = 1000,
    past: Annotated[bool, typer.Option("--past", help="Only what was found before.")] = False,
) -> None:
    """Compute served features again in batch, as of their time: they must be equal. Status 1 when they are not."""
    with session.client() as client:
        if past:
            listed = client.call("features.parities", endpoint=endpoint, environment=environment).parities
            output.rows(listed, ["until", "state", "summary", "evidence"], empty="nothing was compared yet")
            return
        with output.progress("computing again"):
            found = client.call("features.parity", endpoint=endpoint, environment=environment, sample=sample)
    output.show(found, found.summary)
    if found.rows:
        output.rows(found.rows, ["prediction", "column", "served", "batch"], empty="")
        raise typer.Exit(1)


def _about(span: int) -> str:
    """A length of time in the unit that suits it, rounded down."""
    unit = next((size for size in (DAY, HOUR, MINUTE) if span >= 2 * size), SECOND)
    return length(span - span % unit) if span >= SECOND else "0 s"


def _titled(*names: str) -> Table:
    """An empty table; its first column is never broken."""
    table = Table(header_style="bold", box=None, pad_edge=False)
    for number, name in enumerate(names):
        table.add_column(name, no_wrap=not number)
    return table


def _moment(at: int | None) -> str:
    """A time to the second; a dash for none."""
    return NOTHING if at is None else iso(at)[:19].replace("T", " ")
