"""Where inside a guilty factor? Halving under noise: every probe is repeated until it is clear what it holds. Pure.

A boolean bisection believes each probe. Here a probe is a mean with an interval, seeds are added until the interval no
longer holds half of the effect, and when neither half holds it alone the search stops and says so.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from everloop.flows.bisect.student import Interval, interval

LEAST, MOST = 3, 12
"""Seeds of one probe."""
LEVEL = 0.95


@dataclass(frozen=True, slots=True)
class Probe:
    """These items alone were swapped, and the metric moved by so much."""

    items: tuple[str, ...]
    effect: Interval | None
    """None: it could not be run."""
    seeds: int


@dataclass(frozen=True, slots=True)
class Narrowed:
    """The fewest items that hold the effect, as far as it could be narrowed, and every probe on the way."""

    items: tuple[str, ...]
    effect: Interval | None
    probes: tuple[Probe, ...]
    reason: str
    """Why it stopped: `one item`, `several together`, `cannot be parted`."""


def narrow(
    items: Sequence[str], measure: Callable[[Sequence[str], int], float | None], total: float, level: float = LEVEL
) -> Narrowed:
    """Find the items that make the difference.

    `measure(items, seed)` is how far the metric moves for one seed when these items alone are swapped; None: it cannot
    be run. `total` is the effect of all of them.
    """
    left, probes = list(items), list[Probe]()
    held = _probe(left, measure, total, level)
    probes.append(held)
    while len(left) > 1:
        middle = len(left) // 2
        found = [_probe(half, measure, total, level) for half in (left[:middle], left[middle:])]
        probes += found
        guilty = [one for one in found if one.effect is not None and _holds(one.effect, total)]
        if len(guilty) != 1:
            undefined = any(one.effect is None for one in found)
            reason = "cannot be parted" if undefined and not guilty else "several together"
            return Narrowed(tuple(left), held.effect, tuple(probes), reason)
        held = guilty[0]
        left = list(held.items)
    return Narrowed(tuple(left), held.effect, tuple(probes), "one item")


def _probe(
    items: Sequence[str], measure: Callable[[Sequence[str], int], float | None], total: float, level: float
) -> Probe:
    """Repeat until it is clear on which side of half the total the effect lies, 12 seeds at most."""
    samples: list[float] = []
    for seed in range(MOST):
        value = measure(items, seed)
        if value is None:
            return Probe(tuple(items), None, seed)
        samples.append(value)
        if len(samples) >= LEAST:
            found = interval(samples, level)
            if not found.low <= total / 2 <= found.high:
                break
    return Probe(tuple(items), interval(samples, level), len(samples))


def _holds(effect: Interval, total: float) -> bool:
    return effect.mean / total > 1 / 2
