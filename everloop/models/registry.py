"""The registry's operations: which models there are, what each is, under which names and aliases it goes.

Versions are numbered by the catalog, whoever made them; an alias is a pointer with a log. What a protected environment
serves is no alias: it moves by changes only.
"""

import re
from collections.abc import Mapping
from typing import Any

from pydantic import Field

from everloop.catalog import facts, refs, steps, versions
from everloop.catalog.context import Context
from everloop.catalog.engine import Tx
from everloop.catalog.keeping import removal
from everloop.catalog.operation import Answer, Command, operation
from everloop.catalog.tracking import registered
from everloop.catalog.tracking.registry import refuse_protected
from everloop.catalog.versions import VersionRow
from everloop.core.errors import InvalidInput, NotFound
from everloop.core.grants import Target
from everloop.core.version import Version
from everloop.models.webhooks import events

_ALIAS = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
_HEX = re.compile(r"[0-9a-f]{6,64}")
_NUMBER = re.compile(r"[vV]\d+|latest", re.IGNORECASE)


class ListModels(Command):
    """Which models to list."""

    name: str = ""
    """Empty: the newest version of every model; else the versions of this one, newest first."""
    limit: int = Field(50, ge=1)


class ModelNamed(Command):
    """A model's version: id, beginning of an id, `delay` (the newest), `delay@7`, or `delay:champion` (an alias)."""

    model: str


class Register(Command):
    """Give a version that exists another name, where it gets the next number."""

    model: str
    name: str


class Alias(Command):
    """Point an alias of a name to one of its versions; an empty `model` removes it."""

    name: str
    alias: str
    model: str = ""


class ModelView(Answer):
    """One version of a model, as people see it."""

    id: str
    name: str
    number: int
    at: int
    actor: str
    flavor: str
    estimator: str
    digest: str
    metrics: dict[str, str]
    aliases: tuple[str, ...] = ()
    run: str = ""
    """The tracking run that made it."""
    manifest: dict[str, Any] = Field(default_factory=dict)
    """Whole, where one model is asked for; empty in lists."""


class ModelList(Answer):
    """Models."""

    models: tuple[ModelView, ...]


def _on_name(_ctx: Context, cmd: Any) -> Target:
    return Target("model", cmd.name)


@operation("models.list", needs="read", reads=True, audit="denied")
def list_models(ctx: Context, cmd: ListModels) -> ModelList:
    """The newest version of every model, or all versions of one."""
    with ctx.read() as tx:
        if cmd.name:
            rows = versions.history(tx, ctx.project, "model", cmd.name, limit=cmd.limit)
        else:
            rows = versions.newest(tx, ctx.project, "model")[: cmd.limit]
        return ModelList(models=tuple(_view(tx, ctx.project, row) for row in rows))


@operation("models.show", needs="read", reads=True, audit="denied")
def show_model(ctx: Context, cmd: ModelNamed) -> ModelView:
    """One version of a model with its whole manifest."""
    with ctx.read() as tx:
        row = find_model(tx, ctx.project, cmd.model)
        return _view(tx, ctx.project, row, manifest=row.manifest)


@operation("models.register", needs="run.write", on=_on_name)
def register_model(ctx: Context, cmd: Register) -> ModelView:
    """Give a model's version another name; doing it again changes nothing."""
    with ctx.write() as tx:
        row = find_model(tx, ctx.project, cmd.model)
        if row.id in removal.freed(tx, ctx.project):
            raise NotFound(f"the files of {cmd.model} were freed after it was deleted", hint="choose another version")
        version = Version("model", cmd.name, row.manifest)
        numbered = versions.put(tx, ctx.project, version, actor=ctx.actor.name, at=ctx.now())
        if numbered.new:
            payload = {"version": row.id, "number": numbered.number, "from": row.key}
            facts.append(tx, ctx.project, ctx.fact("model.registered", f"model/{cmd.name}", payload))
            _tell_registered(ctx, tx, cmd.name, numbered.number, first=numbered.number == 1)
        return _view(tx, ctx.project, versions.find(tx, ctx.project, f"model/{cmd.name}@{numbered.number}"))


@operation("models.alias", needs="run.write", on=_on_name)
def alias_model(ctx: Context, cmd: Alias) -> ModelView:
    """Move an alias, or remove it; an alias that follows a protected environment moves by changes only."""
    if _ALIAS.fullmatch(cmd.alias) is None or _NUMBER.fullmatch(cmd.alias) is not None:
        raise InvalidInput(
            f"{cmd.alias!r} cannot be an alias", hint="a letter, then letters, digits, '_' and '-'; not latest or v7"
        )
    ref = refs.alias_ref("model", cmd.name, cmd.alias)
    who, now = ctx.actor.name, ctx.now()
    with ctx.write() as tx:
        refuse_protected(tx, ctx.project, cmd.alias)
        old = refs.get(tx, ctx.project, ref)
        shown, prompt = registered.told_as(tx, ctx.project, cmd.name)
        wanted = find_model(tx, ctx.project, cmd.model or f"{cmd.name}:{cmd.alias}")
        if not cmd.model:
            refs.delete(tx, ctx.project, ref, old=wanted.id, actor=who, at=now)
        elif old != wanted.id:
            if f"model/{cmd.name}" not in {key for key, _ in versions.known_as(tx, ctx.project, wanted.id)}:
                raise InvalidInput(f"{cmd.model} is no version of {cmd.name}", hint="register it under that name first")
            refs.move(tx, ctx.project, ref, old=old, new=wanted.id, actor=who, at=now)
        number = dict(versions.known_as(tx, ctx.project, wanted.id)).get(f"model/{cmd.name}", wanted.number)
        if not cmd.model:
            events.record(ctx, tx, "alias", "deleted", shown, prompt=prompt, alias=cmd.alias)
        elif old != wanted.id:
            events.record(ctx, tx, "alias", "created", shown, prompt=prompt, alias=cmd.alias, version=str(number))
        payload = {"alias": cmd.alias, "old": old, "new": wanted.id if cmd.model else None}
        facts.append(tx, ctx.project, ctx.fact("model.aliased", f"model/{cmd.name}", payload))
        return _view(tx, ctx.project, wanted)


def _tell_registered(ctx: Context, tx: Tx, asset: str, number: int, *, first: bool) -> None:
    """Tell webhooks of a new version, and of the name when it is the name's first."""
    name, prompt = registered.told_as(tx, ctx.project, asset)
    if first:
        events.record(ctx, tx, "model", "created", name, prompt=prompt, tags={}, description="")
    told = {"version": str(number), "tags": {}, "description": ""}
    about = {"template": ""} if prompt else {"source": "", "run_id": ""}
    events.record(ctx, tx, "version", "created", name, prompt=prompt, **told, **about)


def find_model(tx: Tx, project: str, text: str) -> VersionRow:
    """The model's version that `text` means (see `ModelNamed`); raises `NotFound` or `InvalidInput`."""
    name, colon, alias = text.partition(":")
    if colon and name != "b3":
        identity = refs.get(tx, project, refs.alias_ref("model", name.removeprefix("model/"), alias))
        if identity is None:
            raise NotFound(f"model {name} has no alias {alias!r}", hint=_aliases_hint(tx, project, name))
        return versions.get(tx, project, identity)
    is_name = not colon and "/" not in text and not text[:1].isdigit()
    try:
        row = versions.find(tx, project, f"model/{text}" if is_name else text)
    except NotFound:
        if _HEX.fullmatch(text) is None:  # no beginning of an id either
            raise
        row = versions.find(tx, project, text)
    if row.kind != "model":
        raise InvalidInput(f"{text} is a {row.kind}, not a model", hint="`everloop models list` shows the models")
    return row


def _view(tx: Tx, project: str, row: VersionRow, *, manifest: Mapping[str, Any] | None = None) -> ModelView:
    pointers = refs.all(tx, project, f"alias/model/{row.name}/")
    made = steps.of_output(tx, project, row.id)
    known = row.manifest
    return ModelView(
        id=row.id,
        name=row.name,
        number=row.number,
        at=row.at,
        actor=row.actor,
        flavor=str(known.get("flavor", "")),
        estimator=str(known.get("estimator", "")),
        digest=str(known.get("digest", "")),
        metrics=dict(known.get("metrics", {})),
        aliases=tuple(sorted(ref.rpartition("/")[2] for ref, target in pointers.items() if target == row.id)),
        run=made[0].run if made else str(known.get("run", "")),
        manifest=dict(manifest or {}),
    )


def _aliases_hint(tx: Tx, project: str, name: str) -> str:
    known = sorted(ref.rpartition("/")[2] for ref in refs.all(tx, project, f"alias/model/{name}/"))
    return "it has " + ", ".join(known) if known else "it has no aliases"
