"""Files of folders that are about a subject: by their path, by a table that says so, or by what is in them.

Their rows go from the tables of all versions (`rewriting`), their bytes from the packs. What is found is written into
the note of the erasure before anything goes, because the rows that led to it go first.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from everloop.catalog import placements
from everloop.catalog.context import Context
from everloop.catalog.erasing.mentions import Mentions
from everloop.catalog.trees import packs
from everloop.core.errors import Conflict, NotFound
from everloop.core.ids import PREFIX
from everloop.data.codec import part_paths, tables
from everloop.data.erasure.elsewhere.contents import holds
from everloop.data.erasure.finding.subjects import SUBJECT_TAG, Subject, manifests_of_tables, rows_about
from everloop.data.trees import stamps
from everloop.data.trees.packing.compacting import compact
from everloop.data.trees.packing.packs import CHUNK, LIST, read_index
from everloop.data.trees.reading import is_tree

FILE_TAG = "file"
"""The tag of a column that names a file of a folder, beside a column of subjects; a column `path` needs no tag."""
_TRIES = 5


@dataclass(frozen=True, slots=True)
class Found:
    """What an erasure takes from folders."""

    files: frozenset[str]
    """Ids of contents."""
    packs: frozenset[str]
    """Objects of packs that hold them."""


def find(ctx: Context, subject: Subject, mentions: Mentions) -> Found:
    """The files about a subject, in every version of every folder of the project."""
    every = manifests_of_tables(ctx)
    folders = {version: manifest for version, manifest in every.items() if is_tree(manifest)}
    if not folders:
        return Found(frozenset(), frozenset())
    listed = _listed(ctx, {version: m for version, m in every.items() if not is_tree(m)}, subject)
    found: set[str] = set()
    known: set[str] = set()
    for manifest, table in parts_of(ctx, folders):
        own = manifest.get("tags", {}).get("path") == SUBJECT_TAG or "path" in subject.columns
        known.update(table["digest"].to_pylist())
        for path, digest in zip(table["path"].to_pylist(), table["digest"].to_pylist(), strict=True):
            if path in listed or mentions.in_text(path) or (own and _says(path, subject.key)):
                found.add(digest)
    shelf = Pieces(ctx)
    found |= shelf.speaking(mentions, known)
    return Found(frozenset(found), frozenset(shelf.holding(found)))


def erase(ctx: Context, found: Collection[str]) -> None:
    """Write packs again without these files and the pieces that nobody else needs; the old objects go later."""
    if not found:
        return
    for left in range(_TRIES, 0, -1):
        without = Pieces(ctx).pieces(found)
        try:
            compact(ctx, without=without, waste=1.0)
        except Conflict:  # a version was recorded meanwhile: look again
            if left == 1:
                raise
        else:
            break
    forget(ctx, found)


def forget(ctx: Context, found: Collection[str]) -> None:
    """What captures remember of the files goes too: their paths and times."""
    gone = {identity.removeprefix(PREFIX) for identity in found}
    for file in sorted((ctx.home / "trees" / ctx.project).glob("*.stamps")):
        kept = stamps.load(file)
        if kept is None:
            file.unlink(missing_ok=True)  # nobody can use it
            continue
        rows = [i for i, digest in enumerate(kept.digests) if digest.tobytes().hex() not in gone]
        if len(rows) < len(kept.paths):
            media = kept.more.get("media")
            more = {**kept.more, **({"media": [media[i] for i in rows]} if media else {})}
            some = stamps.Stamps([kept.paths[i] for i in rows], kept.stamps[rows], kept.digests[rows], kept.taken, more)
            some.save(file)


def pieces_of(ctx: Context) -> dict[str, dict[str, int]]:
    """{version of a folder: {piece of a pack that it needs: its bytes}}; each part of a table is read once."""
    every = {version: m for version, m in manifests_of_tables(ctx).items() if is_tree(m)}
    shelf = Pieces(ctx)
    needed: dict[str, dict[str, int]] = {}
    for manifest, table in parts_of(ctx, every):
        mine: dict[str, int] = {}
        for digest in table["digest"].to_pylist():
            mine |= shelf.sizes(digest)
        needed[manifest["part"]] = mine
    return {
        version: {piece: size for part in m["parts"] for piece, size in needed.get(part["logical"], {}).items()}
        for version, m in every.items()
    }


class Pieces:
    """The pieces of all packs of a project."""

    def __init__(self, ctx: Context) -> None:
        """Read the indexes and the lists of big files; of other pieces nothing yet."""
        self._ctx = ctx
        with ctx.read() as tx:
            self._packs = [row.object for row in packs.of(tx, ctx.project)]
        self._indexes = {pack: read_index(ctx.store, pack, ctx.home / "cache" / "packs") for pack in self._packs}
        self._lists: dict[str, list[str]] = {}
        self._lengths: dict[str, int] = {}
        for pack, index in self._indexes.items():
            if (index["kind"] == LIST).any():
                content = ctx.store.get(pack)
                for entry in index[index["kind"] == LIST]:
                    listed = np.frombuffer(content[entry["offset"] : entry["offset"] + entry["length"]], CHUNK)
                    self._lists[_id(entry["digest"])] = [_id(digest) for digest in listed["digest"]]

    def speaking(self, mentions: Mentions, known: Collection[str]) -> set[str]:
        """The files whose bytes speak of the subject, also where a big one is cut in the middle of the key.

        `known` are the files that versions have: what is only a piece of a bigger one is none.
        """
        overlap = 4 * max(len(form) for form in mentions.forms) + 8
        hits: set[str] = set()
        ends: dict[str, tuple[bytes, bytes]] = {}
        for pack, index in self._indexes.items():
            content = self._ctx.store.get(pack)
            for entry in index[index["kind"] != LIST]:
                piece = content[entry["offset"] : entry["offset"] + entry["length"]]
                digest = _id(entry["digest"])
                if holds(piece, mentions):
                    hits.add(digest)
                if self._lists:
                    ends[digest] = piece[:overlap], piece[-overlap:]
        for digest, chunks in self._lists.items():
            seams = pairwise(chunks)
            if not hits.isdisjoint(chunks) or any(
                mentions.in_bytes(ends[a][1] + ends[b][0]) for a, b in seams if a in ends and b in ends
            ):
                hits.add(digest)
        parts = {chunk for chunks in self._lists.values() for chunk in chunks}
        return {digest for digest in hits if digest not in parts or digest in known}

    def sizes(self, digest: str) -> dict[str, int]:
        """The pieces of a file with their bytes, the list of a big one among them."""
        if not self._lengths:
            for index in self._indexes.values():
                self._lengths.update((_id(entry["digest"]), int(entry["length"])) for entry in index)
        return {one: self._lengths[one] for one in (digest, *self._lists.get(digest, ())) if one in self._lengths}

    def pieces(self, found: Collection[str]) -> set[bytes]:
        """The digests of files and of their pieces, but for pieces that other files need."""
        gone = set(found)
        needed = {chunk for digest, chunks in self._lists.items() if digest not in gone for chunk in chunks}
        own = {chunk for digest in gone for chunk in self._lists.get(digest, ())}
        return {bytes.fromhex(identity.removeprefix(PREFIX)) for identity in gone | (own - needed)}

    def holding(self, found: Collection[str]) -> set[str]:
        """The packs in which any piece of these files lies."""
        wanted = self.pieces(found)
        return {pack for pack, index in self._indexes.items() if any(d.tobytes() in wanted for d in index["digest"])}


def _id(digest: Any) -> str:
    return PREFIX + bytes(digest.tobytes()).hex()


def _says(path: str, key: str) -> bool:
    return any(key in (part, PurePosixPath(part).stem) for part in PurePosixPath(path).parts)


def _listed(ctx: Context, manifests: Mapping[str, Mapping[str, Any]], subject: Subject) -> set[str]:
    """The paths that tables with a column of subjects name in the subject's rows."""
    found: set[str] = set()
    index = {}
    for version, manifest in manifests.items():
        columns = [name for name, _ in manifest["schema_fields"]]
        naming = [n for n in columns if n == "path" or manifest.get("tags", {}).get(n) == FILE_TAG]
        if naming and not set(columns).isdisjoint(subject.columns):
            index[version] = {**manifest, "naming": naming}
    for manifest, table in parts_of(ctx, index):
        mine = table.filter(pa.array(rows_about(table, subject)))
        for name in manifest["naming"]:
            found.update(str(path) for path in pc.drop_null(mine[name]).to_pylist())
    return found


def parts_of(ctx: Context, manifests: Mapping[str, Mapping[str, Any]]) -> Iterable[tuple[Mapping[str, Any], pa.Table]]:
    """Each part of some versions once, with a manifest that has it, in which `part` names it."""
    seen: set[str] = set()
    for manifest in manifests.values():
        fresh = [part for part in manifest["parts"] if part["logical"] not in seen]
        seen.update(part["logical"] for part in fresh)
        with ctx.read() as tx:
            placed = placements.resolve(tx, ctx.project, [part["logical"] for part in fresh])
        here = [part for part in fresh if part["logical"] in placed]
        try:
            paths = part_paths({**manifest, "parts": here}, ctx.store, placed, ctx.home / "cache")
        except NotFound:
            continue  # its bytes went with a retention rule
        for part, table in zip(here, tables(paths), strict=True):
            yield {**manifest, "part": part["logical"]}, table
