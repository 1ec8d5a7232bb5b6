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
        if error.errno in _FULL or "No space left" in str(error):
            raise _storage_full() from error
        raise
    except duckdb.Error as error:
        if "No space left" in str(error) or "failed to offload" in str(error):
            raise _storage_full() from error
        raise


def _storage_full() -> StorageFull:
    return StorageFull("the disk is full; nothing was recorded", hint="free some space, then capture again")
