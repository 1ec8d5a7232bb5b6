"""Re-hashing stored bytes."""

from pathlib import Path

from blake3 import blake3

from everloop.core.errors import CorruptObject
from everloop.core.ids import PREFIX
from everloop.store.layout import file_of, guarded

_PARALLEL_FROM = 1 << 20  # below this a second thread costs more than it gives


def digest_file(path: Path) -> str:
    """The id of a file's bytes, read through a memory map."""
    hasher = blake3(max_threads=blake3.AUTO if path.stat().st_size > _PARALLEL_FROM else 1)
    hasher.update_mmap(path)
    return PREFIX + hasher.hexdigest()


def verify(root: Path, identity: str) -> bool:
    """Whether the object is here and its bytes match its id."""
    file = file_of(root, identity)
    with guarded(root):
        try:
            return digest_file(file) == identity
        except FileNotFoundError:
            return False


def demand(identity: str, found: str) -> None:
    """Raise `CorruptObject` unless the bytes that were read are those of `identity`."""
    if found != identity:
        raise CorruptObject(
            f"object {identity} is damaged: its bytes hash to {found}",
            hint="restore it from a copy (`everloop verify` lists what is damaged), or make it anew",
            object=identity,
        )
