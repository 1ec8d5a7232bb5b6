"""What is said to a Redis server: commands in one piece, and their answers.

redis-py makes the connection (addresses, TLS, log in, time-outs). Asking goes past it: its checks for what this store
never uses (pushed messages, decoding, health, maintenance) take longer than the server does.
"""

from collections.abc import Sequence
from typing import Any

import hiredis
import redis

from everloop.core.errors import InvalidInput

Command = tuple[bytes, ...]
_ROOM = 1 << 16
_AT_ONCE = 1 << 20
"""Bytes up to which commands are joined: larger ones are not copied again."""


def pool_of(url: str, timeout: float) -> redis.ConnectionPool:
    """Where connections come from. `timeout` (seconds) bounds each answer. Raises `InvalidInput` for a wrong URL."""
    try:
        pool = redis.ConnectionPool.from_url(url, socket_timeout=timeout, socket_connect_timeout=timeout)
    except ValueError as error:
        raise InvalidInput(f"the online store's URL: {error}", hint="redis://HOST:PORT/DATABASE") from error
    pool.connection_kwargs["protocol"] = 2  # whatever the URL says: nothing but answers comes, and in one form
    return pool


class Talk:
    """One connection, for one thread at a time."""

    __slots__ = ("_made", "_read", "_socket")

    def __init__(self, pool: redis.ConnectionPool) -> None:
        """Connect. Raises `redis.RedisError`, `OSError`."""
        self._made: Any = pool.make_connection()
        self._made.connect()
        self._socket = self._made._sock  # noqa: SLF001 - as its parsers take it
        self._read = hiredis.Reader(protocolError=redis.InvalidResponse, replyError=redis.ResponseError)

    def asked(self, commands: Sequence[Command]) -> list[Any]:
        """The answers, a `redis.ResponseError` among them for a command that was refused.

        Raises `OSError` when the connection is dead (`TimeoutError` when the server is silent) and
        `redis.InvalidResponse` for other bytes than answers; the connection is of no use afterwards.
        """
        pieces = [hiredis.pack_command(command) for command in commands]  # type: ignore[arg-type]
        for piece in [b"".join(pieces)] if sum(map(len, pieces)) < _AT_ONCE else pieces:
            self._socket.sendall(piece)
        answers: list[Any] = []
        while len(answers) < len(pieces):
            answer = self._read.gets()
            if answer is not False:
                answers.append(answer)
                continue
            came = self._socket.recv(_ROOM)
            if not came:
                raise ConnectionResetError("the server closed the connection")
            self._read.feed(came)
        return answers

    def close(self) -> None:
        """Let the connection go."""
        self._made.disconnect()
