"""Experiments."""

from collections.abc import Mapping
from typing import Any

from everloop.catalog.context import Context
from everloop.catalog.tracking import experiments, inputs
from everloop.catalog.tracking.rows import Experiment, View
from everloop.core.errors import InvalidInput
from everloop.server.mlflow.endpoint import Endpoint, on_experiment
from everloop.server.mlflow.wire import Arguments, bounded, invalid, millis, page, pairs

VIEWS = {1: "ACTIVE_ONLY", 2: "DELETED_ONLY", 3: "ALL"}
_MOST_SEARCHED = 20
_VIEWS: Mapping[str, View] = {"ACTIVE_ONLY": "active", "DELETED_ONLY": "deleted", "ALL": "all"}


def view_of(args: Arguments, name: str) -> View:
    """Which rows a search shows."""
    return _VIEWS[args.choice(name, VIEWS, "ACTIVE_ONLY")]


def experiment_json(ctx: Context, found: Experiment) -> dict[str, Any]:
    """An experiment for the client."""
    return {
        "experiment_id": found.id,
        "name": found.name,
        "artifact_location": found.artifact_uri,
        "lifecycle_stage": found.stage,
        "creation_time": millis(found.created),
        "last_update_time": millis(found.updated),
        "tags": pairs(found.tags),
        "workspace": ctx.project,
    }


def create(ctx: Context, args: Arguments) -> Mapping[str, Any]:
    """experiments/create."""
    name = _name(args, "name")
    location = args.text("artifact_location", "")
    if location and not location.startswith("mlflow-artifacts:/"):
        raise invalid("artifact_location", location, "artifacts are kept by this server, under mlflow-artifacts:/")
    with ctx.write() as tx:
        tags = args.tags(most=20_000)
        return {"experiment_id": experiments.create(tx, ctx.project, name, at=ctx.now(), tags=tags)}


def search(ctx: Context, args: Arguments) -> Mapping[str, Any]:
    """experiments/search."""
    with ctx.read() as tx:
        found = experiments.search(
            tx,
            ctx.project,
            filter_text=args.text("filter", ""),
            order_by=args.texts("order_by"),
            view=view_of(args, "view_type"),
            limit=args.limit(1000, 50_000),
            token=args.text("page_token", ""),
        )
    return page("experiments", [experiment_json(ctx, one) for one in found.rows], found.token)


def get(ctx: Context, args: Arguments) -> Mapping[str, Any]:
    """experiments/get."""
    with ctx.read() as tx:
        return {"experiment": experiment_json(ctx, experiments.get(tx, ctx.project, args.experiment()))}


def get_by_name(ctx: Context, args: Arguments) -> Mapping[str, Any]:
    """experiments/get-by-name."""
    with ctx.read() as tx:
        return {"experiment": experiment_json(ctx, experiments.by_name(tx, ctx.project, args.text("experiment_name")))}


def update(ctx: Context, args: Arguments) -> Mapping[str, Any]:
    """experiments/update."""
    with ctx.write() as tx:
        experiments.rename(tx, ctx.project, args.experiment(), _name(args, "new_name"), at=ctx.now())
    return {}


def delete(ctx: Context, args: Arguments) -> Mapping[str, Any]:
    """experiments/delete."""
    with ctx.write() as tx:
        experiments.delete_experiment(tx, ctx.project, args.experiment(), at=ctx.now())
    return {}


def restore(ctx: Context, args: Arguments) -> Mapping[str, Any]:
    """experiments/restore."""
    with ctx.write() as tx:
        experiments.restore(tx, ctx.project, args.experiment(), at=ctx.now())
    return {}


def set_tag(ctx: Context, args: Arguments) -> Mapping[str, Any]:
    """experiments/set-experiment-tag."""
    value = bounded("value", args.text("value", ""), 20_000)
    with ctx.write() as tx:
        home = experiments.active(tx, ctx.project, args.experiment())
        experiments.set_tags(tx, ctx.project, home.id, {args.key(): value})
    return {}


def delete_tag(ctx: Context, args: Arguments) -> Mapping[str, Any]:
    """experiments/delete-experiment-tag."""
    with ctx.write() as tx:
        home = experiments.active(tx, ctx.project, args.experiment())
        experiments.delete_tag(tx, ctx.project, home.id, args.text("key"))
    return {}


def search_datasets(ctx: Context, args: Arguments) -> Mapping[str, Any]:
    """experiments/search-datasets."""
    named = args.experiments()
    if not named:
        raise InvalidInput("SearchDatasets request must specify at least one experiment_id.", hint="name some")
    if len(named) > _MOST_SEARCHED:
        raise InvalidInput(
            f"SearchDatasets request cannot specify more than {_MOST_SEARCHED} experiment_ids. "
            f"Received {len(named)} experiment_ids.",
            hint="ask in parts",
        )
    numbers = [int(one) for one in named if len(one) < 19]
    with ctx.read() as tx:
        found = inputs.known_datasets(tx, ctx.project, numbers)
    return {
        "dataset_summaries": [
            {"experiment_id": home, "name": one.name, "digest": one.digest, **({"context": context} if context else {})}
            for home, one, context in found
        ]
    }


def _name(args: Arguments, which: str) -> str:
    name = bounded(which, args.text(which), 500)
    if not name.strip():
        raise InvalidInput(f"Invalid experiment name: '{name}'", hint="give it a name that people can read")
    return name


ENDPOINTS = (
    Endpoint("POST", "experiments/create", create, on_experiment, audited=True),
    Endpoint("POST", "experiments/search", search, on_experiment, reads=True),
    Endpoint("GET", "experiments/search", search, on_experiment, reads=True),
    Endpoint("GET", "experiments/get", get, on_experiment, reads=True),
    Endpoint("GET", "experiments/get-by-name", get_by_name, on_experiment, reads=True),
    Endpoint("POST", "experiments/update", update, on_experiment, audited=True),
    Endpoint("POST", "experiments/delete", delete, on_experiment, audited=True),
    Endpoint("POST", "experiments/restore", restore, on_experiment, audited=True),
    Endpoint("POST", "experiments/set-experiment-tag", set_tag, on_experiment),
    Endpoint("POST", "experiments/delete-experiment-tag", delete_tag, on_experiment),
    Endpoint("POST", "experiments/search-datasets", search_datasets, on_experiment, reads=True),
)
