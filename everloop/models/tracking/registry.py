"""Registered models for people: search, versions, descriptions and tags, the history of aliases, files."""

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from everloop.catalog import facts, steps, versions
from everloop.catalog.browsing import aliases
from everloop.catalog.context import Context
from everloop.catalog.engine import Tx
from everloop.catalog.operation import Answer, Command, operation
from everloop.catalog.tracking import registered, registry
from everloop.catalog.tracking.rows import RegisteredModel, RegisteredVersion
from everloop.core.clock import parse_time
from everloop.core.errors import InvalidInput, NotFound
from everloop.core.grants import Target
from everloop.models.tracking.editing import checked_tag

_LONGEST = 20_000


class SearchModels(Command):
    """Which registered models to list, in MLflow's filter language; `text` is a part of their names."""

    text: str = ""
    filter: str = ""
    order_by: tuple[str, ...] = ()
    limit: int = Field(default=50, ge=1, le=1000)
    token: str = ""


class RegisteredNamed(Command):
    """A registered model, by its name."""

    name: str


class VersionsOfModel(RegisteredNamed):
    """A page of a model's versions, newest first."""

    limit: int = Field(default=100, ge=1, le=1000)
    token: str = ""


class VersionNamed(RegisteredNamed):
    """One version of a registered model."""

    number: int = Field(ge=1)


class Describe(RegisteredNamed):
    """What to write about a model, or about one of its versions; None leaves it as it is."""

    number: int = Field(default=0, ge=0)
    """0 means the model itself."""
    description: str | None = Field(default=None, max_length=_LONGEST)
    tags: dict[str, str] = Field(default={}, max_length=100)
    remove: tuple[str, ...] = Field(default=(), max_length=100)


class AliasHistory(RegisteredNamed):
    """Whose aliases, and when; no time means now."""

    at: str = ""
    """ISO 8601."""


class RegisteredVersionView(Answer):
    """A version of a registered model, as people see it."""

    name: str
    number: int
    id: str
    """Of the version in the catalog."""
    created: int
    actor: str
    description: str
    tags: dict[str, str]
    aliases: tuple[str, ...]
    run: str
    flavor: str
    estimator: str
    metrics: dict[str, str]
    source: str
    compiled: Mapping[str, Any] = Field(default_factory=dict)
    """The verdict on its compiled form (`verified`, `reason`, `difference`, …); empty where none was asked for."""


class RegisteredView(Answer):
    """A registered model, as people see it."""

    name: str
    asset: str
    """Its name among the catalog's versions."""
    description: str
    created: int
    updated: int
    tags: dict[str, str]
    aliases: dict[str, int]
    newest: RegisteredVersionView | None


class RegisteredPage(Answer):
    """Some models, and the token of the next page; empty when this was the last."""

    models: tuple[RegisteredView, ...]
    token: str


class VersionPage(Answer):
    """Some versions, and the token of the next page; empty when this was the last."""

    versions: tuple[RegisteredVersionView, ...]
    token: str


class AliasMove(Answer):
    """One move of an alias; a number is None where it pointed nowhere, or to a version that is gone."""

    alias: str
    old: int | None
    new: int | None
    actor: str
    at: int
    reason: str
    change: str


class AliasLog(Answer):
    """Where every alias pointed at the time asked for, and all moves, newest first."""

    then: dict[str, int]
    moves: tuple[AliasMove, ...]


class ModelFile(Answer):
    """A file of a version."""

    path: str
    object: str
    size: int | None
    """None where the store does not tell."""


class ModelFiles(Answer):
    """The files that a version pins; none where they are elsewhere."""

    files: tuple[ModelFile, ...]


def _on(_ctx: Context, cmd: Any) -> Target:
    return Target("model", cmd.name)


@operation("models.search", needs="read", on=lambda _ctx, _cmd: Target("model"), reads=True)
def search_models(ctx: Context, cmd: SearchModels) -> RegisteredPage:
    """Search registered models, by name unless told otherwise."""
    name = cmd.text.strip().replace("'", "''")
    wanted = " AND ".join(part for part in (f"name ILIKE '%{name}%'" if name else "", cmd.filter) if part)
    with ctx.read() as tx:
        found = registered.search_models(
            tx, ctx.project, filter_text=wanted, order_by=cmd.order_by, limit=cmd.limit, token=cmd.token
        )
        shown = tuple(_model(tx, ctx.project, one) for one in found.rows)
    return RegisteredPage(models=shown, token=found.token)


@operation("models.registered", needs="read", on=_on, reads=True)
def registered_model(ctx: Context, cmd: RegisteredNamed) -> RegisteredView:
    """Show a registered model."""
    with ctx.read() as tx:
        return _model(tx, ctx.project, registered.get(tx, ctx.project, cmd.name))


@operation("models.versions", needs="read", on=_on, reads=True)
def versions_of_model(ctx: Context, cmd: VersionsOfModel) -> VersionPage:
    """List the versions of a registered model, newest first."""
    name = cmd.name.replace("'", "''")
    with ctx.read() as tx:
        found = registered.search_versions(
            tx,
            ctx.project,
            filter_text=f"name = '{name}'",
            order_by=("version_number DESC",),
            limit=cmd.limit,
            token=cmd.token,
        )
        manifests = versions.manifests(tx, ctx.project, [one.version for one in found.rows])
        shown = tuple(_version(tx, ctx.project, one, manifests.get(one.version, {})) for one in found.rows)
    return VersionPage(versions=shown, token=found.token)


@operation("models.version", needs="read", on=_on, reads=True)
def version_of_model(ctx: Context, cmd: VersionNamed) -> RegisteredVersionView:
    """Show one version of a registered model."""
    with ctx.read() as tx:
        found = registered.version(tx, ctx.project, cmd.name, cmd.number)
        manifest = versions.get(tx, ctx.project, found.version).manifest
        return _version(tx, ctx.project, found, manifest)


@operation("models.describe", needs="run.write", on=_on)
def describe_model(ctx: Context, cmd: Describe) -> RegisteredNamed:
    """Write the description and tags of a model or of one of its versions."""
    for key, value in cmd.tags.items():
        checked_tag(key, value)
    with ctx.write() as tx:
        model = registered.get(tx, ctx.project, cmd.name)
        if cmd.number:
            registered.version(tx, ctx.project, cmd.name, cmd.number)
        if cmd.description is not None:
            if cmd.number:
                registry.change_version(
                    tx,
                    ctx.project,
                    cmd.name,
                    cmd.number,
                    actor=ctx.actor.name,
                    at=ctx.now(),
                    description=cmd.description,
                )
            else:
                registry.describe(tx, ctx.project, cmd.name, cmd.description, at=ctx.now())
        registry.set_tags(tx, ctx.project, model.asset, cmd.number, cmd.tags)
        for key in cmd.remove:
            registry.delete_tag(tx, ctx.project, model.asset, cmd.number, key)
        payload = {"number": cmd.number, "set": sorted(cmd.tags), "removed": sorted(cmd.remove)}
        facts.append(tx, ctx.project, ctx.fact("model.described", f"model/{model.asset}", payload))
    return RegisteredNamed(name=cmd.name)


@operation("models.aliases", needs="read", on=_on, reads=True)
def alias_history(ctx: Context, cmd: AliasHistory) -> AliasLog:
    """Tell where the aliases of a model pointed at a time, and every move of them."""
    try:
        time = parse_time(cmd.at) if cmd.at else ctx.now()
    except ValueError as error:
        raise InvalidInput(f"{cmd.at!r} is not a time", hint="ISO 8601, for example 2026-05-01T12:00:00Z") from error
    with ctx.read() as tx:
        asset = registered.get(tx, ctx.project, cmd.name).asset
        log = aliases.moves(tx, ctx.project, "model", asset)
        then = aliases.at(tx, ctx.project, "model", asset, time)
        ids = {identity for move in log for identity in (move.old, move.new) if identity} | set(then.values())
        numbers = {one: dict(versions.known_as(tx, ctx.project, one)).get(f"model/{asset}") for one in ids}
    return AliasLog(
        then={alias: number for alias, identity in then.items() if (number := numbers[identity]) is not None},
        moves=tuple(
            AliasMove(
                alias=move.name.rpartition("/")[2],
                old=numbers.get(move.old or ""),
                new=numbers.get(move.new or ""),
                actor=move.actor,
                at=move.at,
                reason=move.reason,
                change=move.change,
            )
            for move in log
        ),
    )


@operation("models.files", needs="read", on=_on, reads=True)
def files_of_model(ctx: Context, cmd: VersionNamed) -> ModelFiles:
    """List the files that a version pins; their bytes are in the store."""
    with ctx.read() as tx:
        held = registered.files(tx, ctx.project, registered.version(tx, ctx.project, cmd.name, cmd.number))
    return ModelFiles(
        files=tuple(ModelFile(path=path, object=one, size=_size(ctx, one)) for path, one in sorted(held.items()))
    )


def _size(ctx: Context, identity: str) -> int | None:
    measure = getattr(ctx.store, "size", None)  # no part of the port: a store that is far away may not know
    try:
        return None if measure is None else int(measure(identity))
    except NotFound:
        return None


def _model(tx: Tx, project: str, model: RegisteredModel) -> RegisteredView:
    newest = max(model.latest, key=lambda one: one.number, default=None)
    manifest = versions.manifests(tx, project, [newest.version]).get(newest.version, {}) if newest else {}
    return RegisteredView(
        name=model.name,
        asset=model.asset,
        description=model.description,
        created=model.created,
        updated=model.updated,
        tags=dict(model.tags),
        aliases=dict(model.aliases),
        newest=_version(tx, project, newest, manifest) if newest else None,
    )


def _version(tx: Tx, project: str, one: RegisteredVersion, manifest: Mapping[str, Any]) -> RegisteredVersionView:
    made = [] if one.run else steps.of_output(tx, project, one.version)
    return RegisteredVersionView(
        name=one.name,
        number=one.number,
        id=one.version,
        created=one.created,
        actor=one.actor,
        description=one.description,
        tags=dict(one.tags),
        aliases=one.aliases,
        run=made[0].run if made else one.run,
        flavor=str(manifest.get("flavor", "")),
        estimator=str(manifest.get("estimator", "")),
        metrics={name: str(value) for name, value in dict(manifest.get("metrics", {})).items()},
        source=one.source,
        compiled=dict(manifest.get("compiled") or {}),
    )
