"""Files that rows and manifests name: who names which, and naming another object, or none, in the place of one."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete, select, update

from everloop.catalog import facts
from everloop.catalog.engine import Tx
from everloop.catalog.facts import Fact
from everloop.catalog.governance import redactions
from everloop.catalog.placements import OBJECT_FIELDS
from everloop.catalog.tables.core import versions
from everloop.catalog.tables.tracking import artifacts
from everloop.core.ids import is_id


@dataclass(frozen=True, slots=True)
class Named:
    """One file: its object, and who names it under which path."""

    object: str
    owner: str
    """Of an artifact; empty for a version's file."""
    version: str
    """Of a version's file; empty for an artifact."""
    kind: str
    path: str


def of_artifacts(tx: Tx, project: str) -> list[Named]:
    """Every file of runs, logged models, experiments, traces and consoles."""
    query = select(artifacts.c.object, artifacts.c.owner, artifacts.c.path).where(artifacts.c.project == project)
    rows = tx.execute(query.order_by(artifacts.c.owner, artifacts.c.path))
    return [Named(row.object, row.owner, "", "", row.path) for row in rows]


def of_versions(tx: Tx, project: str) -> list[Named]:
    """Every file that a manifest names: under `files` by its path, else by the field."""
    found = []
    query = select(versions.c.id, versions.c.kind, versions.c.manifest).where(versions.c.project == project)
    for row in tx.execute(query.order_by(versions.c.id)):
        named = dict(_files(json.loads(row.manifest)))
        found += [Named(identity, "", row.id, row.kind, path) for path, identity in named.items()]
    return found


def replace(tx: Tx, project: str, file: Named, new: tuple[str, int], said: Fact) -> None:
    """Name another object (its id and size) where `file` was named; without an id the artifact goes.

    Says so, and which object nobody may read any more.
    """
    here = (artifacts.c.project == project, artifacts.c.owner == file.owner, artifacts.c.path == file.path)
    identity, size = new
    if file.version:
        query = select(versions.c.manifest).where(versions.c.project == project, versions.c.id == file.version)
        manifest = json.loads(tx.execute(query.with_for_update()).scalar_one())
        redactions.redact_manifest(tx, project, file.version, _renamed(manifest, file.object, identity), said)
    elif identity:
        tx.execute(update(artifacts).where(*here).values(object=identity, size=size))
    else:
        tx.execute(delete(artifacts).where(*here))
    payload = {**said.payload, "old": file.object, "new": identity, "removed": [file.object]}
    subject = file.version or file.owner
    facts.append(tx, project, Fact(redactions.FILE, subject, said.actor, said.at, payload, recorded=said.recorded))


def _files(manifest: Any) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    if isinstance(manifest, Mapping):
        for name, value in manifest.items():
            if name == "files" and isinstance(value, Mapping):
                found += [(path, one) for path, one in value.items() if isinstance(one, str) and is_id(one)]
            elif name in OBJECT_FIELDS and isinstance(value, str):
                found += [(name, value)] if is_id(value) else []
            else:
                found += _files(value)
    elif isinstance(manifest, list):
        for value in manifest:
            found += _files(value)
    return found


def _renamed(manifest: Any, old: str, new: str) -> Any:
    if isinstance(manifest, Mapping):
        return {name: _renamed(value, old, new) for name, value in manifest.items()}
    if isinstance(manifest, list):
        return [_renamed(value, old, new) for value in manifest]
    return new if manifest == old else manifest
