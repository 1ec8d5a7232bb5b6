"""Logged models: what `log_model` makes before anybody registers it."""

from collections.abc import Mapping
from typing import Any

from everloop.catalog.context import Context
from everloop.catalog.tracking import artifacts, logged
from everloop.catalog.tracking.rows import LoggedModel
from everloop.core.errors import InvalidInput, NotFound
from everloop.core.grants import Target
from everloop.server.mlflow.endpoint import Endpoint, on_experiment, repeated
from everloop.server.mlflow.runs import metric_json
from everloop.server.mlflow.wire import PARAM_LENGTH, Arguments, millis, page, pairs

_NOT_IN_NAMES = ("/", ":", ".", "%", '"', "'")
STATUSES = {1: "LOGGED_MODEL_PENDING", 2: "LOGGED_MODEL_READY", 3: "LOGGED_MODEL_UPLOAD_FAILED"}


def model_json(model: LoggedModel) -> dict[str, Any]:
    """A logged model for the client."""
    return {
        "info": {
            "model_id": model.id,
            "experiment_id": model.experiment,
            "name": model.name,
            "creation_timestamp_ms": millis(model.created),
            "last_updated_timestamp_ms": millis(model.updated),
            "artifact_uri": model.artifact_uri,
            "status": model.status,
            **({"model_type": model.type} if model.type else {}),
            **({"source_run_id": model.run} if model.run else {}),
            "tags": pairs(model.tags),
            "registrations": [{"name": name, "version": str(version)} for name, version in model.registrations],
        },
        "data": {"params": pairs(model.params), "metrics": [metric_json(point) for point in model.metrics]},
    }


def create(ctx: Context, args: Arguments) -> Mapping[str, Any]:
    """POST logged-models."""
    digits = repeated(ctx, args)
    identity = f"m-{digits}" if digits else ""
    with ctx.write() as tx:
        if identity and logged.runs_of(tx, ctx.project, [identity]):  # the answer to the first call was lost
            return {"model": model_json(logged.get(tx, ctx.project, identity))}
        made = logged.create(
            tx,
            ctx.project,
            experiment=args.experiment(),
            at=ctx.now(),
            name=_name(args),
            kind=args.text("model_type", ""),
            run=args.text("source_run_id", ""),
            params=_params(args),
            tags=args.tags(),
            identity=identity,
        )
    return {"model": model_json(made)}


def get(ctx: Context, args: Arguments) -> Mapping[str, Any]:
    """GET logged-models/<id>."""
    with ctx.read() as tx:
        return {"model": model_json(logged.get(tx, ctx.project, args.text("model_id")))}


def finalize(ctx: Context, args: Arguments) -> Mapping[str, Any]:
    """PATCH logged-models/<id>."""
    status = args.choice("status", STATUSES, "")
    with ctx.write() as tx:
        return {"model": model_json(logged.finalize(tx, ctx.project, args.text("model_id"), status, at=ctx.now()))}


def delete(ctx: Context, args: Arguments) -> Mapping[str, Any]:
    """DELETE logged-models/<id>; one that is deleted already is passed over."""
    identity = args.text("model_id")
    with ctx.write() as tx:
        try:
            logged.delete_model(tx, ctx.project, identity, at=ctx.now())
        except NotFound:
            if identity not in logged.runs_of(tx, ctx.project, [identity]):
                raise
    return {}


def search(ctx: Context, args: Arguments) -> Mapping[str, Any]:
    """logged-models/search."""
    orders = [
        logged.Order(
            field=part.text("field_name"),
            descending=part.has("ascending") and not part.flag("ascending"),
            dataset=part.text("dataset_name", ""),
            digest=part.text("dataset_digest", ""),
        )
        for part in args.parts("order_by")
    ]
    named = [(part.text("dataset_name"), part.text("dataset_digest", "")) for part in args.parts("datasets")]
    with ctx.read() as tx:
        found = logged.search(
            tx,
            ctx.project,
            args.experiments(),
            filter_text=args.text("filter", ""),
            order_by=orders,
            datasets=named,
            limit=args.limit(100, 1000),
            token=args.text("page_token", ""),
        )
    return page("models", [model_json(model) for model in found.rows], found.token)


def set_tags(ctx: Context, args: Arguments) -> Mapping[str, Any]:
    """PATCH logged-models/<id>/tags."""
    with ctx.write() as tx:
        return {"model": model_json(logged.set_tags(tx, ctx.project, args.text("model_id"), args.tags()))}


def delete_tag(ctx: Context, args: Arguments) -> Mapping[str, Any]:
    """DELETE logged-models/<id>/tags/<key>."""
    with ctx.write() as tx:
        logged.delete_tag(tx, ctx.project, args.text("model_id"), args.text("tag_key"))
    return {}


def log_params(ctx: Context, args: Arguments) -> Mapping[str, Any]:
    """POST logged-models/<id>/params."""
    with ctx.write() as tx:
        logged.log_params(tx, ctx.project, args.text("model_id"), _params(args))
    return {}


def directories(ctx: Context, args: Arguments) -> Mapping[str, Any]:
    """GET logged-models/<id>/artifacts/directories."""
    path = artifacts.checked_path(args.text("artifact_directory_path", "").rstrip("/"), empty=True)
    with ctx.read() as tx:
        model = logged.find(tx, ctx.project, args.text("model_id"))
        found = artifacts.children(tx, ctx.project, model.id, path)
    files = [
        {"path": one.path, "is_dir": one.is_directory, **({} if one.is_directory else {"file_size": one.size})}
        for one in found
    ]
    return {"root_uri": model.artifact_uri, "files": files}


def on_source_run(_ctx: Context, args: Arguments) -> Target:
    """The run that makes the model; a model without a run counts as an asset."""
    run = args.text("source_run_id", "")
    return Target("run", run) if run else Target("model", "*")


def on_logged(ctx: Context, args: Arguments) -> Target:
    """A model is written by whoever may write its run."""
    identity = args.text("model_id")
    with ctx.read() as tx:
        owners = logged.runs_of(tx, ctx.project, [identity])  # a deleted model's too
        run = owners[identity] if identity in owners else logged.find(tx, ctx.project, identity).run
    return Target("run", run) if run else Target("model", identity)


def _name(args: Arguments) -> str:
    name = args.text("name", "")
    if any(mark in name for mark in _NOT_IN_NAMES):
        raise InvalidInput(
            f"Invalid model name ('{name}') provided. Model name must be a non-empty string and cannot contain the "
            f"following characters: {_NOT_IN_NAMES}",
            hint="choose a plain name",
        )
    return name


def _params(args: Arguments) -> dict[str, str]:
    return {part.key(): part.text("value", "")[:PARAM_LENGTH] for part in args.parts("params")}


def _reading(_ctx: Context, args: Arguments) -> Target:
    return Target("model", args.text("model_id"))


ENDPOINTS = (
    Endpoint("POST", "logged-models", create, on_source_run),
    Endpoint("POST", "logged-models/search", search, on_experiment, reads=True),
    Endpoint("GET", "logged-models/{model_id}", get, _reading, reads=True),
    Endpoint("PATCH", "logged-models/{model_id}", finalize, on_logged),
    Endpoint("DELETE", "logged-models/{model_id}", delete, on_logged, audited=True),
    Endpoint("PATCH", "logged-models/{model_id}/tags", set_tags, on_logged),
    Endpoint("DELETE", "logged-models/{model_id}/tags/{tag_key}", delete_tag, on_logged),
    Endpoint("POST", "logged-models/{model_id}/params", log_params, on_logged),
    Endpoint("GET", "logged-models/{model_id}/artifacts/directories", directories, _reading, reads=True),
)
