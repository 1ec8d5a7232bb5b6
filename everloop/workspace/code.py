"""The code of a snapshot, on disk: what a task runs is what was proposed, not what lies in somebody's folder."""

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from everloop.catalog import versions
from everloop.catalog.context import Context
from everloop.changes.ancestry import snapshot_of
from everloop.core.errors import CorruptObject, NotFound
from everloop.core.ids import short
from everloop.flows.engine import Origin
from everloop.project import Project
from everloop.project.loading import load_project


def checkout(ctx: Context, snapshot: str, module: str) -> Origin:
    """Write the code of a snapshot into `home/code/<id>`, once; raises `NotFound` when the snapshot holds none."""
    with ctx.read() as tx:
        entries = snapshot_of(tx, ctx.project, snapshot).entries
        key = next((key for key in sorted(entries) if key.startswith("code/")), None)
        if key is None:
            raise NotFound("this snapshot holds no code", hint="build it with `everloop run`, which records the code")
        manifest = versions.get(tx, ctx.project, entries[key]).manifest
    folder = written(ctx, manifest, ctx.home / "code" / short(entries[key]))
    return Origin(folder, module, key.removeprefix("code/"))


def written(ctx: Context, manifest: Mapping[str, Any], folder: Path) -> Path:
    """The files of a code version in a folder, which is made once."""
    if not folder.is_dir():
        _write(ctx, manifest, folder)
    return folder


def project_of(ctx: Context, snapshot: str, module: str) -> tuple[Project, Origin]:
    """Load the project of a snapshot: this imports user code, so only tasks do it."""
    origin = checkout(ctx, snapshot, module)
    return load_project(origin.root, origin.module), origin


def _write(ctx: Context, manifest: Mapping[str, Any], folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".code-"))
    try:
        for name, identity in manifest["files"].items():
            relative = PurePosixPath(name)
            if relative.is_absolute() or ".." in relative.parts:
                raise CorruptObject(f"the code names a file outside its folder: {name!r}")
            target = fresh / relative
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(ctx.store.get(identity))
        fresh.rename(folder)
    except OSError:
        if not folder.is_dir():  # else another task was faster, with the same bytes
            raise
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
