"""Registered models of an MLflow registry: names, numbered versions, aliases."""

import re
from collections.abc import Callable, Iterator
from typing import Any

from mlflow.exceptions import MlflowException

from everloop.models.importing.values import ImportedName, ImportedVersion, Unmapped

_RUN = re.compile(r"runs:/+(?P<run>[^/]+)(?:/(?P<path>.*))?")
_LOGGED = re.compile(r"models:/+(?P<model>m-[0-9a-f]{32})(?:/(?P<path>.*))?")
_PROMPTS = "tags.`mlflow.prompt.is_prompt` = 'true'"
_PAGE = 100


def read_names(client: Any, identity: Callable[[str], str]) -> Iterator[ImportedName | Unmapped]:
    """Every registered model, prompts too, with its versions in the order of their numbers."""
    seen: set[str] = set()
    # searches hide prompts unless their filter names the tag
    for wanted in ("", _PROMPTS):
        token = None
        while True:
            try:
                found = client.search_registered_models(wanted or None, _PAGE, None, token)
            except MlflowException as error:
                yield Unmapped("registered models", wanted or "all", f"the source does not list them: {error}"[:200])
                break
            for model in found:
                if model.name not in seen:
                    seen.add(model.name)
                    yield _name(client, model, identity)
            token = found.token
            if not token:
                break


def _name(client: Any, model: Any, identity: Callable[[str], str]) -> ImportedName:
    versions: list[Any] = []
    token = None
    wanted = "name='{}'".format(model.name.replace("'", "\\'"))
    if _tags(model).get("mlflow.prompt.is_prompt") == "true":
        wanted += f" AND {_PROMPTS}"
    while True:
        found = client.search_model_versions(wanted, _PAGE, None, token)
        versions.extend(found)
        token = found.token
        if not token:
            break
    return ImportedName(
        name=model.name,
        created=int(model.creation_timestamp or 0) * 1000,
        description=model.description or "",
        tags=_tags(model),
        versions=tuple(sorted((_version(client, one, identity) for one in versions), key=lambda one: one.number)),
        aliases={alias: int(number) for alias, number in dict(model.aliases or {}).items()},
    )


def _version(client: Any, found: Any, identity: Callable[[str], str]) -> ImportedVersion:
    owner, path = _files(client, found, identity)
    return ImportedVersion(
        number=int(found.version),
        created=int(found.creation_timestamp or 0) * 1000,
        description=found.description or "",
        stage=found.current_stage or "None",
        source=found.source or "",
        run=identity(found.run_id) if found.run_id else "",
        model=getattr(found, "model_id", None) or "",
        owner=owner,
        path=path,
        tags=_tags(found),
    )


def _tags(entity: Any) -> dict[str, str]:
    """All tags: the client's own view of a prompt leaves out the one that says so."""
    return dict(getattr(entity, "_tags", None) or entity.tags or {})


def _files(client: Any, found: Any, identity: Callable[[str], str]) -> tuple[str, str]:
    """Which run or logged model holds the version's files, and where in it; empty when none does."""
    source = found.source or ""
    if match := _LOGGED.fullmatch(source):
        return match["model"], match["path"] or ""
    if match := _RUN.fullmatch(source):
        return identity(match["run"]), match["path"] or ""
    model = getattr(found, "model_id", None)
    places = []
    try:
        if model:
            places.append((model, client.get_logged_model(model).artifact_location))
        if found.run_id:
            places.append((identity(found.run_id), client.get_run(found.run_id).info.artifact_uri))
    except MlflowException:
        return "", ""
    for owner, place in places:
        root = place.rstrip("/")
        if source.rstrip("/") == root or source.startswith(root + "/"):
            return owner, source[len(root) :].strip("/")
    return "", ""
