"""The consumer of a feed: takes what arrives, sorts out what is dead or was there, commits every few seconds."""

import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from typing import Any

import numpy as np
import pyarrow as pa

from everloop.catalog import refs, tasks, versions
from everloop.catalog.context import Context
from everloop.catalog.operating import feeds
from everloop.core.clock import SECOND, Micros, parse_duration
from everloop.core.errors import Conflict, InvalidInput, Unavailable
from everloop.core.snapshot import Snapshot
from everloop.data.checking import broken_rows
from everloop.data.codec import paths_of
from everloop.data.definitions import SourceDef
from everloop.data.streams import inbox
from everloop.data.streams.arriving import Arrivals, Batch, Follower, Letter, Pushed
from everloop.data.streams.committing import Committed, Cut, arriving_schema, commit
from everloop.data.streams.decoding import schema_of
from everloop.data.streams.origins import ROUTABLE, Feed, Kafka, Push, RedisStream
from everloop.data.streams.seen import Seen

LEASE = 15 * SECOND
_RENEW = 5.0
_TELL = 1.0


def source_of(ctx: Context, environment: str, name: str) -> SourceDef:
    """The feed's definition in the environment, else the newest; raises `NotFound`, and `InvalidInput` for no feed."""
    with ctx.read() as tx:
        held = refs.get(tx, ctx.project, refs.env_ref(environment))
        entries = Snapshot.from_manifest(versions.get(tx, ctx.project, held).manifest).entries if held else {}
        row = versions.find(tx, ctx.project, entries.get(f"source/{name}", f"source/{name}"))
    found = SourceDef.from_manifest(name, row.manifest)
    if not isinstance(found.origin, Feed):
        raise InvalidInput(f"source/{name} is no feed", hint="its origin would be Push, RedisStream or Kafka")
    return found


@dataclass(slots=True)
class _Held:
    """What was taken and is not committed yet, sorted."""

    tables: list[pa.Table] = field(default_factory=list)
    dead: list[Letter] = field(default_factory=list)
    keys: set[str] = field(default_factory=set)
    duplicates: int = 0
    oldest: Micros = 0
    """When the first of it arrived; 0 while nothing is held."""
    since: float = 0.0
    rows: int = 0
    whole: bool = True
    """Whether everything that was taken from the source is here; otherwise only a new consumer may go on."""


class Consumer:
    """Reads one feed of one environment, as the only one. Close it, or let its lease run out."""

    def __init__(
        self, ctx: Context, environment: str, name: str, *, follower: Follower | None = None, owner: str = ""
    ) -> None:
        """Take the feed over. Raises `Conflict` while another consumer reads it, `NotFound`, `InvalidInput`."""
        self.ctx = replace(ctx, act=None)
        self.source = source_of(ctx, environment, name)
        assert isinstance(self.source.origin, Feed)
        self.origin: Feed = self.source.origin
        self._owner = owner or f"{os.uname().nodename}:{os.getpid()}"
        self._follower = follower
        with self.ctx.write() as tx:
            known = {(feed.environment, feed.name) for feed in feeds.all_feeds(tx, ctx.project)}
            if (environment, name) not in known:
                feeds.start(tx, ctx.project, environment, name)
            self.feed = feeds.get(tx, ctx.project, environment, name)
        self._every = parse_duration(self.origin.every) / SECOND
        self._held = _Held()
        self._renewed = self._cut_at = self._told_at = 0.0
        self._lease()
        self._schema = schema_of(self.origin.columns)
        known_by = dict.fromkeys([*self.source.key, *self.origin.id]) if self.origin.id else ()
        self._seen = Seen(list(known_by), self.origin.remember)
        self._load_seen()
        self._arrivals = self._open()
        self._arrivals.acknowledge(self.feed.position)

    def step(self, seconds: float = 0.1) -> Committed | None:
        """Take what is there, wait so long for it at most; commit when it is time. None when nothing was committed."""
        self._lease()
        before, room = self.ctx.now(), self._held.rows < 2 * self.origin.rows
        wait = min(seconds, 0.05) if self._held.oldest else seconds
        found = self._arrivals.take(wait) if room else ()
        now = time.monotonic()
        self._arrive(found)
        self._tell(before, now, idle=room and not found)
        if self._held.oldest and self._due(now):
            return self.cut()
        if not found:
            self._arrivals.acknowledge(self.feed.position)
        return None

    def _due(self, now: float) -> bool:
        """Whether to commit: much is held, or for long, or it waited elsewhere and none was committed lately."""
        if self._held.rows >= self.origin.rows or now - self._held.since >= self._every:
            return True
        waited = (self.ctx.wall() - self._held.oldest) / SECOND
        return waited >= self._every and now - self._cut_at >= self._every

    def _tell(self, before: Micros, now: float, *, idle: bool) -> None:
        """Tell the follower how far it is, about once a second: all that had arrived before the last look was taken."""
        if self._follower is None or now - self._told_at < _TELL:
            return
        if idle or not self._arrivals.waiting():
            self._told_at = now
            self._follower.reached(before)

    def drain(self) -> list[Committed]:
        """Take and commit everything that is there now."""
        made = []
        while True:
            before = self.ctx.now()
            found = self._arrivals.take(0.2)
            self._arrive(found)
            if self._held.oldest and (not found or self._held.rows >= self.origin.rows):
                made.append(self.cut())
            elif not found:
                self._tell(before, time.monotonic(), idle=True)
                self._arrivals.acknowledge(self.feed.position)
                return made

    def _arrive(self, found: Sequence[Batch]) -> None:
        """Sort out what was taken, let the follower have it, and hold it for the next commit."""
        if not found:
            return
        held = self._held
        held.whole = False
        batches, again = self._unknown(found)
        rows, dead = self._sorted_out(batches)
        fresh = self._seen.fresh(rows)
        again += int((~fresh).sum())
        rows = rows.filter(pa.array(fresh))
        if self._follower is not None and rows.num_rows:
            rows, refused = self._without(rows, self._follower.take(rows), min(batch.arrived for batch in batches))
            dead += refused
        self._seen.add(rows)
        oldest = min(batch.arrived for batch in found)
        held.oldest = min(held.oldest or oldest, oldest)
        held.since = held.since or time.monotonic()
        held.tables.append(rows)
        held.dead += dead
        held.keys |= {batch.key for batch in batches if batch.key}
        held.duplicates += again
        held.rows += sum(batch.rows.num_rows + len(batch.dead) for batch in found)
        held.whole = True

    def cut(self) -> Committed:
        """Commit what is held; then the source may forget it. Raises `Conflict`: then begin with a new consumer."""
        held = self._held
        if not held.whole:
            raise Conflict(f"the feed {self.feed.name} broke off half-way", hint="begin with a new consumer")
        rows = pa.concat_tables(held.tables) if held.tables else self._nothing()
        progress = feeds.Progress(
            self._arrivals.position(),
            rows.num_rows,
            len(held.dead),
            held.duplicates,
            max(0, self.ctx.wall() - (held.oldest or self.ctx.wall())),
            self._arrivals.waiting(),
            tuple(sorted(held.keys)),
        )
        made = commit(self.ctx, self.source, self.feed, Cut(rows, held.dead, progress))
        self._held, self._cut_at = _Held(), time.monotonic()
        with self.ctx.read() as tx:
            self.feed = feeds.get(tx, self.feed.project, self.feed.environment, self.feed.name)
        self._arrivals.acknowledge(self.feed.position)
        if self._follower is not None and rows.num_rows:
            self._follower.committed(rows)
        return made

    def close(self) -> None:
        """Let another consumer take over at once. What is held comes again."""
        self._arrivals.close()
        with self.ctx.write() as tx:
            feeds.take(tx, self.feed, self._owner, until=0, now=self.ctx.wall())

    def _lease(self) -> None:
        now = time.monotonic()
        if self._renewed and now - self._renewed < _RENEW:
            return
        wall = self.ctx.wall()
        dead = [self.feed.owner] if tasks.is_dead(self.feed.owner) else []
        with self.ctx.write() as tx:
            if not feeds.take(tx, self.feed, self._owner, until=wall + LEASE, now=wall, dead=dead):
                raise Conflict(f"{self.feed.owner} reads the feed {self.feed.name}", hint="one consumer at a time")
        self._renewed = now

    def _open(self) -> Arrivals:
        origin, position = self.origin, self.feed.position
        if isinstance(origin, Push):
            folder = inbox.inbox(self.ctx.home, self.feed.project, self.feed.environment, self.feed.name)
            return Pushed(folder, self._schema, origin.arrived, position)
        return _broker(origin, self.ctx.bindings, self._schema, position)

    def _load_seen(self) -> None:
        with self.ctx.read() as tx:
            head = refs.get(tx, self.ctx.project, refs.head_ref(self.feed.environment, self.feed.name))
            manifest = None if head is None else versions.get(tx, self.ctx.project, head).manifest
        if manifest is not None and self.origin.id:
            self._seen.load(manifest, paths_of(self.ctx, manifest))

    def _unknown(self, batches: Sequence[Batch]) -> tuple[list[Batch], int]:
        """The batches that did not come before, and how many events the others held."""
        with self.ctx.read() as tx:
            known = feeds.had(tx, self.feed, {batch.key for batch in batches if batch.key}) | self._held.keys
        kept, again = [], 0
        for batch in batches:
            if batch.key and batch.key in known:
                again += batch.rows.num_rows + len(batch.dead)
                continue
            known |= {batch.key} - {""}
            kept.append(batch)
        return kept, again

    def _sorted_out(self, batches: Sequence[Batch]) -> tuple[pa.Table, list[Letter]]:
        """The rows that may go on, and all dead letters."""
        dead = [letter for batch in batches for letter in batch.dead]
        tables = [batch.rows for batch in batches if batch.rows.num_rows]
        if not tables:
            return self._nothing(), dead
        rows = pa.concat_tables(tables)
        reasons = self._reasons(rows)
        if not reasons:
            return rows, dead
        arrived = np.repeat([b.arrived for b in batches], [b.rows.num_rows for b in batches])
        rows, refused = self._without(rows, reasons, arrived)
        return rows, dead + refused

    @staticmethod
    def _without(rows: pa.Table, reasons: Mapping[int, str], arrived: Any) -> tuple[pa.Table, list[Letter]]:
        """The other rows, and the refused ones as dead letters; `arrived` is one time, or that of each row."""
        if not reasons:
            return rows, []
        at = np.array(sorted(reasons))
        times = np.broadcast_to(arrived, rows.num_rows)[at].tolist()
        events = rows.take(pa.array(at)).to_pylist()
        dead = [(t, "", reasons[int(n)], _text(e)) for t, n, e in zip(times, at, events, strict=True)]
        keep = np.ones(rows.num_rows, bool)
        keep[at] = False
        return rows.filter(pa.array(keep)), dead

    def _reasons(self, rows: pa.Table) -> dict[int, str]:
        """Why a row may not go on, by its number."""
        found: dict[int, str] = {}
        needed = [*self.source.key, *self.origin.id, self.source.event_time]
        for name in dict.fromkeys(column for column in needed if column):
            if rows[name].null_count:
                for empty in np.flatnonzero(rows[name].is_null().to_numpy()):
                    found.setdefault(int(empty), f"no value in {name!r}")
        blocking = [e for e in self.source.expect if e.severity == "block" and e.kind in ROUTABLE]
        for expectation, numbers in broken_rows(rows, blocking):
            for number in numbers:
                found.setdefault(number, str(expectation))
        return found

    def _nothing(self) -> pa.Table:
        return arriving_schema(self.origin).empty_table()


def _broker(
    origin: RedisStream | Kafka, bindings: Mapping[str, Any], schema: pa.Schema, position: Mapping[str, Any]
) -> Arrivals:
    value = bindings.get(origin.binding)
    if not value:
        hint = f"everloop bind {origin.binding} VALUE --env ENVIRONMENT"
        raise InvalidInput(f"the binding {origin.binding!r} has no value here", hint=hint)
    module = "kafka" if isinstance(origin, Kafka) else "redis"
    try:
        reader: Any = import_module(f"everloop.data.streams.{module}")  # its library comes with an extra
    except ImportError as error:
        raise Unavailable(f"{error.name} is not installed", hint=f"pip install everloop[{module}]") from error
    opened: Arrivals = (
        reader.KafkaMessages(origin, value, schema, position)
        if isinstance(origin, Kafka)
        else reader.RedisEntries(origin, str(value), schema)
    )
    return opened


def _text(event: dict[str, Any]) -> str:
    return json.dumps(event, default=str, ensure_ascii=False)
