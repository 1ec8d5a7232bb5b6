"""Registered models, their versions and aliases."""

from collections.abc import Mapping
from typing import Any

from everloop.catalog.context import Context
from everloop.catalog.engine import Tx
from everloop.catalog.keeping import seals
from everloop.catalog.tracking import logged, registered, registry, runs
from everloop.catalog.tracking.rows import RegisteredModel, RegisteredVersion
from everloop.core.errors import InvalidInput, NotFound
from everloop.models.webhooks import events
from everloop.server.mlflow import sources
from everloop.server.mlflow.endpoint import Endpoint, on_model, repeated
from everloop.server.mlflow.wire import Arguments, bounded, millis, page, pairs

_TAG_LENGTH = 100_000
_PROMPT_TEXT = "mlflow.prompt.text"


def version_json(found: RegisteredVersion) -> dict[str, Any]:
    """A model version for the client."""
    return {
        "name": found.name,
        "version": str(found.number),
        "creation_timestamp": millis(found.created),
        "last_updated_timestamp": millis(found.updated),
        "user_id": found.actor,
        "current_stage": found.stage,
        "description": found.description,
        "source": found.source,
        **({"run_id": found.run} if found.run else {}),
        **({"model_id": found.model} if found.model else {}),
        **({"run_link": found.run_link} if found.run_link else {}),
        "status": "READY",
        "tags": pairs(found.tags),
        "aliases": list(found.aliases),
    }


def model_json(model: RegisteredModel) -> dict[str, Any]:
    """A registered model for the client."""
    return {
        "name": model.name,
        "creation_timestamp": millis(model.created),
        "last_updated_timestamp": millis(model.updated),
        **({"description": model.description} if model.description else {}),
        "tags": pairs(model.tags),
        "aliases": [{"alias": alias, "version": str(number)} for alias, number in model.aliases.items()],
        "latest_versions": [version_json(one) for one in model.latest],
    }


def create(ctx: Context, args: Arguments) -> Mapping[str, Any]:
    """registered-models/create."""
    with ctx.write() as tx:
        made = registry.register(
            tx,
            ctx.project,
            bounded("name", args.text("name"), 256),
            actor=ctx.actor.name,
            at=ctx.now(),
            description=args.text("description", ""),
            tags=_tags(args),
        )
        told = {"tags": dict(made.tags), "description": made.description}
        events.record(ctx, tx, "model", "created", made.name, prompt=registered.is_prompt(made), **told)
    return {"registered_model": model_json(made)}


def rename(ctx: Context, args: Arguments) -> Mapping[str, Any]:
    """registered-models/rename."""
    new_name = bounded("new_name", args.text("new_name"), 256)
    with ctx.write() as tx:
        found = registry.rename(tx, ctx.project, args.text("name"), new_name, at=ctx.now())
    return {"registered_model": model_json(found)}


def update(ctx: Context, args: Arguments) -> Mapping[str, Any]:
    """registered-models/update."""
    with ctx.write() as tx:
        found = registry.describe(tx, ctx.project, args.text("name"), args.text("description", ""), at=ctx.now())
    return {"registered_model": model_json(found)}


def delete(ctx: Context, args: Arguments) -> Mapping[str, Any]:
    """registered-models/delete."""
    with ctx.write() as tx:
        registry.delete_registered(tx, ctx.project, args.text("name"), actor=ctx.actor.name, at=ctx.now())
    return {}


def get(ctx: Context, args: Arguments) -> Mapping[str, Any]:
    """registered-models/get."""
    with ctx.read() as tx:
        return {"registered_model": model_json(registered.get(tx, ctx.project, args.text("name")))}


def search(ctx: Context, args: Arguments) -> Mapping[str, Any]:
    """registered-models/search."""
    with ctx.read() as tx:
        found = registered.search_models(
            tx,
            ctx.project,
            filter_text=args.text("filter", ""),
            order_by=args.texts("order_by"),
            limit=args.limit(100, 1000),
            token=args.text("page_token", ""),
        )
    return page("registered_models", [model_json(model) for model in found.rows], found.token)


def latest_versions(ctx: Context, args: Arguments) -> Mapping[str, Any]:
    """registered-models/get-latest-versions."""
    with ctx.read() as tx:
        model = registered.get(tx, ctx.project, args.text("name"))
        found = registry.latest(model, args.texts("stages"))
    return {"model_versions": [version_json(one) for one in found]}


def set_tag(ctx: Context, args: Arguments) -> Mapping[str, Any]:
    """registered-models/set-tag."""
    with ctx.write() as tx:
        model = registered.get(tx, ctx.project, args.text("name"))
        key, value = args.key(), args.text("value", "")[:_TAG_LENGTH]
        registry.set_tags(tx, ctx.project, model.asset, 0, {key: value})
        events.record(ctx, tx, "tag", "set", model.name, prompt=registered.is_prompt(model), key=key, value=value)
    return {}


def delete_tag(ctx: Context, args: Arguments) -> Mapping[str, Any]:
    """registered-models/delete-tag."""
    with ctx.write() as tx:
        model = registered.get(tx, ctx.project, args.text("name"))
        registry.delete_tag(tx, ctx.project, model.asset, 0, args.text("key"))
        events.record(ctx, tx, "tag", "deleted", model.name, prompt=registered.is_prompt(model), key=args.text("key"))
    return {}


def set_alias(ctx: Context, args: Arguments) -> Mapping[str, Any]:
    """POST registered-models/alias."""
    alias, number = bounded("Registered model alias name", args.text("alias"), 255), _number(args)
    with ctx.write() as tx:
        registry.set_alias(tx, ctx.project, args.text("name"), alias, number, actor=ctx.actor.name, at=ctx.now())
        model = registered.get(tx, ctx.project, args.text("name"))
        told = {"alias": alias, "version": str(number)}
        events.record(ctx, tx, "alias", "created", model.name, prompt=registered.is_prompt(model), **told)
    return {}


def delete_alias(ctx: Context, args: Arguments) -> Mapping[str, Any]:
    """DELETE registered-models/alias."""
    with ctx.write() as tx:
        model = registered.get(tx, ctx.project, args.text("name"))
        registry.delete_alias(tx, ctx.project, model, args.text("alias"), actor=ctx.actor.name, at=ctx.now())
        events.record(
            ctx, tx, "alias", "deleted", model.name, prompt=registered.is_prompt(model), alias=args.text("alias")
        )
    return {}


def get_by_alias(ctx: Context, args: Arguments) -> Mapping[str, Any]:
    """GET registered-models/alias."""
    name, alias = args.text("name"), args.text("alias")
    with ctx.read() as tx:
        registered.get(tx, ctx.project, name)
        try:
            found = registered.by_alias(tx, ctx.project, name, alias)
        except NotFound as error:  # the code that clients expect of an alias
            raise InvalidInput(error.message, hint=error.hint) from None
    return {"model_version": version_json(found)}


def create_version(ctx: Context, args: Arguments) -> Mapping[str, Any]:
    """model-versions/create."""
    source, run = args.text("source"), args.text("run_id", "")
    model_id = args.text("model_id", "") or sources.logged_model_of(source)
    tags = _tags(args)
    seal = _sealed(ctx, source, run, model_id)
    with ctx.write() as tx:
        model = registered.get(tx, ctx.project, args.text("name"))
        prompt = registered.PROMPT_TAG in {*tags, *model.tags}
        files = sources.files_of(tx, ctx.project, source, run=run, prompt=prompt)
        run = run or sources.run_of(source)
        if model_id and not run:
            run = logged.find(tx, ctx.project, model_id).run
        made = registry.create_version(
            tx,
            ctx.project,
            model,
            source=source,
            actor=ctx.actor.name,
            at=ctx.now(),
            run=run,
            logged=model_id,
            run_link=args.text("run_link", ""),
            description=args.text("description", ""),
            files=files,
            tags=tags,
            once=repeated(ctx, args),
            seal=seal,
        )
        told = {"version": str(made.number), "tags": dict(made.tags), "description": made.description}
        about = {"template": made.tags.get(_PROMPT_TEXT, "")} if prompt else {"source": made.source, "run_id": made.run}
        events.record(ctx, tx, "version", "created", made.name, prompt=prompt, **told, **about)
    return {"model_version": version_json(made)}


def update_version(ctx: Context, args: Arguments) -> Mapping[str, Any]:
    """model-versions/update."""
    with ctx.write() as tx:
        found = registry.change_version(
            tx,
            ctx.project,
            args.text("name"),
            _number(args),
            actor=ctx.actor.name,
            at=ctx.now(),
            description=args.text("description", ""),
        )
    return {"model_version": version_json(found)}


def transition(ctx: Context, args: Arguments) -> Mapping[str, Any]:
    """model-versions/transition-stage."""
    with ctx.write() as tx:
        found = registry.transition(
            tx,
            ctx.project,
            args.text("name"),
            _number(args),
            args.text("stage"),
            archive=args.flag("archive_existing_versions"),
            actor=ctx.actor.name,
            at=ctx.now(),
        )
    return {"model_version": version_json(found)}


def delete_version(ctx: Context, args: Arguments) -> Mapping[str, Any]:
    """model-versions/delete."""
    with ctx.write() as tx:
        registry.delete_version(tx, ctx.project, args.text("name"), _number(args), actor=ctx.actor.name, at=ctx.now())
    return {}


def get_version(ctx: Context, args: Arguments) -> Mapping[str, Any]:
    """model-versions/get."""
    with ctx.read() as tx:
        found = registered.version(tx, ctx.project, args.text("name"), _number(args))
    return {"model_version": version_json(found)}


def search_versions(ctx: Context, args: Arguments) -> Mapping[str, Any]:
    """model-versions/search."""
    with ctx.read() as tx:
        found = registered.search_versions(
            tx,
            ctx.project,
            filter_text=args.text("filter", ""),
            order_by=args.texts("order_by"),
            limit=args.limit(10_000, 200_000),
            token=args.text("page_token", ""),
        )
    return page("model_versions", [version_json(one) for one in found.rows], found.token)


def download_uri(ctx: Context, args: Arguments) -> Mapping[str, Any]:
    """model-versions/get-download-uri: the files that the version pins, wherever they came from."""
    with ctx.read() as tx:
        found = registered.version(tx, ctx.project, args.text("name"), _number(args))
        pinned = registered.files(tx, ctx.project, found)
    return {"artifact_uri": f"mlflow-artifacts:/{registered.place(found)}" if pinned else found.source}


def set_version_tag(ctx: Context, args: Arguments) -> Mapping[str, Any]:
    """model-versions/set-tag."""
    with ctx.write() as tx:
        model, number = _version_row(tx, ctx, args)
        key, value = args.key(), args.text("value", "")[:_TAG_LENGTH]
        registry.set_tags(tx, ctx.project, model.asset, number, {key: value})
        told = {"version": str(number), "key": key, "value": value}
        events.record(ctx, tx, "version_tag", "set", model.name, prompt=registered.is_prompt(model), **told)
    return {}


def delete_version_tag(ctx: Context, args: Arguments) -> Mapping[str, Any]:
    """model-versions/delete-tag."""
    with ctx.write() as tx:
        model, number = _version_row(tx, ctx, args)
        registry.delete_tag(tx, ctx.project, model.asset, number, args.text("key"))
        told = {"version": str(number), "key": args.text("key")}
        events.record(ctx, tx, "version_tag", "deleted", model.name, prompt=registered.is_prompt(model), **told)
    return {}


def files_of(ctx: Context, name: str, number: int) -> str:
    """Where the artifact proxy shows a version's files."""
    with ctx.read() as tx:
        return registered.place(registered.version(tx, ctx.project, name, number))


def _sealed(ctx: Context, source: str, run: str, model: str) -> str:
    """The seal of the run that a new version comes from, made now; empty when it comes from none of this project."""
    run = run or sources.run_of(source)
    with ctx.read() as tx:
        try:
            run = run or (logged.find(tx, ctx.project, model).run if model else "")
            known = bool(run) and bool(runs.find(tx, ctx.project, run))
        except NotFound:  # said where the version is made, if it matters there
            known = False
    return seals.seal(ctx.catalog, ctx.project, run, actor=ctx.actor.name, at=ctx.now()).id if known else ""


def _version_row(tx: Tx, ctx: Context, args: Arguments) -> tuple[RegisteredModel, int]:
    found = registered.version(tx, ctx.project, args.text("name"), _number(args))
    return registered.get(tx, ctx.project, found.name), found.number


def _number(args: Arguments) -> int:
    number = args.integer("version")
    if not 1 <= number < 2**31:  # no version has it
        raise NotFound(
            f"Model Version (name={args.text('name', '')}, version={number}) not found", hint="versions count from 1"
        )
    return number


def _tags(args: Arguments) -> dict[str, str]:
    return args.tags(most=_TAG_LENGTH)


ENDPOINTS = (
    Endpoint("POST", "registered-models/create", create, on_model, audited=True),
    Endpoint("POST", "registered-models/rename", rename, on_model, audited=True),
    Endpoint("PATCH", "registered-models/update", update, on_model, audited=True),
    Endpoint("DELETE", "registered-models/delete", delete, on_model, audited=True),
    Endpoint("GET", "registered-models/get", get, on_model, reads=True),
    Endpoint("GET", "registered-models/search", search, on_model, reads=True),
    Endpoint("GET", "registered-models/get-latest-versions", latest_versions, on_model, reads=True),
    Endpoint("POST", "registered-models/get-latest-versions", latest_versions, on_model, reads=True),
    Endpoint("POST", "registered-models/set-tag", set_tag, on_model, audited=True),
    Endpoint("DELETE", "registered-models/delete-tag", delete_tag, on_model, audited=True),
    Endpoint("POST", "registered-models/alias", set_alias, on_model, audited=True),
    Endpoint("DELETE", "registered-models/alias", delete_alias, on_model, audited=True),
    Endpoint("GET", "registered-models/alias", get_by_alias, on_model, reads=True),
    Endpoint("POST", "model-versions/create", create_version, on_model, audited=True),
    Endpoint("PATCH", "model-versions/update", update_version, on_model, audited=True),
    Endpoint("POST", "model-versions/transition-stage", transition, on_model, audited=True),
    Endpoint("DELETE", "model-versions/delete", delete_version, on_model, audited=True),
    Endpoint("GET", "model-versions/get", get_version, on_model, reads=True),
    Endpoint("GET", "model-versions/search", search_versions, on_model, reads=True),
    Endpoint("GET", "model-versions/get-download-uri", download_uri, on_model, reads=True),
    Endpoint("POST", "model-versions/set-tag", set_version_tag, on_model, audited=True),
    Endpoint("DELETE", "model-versions/delete-tag", delete_version_tag, on_model, audited=True),
)
