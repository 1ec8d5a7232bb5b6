"""Where the bytes of versions are: the objects that hold them."""

from collections.abc import Iterable, Mapping
from typing import Any

from everloop.catalog import placements, versions
from everloop.catalog.engine import Tx
from everloop.catalog.trees import packs
from everloop.flows.assets import Asset


def objects_of(manifest: Mapping[str, Any], placed: Mapping[str, str]) -> list[str]:
    """The objects that hold a version's bytes: single ones, trees of files, and parts by their placements.

    A part that has no placement stands for itself, so that looking for it fails.
    """
    found = [str(manifest[name]) for name in ("object", "profile") if manifest.get(name)]
    files = manifest.get("files")
    if isinstance(files, Mapping):
        found += [str(identity) for identity in files.values()]
    return found + [placed.get(logical, logical) for logical in logicals(manifest)]


def logicals(manifest: Mapping[str, Any]) -> list[str]:
    """The logical ids of a table's parts, which placements resolve; none for other kinds."""
    parts = manifest.get("parts")
    return [str(part["logical"]) for part in parts if "logical" in part] if isinstance(parts, list) else []


def before(tx: Tx, project: str, asset: Asset) -> dict[str, Any] | None:
    """The newest table that the asset gave: the codec shares its parts, and lays on them what differs little."""
    newest = next(iter(versions.history(tx, project, asset.kind, asset.name, limit=1)), None)
    if newest is None or not logicals(newest.manifest):
        return None
    return {"manifest": newest.manifest, "placements": placed(tx, project, [newest.manifest])}


def placed(tx: Tx, project: str, manifests: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Where the parts of tables lie; for a folder of files also the packs that may hold them, as `pack:<object>`."""
    held = list(manifests)
    wanted = [logical for manifest in held for logical in logicals(manifest)]
    found = placements.resolve(tx, project, wanted) if wanted else {}
    if any("media_type" in dict(manifest.get("schema_fields", ())) for manifest in held):
        found |= {f"pack:{row.object}": row.object for row in packs.of(tx, project)}
    return found
