"""What a node of a cluster must have: the same packages, and files by their content."""

import os
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from everloop.core.errors import InvalidInput
from everloop.core.ids import manifest_id
from everloop.core.ports import Blobs
from everloop.flows.identity.runtime import Runtime


def packages_digest(found: Runtime) -> str:
    """What must be the same on every node."""
    return manifest_id({"python": found.version.manifest["python"], "packages": found.version.manifest["packages"]})


def on_this_node(files: Mapping[str, str], store: Blobs) -> Path:
    """A folder of this node with these files (path -> object), written once."""
    folder = Path(tempfile.gettempdir()) / f"everloop-code-{os.getuid()}" / manifest_id(dict(files)).removeprefix("b3:")
    if not folder.is_dir():
        folder.parent.mkdir(mode=0o700, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(dir=folder.parent))
        for name, identity in files.items():
            target = fresh / name
            if not target.resolve().is_relative_to(fresh.resolve()):
                raise InvalidInput(f"the code names a file outside its folder: {name!r}")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(store.get(identity))
        with suppress(OSError):  # another worker was faster, with the same bytes
            fresh.rename(folder)
    return folder
