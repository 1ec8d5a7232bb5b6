"""Errors of engines and of the disk, as errors of ours."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

import duckdb

from everloop.core.errors import StorageFull

_FULL = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def full_disk_is_storage_full() -> Iterator[None]:
    """Raise `StorageFull` where the block fails for want of space on the disk."""
    try:
        yield
    except OSError as error:
        if is_full_disk(error):
            raise _storage_full() from error
        raise
    except duckdb.Error as error:
        if "No space left" in str(error) or "failed to offload" in str(error):
            raise _storage_full() from error
        raise


def is_full_disk(error: BaseException) -> bool:
    """Whether the disk had no room."""
    return isinstance(error, OSError) and (error.errno in _FULL or "No space left" in str(error))


def _storage_full() -> StorageFull:
    return StorageFull("the disk is full; nothing was recorded", hint="free some space, then capture again")
