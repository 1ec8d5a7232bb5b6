"""Copying objects from one store to another."""

from collections.abc import Iterable
from dataclasses import dataclass

from everloop.core.ports import Blobs
from everloop.store.verify import demand


@dataclass(frozen=True, slots=True)
class Transferred:
    """What a transfer did."""

    copied: tuple[str, ...]
    present: int


def transfer(source: Blobs, target: Blobs, ids: Iterable[str]) -> Transferred:
    """Copy the objects that `target` lacks, verifying each; raises `NotFound`, `CorruptObject` or `StorageFull`.

    It may be repeated: what was copied before is not copied again.
    """
    copied, present = [], 0
    for identity in dict.fromkeys(ids):
        if target.has(identity):
            present += 1
            continue
        demand(identity, target.put(source.get(identity)))
        copied.append(identity)
    return Transferred(tuple(copied), present)
