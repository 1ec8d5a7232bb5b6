"""Console output: what a run or a step printed, in order, readable while it runs and kept when it has ended.

Lines come in batches. Each batch is an object in the store (JSON lines `[microseconds, stream, text]`), named by a row
whose path says which lines it holds, so that a reader anywhere finds what is new by their numbers; bytes never pass
through the catalog. At most `LIMIT` bytes are kept: the oldest batches go, and line numbers say so, for they go on.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec
from pydantic import Field

from everloop.catalog.context import Context
from everloop.catalog.engine import Tx
from everloop.catalog.operation import Answer, Command, operation
from everloop.catalog.tracking import artifacts, runs
from everloop.core.clock import iso
from everloop.core.errors import NotFound
from everloop.core.grants import Target
from everloop.core.ids import is_id
from everloop.core.ports import Line

LIMIT = 4 * 2**20
"""How many bytes of a run's output are kept, the newest: at least so many, and less than a batch more."""
_BATCHES = 64
_BLOCK = 256 * 2**10
_PLACE = "{first:012d}-{count}"


@dataclass(frozen=True, slots=True)
class _Batch:
    """Lines `first` to `first + count`, in an object."""

    first: int
    count: int
    object: str
    size: int

    @property
    def path(self) -> str:
        return _PLACE.format(first=self.first, count=self.count)


class ReadConsole(Command):
    """Lines of a run (its id) or of a step without one (its recipe), from line number `after` on."""

    run: str
    after: int = Field(default=0, ge=0)
    """What the last answer gave as `position`; 0 is the beginning."""
    limit: int = Field(default=1000, ge=1, le=10_000)
    tail: bool = False
    """Give the last `limit` lines instead; `after` is not looked at."""


class LineView(Answer):
    """A line, as people see it."""

    number: int
    at: str
    stream: Literal["out", "err"]
    text: str


class ConsoleView(Answer):
    """Some lines. Ask again with `after=position` for what follows; `ended` says that nothing will."""

    lines: tuple[LineView, ...]
    position: int
    """The number of the line after the last one given."""
    total: int
    """How many lines there were so far."""
    first: int
    """The first line that is still kept: earlier ones went when there was more than `limit_bytes`."""
    limit_bytes: int
    ended: bool


def _run(_ctx: Context, cmd: ReadConsole) -> Target:
    return Target("run", cmd.run)


@operation("runs.console", needs="read", on=_run, reads=True)
def read_console(ctx: Context, cmd: ReadConsole) -> ConsoleView:
    """Read what a run printed: secrets are masked, times are those of the moment it was read from the process."""
    with ctx.read() as tx:
        found = _batches(tx, ctx.project, cmd.run)
        ended = _has_ended(tx, ctx.project, cmd.run, known=bool(found))
    first = found[0].first if found else 0
    total = found[-1].first + found[-1].count if found else 0
    start = max(first, total - cmd.limit if cmd.tail else cmd.after)
    lines: list[LineView] = []
    for batch in found:
        if batch.first + batch.count <= start or len(lines) >= cmd.limit:
            continue
        for number, line in enumerate(decoded(ctx.store.get(batch.object)), batch.first):
            if number >= start and len(lines) < cmd.limit:
                stream: Literal["out", "err"] = "err" if line.stream == "err" else "out"
                lines.append(LineView(number=number, at=iso(line.at), stream=stream, text=line.text))
    position = lines[-1].number + 1 if lines else min(start, total)
    return ConsoleView(lines=tuple(lines), position=position, total=total, first=first, limit_bytes=LIMIT, ended=ended)


def printed(tx: Tx, project: str, owner: str) -> int:
    """How many lines `owner` printed so far."""
    found = _batches(tx, project, owner)
    return found[-1].first + found[-1].count if found else 0


def append(ctx: Context, owner: str, lines: Sequence[Line], *, limit: int = LIMIT) -> None:
    """Add lines to what `owner` printed; one writer at a time. Raises what store and catalog raise."""
    if not lines:
        return
    content = encoded(lines)
    identity = ctx.store.put(content)
    with ctx.write() as tx:
        there = _batches(tx, ctx.project, owner)
        first = there[-1].first + there[-1].count if there else 0
        new = _Batch(first, len(lines), identity, len(content))
        _put(tx, ctx, owner, new)
        held = sum(batch.size for batch in there) + new.size
        for batch in there:
            if held - batch.size < limit:
                break
            artifacts.remove(tx, ctx.project, _owned(owner), batch.path)
            held -= batch.size
    if len(there) + 1 >= _BATCHES:
        compact(ctx, owner, _BLOCK)


def compact(ctx: Context, owner: str, block: int = LIMIT * 2) -> None:
    """Join neighbours to batches of at most `block` bytes: when there are many, and when the run has ended."""
    with ctx.read() as tx:
        found = _batches(tx, ctx.project, owner)
    groups: list[list[_Batch]] = []
    for batch in found:
        if groups and sum(one.size for one in groups[-1]) + batch.size <= block:
            groups[-1].append(batch)
        else:
            groups.append([batch])
    joined = [(group, b"".join(ctx.store.get(one.object) for one in group)) for group in groups if len(group) > 1]
    made = [
        (group, _Batch(group[0].first, sum(one.count for one in group), ctx.store.put(content), len(content)))
        for group, content in joined
    ]
    if not made:
        return
    with ctx.write() as tx:
        for group, whole in made:
            for one in group:
                artifacts.remove(tx, ctx.project, _owned(owner), one.path)
            _put(tx, ctx, owner, whole)


def forget(ctx: Context, owner: str) -> None:
    """Drop what `owner` printed before: a step that runs again starts an empty page."""
    with ctx.write() as tx:
        artifacts.remove(tx, ctx.project, _owned(owner), "")


def encoded(lines: Iterable[Line]) -> bytes:
    """JSON lines."""
    return b"".join(msgspec.json.encode([line.at, line.stream, line.text]) + b"\n" for line in lines)


def decoded(content: bytes) -> list[Line]:
    """The lines of a batch."""
    return [Line(*msgspec.json.decode(row)) for row in content.splitlines()]


def _owned(owner: str) -> str:
    """Apart from the artifacts that a client put under the run's id."""
    return f"console:{owner}"


def _put(tx: Tx, ctx: Context, owner: str, batch: _Batch) -> None:
    artifacts.put(tx, ctx.project, _owned(owner), batch.path, identity=batch.object, size=batch.size, at=ctx.wall())


def _batches(tx: Tx, project: str, owner: str) -> list[_Batch]:
    found = []
    for row in artifacts.tree(tx, project, _owned(owner)):
        first, _, count = row.path.partition("-")
        found.append(_Batch(int(first), int(count), row.object, row.size))
    return found


def _has_ended(tx: Tx, project: str, owner: str, *, known: bool) -> bool:
    """Whether the run is over; a step without a run is looked at once. Raises `NotFound`."""
    if is_id(owner):
        if not known:
            raise NotFound(f"nothing that {owner} printed is kept", hint="is it a run's id, or a step's recipe?")
        return True
    return runs.find(tx, project, owner).status != "RUNNING"
