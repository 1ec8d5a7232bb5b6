"""From a path or URL to a store."""

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from everloop.core.errors import InvalidInput
from everloop.store.directory import DirectoryStore

if TYPE_CHECKING:
    from everloop.store.bucket import BucketStore

BUCKETS = {"s3": ("AWS_",), "gs": ("GOOGLE_",), "az": ("AZURE_",)}
"""Schemes of buckets, and how the environment variables that open them begin."""


def open_store(location: str | Path, *, fsync: bool = False) -> "DirectoryStore | BucketStore":
    """Open the store at a folder's path or `file:` URL (made where it is new), or in a bucket (`s3:`, `gs:`, `az:`).

    `fsync` makes every `put` survive the fall of the machine, not only of the process. Raises `InvalidInput` for a
    scheme that is not known or whose library is not installed, `Unavailable` when the folder cannot be made.
    """
    if isinstance(location, Path):
        return DirectoryStore(location, fsync=fsync)
    parts = urlsplit(location)
    if parts.scheme == "file":
        if parts.netloc not in {"", "localhost"}:
            raise InvalidInput(f"{location!r} names another machine", hint="file:///folder")
        return DirectoryStore(Path(unquote(parts.path)), fsync=fsync)
    if parts.scheme in BUCKETS:
        return _bucket(location)
    if "://" in location:
        raise InvalidInput(
            f"no object store is known for {parts.scheme}://", hint="a folder, file:///folder, or s3://bucket/prefix"
        )
    return DirectoryStore(Path(location), fsync=fsync)


def access(location: str, environ: Mapping[str, str]) -> dict[str, str]:
    """The variables of `environ` that a process needs to open the store: none for a folder."""
    begins = BUCKETS.get(urlsplit(location).scheme)
    names = [name for name in environ if begins and name.startswith((*begins, "XDG_CACHE_HOME"))]
    return {name: environ[name] for name in names}


def _bucket(location: str) -> "BucketStore":
    try:
        module = import_module("everloop.store.bucket")
    except ModuleNotFoundError as error:
        raise InvalidInput(f"{location}: {error.name} is not installed", hint='pip install "everloop[s3]"') from error
    opened: BucketStore = module.BucketStore(location)
    return opened
