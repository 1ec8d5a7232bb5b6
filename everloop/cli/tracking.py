"""Models and their cards."""

from typing import Annotated

import typer

from everloop.cli.output import output
from everloop.cli.session import session

models = typer.Typer(help="Trained models, numbered by name.", no_args_is_help=True)


def add_to(app: typer.Typer) -> None:
    """Register the commands of this module."""
    app.add_typer(models, name="models")
    app.command()(lineage)


@models.command("list")
def list_models(name: Annotated[str, typer.Argument(help="A model; empty lists the newest of each.")] = "") -> None:
    """Models, or the versions of one."""
    with session.client() as client:
        found = client.call("models.list", name=name).model_dump(mode="json")
    rows = next(iter(v for v in found.values() if isinstance(v, list)), [])
    output.rows(rows, ["name", "number", "at", "actor", "metrics", "id"], empty="no models yet: everloop run")


@models.command("show")
def show(model: Annotated[str, typer.Argument(help="delay, delay@7, delay:champion, or an id.")]) -> None:
    """One model."""
    with session.client() as client:
        output.show(client.call("models.show", model=model))


@models.command("aliases")
def show_aliases(
    name: Annotated[str, typer.Argument(help="A registered model.")],
    at: Annotated[str, typer.Option("--at", help="When, as 2026-05-01T12:00:00Z; now when left out.")] = "",
) -> None:
    """Where the aliases of a model point, or pointed at a time, and every move of them, the newest first."""
    with session.client() as client:
        found = client.call("models.aliases", name=name, at=at)
    if output.as_json:
        output.show(found)
        return
    then = [{"alias": alias, "version": number} for alias, number in sorted(found.then.items())]
    moment = f"at {at}" if at else "now"
    output.rows(then, ["alias", "version"], empty=f"no alias pointed anywhere {moment}", title=moment)
    columns = ["at", "alias", "old", "new", "actor", "reason", "change"]
    output.rows(found.moves, columns, empty="no alias was ever moved", title="moves")


@models.command("card")
def card(model: Annotated[str, typer.Argument(help="model/delay, model/delay@7, or an id.")]) -> None:
    """The model card, rendered from facts; what nobody provided says so."""
    name = model if "/" in model or model.startswith("b3:") else f"model/{model}"
    with session.client() as client:
        found = client.call("checks.card", model=name)
    text = getattr(found, "markdown", "")
    output.show(found, text or None)


@models.command("selection")
def selection(model: Annotated[str, typer.Argument(help="delay, delay@7, delay:champion, or an id.")]) -> None:
    """How a model's inputs were chosen: each column of its service, and why it was taken or left; --json has all."""
    with session.client() as client:
        found = client.call("models.selection", model=model)
    if output.as_json:
        output.show(found)
        return
    rows = [
        {
            "column": one.column,
            "taken": "yes" if one.chosen else "no",
            "importance": f"{one.importance:.4f}",
            "mutual": f"{one.mutual_information:.4f}",
            "why": one.why,
        }
        for one in found.ranking
    ]
    taken = f"{len(found.chosen)} of {len(rows)} columns, on {found.rows:,} rows of the training frame"
    output.rows(rows, list(rows[0]) if rows else [], empty="it was given all columns of its service", title=taken)


def lineage(version: Annotated[str, typer.Argument(help="kind/name, kind/name@7, or an id.")]) -> None:
    """What led to a version, and what was made from it."""
    with session.client() as client:
        found = client.call("lineage.show", version=version)
    names = {node.id: node.label for node in found.nodes}
    rows = [{"made": names[e.to], "from": names[e.source], "role": e.role} for e in found.edges]
    output.rows(rows, ["made", "from", "role"], empty="nothing led to it")
