"""A process that scores files beside others: told which by its parent, over one connection, until that ends.

python -m everloop.serving.batch.scorer --fd 5
"""

import argparse
import asyncio
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pyarrow.parquet as pq

from everloop.core.errors import EverloopError
from everloop.flows.child import error_to_json
from everloop.flows.executors.parent import die_with_parent
from everloop.serving.batch import offline


class Piece(msgspec.Struct, frozen=True):
    """One file of rows to score into another."""

    number: int
    source: str
    target: str
    kept: list[str] | None
    """Columns that the scores keep; None: all."""


class Who(msgspec.Struct, frozen=True):
    """Who answers."""

    home: str
    address: str
    """`project.endpoint`."""
    revision: str
    workers: int
    """Processes for each part of the graph; on a cluster, replicas."""
    cluster: str = ""
    """Names the scoring's applications on the cluster of this machine's workers; empty: workers here."""


class Told(msgspec.Struct, frozen=True):
    """What became of a piece."""

    number: int
    error: dict[str, Any] | None = None


async def scored(answering: offline.Offline, piece: Piece) -> None:
    """Score one file; the target is there whole, or not at all. Raises what `Offline.answer` raises."""
    table = await asyncio.to_thread(pq.read_table, piece.source)
    made = offline.beside(table, await answering.answer(table), piece.kept)
    target = Path(piece.target)
    temporary = target.with_suffix(".new")
    await asyncio.to_thread(pq.write_table, made, temporary)
    temporary.replace(target)


def opened(who: Who) -> Any:
    """The revision, warm: a context."""
    return offline.opened(Path(who.home), who.address, who.revision, who.workers, who.cluster)


async def serve(connection: socket.socket) -> None:
    """Score what the parent asks for, several at once as it likes, until it hangs up."""
    reader, writer = await asyncio.open_connection(sock=connection)
    who = msgspec.json.decode(await reader.readline(), type=Who)
    scoring: set[asyncio.Task[None]] = set()

    def over(task: asyncio.Task[None]) -> None:
        scoring.discard(task)
        if not task.cancelled() and isinstance(error := task.exception(), Exception):
            reader.set_exception(error)  # a fault of ours ends the process, which says it

    def tell(told: Told) -> None:
        writer.write(msgspec.json.encode(told) + b"\n")

    async def one(answering: offline.Offline, piece: Piece) -> None:
        try:
            await scored(answering, piece)
        except EverloopError as error:
            tell(Told(piece.number, error_to_json(error)))
        else:
            tell(Told(piece.number))

    try:
        async with opened(who) as answering:
            tell(Told(-1))
            while line := await reader.readline():
                task = asyncio.ensure_future(one(answering, msgspec.json.decode(line, type=Piece)))
                scoring.add(task)
                task.add_done_callback(over)
            for task in scoring:
                task.cancel()
    except EverloopError as error:
        tell(Told(-1, error_to_json(error)))
    with suppress(ConnectionError):
        await writer.drain()
        writer.close()


def main() -> int:
    """Score for the process that handed over `--fd`."""
    parser = argparse.ArgumentParser(prog="everloop.serving.batch.scorer")
    parser.add_argument("--fd", type=int, required=True)
    arguments = parser.parse_args()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    die_with_parent(signal.SIGKILL)
    with socket.socket(fileno=arguments.fd) as connection:
        asyncio.run(serve(connection))
    return 0


if __name__ == "__main__":
    sys.exit(main())
