"""What a worker loads are the very files that were signed: their digest stands in the routing table.

A model's folder is a copy of objects whose ids the model's version names. A copy can be changed by whoever may write to
the disk, and a pickle that was changed runs what it says; so it is read and compared before it is loaded.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path

from everloop.core.errors import CorruptObject
from everloop.core.ids import object_id

_CACHES = "__pycache__"


def digest(files: Mapping[str, str]) -> str:
    """One id for a folder of files: path below it -> id of its bytes."""
    return object_id("".join(f"{path}\0{identity}\n" for path, identity in sorted(files.items())).encode())


def check(folder: str, sealed: str) -> None:
    """Raise `CorruptObject` when the folder does not hold these files and no others; without a digest all is well.

    What Python compiled of the folder's modules is removed: it would be run without being compared.
    """
    if not sealed:
        return
    root = Path(folder)
    for cache in list(root.rglob(_CACHES)):
        shutil.rmtree(cache, ignore_errors=True)
    files = (path for path in root.rglob("*") if path.is_file())
    found = {path.relative_to(root).as_posix(): object_id(path.read_bytes()) for path in files}
    if digest(found) != sealed:
        raise CorruptObject(
            f"the files of {root.name[:12]} are not those that were signed",
            hint=f"somebody changed {root}; remove it, and a restart writes it again from the store",
        )
