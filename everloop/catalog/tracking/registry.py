"""Registered models: a view over the catalog's versions of kind `model`, with what people say about them.

A name's versions are those that `versions` numbers, whoever made them: a step of a flow or an MLflow client.
Aliases are refs `alias/model/<name>/<alias>`. Rows of this area only add descriptions, tags, stages and sources; a
model without such a row is shown all the same.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import delete, insert, select, update

from everloop.catalog import refs, versions
from everloop.catalog.engine import Tx, insert_into
from everloop.catalog.keeping import removal
from everloop.catalog.tables.tracking import registered_models, registered_tags, registered_versions
from everloop.catalog.tracking import registered
from everloop.catalog.tracking.rows import RegisteredModel, RegisteredVersion
from everloop.core.clock import Micros
from everloop.core.errors import Conflict, InvalidInput, PolicyRefused
from everloop.core.ids import object_id, short
from everloop.core.version import Version

STAGES = ("None", "Staging", "Production", "Archived")
_ASSET = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,127}")


def asset_name(name: str) -> str:
    """The name that the catalog's versions bear: the model's own where that can be one, else made from it."""
    if _ASSET.fullmatch(name):
        return name
    plain = re.sub(r"[^A-Za-z0-9_.-]", "_", name)[:100]
    return f"_{plain}.{short(object_id(name.encode()))}"


def register(
    tx: Tx,
    project: str,
    name: str,
    *,
    actor: str,
    at: Micros,
    description: str = "",
    tags: Mapping[str, str] | None = None,
) -> RegisteredModel:
    """Make a name under which versions can be registered; raises `Conflict` when it is taken, `InvalidInput`."""
    if not name.strip() or "/" in name or ":" in name:
        raise InvalidInput(
            f"Invalid model name '{name}'. Names cannot be empty, or contain '/' or ':'.",
            hint="choose a plain name",
        )
    if registered.find(tx, project, name) is not None:
        raise Conflict(f"Registered Model (name={name}) already exists.", hint="register a version of it")
    row = {
        "project": project,
        "name": name,
        "asset": _free_asset(tx, project, name),
        "description": description,
        "actor": actor,
        "created": at,
        "updated": at,
    }
    made = insert_into(tx, registered_models).values(row).on_conflict_do_nothing()
    if tx.execute(made).rowcount != 1:
        raise Conflict(f"Registered Model (name={name}) already exists.", hint="register a version of it")
    set_tags(tx, project, str(row["asset"]), 0, tags or {})
    return registered.get(tx, project, name)


def rename(tx: Tx, project: str, name: str, new_name: str, *, at: Micros) -> RegisteredModel:
    """Give a model another name; its versions, numbers and aliases stay. Raises `NotFound`, `Conflict`."""
    model = registered.get(tx, project, name)
    if new_name != name:
        if registered.find(tx, project, new_name) is not None:
            raise Conflict(f"Registered Model (name={new_name}) already exists.", hint="choose another name")
        if not new_name.strip() or "/" in new_name or ":" in new_name:
            raise InvalidInput(
                f"Invalid model name '{new_name}'. Names cannot be empty, or contain '/' or ':'.",
                hint="choose a plain name",
            )
        _change_model(tx, project, model, at=at, name=new_name)
    return registered.get(tx, project, new_name)


def describe(tx: Tx, project: str, name: str, description: str, *, at: Micros) -> RegisteredModel:
    """Set a model's description."""
    _change_model(tx, project, registered.get(tx, project, name), at=at, description=description)
    return registered.get(tx, project, name)


def delete_registered(tx: Tx, project: str, name: str, *, actor: str, at: Micros) -> None:
    """Retire a name: its versions stay in the catalog, and numbers start at 1 when it comes back."""
    model = registered.get(tx, project, name)
    for alias in model.aliases:
        delete_alias(tx, project, model, alias, actor=actor, at=at)
    if model.asset in versions.names(tx, project, "model"):
        removal.remove(tx, project, registered.ids(tx, project, model.asset), actor=actor, at=at)
        versions.retire(tx, project, "model", model.asset)
    for table in (registered_tags, registered_versions, registered_models):
        tx.execute(delete(table).where(table.c.project == project, table.c.asset == model.asset))


def create_version(
    tx: Tx,
    project: str,
    model: RegisteredModel,
    *,
    source: str,
    actor: str,
    at: Micros,
    run: str = "",
    logged: str = "",
    run_link: str = "",
    description: str = "",
    files: Mapping[str, str] | None = None,
    tags: Mapping[str, str] | None = None,
    once: str = "",
    seal: str = "",
) -> RegisteredVersion:
    """Register a version: the next number of the name, pinning the `files` (path to object) that the source holds now.

    Registering the same source again gives another number, as MLflow's users expect; so the manifest then says which.
    A call that says `once` gets the version of the first call that said the same. `seal` is the version that says what
    the run held: lineage, no part of the identity.
    """
    manifest: dict[str, Any] = {"flavor": "mlflow", "source": source, "run": run, "files": dict(files or {})}
    if once:
        manifest["call"] = once
    inputs = (("run", seal),) if seal else ()
    numbered = versions.put(tx, project, Version("model", model.asset, manifest, inputs), actor=actor, at=at)
    if once and not numbered.new:
        return registered.version(tx, project, model.name, numbered.number)
    again = max((one.number for one in model.latest), default=0)
    while not numbered.new:
        again += 1
        counted = Version("model", model.asset, {**manifest, "registration": again}, inputs)
        numbered = versions.put(tx, project, counted, actor=actor, at=at)
    row = {
        "project": project,
        "asset": model.asset,
        "number": numbered.number,
        "version": numbered.id,
        "source": source,
        "run": run,
        "model": logged,
        "run_link": run_link,
        "description": description,
        "stage": "None",
        "actor": actor,
        "created": at,
        "updated": at,
        "deleted": 0,
    }
    tx.execute(insert(registered_versions), [row])
    set_tags(tx, project, model.asset, numbered.number, tags or {})
    _change_model(tx, project, model, at=at)
    return registered.version(tx, project, model.name, numbered.number)


def change_version(
    tx: Tx, project: str, name: str, number: int, *, actor: str, at: Micros, **values: str
) -> RegisteredVersion:
    """Set `description` or `stage` of a version; raises `NotFound`."""
    _set(tx, project, registered.version(tx, project, name, number), actor=actor, at=at, **values)
    return registered.version(tx, project, name, number)


def delete_version(tx: Tx, project: str, name: str, number: int, *, actor: str, at: Micros) -> None:
    """Hide a version and remove its aliases; its number is not given again, its bytes may go after a grace period."""
    model = registered.get(tx, project, name)
    found = registered.version(tx, project, name, number)
    for alias in found.aliases:
        delete_alias(tx, project, model, alias, actor=actor, at=at)
    _set(tx, project, found, actor=actor, at=at, deleted=1)
    removal.remove(tx, project, [found.version], actor=actor, at=at)


def transition(
    tx: Tx, project: str, name: str, number: int, stage: str, *, archive: bool, actor: str, at: Micros
) -> RegisteredVersion:
    """Move a version to a stage, archiving others there if asked; raises `PolicyRefused` for a protected one."""
    known = {one.lower(): one for one in STAGES}
    if stage.lower() not in known:
        raise _unknown_stage(stage)
    wanted = known[stage.lower()]
    refuse_protected(tx, project, wanted)
    if archive and wanted in {"Staging", "Production"}:
        mine = registered_versions.c
        asset = registered.get(tx, project, name).asset
        others = (mine.project == project, mine.asset == asset, mine.stage == wanted, mine.number != number)
        tx.execute(update(registered_versions).where(*others).values(stage="Archived", updated=at))
    return change_version(tx, project, name, number, actor=actor, at=at, stage=wanted)


def set_alias(tx: Tx, project: str, name: str, alias: str, number: int, *, actor: str, at: Micros) -> None:
    """Point an alias to a version; raises `NotFound`, `InvalidInput`, and `PolicyRefused` for a protected one."""
    if not alias or re.fullmatch(r"[A-Za-z0-9_-]{1,255}", alias) is None:
        raise InvalidInput(
            f"Invalid alias name: '{alias}'. Names may only contain alphanumerics, underscores (_), and dashes (-).",
            hint="255 characters at most",
        )
    if alias.lower() == "latest" or re.fullmatch(r"[vV]\d+", alias):
        raise InvalidInput(f"'{alias}' alias name (case insensitive) is reserved.", hint="choose another")
    refuse_protected(tx, project, alias)
    model = registered.get(tx, project, name)
    found = registered.version(tx, project, name, number)
    ref = refs.alias_ref("model", model.asset, alias)
    old = refs.get(tx, project, ref)
    if old != found.version:
        refs.move(tx, project, ref, old=old, new=found.version, actor=actor, at=at, reason="mlflow alias")


def delete_alias(tx: Tx, project: str, model: RegisteredModel, alias: str, *, actor: str, at: Micros) -> None:
    """Remove an alias; one that is not there is passed over. Raises `PolicyRefused` for a protected one."""
    refuse_protected(tx, project, alias)
    ref = refs.alias_ref("model", model.asset, alias)
    old = refs.get(tx, project, ref)
    if old is not None:
        refs.delete(tx, project, ref, old=old, actor=actor, at=at, reason="mlflow alias")


def refuse_protected(tx: Tx, project: str, word: str) -> None:
    """Refuse to move, past its policy, an alias or stage that says what a protected environment holds."""
    environment = registered.FOLLOWING.get(word.lower(), word)
    if environment.startswith("sandbox"):
        return
    if refs.get(tx, project, refs.env_ref(environment)) is not None:
        raise PolicyRefused(
            f"'{word}' follows the protected environment {environment}, which moves by changes only",
            hint=f"open a change: everloop propose --to {environment}; it is at /{project}/environments/{environment}",
        )


def set_tags(tx: Tx, project: str, asset: str, number: int, tags: Mapping[str, str]) -> None:
    """Set tags of a model (`number` 0) or version, replacing values."""
    rows = [
        {"project": project, "asset": asset, "number": number, "key": key, "value": value}
        for key, value in sorted(tags.items())
    ]
    if rows:
        put = insert_into(tx, registered_tags)
        keys = ["project", "asset", "number", "key"]
        tx.execute(put.on_conflict_do_update(index_elements=keys, set_={"value": put.excluded.value}), rows)


def delete_tag(tx: Tx, project: str, asset: str, number: int, key: str) -> None:
    """Remove a tag; one that is not set is passed over."""
    mine = registered_tags.c
    here = (mine.project == project, mine.asset == asset, mine.number == number, mine.key == key)
    tx.execute(delete(registered_tags).where(*here))


def latest(model: RegisteredModel, stages: Collection[str] = ()) -> Sequence[RegisteredVersion]:
    """The newest version in each stage, or in those of `stages`; raises `InvalidInput` for an unknown stage."""
    known = {one.lower(): one for one in STAGES}
    for stage in stages:
        if stage.lower() not in known:
            raise _unknown_stage(stage)
    wanted = {known[stage.lower()] for stage in stages}
    return [one for one in model.latest if not wanted or one.stage in wanted]


def _free_asset(tx: Tx, project: str, name: str) -> str:
    """A name for the catalog's versions that no registered model has: a renamed one keeps its first."""
    wanted = asset_name(name)
    taken = select(registered_models.c.name).where(
        registered_models.c.project == project, registered_models.c.asset == wanted
    )
    return wanted if tx.execute(taken).first() is None else f"_{short(object_id(name.encode()))}"


def _change_model(tx: Tx, project: str, model: RegisteredModel, *, at: Micros, **values: str) -> None:
    """Change a model's row, made now for a model that came from a flow."""
    row = {
        "project": project,
        "name": model.name,
        "asset": model.asset,
        "description": model.description,
        "actor": model.actor,
        "created": model.created,
        "updated": at,
    }
    tx.execute(insert_into(tx, registered_models).values(row).on_conflict_do_nothing())
    mine = (registered_models.c.project == project, registered_models.c.asset == model.asset)
    tx.execute(update(registered_models).where(*mine).values(**values, updated=at))


def _set(tx: Tx, project: str, found: RegisteredVersion, *, actor: str, at: Micros, **values: str | int) -> None:
    """Change a version's row, made now for a version that came from a flow."""
    asset = registered.get(tx, project, found.name).asset
    row = {
        "project": project,
        "asset": asset,
        "number": found.number,
        "version": found.version,
        "source": found.source,
        "run": found.run,
        "model": found.model,
        "run_link": found.run_link,
        "description": found.description,
        "stage": found.stage,
        "actor": found.actor or actor,
        "created": found.created,
        "updated": found.updated,
        "deleted": 0,
    }
    tx.execute(insert_into(tx, registered_versions).values(row).on_conflict_do_nothing())
    mine = registered_versions.c
    here = (mine.project == project, mine.asset == asset, mine.number == found.number)
    tx.execute(update(registered_versions).where(*here).values(**values, updated=at))


def _unknown_stage(stage: str) -> InvalidInput:
    return InvalidInput(
        f"Invalid Model Version stage: {stage}. Value must be one of {', '.join(STAGES)}.", hint="prefer aliases"
    )
