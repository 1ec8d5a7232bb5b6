"""The served online store: a Redis server (or one that speaks its protocol, such as Valkey).

A space is one Redis hash, `everloop:<project>/…`, whose fields are the keys. Redis evicts and expires whole keys only:
so a space is there as a whole, watermark included, or it is gone as a whole and says that it was never filled. No
entity can lose its state alone and answer "no facts". Nothing here expires; the time to live of a feature is checked
when it is read. Run the server with `maxmemory-policy noeviction`: it then refuses writes (`StorageFull`) when full.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha1
from secrets import randbelow, token_hex
from typing import Any, TypeVar

import redis

from everloop.core.errors import Conflict, StorageFull, Unavailable
from everloop.features.stores.talking import Command, Talk, pool_of

Result = TypeVar("Result")
_AT_ONCE = 20_000
"""Fields of one script call: a server answers nobody else meanwhile (some ten milliseconds)."""
_TRIES = 60
_SWAP = b"""
if KEYS[2] and redis.call('EXISTS', KEYS[2]) == 1 then return 0 end
local last = 2 * tonumber(ARGV[1])
for i = 2, last, 2 do
  local held = redis.call('HGET', KEYS[1], ARGV[i])
  if (held and redis.sha1hex(held) or '') ~= ARGV[i + 1] then
    if KEYS[2] then redis.call('SET', KEYS[2], '', 'EX', 60) end
    return 0
  end
end
for i = last + 2, #ARGV, 2 do
  if ARGV[i + 1] == '' then redis.call('HDEL', KEYS[1], ARGV[i])
  else redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
end
return 1
"""
"""Write fields when others still are what they were. KEYS: the space and, where several calls are one act, a mark that
one of them refused. ARGV: the number of comparisons, (field, SHA-1 or nothing)…, (field, value or nothing)…"""


@dataclass(slots=True)
class _Act:
    """What an act has read and would write, by (space, key)."""

    seen: dict[tuple[str, bytes], bytes | None] = field(default_factory=dict)
    changed: dict[tuple[str, bytes], bytes] = field(default_factory=dict)


class RedisStore:
    """`core.ports.OnlineStore` over Redis; safe for threads, processes and machines beside each other.

    A read is one round trip, however many spaces and keys it names. `atomically` is optimistic: what the act read is
    compared in the server when it writes, and the act runs again when somebody else wrote meanwhile.
    """

    def __init__(self, url: str, *, timeout: float = 5.0, rest: float = 0.0, prefix: str = "everloop") -> None:
        """Nothing is connected yet. `url`: `redis://`, `rediss://` or `unix://`, as redis-py reads it.

        `timeout` (seconds) bounds each answer. After a failure everything fails at once for `rest` seconds, so that a
        server that is gone cannot hold up a process that has other things to do. `prefix` begins the names of the
        hashes: give each workspace that shares a database its own. Raises `InvalidInput` for a wrong URL.
        """
        self._pool = pool_of(url, timeout)
        self._free: deque[Talk] = deque()
        self._prefix, self._rest, self._gone_until, self._why = prefix.encode(), rest, 0.0, ""
        self._local = threading.local()
        self._names: dict[str, bytes] = {}

    def close(self) -> None:
        """Give the connections back."""
        while self._free:
            self._free.pop().close()

    def read(self, wanted: Sequence[tuple[str, Sequence[bytes]]]) -> list[list[bytes | None]]:
        """The values of some keys of each space, in one round trip; None where there is none."""
        act: _Act | None = getattr(self._local, "act", None)
        if act is not None:
            return self._joined(act, wanted)
        found = iter(self._ask([(b"HMGET", self._name(space), *keys) for space, keys in wanted if keys]))
        return [next(found) if keys else [] for _, keys in wanted]

    def _joined(self, act: _Act, wanted: Sequence[tuple[str, Sequence[bytes]]]) -> list[list[bytes | None]]:
        """Read as a part of an act: its own writes, and the same value each time."""
        new = {space: dict.fromkeys(k for k in keys if (space, k) not in act.seen) for space, keys in wanted}
        asked = [(space, list(keys)[at : at + _AT_ONCE]) for space, keys in new.items() for at in _cuts(len(keys))]
        answers = self._ask([(b"HMGET", self._name(space), *keys) for space, keys in asked])
        for (space, keys), values in zip(asked, answers, strict=True):
            act.seen.update(zip(((space, key) for key in keys), values, strict=True))
        return [[act.changed.get((space, key), act.seen[space, key]) or None for key in keys] for space, keys in wanted]

    def write(self, space: str, items: Iterable[tuple[bytes, bytes]]) -> None:
        """Replace values, all or none; an empty value removes its key. Raises `StorageFull`, `Unavailable`.

        After `Unavailable` it is not known whether they were written: do it again.
        """
        changed = {(space, key): value for key, value in items}
        act: _Act | None = getattr(self._local, "act", None)
        if act is not None:
            act.changed.update(changed)
        elif changed:
            self._commit(_Act(changed=changed))

    def atomically(self, act: Callable[[], Result]) -> Result:
        """Run `act`, perhaps more than once; its reads and writes of this store happen as one.

        Raises `Conflict` when others write the same keys faster than it can.
        """
        if getattr(self._local, "act", None) is not None:
            return act()
        for tries in range(_TRIES):
            held = self._local.act = _Act()
            try:
                result = act()
            finally:
                self._local.act = None
            if not held.changed or self._commit(held):
                return result
            time.sleep(randbelow(1000) / 1000 * min(0.002 * 2**tries, 0.25))
        raise Conflict("others write to the same entities without end", hint="push again, or from fewer processes")

    def drop(self, space: str) -> None:
        """Forget a space."""
        self._ask([(b"UNLINK", self._name(space))])

    def forget(self, spaces: Collection[str], wanted: Callable[[bytes], bool]) -> int:
        """Remove the keys of some spaces that are `wanted`, and have the server write its files anew.

        Returns how many. Replicas, backups and snapshots that somebody made by hand are not reached.
        """
        count = 0
        for space in spaces:
            for keys in self._keys(space):
                gone = [key for key in keys if wanted(key)]
                count += self._ask([(b"HDEL", self._name(space), *gone)])[0] if gone else 0
        if count:
            self._rewrite()
        return count

    def _keys(self, space: str) -> Iterator[list[bytes]]:
        cursor = b"0"
        while True:
            ((cursor, pairs),) = self._ask([(b"HSCAN", self._name(space), cursor, b"COUNT", b"1000")])
            yield pairs[::2]
            if int(cursor) == 0:
                return

    def _rewrite(self) -> None:
        """Have the append-only file and the snapshot written again, where the server keeps them by itself."""
        (told,) = self._ask([(b"INFO", b"persistence")])
        if b"aof_enabled:1" in bytes(told):
            self._in_turn(b"BGREWRITEAOF")
        (saves,) = self._ask([(b"CONFIG", b"GET", b"save")])
        if any(saves[1::2]):
            self._in_turn(b"BGSAVE", b"SCHEDULE")

    def _in_turn(self, *command: bytes) -> None:
        """Give a command that waits for the one before it: what is being written now may hold what has to go."""
        for _ in range(_TRIES * 10):
            try:
                self._ask([command])
            except Unavailable as error:
                if "in progress" not in error.message:
                    raise
                time.sleep(0.1)
            else:
                return
        raise Unavailable("the online store does not finish saving", hint="look at the Redis server's log")

    def _commit(self, act: _Act) -> bool:
        """Write what the act changed if what it read is still so; False when it is not."""
        compared = [
            (space, key, b"" if value is None else sha1(value, usedforsecurity=False).hexdigest().encode())
            for (space, key), value in act.seen.items()
        ]
        written = [(space, key, value) for (space, key), value in act.changed.items()]
        if len(compared) + len(written) <= _AT_ONCE and len({space for space, *_ in (*compared, *written)}) == 1:
            return bool(self._ask([self._swap(written[0][0], b"", compared, written)])[0])
        # all comparisons come before any write, so a refusal leaves nothing half written
        mark = self._prefix + b":refused:" + token_hex(16).encode()
        calls = [self._swap(space, mark, part, ()) for space, part in _parts(compared)]
        calls += [self._swap(space, mark, (), part) for space, part in _parts(written)]
        *_, done, _ = self._ask([(b"MULTI",), *calls, (b"EXEC",), (b"DEL", mark)])
        _check(done)
        return all(done)

    def _swap(self, space: str, mark: bytes, compared: Sequence[Any], written: Sequence[Any]) -> tuple[bytes, ...]:
        marks = (mark,) if mark else ()
        words = [word for _, key, value in (*compared, *written) for word in (key, value)]
        return (b"EVAL", _SWAP, b"%d" % (1 + len(marks)), self._name(space), *marks, b"%d" % len(compared), *words)

    def _name(self, space: str) -> bytes:
        name = self._names.get(space)
        if name is None:
            name = self._names[space] = self._prefix + b":" + space.encode()
        return name

    def _ask(self, commands: Sequence[Command]) -> list[Any]:
        """Send commands in one piece and read their answers."""
        if not commands:
            return []
        if self._gone_until and time.monotonic() < self._gone_until:
            raise Unavailable(self._why, hint="is the server running, and the binding right?")
        try:
            answers = self._exchanged(commands)
        except (redis.RedisError, OSError) as error:
            self._gone_until, self._why = time.monotonic() + self._rest, f"the online store does not answer: {error}"
            raise Unavailable(self._why, hint="is the server running, and the binding right?") from error
        self._gone_until = 0.0
        _check(answers)
        return answers

    def _exchanged(self, commands: Sequence[Command]) -> list[Any]:
        """The answers, over a kept connection; over a new one when that is dead (the server has restarted).

        Sending again is safe: what is written is either the same again, or compared before it is written.
        """
        try:
            talk = self._free.pop()
        except IndexError:
            return self._kept(Talk(self._pool), commands)
        try:
            return self._kept(talk, commands)
        except TimeoutError:  # it is not dead, and would be as silent to the next
            raise
        except OSError:
            return self._kept(Talk(self._pool), commands)

    def _kept(self, talk: Talk, commands: Sequence[Command]) -> list[Any]:
        whole = False
        try:
            answers = talk.asked(commands)
            whole = True
        finally:
            if whole:
                self._free.append(talk)
            else:
                talk.close()  # answers may be under way, which nobody would wait for
        return answers


def _check(answers: Sequence[Any]) -> None:
    for answer in answers:
        if isinstance(answer, redis.ResponseError):
            raise _refused(answer) from answer


def _cuts(count: int) -> range:
    return range(0, count, _AT_ONCE)


def _parts(changes: Sequence[tuple[str, bytes, bytes]]) -> Iterator[tuple[str, list[tuple[str, bytes, bytes]]]]:
    """The same, by space, in parts that a server can take at once."""
    for space in dict.fromkeys(space for space, *_ in changes):
        mine = [change for change in changes if change[0] == space]
        for at in _cuts(len(mine)):
            yield space, mine[at : at + _AT_ONCE]


def _refused(error: redis.ResponseError) -> Unavailable:
    if str(error).startswith(("OOM", "MISCONF")):
        return StorageFull(f"the online store is full: {error}", hint="give the Redis server more memory or disk")
    return Unavailable(f"the online store refuses: {error}", hint="look at the Redis server's log and settings")
