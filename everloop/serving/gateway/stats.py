"""What a gateway counts, and the file that it tells the controller by.

Counters only go up while the process lives; a reader takes differences and starts again when `started`
changes. Latency lies in buckets a quarter of an octave wide.
"""

from dataclasses import dataclass, field
from typing import Any

_BUCKETS = 4 * 40


def bucket(micros: int) -> int:
    """The bucket of a latency."""
    size = max(micros, 4)
    bits = size.bit_length()
    return min(((bits - 3) << 2) | ((size >> (bits - 3)) & 3), _BUCKETS - 1)


def upper(index: int) -> int:
    """The latency in microseconds that bucket `index` ends before."""
    return (4 + (index & 3) + 1) << (index >> 2)


def quantile(counts: list[int], share: float) -> int:
    """The latency that `share` of the counted requests stayed under; 0 without any."""
    wanted = sum(counts) * share
    seen = 0
    for index, count in enumerate(counts):
        seen += count
        if count and seen >= wanted:
            return upper(index)
    return 0


@dataclass(slots=True)
class Answers:
    """What is counted of whatever answers."""

    requests: int = 0
    rows: int = 0
    errors: int = 0
    latency: list[int] = field(default_factory=lambda: [0] * _BUCKETS)

    def answered(self, rows: int, micros: int) -> None:
        """Count an answer."""
        self.requests += 1
        self.rows += rows
        self.latency[bucket(micros)] += 1

    def failed(self) -> None:
        """Count a failure, after its last try."""
        self.requests += 1
        self.errors += 1


@dataclass(slots=True)
class Counters(Answers):
    """Of one revision of one endpoint.

    Requests are those that it was chosen for, refused ones apart; errors those of them that it failed: the model
    raised, died, or was too slow.
    """

    fallbacks: int = 0
    """Of the errors, those that another revision answered."""
    simpler: int = 0
    """Of the errors, those that the fallback's own graph answered."""
    cached: int = 0
    """Those that an earlier answer stood in for."""
    defaulted: int = 0
    """Those that the declared default stood in for."""
    refused: int = 0
    """Malformed questions."""
    unlogged: int = 0
    """Answered without an id, because the log was full."""
    stale: int = 0
    """Answered although a feature view was too old or never filled."""
    overloaded: int = 0
    """Not taken, because too much waited already."""
    limited: int = 0
    """Not taken, because the caller asked more than it may."""
    unfed: int = 0
    """Not answered because the online store did not."""

    def fell(self, kind: str) -> None:
        """Count a failure that something else answered."""
        if kind == "previous":
            self.fallbacks += 1
        elif kind == "simpler":
            self.simpler += 1
        elif kind == "cached":
            self.cached += 1
        else:
            self.defaulted += 1

    def told(self) -> dict[str, Any]:
        """As JSON; latency as `{bucket: count}`."""
        return {
            "requests": self.requests,
            "rows": self.rows,
            "errors": self.errors,
            "fallbacks": self.fallbacks,
            "simpler": self.simpler,
            "cached": self.cached,
            "defaulted": self.defaulted,
            "refused": self.refused,
            "unlogged": self.unlogged,
            "stale": self.stale,
            "unfed": self.unfed,
            "overloaded": self.overloaded,
            "limited": self.limited,
            "p50_micros": quantile(self.latency, 0.5),
            "p99_micros": quantile(self.latency, 0.99),
            "latency": {str(index): count for index, count in enumerate(self.latency) if count},
        }


@dataclass(slots=True)
class NodeCounters(Answers):
    """Of one node of a graph."""

    retries: int = 0
    defaults: int = 0
    """Of the errors, those that the step's default stood in for."""

    def told(self) -> dict[str, int]:
        """As JSON."""
        return {
            "requests": self.requests,
            "rows": self.rows,
            "errors": self.errors,
            "retries": self.retries,
            "defaults": self.defaults,
            "p50_micros": quantile(self.latency, 0.5),
            "p99_micros": quantile(self.latency, 0.99),
        }


@dataclass(slots=True)
class ViewCounters:
    """Of one feature view, in rows: how many it was asked for, and which of them had no good answer."""

    rows: int = 0
    unknown: int = 0
    """Of entities that the view holds no fact of; they have the values over nothing."""
    stale: int = 0
    """While the view was too old, or never filled."""
    unfed: int = 0
    """While the online store did not answer."""
    refused: int = 0
    """In look-ups that were refused: no entity, one of another type, a time that the states do not answer for."""

    def told(self) -> dict[str, int]:
        """As JSON."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(slots=True)
class ShadowCounters:
    """Of the copies that a revision answered, in rows; the latency in requests."""

    requests: int = 0
    errors: int = 0
    differ: int = 0
    """Answers that differed from what the caller got."""
    dropped: int = 0
    """Copies that were not made, because too many were under way or the answer could not be kept."""
    latency: list[int] = field(default_factory=lambda: [0] * _BUCKETS)

    def answered(self, rows: int, micros: int, differ: int) -> None:
        """Count an answer."""
        self.requests += rows
        self.differ += differ
        self.latency[bucket(micros)] += 1

    def failed(self, rows: int) -> None:
        """Count a failure."""
        self.requests += rows
        self.errors += rows

    def told(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "requests": self.requests,
            "errors": self.errors,
            "differ": self.differ,
            "dropped": self.dropped,
            "p50_micros": quantile(self.latency, 0.5),
            "p99_micros": quantile(self.latency, 0.99),
            "latency": {str(index): count for index, count in enumerate(self.latency) if count},
        }
