"""Putting a table's files into its folder, so that whoever reads it finds the table of before or the one of now.

What we wrote is listed in `everloop.json` beside it. A folder that holds a table which somebody else wrote, or wrote to
since, is left alone.
"""

import json
import os
import tempfile
from collections.abc import Iterable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

from everloop.core.errors import Conflict, InvalidInput, NotFound
from everloop.core.ids import object_id
from everloop.core.ports import Blobs
from everloop.data.failures import full_disk_is_storage_full
from everloop.data.opening.shown import Files
from everloop.store.layout import file_of

INVENTORY = "everloop.json"
_FORM = 1
_WATCHED = ("_delta_log/", "metadata/")
"""Where another writer's files would show."""


class Place(Protocol):
    """A folder on a disk or in a bucket."""

    def read(self, name: str) -> bytes | None:
        """A file's bytes; None when it is not there."""
        ...

    def write(self, name: str, content: bytes, at: int = 0) -> None:
        """Put a file there, whole or not at all; `at` is the time (microseconds) that it says, where it can."""
        ...

    def link(self, name: str, target: Path) -> None:
        """Make a link to a file."""
        ...

    def remove(self, names: Iterable[str]) -> None:
        """Remove files that may be there."""
        ...

    def names(self) -> list[str]:
        """The files that are there."""
        ...


class Folder:
    """A table's folder on a disk."""

    def __init__(self, root: Path) -> None:
        """`root` need not be there yet."""
        self.root = root

    def read(self, name: str) -> bytes | None:
        """A file's bytes; None when it is not there."""
        try:
            return (self.root / name).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None

    def write(self, name: str, content: bytes, at: int = 0) -> None:
        """Put a file there by one rename."""
        target = self.root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=target.parent, prefix=".", delete=False) as file:
            file.write(content)
        half = Path(file.name)
        half.chmod(0o644)
        if at:
            os.utime(half, ns=(at * 1000, at * 1000))
        half.replace(target)

    def link(self, name: str, target: Path) -> None:
        """Make a link to a file; one that leads elsewhere gives way."""
        place = self.root / name
        if place.is_symlink() and place.readlink() == target:
            return
        place.parent.mkdir(parents=True, exist_ok=True)
        place.unlink(missing_ok=True)
        place.symlink_to(target)

    def remove(self, names: Iterable[str]) -> None:
        """Remove files, and folders that are empty then."""
        for name in names:
            place = self.root / name
            place.unlink(missing_ok=True)
            if place.parent != self.root and place.parent.is_dir() and not any(place.parent.iterdir()):
                place.parent.rmdir()

    def names(self) -> list[str]:
        """The files that are there."""
        found = (path for path in self.root.rglob("*") if path.is_file() or path.is_symlink())
        return sorted(path.relative_to(self.root).as_posix() for path in found)


def open_place(location: str) -> Place:
    """The folder that a URL names: `file:///…`, or a bucket (`s3:`, `gs:`, `az:`). Raises `InvalidInput`."""
    parts = urlsplit(location)
    if parts.scheme == "file":
        return Folder(Path(unquote(parts.path)))
    if parts.scheme not in ("s3", "gs", "az"):
        raise InvalidInput(f"{location!r} is no place for a table", hint="a folder, or s3://bucket/prefix")
    try:
        module = import_module("everloop.data.opening.bucket")
    except ModuleNotFoundError as error:
        raise InvalidInput(f"{location}: {error.name} is not installed", hint='pip install "everloop[s3]"') from error
    opened: Place = module.BucketPlace(location)
    return opened


def place(location: str, files: Files, table: str, blobs: Blobs) -> None:
    """Put `files` there as the table with the identity `table`, and remove what it no longer has.

    Raises `Conflict` when the folder holds another table, or one that somebody else wrote to; `NotFound` when an
    object is not in the store that links lead to.
    """
    here = open_place(location)
    before = inventory(here)
    _own(here, location, before, table)
    root = getattr(blobs, "root", None)
    with full_disk_is_storage_full():
        for name, identity in files.links.items():
            if root is None or not blobs.has(identity):
                raise NotFound(f"object {identity} is not here", hint="open the table where the store's folder is")
            here.link(name, file_of(root, identity))
        written = {name: object_id(content) for name, content in files.contents.items()}
        names = {**written, **dict.fromkeys(files.links, "")}
        told = {"form": _FORM, "table": table}
        old = dict(before["files"]) if before else {}
        # while it is written, both the old and the new names are ours: a writer that dies leaves nothing unknown
        new = {name: "" for name in names if old.get(name) != names[name]}
        here.write(INVENTORY, _encoded({**told, "files": {**old, **new}}))
        for name, content in files.contents.items():
            if old.get(name) != written[name] or here.read(name) is None:
                here.write(name, content, files.times.get(name, 0))
        here.remove(name for name in old if name not in names)
        here.write(INVENTORY, _encoded({**told, "files": names}))


def withdraw(location: str, table: str) -> bool:
    """Remove a table's files from its folder; whether it was there. Raises `Conflict` as `place` does."""
    here = open_place(location)
    before = inventory(here)
    if before is None or before["table"] != table:
        return False
    here.remove([*before["files"], INVENTORY])
    return True


def inventory(here: Place) -> dict[str, Any] | None:
    """What `everloop.json` says; None where there is none. Raises `Conflict` for one that is not ours."""
    content = here.read(INVENTORY)
    if content is None:
        return None
    try:
        found = json.loads(content)
        if found["form"] == _FORM and isinstance(found["files"], dict):
            return dict(found)
    except (ValueError, KeyError, TypeError):
        pass
    raise Conflict(f"{INVENTORY} there is not one that we wrote", hint="choose another folder")


def _own(here: Place, location: str, before: Mapping[str, Any] | None, table: str) -> None:
    if before is not None and before["table"] != table:
        raise Conflict(f"{location} holds another table", hint="choose another folder, or close that one first")
    mine = set(before["files"]) | {INVENTORY} if before else set()
    found = [name for name in here.names() if name.startswith(_WATCHED) and name not in mine]
    if found := [name for name in found if not name.rpartition("/")[2].startswith((".", "_last_"))]:
        raise Conflict(
            f"{location} was written to by somebody else: {found[0]}",
            hint="open tables are for reading: copy it with the other engine, and choose another folder here",
        )


def _encoded(told: Mapping[str, Any]) -> bytes:
    return json.dumps(told, indent=1, sort_keys=True).encode()
