"""Files scored by several processes: each takes the next as it finishes one, and one that dies is followed by another.

A file is written whole or not at all, so it does not matter who scored it, or how often it was begun.
"""

import asyncio
import socket
import subprocess
import sys
from collections import Counter, deque
from collections.abc import Iterable

import msgspec

from everloop.core.errors import Unavailable
from everloop.flows.executors.process import error_of
from everloop.serving.batch.scorer import Piece, Told, Who, opened, scored

_AHEAD = 2
"""Files that a process has at once: one is read or written while the other is asked about."""
_START = ["-P", "-m", "everloop.serving.batch.scorer"]
_TRIES = 4
"""Processes that may die over one file."""


async def spread(pieces: Iterable[Piece], who: Who, processes: int) -> None:
    """Score all pieces; with one process it is this one.

    Raises the first error of a piece, or `Unavailable` when processes die over one again and again.
    """
    waiting = deque(pieces)
    if not waiting:
        return
    if processes == 1:
        await _here(waiting, who)
        return
    deaths: Counter[int] = Counter()
    numbered = [
        who if not who.cluster else msgspec.structs.replace(who, cluster=f"{who.cluster}-{number}")
        for number in range(min(processes, len(waiting)))
    ]
    tending = [asyncio.ensure_future(_tended(waiting, one, deaths)) for one in numbered]
    try:
        await asyncio.gather(*tending)
    finally:
        for task in tending:
            task.cancel()  # one that failed ends the others; what they finished stays
        await asyncio.gather(*tending, return_exceptions=True)


async def _here(waiting: deque[Piece], who: Who) -> None:
    async with opened(who) as answering:

        async def some() -> None:
            while waiting:
                await scored(answering, waiting.popleft())

        scoring = [asyncio.ensure_future(some()) for _ in range(_AHEAD)]
        try:
            await asyncio.gather(*scoring)
        finally:
            for task in scoring:
                task.cancel()


async def _tended(waiting: deque[Piece], who: Who, deaths: Counter[int]) -> None:
    """Have one process after another score what waits."""
    while waiting:
        held: dict[int, Piece] = {}
        try:
            await _child(waiting, who, held)
        except ConnectionError:
            waiting.extendleft(held.values())
            deaths.update(held.keys() or [-1])
            worst, count = deaths.most_common(1)[0]
            if count >= _TRIES:
                what = f"part {worst}" if worst >= 0 else "the start"
                raise Unavailable(
                    f"{count} processes died over {what}", hint="is there memory enough? score with fewer processes"
                ) from None


async def _child(waiting: deque[Piece], who: Who, held: dict[int, Piece]) -> None:
    """One process, until nothing waits; raises `ConnectionError` when it dies, with what it had in `held`."""
    process, ours = _begun()
    reader, writer = await asyncio.open_connection(sock=ours)
    try:
        writer.write(msgspec.json.encode(who) + b"\n")
        await _heard(reader)
        while waiting or held:
            while waiting and len(held) < _AHEAD:
                piece = waiting.popleft()
                held[piece.number] = piece
                writer.write(msgspec.json.encode(piece) + b"\n")
            del held[await _heard(reader)]
    finally:
        writer.close()
        await asyncio.to_thread(_ended, process)


def _begun() -> tuple[subprocess.Popen[bytes], socket.socket]:
    ours, theirs = socket.socketpair()
    with theirs:
        process = subprocess.Popen(  # noqa: S603 - our own interpreter
            [sys.executable, *_START, "--fd", str(theirs.fileno())],
            pass_fds=(theirs.fileno(),),
            stdin=subprocess.DEVNULL,
        )
    return process, ours


async def _heard(reader: asyncio.StreamReader) -> int:
    line = await reader.readline()
    if not line.endswith(b"\n"):
        raise ConnectionResetError
    told = msgspec.json.decode(line, type=Told)
    if told.error is not None:
        raise error_of(told.error, "")
    return told.number


def _ended(process: subprocess.Popen[bytes]) -> None:
    """Wait for one that was told to end; it has workers to end, or applications on a cluster."""
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
