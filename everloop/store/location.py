"""From a path or URL to a store."""

from pathlib import Path
from urllib.parse import unquote, urlsplit

from everloop.core.errors import InvalidInput
from everloop.store.directory import DirectoryStore


def open_store(location: str | Path, *, fsync: bool = False) -> DirectoryStore:
    """Open (and make, where it is new) the store at a folder's path or `file:` URL.

    `fsync` makes every `put` survive the fall of the machine, not only of the process. Raises `InvalidInput` for a
    scheme that is not known, `Unavailable` when the folder cannot be made.
    """
    if isinstance(location, Path):
        return DirectoryStore(location, fsync=fsync)
    parts = urlsplit(location)
    if parts.scheme == "file":
        if parts.netloc not in {"", "localhost"}:
            raise InvalidInput(f"{location!r} names another machine", hint="file:///folder")
        return DirectoryStore(Path(unquote(parts.path)), fsync=fsync)
    if "://" in location:
        raise InvalidInput(f"no object store is known for {parts.scheme}://", hint="a folder, or file:///folder")
    return DirectoryStore(Path(location), fsync=fsync)
