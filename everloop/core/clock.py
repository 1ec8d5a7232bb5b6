"""Injected time. Nothing in Everloop asks the operating system for the time but through a clock."""

import time
from datetime import UTC, datetime
from typing import Protocol

Micros = int
"""Microseconds since 1970-01-01T00:00:00Z; the one unit of time in the catalog and in manifests."""

SECOND: Micros = 1_000_000
MINUTE: Micros = 60 * SECOND
HOUR: Micros = 60 * MINUTE
DAY: Micros = 24 * HOUR


class Clock(Protocol):
    """Where time comes from. `now` is event time, which a replay moves; `wall` never is moved."""

    def now(self) -> Micros:
        """The current event time."""
        ...

    def wall(self) -> Micros:
        """The time at which a record is really written."""
        ...


class SystemClock:
    """The time of the machine."""

    def now(self) -> Micros:
        """The current event time: the same as `wall`."""
        return self.wall()

    def wall(self) -> Micros:
        """Microseconds since the epoch."""
        return time.time_ns() // 1000


class ReplayClock:
    """Time that a replayer sets; it only moves forward."""

    def __init__(self, start: Micros) -> None:
        """Start at `start`."""
        self._now = start

    def now(self) -> Micros:
        """The replayed event time."""
        return self._now

    def wall(self) -> Micros:
        """Microseconds since the epoch, really."""
        return time.time_ns() // 1000

    def advance(self, to: Micros) -> None:
        """Move to `to`; an earlier time is ignored."""
        self._now = max(self._now, to)


def iso(at: Micros) -> str:
    """ISO 8601 in UTC with microseconds only where there are any, for people and JSON."""
    moment = datetime.fromtimestamp(at // SECOND, UTC).replace(microsecond=at % SECOND)
    return moment.isoformat().replace("+00:00", "Z")


def micros(moment: datetime) -> Micros:
    """Exact microseconds of an aware datetime; raises ValueError for a naive one."""
    if moment.tzinfo is None:
        msg = "a time without a zone is ambiguous"
        raise ValueError(msg)
    delta = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return (delta.days * 86_400 + delta.seconds) * SECOND + delta.microseconds


def parse_time(text: str) -> Micros:
    """Microseconds of an ISO 8601 text; without a zone it means UTC. Raises ValueError."""
    moment = datetime.fromisoformat(text)
    return micros(moment if moment.tzinfo else moment.replace(tzinfo=UTC))


def parse_duration(text: str) -> Micros:
    """Microseconds of `10m`, `3h`, `7d`, `90s` or `250ms`. Raises ValueError."""
    for unit, size in (("ms", 1000), ("s", SECOND), ("m", MINUTE), ("h", HOUR), ("d", DAY), ("w", 7 * DAY)):
        number = text.removesuffix(unit)
        if number != text and number.isascii() and number.isdigit() and int(number) > 0:
            return int(number) * size
    msg = f"{text!r} is not a duration such as 90s, 10m, 3h, 7d"
    raise ValueError(msg)
