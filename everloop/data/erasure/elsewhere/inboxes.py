"""Events about a subject that wait in the inboxes of pushed feeds: each goes in its place, and places stay true.

A consumer remembers how many bytes of a file it has read, so a frame keeps its length: lines become blanks, a batch of
another form is written without the rows, and spaces at the end of its header make up for what is missing. A file that
is finished is written beside the old one and renamed over it; in the one that the server appends to, frames are
overwritten by one write each. What a consumer had read before comes into a version first, and goes from there.
"""

import gzip
import io
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from everloop.catalog import tasks
from everloop.catalog.context import Context
from everloop.catalog.operating import feeds
from everloop.core.errors import DataError
from everloop.data.erasure.finding.subjects import Subject, rows_about
from everloop.data.erasure.overwriting import overwrite
from everloop.data.streams import inbox
from everloop.data.streams.decoding import unpacked
from everloop.data.streams.origins import ARROW

_WAIT = 70.0
"""Seconds for which a consumer may hold what it read (`every` is a minute at most)."""
_COMPRESSIONS = (None, "lz4", "zstd")


@dataclass(slots=True)
class Inboxes:
    """`core.ports.Erasable`: the inboxes of this machine."""

    ctx: Context
    subject: Subject
    wait: float = _WAIT
    place: str = "inboxes of feeds"
    _left: list[str] = field(default_factory=list)

    def erase(self, _key: str) -> int:
        """Take the subject's events from every file, then wait until consumers committed what they had read of them."""
        count = 0
        behind: dict[tuple[str, str], dict[str, int]] = {}
        for project, environment, name in inbox.inboxes(self.ctx.home):
            if project != self.ctx.project:
                continue
            folder = inbox.inbox(self.ctx.home, project, environment, name)
            for path in inbox.files(folder):
                found, size = erase_from_file(path, self.subject)
                count += found
                behind.setdefault((environment, name), {})[path.name] = size
        for (environment, name), ends in behind.items():
            self._settle(environment, name, ends)
        return count

    def left(self) -> list[str]:
        """Feeds of which a consumer may still hold events in its memory."""
        return self._left

    def _settle(self, environment: str, name: str, ends: Mapping[str, int]) -> None:
        until = time.monotonic() + self.wait
        while not self._settled(environment, name, ends):
            if time.monotonic() > until:
                self._left.append(f"the feed {name} in {environment}: what its consumer holds and did not commit yet")
                return
            time.sleep(0.05)

    def _settled(self, environment: str, name: str, ends: Mapping[str, int]) -> bool:
        """Whether no living consumer can hold what lay before these places."""
        folder = inbox.inbox(self.ctx.home, self.ctx.project, environment, name)
        with self.ctx.read() as tx:
            known = {(f.environment, f.name): f for f in feeds.all_feeds(tx, self.ctx.project)}
        feed = known.get((environment, name))
        if feed is None or feed.until < self.ctx.wall() or tasks.is_dead(feed.owner):
            return True
        return all(int(feed.position.get(file, 0)) >= end or not (folder / file).exists() for file, end in ends.items())


def erase_from_file(path: Path, subject: Subject) -> tuple[int, int]:
    """Take a subject's events from one file; returns how many, and the bytes of whole frames in it."""
    finished = inbox.is_finished(path)
    content = path.read_bytes()
    changed: dict[int, bytes] = {}
    count = start = 0
    for frame in inbox.frames(path, 0, len(content) + 1):
        found, fresh = _without(frame, subject)
        count += found
        if found:
            changed[start] = inbox.framed(fresh.header, fresh.body, frame.end - start)
        start = frame.end
    if changed:
        overwrite(path, content, changed, growing=not finished)
    return count, start


def _without(frame: inbox.Frame, subject: Subject) -> tuple[int, inbox.Frame]:
    """How many of a batch's events go, and the batch without them, no longer than it was."""
    encoding, media = frame.header.get("encoding", ""), frame.header["media"]
    try:
        body = unpacked(frame.body, encoding)
    except DataError:
        body, encoding = frame.body, ""
    found, left = _arrow(body, subject) if media == ARROW else _lines(body, subject)
    header = frame.header
    if subject.mentions.in_text(str(header.get("key", ""))):  # a key of this batch alone, and never sent again
        found, header = max(found, 1), {**header, "key": ""}
    if not found:
        return 0, frame
    sizes: list[tuple[Mapping[str, Any], bytes]] = []
    for kept in left:
        sizes.append(({**header, "encoding": ""}, kept))
        sizes.append(({**header, "encoding": "gzip"}, gzip.compress(kept, 9, mtime=0)))
    fitting = [one for one in sizes if inbox.length_of(*one) <= inbox.length_of(frame.header, frame.body)]
    if not fitting:
        raise DataError("a batch cannot be written without the subject in its place", hint="let the feed be read first")
    chosen = fitting[0]
    return found, replace(frame, header=chosen[0], body=chosen[1])


def _lines(body: bytes, subject: Subject) -> tuple[int, list[bytes]]:
    lines, count = body.split(b"\n"), 0
    for number, line in enumerate(lines):
        if line.strip() and subject.mentions.in_text(line.decode("utf-8", "replace")):
            lines[number], count = b" " * len(line), count + 1
    return count, [b"\n".join(lines), b"\n".join(line for line in lines if line.strip())]


def _arrow(body: bytes, subject: Subject) -> tuple[int, list[bytes]]:
    try:
        table = pa.ipc.open_stream(pa.BufferReader(body)).read_all()
    except (pa.ArrowException, OSError):
        spoken = subject.mentions.in_bytes(body)
        return int(spoken), [b""]
    texts = [f.name for f in table.schema if pa.types.is_string(f.type) or pa.types.is_large_string(f.type)]
    about = rows_about(table, subject, texts)
    kept = table.filter(pa.array(~about))
    return int(about.sum()), [_stream(kept, compression) for compression in _COMPRESSIONS]


def _stream(table: pa.Table, compression: str | None) -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression=compression)) as writer:
        writer.write_table(table)
    return sink.getvalue()
