"""Entries about a subject in the Redis streams that the project reads; topics of Kafka are said to keep theirs.

Redis keeps the bytes of a deleted entry in the block where it lay, also when it writes its files anew. So the stream is
copied without the entries under the ids that they have, with its groups, their positions and what is pending in them,
and takes the old one's place in one transaction; then Redis writes its files anew. Only one consumer of ours reads a
group; foreign groups of the same stream are carried over too.
"""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from everloop.catalog import versions
from everloop.catalog.context import Context
from everloop.core.errors import Unavailable
from everloop.core.ids import fresh_id
from everloop.data.definitions import SourceDef
from everloop.data.erasure.finding.subjects import Subject
from everloop.data.streams.origins import Kafka, RedisStream

_PAGE = 1000
_TRIES = 20
_FILES_SECONDS = 120.0


@dataclass(slots=True)
class Brokers:
    """`core.ports.Erasable`: streams of other servers that the project's sources name, by the bindings at hand."""

    ctx: Context
    subject: Subject
    place: str = "streams"
    _left: list[str] = field(default_factory=list)

    def erase(self, _key: str) -> int:
        """Take the subject's entries from every stream that is reached; says in `left` what is not."""
        count = 0
        for name, origin in _origins(self.ctx):
            if isinstance(origin, Kafka):
                self._left.append(
                    f"source {name}: messages of the topic {origin.topic} stay with its brokers until their retention"
                )
                continue
            url = self.ctx.bindings.get(origin.binding)
            if not url:
                why = f"the binding {origin.binding} has no value here: erase with the environment that has it"
                self._left.append(f"source {name}: the stream {origin.stream}; {why}")
                continue
            count += erase_from_stream(str(url), origin.stream, self.subject)
        return count

    def left(self) -> list[str]:
        """Streams that are not ours to clean, or were not reached."""
        return self._left


def erase_from_stream(url: str, stream: str, subject: Subject) -> int:
    """Take the subject's entries from a stream and from the server's files. Raises `Unavailable`."""
    redis = import_module("redis")  # comes with an extra
    server = redis.Redis.from_url(url, socket_timeout=60)
    try:
        found = [identity for identity, fields in _entries(server, stream) if _about(fields, subject)]
        if found:
            _remake(server, redis, stream, subject)
            rewrite_files(server)
    except redis.RedisError as error:
        raise Unavailable(
            f"Redis does not answer: {error}", hint="is the server running, and the binding right?"
        ) from error
    finally:
        server.close()
    return len(found)


def rewrite_files(server: Any) -> None:
    """Have Redis write its append-only file and its snapshot anew; raises `Unavailable` when it does not in time."""
    if _is_on(server, "appendonly"):
        _done(server, "aof_rewrite_in_progress")
        server.bgrewriteaof()
        _done(server, "aof_rewrite_in_progress", "aof_rewrite_scheduled")
    if server.config_get("save").get("save") or int(server.info("persistence").get("rdb_last_cow_size", 0)):
        _done(server, "rdb_bgsave_in_progress")
        server.save()


def _remake(server: Any, redis: Any, stream: str, subject: Subject) -> None:
    """Copy the stream without the entries and put the copy in its place, when nothing came or was taken meanwhile."""
    for _ in range(_TRIES):
        copy = f"{stream}:{fresh_id('erasing')}"
        with server.pipeline() as pipe:
            try:
                pipe.watch(stream)
                info = pipe.xinfo_stream(stream)
                groups = pipe.xinfo_groups(stream)
                pending = {group["name"]: _pending(pipe, stream, group) for group in groups}
                kept = 0
                for identity, fields in _entries(server, stream):
                    if not _about(fields, subject):
                        server.xadd(copy, fields, id=identity)
                        kept += 1
                pipe.multi()
                _finish(pipe, (stream, copy), info, (groups, pending), kept=kept)
                pipe.execute()
            except redis.WatchError:
                server.delete(copy)
                continue
            return
    raise Unavailable(f"the stream {stream} does not stand still", hint="pause what writes to it, then --resume")


def _finish(pipe: Any, names: tuple[str, str], info: Mapping[str, Any], groups: tuple[Any, Any], *, kept: int) -> None:
    """What makes the copy the same stream: its last id, its groups with their positions and what they hold."""
    stream, copy = names
    if not kept:  # a group makes an empty stream
        pipe.xgroup_create(copy, "everloop-erasing", id="0", mkstream=True)
        pipe.xgroup_destroy(copy, "everloop-erasing")
    added = info.get("entries-added", info["length"])
    pipe.execute_command("XSETID", copy, info["last-generated-id"], "ENTRIESADDED", added, "MAXDELETEDID", "0-0")
    for group in groups[0]:
        pipe.xgroup_create(copy, group["name"], id=group["last-delivered-id"], entries_read=group.get("entries-read"))
        for entry in groups[1][group["name"]]:
            pipe.xclaim(
                copy,
                group["name"],
                entry["consumer"],
                0,
                [entry["message_id"]],
                idle=entry["time_since_delivered"],
                retrycount=entry["times_delivered"],
                force=True,
                justid=True,
            )
    pipe.rename(copy, stream)


def _pending(pipe: Any, stream: str, group: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    found: list[Mapping[str, Any]] = []
    after = "-"
    while page := pipe.xpending_range(stream, group["name"], after, "+", _PAGE):
        found += page
        after = b"(" + page[-1]["message_id"]
    return found


def _entries(server: Any, stream: str) -> Iterator[tuple[bytes, Mapping[bytes, bytes]]]:
    after: bytes | str = "-"
    while page := server.xrange(stream, after, "+", _PAGE):
        yield from page
        after = b"(" + page[-1][0]


def _about(fields: Mapping[bytes, bytes], subject: Subject) -> bool:
    """Whether an entry speaks of the subject: in a field that is called like a column of subjects, or in any text."""
    for raw, value in fields.items():
        text = value.decode("utf-8", "replace")
        if subject.mentions.in_value(text, raw.decode("utf-8", "replace")):
            return True
    return False


def _origins(ctx: Context) -> list[tuple[str, RedisStream | Kafka]]:
    """The live origins of every version of every source: what was read from an older one is there still."""
    found: dict[str, tuple[str, RedisStream | Kafka]] = {}
    with ctx.read() as tx:
        rows = [
            row
            for name in versions.names(tx, ctx.project, "source")
            for row in versions.history(tx, ctx.project, "source", name, limit=_PAGE)
        ]
    for row in rows:
        origin = SourceDef.from_manifest(row.name, row.manifest).origin
        if isinstance(origin, RedisStream):
            found.setdefault(f"redis {origin.binding} {origin.stream}", (row.name, origin))
        elif isinstance(origin, Kafka):
            found.setdefault(f"kafka {origin.binding} {origin.topic}", (row.name, origin))
    return list(found.values())


def _is_on(server: Any, setting: str) -> bool:
    return str(server.config_get(setting).get(setting, "no")) == "yes"


def _done(server: Any, *names: str) -> None:
    until = time.monotonic() + _FILES_SECONDS
    while any(int(server.info("persistence").get(name, 0)) for name in names):
        if time.monotonic() > until:
            raise Unavailable("Redis does not finish writing its files", hint="look at its log, then --resume")
        time.sleep(0.05)
