"""Walking everything that is stored and naming what does not hold, the first broken link first.

Nothing is taken at its word: manifests are hashed again, objects read again, logs replayed, the chain recomputed. The
walk goes the way in which things rest on each other: objects, placements, versions, edges and numbers, refs, facts.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from blake3 import blake3
from sqlalchemy import Row, select

from everloop.catalog import chain, placements
from everloop.catalog.engine import Catalog, Tx
from everloop.catalog.governance import redactions
from everloop.catalog.keeping import removal
from everloop.catalog.tables.core import chains, edges, facts, numbers, ref_log, refs, versions
from everloop.core.errors import CorruptObject, NotFound
from everloop.core.ids import PREFIX, object_id
from everloop.core.ports import Blobs
from everloop.core.signing import VerifyKey
from everloop.core.version import KINDS

_BATCH = 500
_PIECE = 1 << 20


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that does not hold."""

    project: str
    area: str
    """`object`, `placement`, `version`, `edge`, `number`, `ref` or `fact`."""
    subject: str
    reason: str

    def __str__(self) -> str:
        """One line for people."""
        return f"{self.area} {self.subject} ({self.project}): {self.reason}"


def projects(tx: Tx) -> list[str]:
    """Every project that has a version, a pointer or a fact."""
    named = {
        name
        for table in (versions, refs, facts, chains)
        for name in tx.execute(select(table.c.project).distinct()).scalars()
    }
    return sorted(named)


def verify(
    catalog: Catalog,
    store: Blobs,
    *,
    project: str | None = None,
    key: VerifyKey | None = None,
    envelopes: Iterable[Mapping[str, Any]] = (),
    progress: Callable[[str, str, int], None] | None = None,
) -> list[Finding]:
    """Walk one project, or all of them; an empty list means that everything holds.

    `key` and `envelopes` are for `chain.verify_chain`. `progress` hears (project, area, things looked at) as it goes.
    """
    kept = list(envelopes)
    with catalog.read() as tx:
        chosen = projects(tx) if project is None else [project]
    found: list[Finding] = []
    for name in chosen:
        walk = _Walk(catalog, store, name, progress)
        found += [*walk.content(), *walk.lineage(), *walk.refs(), *walk.chain(key, kept)]
    return found


class _Walk:
    """The walk through one project. Each area is read in a transaction of its own; no object is read inside one."""

    def __init__(
        self, catalog: Catalog, store: Blobs, project: str, progress: Callable[[str, str, int], None] | None
    ) -> None:
        self.catalog, self.store, self.project = catalog, store, project
        self._progress = progress

    def content(self) -> Iterator[Finding]:
        """Objects, placements and versions."""
        wanted: dict[str, str] = {}  # object -> what names it
        wrong: list[Finding] = []
        parts: dict[str, str] = {}  # logical part -> the first version that names it
        with self.catalog.read() as tx:
            gone = removal.freed(tx, self.project)  # their tombstones are facts, which the chain holds
        with self.catalog.read() as tx:
            redacted = redactions.manifest_digests(tx, self.project)
            expired = redactions.expired(tx, self.project)
        for row in self._versions():
            reason, manifest = _read_manifest(row, redacted.get(row.id, row.id))
            if reason:
                wrong.append(self._finding("version", row.id, reason))
            for identity in () if row.id in gone else placements.objects_of(manifest):
                wanted.setdefault(identity, f"version {row.id}")
            for logical in () if row.id in expired else _logical_parts(manifest):
                parts.setdefault(logical, row.id)
        with self.catalog.read() as tx:
            placed = placements.objects(tx, self.project)
            for identity, table in placements.of_rows(tx, self.project).items():
                if table != "placements":
                    wanted.setdefault(identity, f"a row of {table}")
        yield from self._objects(wanted)
        yield from self._placements(placed, parts)
        yield from wrong

    def lineage(self) -> Iterator[Finding]:
        """Edges and numbers name versions that are here; the numbers of a name have no gap."""
        with self.catalog.read() as tx:
            known = set(tx.execute(select(versions.c.id).where(versions.c.project == self.project)).scalars())
            linked = tx.execute(select(edges).where(edges.c.project == self.project).order_by(edges.c.to_id)).all()
            order = (numbers.c.kind, numbers.c.name, numbers.c.incarnation, numbers.c.number)
            counted = tx.execute(select(numbers).where(numbers.c.project == self.project).order_by(*order)).all()
        for edge in linked:
            for end in (edge.from_id, edge.to_id):
                if end not in known:
                    yield self._finding("edge", f"{edge.from_id} -> {edge.to_id}", f"no version {end} is stored")
        self._tell("edge", len(linked))
        for (kind, name, incarnation), rows in groupby(counted, key=lambda r: (r.kind, r.name, r.incarnation)):
            for expected, row in enumerate(rows, 1):
                subject = f"{kind}/{name}@{row.number}"
                if row.version not in known:
                    yield self._finding("number", subject, f"no version {row.version} is stored")
                if row.number != expected:
                    yield self._finding("number", subject, f"number {expected} of incarnation {incarnation} is missing")
                    break
        self._tell("number", len(counted))

    def refs(self) -> Iterator[Finding]:
        """Refs point to versions that are here, and are where their logs say."""
        with self.catalog.read() as tx:
            known = set(tx.execute(select(versions.c.id).where(versions.c.project == self.project)).scalars())
            pointing = select(refs).where(refs.c.project == self.project)
            current = {row.name: row.target for row in tx.execute(pointing.order_by(refs.c.name))}
            logged = select(ref_log).where(ref_log.c.project == self.project).order_by(ref_log.c.name, ref_log.c.id)
            moves = tx.execute(logged).all()
        said: dict[str, str | None] = {}
        for move in moves:
            if move.old != said.get(move.name):
                yield self._finding("ref", move.name, f"entry {move.id} of its log does not follow the one before it")
            said[move.name] = move.new
        for name in sorted(current.keys() | {name for name, target in said.items() if target is not None}):
            if name in current and current[name] not in known:
                yield self._finding("ref", name, f"no version {current[name]} is stored")
            if current.get(name) != said.get(name):
                yield self._finding("ref", name, f"it is at {current.get(name)}, its log says {said.get(name)}")
        self._tell("ref", len(current))

    def chain(self, key: VerifyKey | None, envelopes: list[Mapping[str, Any]]) -> Iterator[Finding]:
        """The chain of facts."""
        with self.catalog.read() as tx:
            broken = chain.verify_chain(tx, self.project, key=key, envelopes=envelopes)
            head = tx.execute(select(chains.c.position).where(chains.c.project == self.project)).scalar() or 0
        if broken is not None:
            yield self._finding("fact", f"at position {broken.position}", broken.reason)
        self._tell("fact", head)

    def _versions(self) -> Iterator[Row[Any]]:
        last = ""
        while True:
            mine = (versions.c.project == self.project, versions.c.id > last)
            with self.catalog.read() as tx:
                rows = tx.execute(select(versions).where(*mine).order_by(versions.c.id).limit(_BATCH)).all()
            if not rows:
                return
            yield from rows
            self._tell("version", len(rows))
            last = rows[-1].id

    def _objects(self, wanted: Mapping[str, str]) -> Iterator[Finding]:
        for identity, who in wanted.items():
            if wrong := self._wrong(identity):
                yield self._finding("object", identity, f"{wrong}; {who} names it")
        self._tell("object", len(wanted))

    def _placements(self, placed: Mapping[str, str], parts: Mapping[str, str]) -> Iterator[Finding]:
        for logical, identity in placed.items():
            if wrong := self._wrong(identity):
                yield self._finding("placement", logical, f"its object {identity} {wrong}")
        for logical, version in parts.items():
            if logical not in placed:
                yield self._finding("placement", logical, f"has no object; version {version} names it")
        self._tell("placement", len(placed))

    def _wrong(self, identity: str) -> str:
        """What is wrong with an object; empty when its bytes are those of its id."""
        hasher = blake3()
        try:
            with self.store.open(identity) as stream:
                while piece := stream.read(_PIECE):
                    hasher.update(piece)
        except NotFound:
            return "is missing"
        except CorruptObject:
            return "is damaged"
        return "" if PREFIX + hasher.hexdigest() == identity else "is damaged"

    def _finding(self, area: str, subject: str, reason: str) -> Finding:
        return Finding(self.project, area, subject, reason)

    def _tell(self, area: str, count: int) -> None:
        if self._progress is not None:
            self._progress(self.project, area, count)


def _read_manifest(row: Row[Any], digest: str) -> tuple[str, Any]:
    """Why the stored manifest is not that of its digest (empty when it is), and what it says as far as can be read.

    The digest is the version's id, or that of what an erasure left of the manifest.
    """
    try:
        manifest = json.loads(row.manifest)
    except ValueError:
        return "its manifest is not JSON", {}
    if object_id(row.manifest.encode()) != digest:
        return "its manifest does not hash to its id", manifest
    if row.kind not in KINDS or manifest.get("kind") != row.kind:
        return f"its row says {row.kind}, its manifest {manifest.get('kind')}", manifest
    return "", manifest


def _logical_parts(manifest: Any) -> Iterator[str]:
    """Logical ids of the parts of a table's manifest."""
    parts = manifest.get("parts") if isinstance(manifest, Mapping) else None
    if isinstance(parts, list):
        yield from (
            part["logical"] for part in parts if isinstance(part, Mapping) and isinstance(part.get("logical"), str)
        )
