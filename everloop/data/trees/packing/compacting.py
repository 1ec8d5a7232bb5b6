"""Compaction: packs lose the files that no version wants any more. It is also how the bytes of a file are erased.

Which contents are wanted is read from the tables of all versions of folders. A pack of which at least a part is not
wanted is written again without it, and takes the place of the old one in one transaction, which fails when a version
was recorded meanwhile; captures fail in turn when a pack that they lean on was replaced (`catalog.trees.packs`). The
old objects go with the next sweep, after its grace, so readers that are at work are not disturbed.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from everloop.catalog import versions
from everloop.catalog.context import Context
from everloop.catalog.trees import packs
from everloop.core.errors import NotFound
from everloop.core.ids import PREFIX
from everloop.data.codec import manifest_of, paths_of
from everloop.data.trees.packing.packs import CHUNK, LIST, PackWriter, read_index, read_range
from everloop.data.trees.reading import is_tree

WASTE = 0.3
"""Share of a pack's bytes that may be unwanted before it is written again."""


@dataclass(frozen=True, slots=True)
class Compacted:
    """What a compaction did, or would do."""

    packs: int
    """How many were looked at."""
    rewritten: int
    removed: int
    freed: int
    """Bytes of files that are in no pack any more."""


def compact(ctx: Context, *, without: Collection[bytes] = (), waste: float = WASTE, dry_run: bool = False) -> Compacted:
    """Write packs again that hold too much that no version wants; packs with a digest in `without` in any case.

    Raises `Conflict` when a version was recorded or another compaction ran meanwhile: then nothing has changed.
    """
    with ctx.read() as tx:
        seen = packs.recorded(tx, ctx.project)
        rows = packs.of(tx, ctx.project)
    unwanted = frozenset(without)
    wanted = _wanted(ctx, rows) - unwanted
    writer, old, freed, removed = PackWriter(ctx.store), [], 0, 0
    for row in rows:
        index = read_index(ctx.store, row.object, ctx.home / "cache" / "packs")
        digests = [entry.tobytes() for entry in index["digest"]]
        kept = np.array([digest in wanted for digest in digests], bool)
        lost = int(index["length"][~kept].sum())
        named = any(digest in unwanted for digest in digests)
        if kept.all() or not (named or not kept.any() or lost > waste * int(index["length"].sum())):
            continue
        old.append(row)
        freed += lost
        removed += not kept.any()
        if not dry_run:
            _copy(ctx, writer, row.object, index[kept])
    if old and not dry_run:
        writer.close()
        new = [packs.PackRow(w.object, old[0].dataset, w.pieces, w.bytes) for w in writer.written]
        with ctx.write() as tx:
            packs.replace(tx, ctx.project, [row.object for row in old], new, at=ctx.now(), seen=seen)
    return Compacted(len(rows), len(old) - removed, removed, freed)


def _copy(ctx: Context, writer: PackWriter, pack: str, index: Any) -> None:
    for entry in index[np.argsort(index["offset"])]:
        content = read_range(ctx.store, pack, int(entry["offset"]), int(entry["length"]))
        writer.add(entry["digest"].tobytes(), content, int(entry["kind"]))


def _wanted(ctx: Context, rows: Collection[packs.PackRow]) -> set[bytes]:
    """The digests of all files of all versions, and of the chunks of the big ones."""
    wanted: set[bytes] = set()
    seen: set[str] = set()
    with ctx.read() as tx:
        every = [
            row
            for name in versions.names(tx, ctx.project, "data")
            for row in versions.history(tx, ctx.project, "data", name, limit=1_000_000)
        ]
    for row in every:
        manifest = row.manifest
        if not is_tree(manifest) or all(part["logical"] in seen for part in manifest["parts"]):
            continue
        try:
            files = paths_of(ctx, manifest_of(ctx, row.id))
        except NotFound:
            continue  # its bytes went with a retention rule, and so may those of its files
        for part, file in zip(manifest["parts"], files, strict=True):
            if part["logical"] not in seen:
                ids = pq.read_table(file, columns=["digest"])["digest"].to_pylist()
                wanted.update(bytes.fromhex(identity[len(PREFIX) :]) for identity in ids)
                seen.add(part["logical"])
    for pack in rows:
        index = read_index(ctx.store, pack.object, ctx.home / "cache" / "packs")
        for entry in index[index["kind"] == LIST]:
            if entry["digest"].tobytes() in wanted:
                listed = read_range(ctx.store, pack.object, int(entry["offset"]), int(entry["length"]))
                wanted.update(chunk.tobytes() for chunk in np.frombuffer(listed, CHUNK)["digest"])
    return wanted
