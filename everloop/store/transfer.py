"""Copying objects from one store to another."""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from everloop.core.ports import Blobs
from everloop.store.verify import demand

WORKERS = 4
"""Objects that are on their way at a time, each held in memory whole."""


@dataclass(frozen=True, slots=True)
class Transferred:
    """What a transfer did."""

    copied: tuple[str, ...]
    present: int
    bytes: int
    """Of the objects that were copied."""


def transfer(source: Blobs, target: Blobs, ids: Iterable[str], *, workers: int = WORKERS) -> Transferred:
    """Copy the objects that `target` lacks, verifying each; raises `NotFound`, `CorruptObject` or `StorageFull`.

    Several are on their way at a time. It may be repeated: what was copied before is not copied again, so a transfer
    that broke off goes on where it stood.
    """

    def copy(identity: str) -> int | None:
        if target.has(identity):
            return None
        content = source.get(identity)
        demand(identity, target.put(content))
        return len(content)

    wanted = list(dict.fromkeys(ids))
    pool = ThreadPoolExecutor(max_workers=workers, thread_name_prefix="transfer")
    try:
        sizes = list(pool.map(copy, wanted))
    finally:
        pool.shutdown(cancel_futures=True)  # after an error nothing else is begun
    copied = tuple(identity for identity, size in zip(wanted, sizes, strict=True) if size is not None)
    return Transferred(copied, len(wanted) - len(copied), sum(size or 0 for size in sizes))
