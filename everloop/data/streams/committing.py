"""One commit of a feed: version, head, dead letters and the source's position, in one transaction.

A cut of a feed is a part of its own, in the order of arrival. Cuts are small; when those at the end fill a proper part
together, the next commit writes them as one, ordered by the feed's key.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from everloop.catalog import facts, placements, refs, versions
from everloop.catalog.context import Context
from everloop.catalog.operating import feeds
from everloop.core.errors import DataError, InvalidInput
from everloop.core.version import Version
from everloop.data.codec import part_paths
from everloop.data.content.files import rows_of
from everloop.data.content.parts import UNKEYED_ROWS, Stored, add_part, data_version
from everloop.data.content.schema import schema_fields
from everloop.data.definitions import Contract, SourceDef
from everloop.data.sensitive import scanning
from everloop.data.streams.arriving import Letter
from everloop.data.streams.decoding import schema_of
from everloop.data.streams.origins import DEAD, Feed

MOST_CUTS = 64
"""So many small parts at the end of a version become one, even if they do not fill it."""
LETTERS = pa.schema(
    [
        pa.field("at", pa.timestamp("us", "UTC")),
        pa.field("place", pa.large_string()),
        pa.field("reason", pa.large_string()),
        pa.field("event", pa.large_string()),
    ]
)
KEY_MEMORY = 7 * 24 * 3_600_000_000
"""How long a batch's idempotency key is remembered."""


@dataclass(frozen=True, slots=True)
class Committed:
    """What a commit made; no id where it held no rows."""

    id: str
    number: int
    rows: int


@dataclass(frozen=True, slots=True)
class _Grown:
    """A dataset with rows added at its end, all bytes stored; nothing is recorded yet."""

    version: Version
    placed: Mapping[str, str]
    rows: int
    old: str | None
    """The head that it grew from."""


@dataclass(frozen=True, slots=True)
class Cut:
    """What one commit adds."""

    rows: pa.Table
    dead: Sequence[Letter]
    progress: feeds.Progress


def commit(ctx: Context, source: SourceDef, feed: feeds.Feed, cut: Cut) -> Committed:
    """Make the next version of a feed, and move its head and its position, all or nothing.

    Raises `Conflict` when another consumer, or somebody else's edit, came first; `Unavailable`, `StorageFull`.
    """
    grown: list[_Grown] = []
    if cut.rows.num_rows:
        place = (source.name, feed.environment)
        grown.append(_grow(ctx, place, cut.rows, source.contract, _said(source)))
    if cut.dead:
        tags = dict.fromkeys(["event"], next(iter(source.tags.values()))) if source.tags else {}
        said = {"events": {"of": source.name}}
        letters = pa.Table.from_pylist([dict(zip(LETTERS.names, letter, strict=True)) for letter in cut.dead], LETTERS)
        contract = Contract.of(event_time="at", tags=tags)
        grown.append(_grow(ctx, (source.name + DEAD, feed.environment), letters, contract, said))
    made = Committed("", 0, 0)
    with ctx.write() as tx:
        feeds.advance(tx, feed, cut.progress, at=ctx.wall())
        for one in grown:
            placements.put(tx, ctx.project, one.placed)
            numbered = versions.put(tx, ctx.project, one.version, actor=ctx.actor.name, at=ctx.now())
            name = refs.head_ref(feed.environment, one.version.name)
            actor, at = ctx.actor.name, ctx.now()
            refs.move(tx, ctx.project, name, old=one.old, new=one.version.id, actor=actor, at=at, reason="fed")
            payload = {"version": one.version.id, "rows": one.rows, "environment": feed.environment}
            facts.append(tx, ctx.project, ctx.fact("data.fed", one.version.key, payload))
            if one.version.name == source.name:
                made = Committed(one.version.id, numbered.number, one.rows)
        if cut.progress.keys:
            feeds.forget_keys(tx, feed, before=ctx.wall() - KEY_MEMORY)
    if made.number and _is_power_of_four(made.number):  # often while little is known of it, and rarely for ever
        scanning.scan_new(ctx, source.name, made.id)
    return made


def begin(ctx: Context, source: SourceDef, environment: str) -> Committed:
    """The version of a feed that brought nothing yet, and the head of `environment`, if one is named.

    Raises `Conflict` when the first events come just now.
    """
    assert isinstance(source.origin, Feed)
    empty = arriving_schema(source.origin).empty_table()
    stored = Stored(empty.schema, UNKEYED_ROWS)
    _add(ctx, stored, empty)
    version = data_version(source.name, stored, _unkeyed(source.contract), (), **_said(source))
    with ctx.write() as tx:
        placements.put(tx, ctx.project, stored.placements)
        numbered = versions.put(tx, ctx.project, version, actor=ctx.actor.name, at=ctx.now())
        if environment:
            name, actor = refs.head_ref(environment, source.name), ctx.actor.name
            refs.move(tx, ctx.project, name, old=None, new=version.id, actor=actor, at=ctx.now(), reason="nothing yet")
        payload = {"version": version.id, "rows": 0, "environment": environment}
        facts.append(tx, ctx.project, ctx.fact("data.fed", version.key, payload))
    return Committed(version.id, numbered.number, 0)


def arriving_schema(origin: Feed) -> pa.Schema:
    """The columns of what a feed brings: those that it declares, and the time of arrival where one is wanted."""
    fields = list(schema_of(origin.columns))
    if origin.arrived:
        fields.append(pa.field(origin.arrived, pa.timestamp("us", "UTC")))
    return pa.schema(fields)


def _unkeyed(contract: Contract) -> Contract:
    """Of rows in the order of arrival."""
    return Contract.of((), contract.event_time, contract.known_time, contract.tags)


def _is_power_of_four(number: int) -> bool:
    return number & (number - 1) == 0 and number.bit_length() % 2 == 1


def _said(source: SourceDef) -> dict[str, Any]:
    origin = source.origin
    assert isinstance(origin, Feed)
    return {"events": {"key": list(source.key), "id": list(origin.id)}}


def _grow(ctx: Context, place: tuple[str, str], rows: pa.Table, contract: Contract, said: Mapping[str, Any]) -> _Grown:
    name, environment = place
    with ctx.read() as tx:
        old = refs.get(tx, ctx.project, refs.head_ref(environment, name))
        before = None if old is None else versions.get(tx, ctx.project, old).manifest
    stored = Stored(rows.schema, UNKEYED_ROWS)
    if before is None:
        _add(ctx, stored, rows)
        return _Grown(data_version(name, stored, _unkeyed(contract), (), **said), stored.placements, rows.num_rows, old)
    if "events" not in before:
        raise InvalidInput(f"data/{name} was not made by a feed", hint="feed into a dataset of another name")
    if before["schema_fields"] != schema_fields(rows.schema):
        raise DataError(
            f"data/{name} has other columns than the feed declares now", hint="feed into a dataset of another name"
        )
    kept = list(before["parts"])
    small = _tail(kept)
    if len(small) >= MOST_CUTS or sum(part["rows"] for part in small) + rows.num_rows >= UNKEYED_ROWS:
        del kept[len(kept) - len(small) :]
        rows_before = _rows(ctx, before, small)
        whole = pa.concat_tables([*rows_before, rows])
        key = said["events"].get("key")
        _add(ctx, stored, whole.sort_by([(column, "ascending") for column in key]) if key else whole)
    else:
        _add(ctx, stored, rows)
    parts = [*kept, *(part.manifest() for part in stored.parts)]
    manifest = {**before, "rows": before["rows"] + rows.num_rows, "parts": parts}
    return _Grown(Version("data", name, manifest, (("before", str(old)),)), stored.placements, rows.num_rows, old)


def _tail(parts: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The small parts at the end."""
    small = 0
    while small < len(parts) and parts[-1 - small]["rows"] < UNKEYED_ROWS // 2:
        small += 1
    return list(parts[len(parts) - small :])


def _rows(ctx: Context, manifest: Mapping[str, Any], parts: Sequence[Mapping[str, Any]]) -> list[pa.Table]:
    with ctx.read() as tx:
        placed = placements.resolve(tx, ctx.project, [part["logical"] for part in parts])
    some = {**manifest, "parts": list(parts)}
    return [rows_of(path) for path in part_paths(some, ctx.store, placed, ctx.home / "cache")]


def _add(ctx: Context, stored: Stored, rows: pa.Table) -> None:
    for start in range(0, max(rows.num_rows, 1), UNKEYED_ROWS):
        add_part(stored, rows.slice(start, UNKEYED_ROWS), (), ctx.store)
