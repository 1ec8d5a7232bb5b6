"""Fewer points for the same picture, smoothing, and the bins of a histogram: plain arithmetic over lists."""

from collections.abc import Sequence
from itertools import pairwise
from math import isfinite

Place = tuple[float, float | None]
"""A position and a value; no value leaves a gap."""


def thinned(points: Sequence[Place], most: int) -> list[Place]:
    """At most about `most` points that draw the same line: of each stretch the first, least, greatest and last.

    Stretches hold equally many points; a stretch with a gap keeps the gap. The idea is that of M4
    (Jugel et al., "M4: A Visualization-Oriented Time Series Data Aggregation", VLDB 2014).
    """
    if len(points) <= most:
        return list(points)
    stretches = max(most // 4, 1)
    found: list[Place] = []
    for index in range(stretches):
        first, last = index * len(points) // stretches, (index + 1) * len(points) // stretches
        values = [(value, at) for at, (_, value) in enumerate(points[first:last], first) if value is not None]
        kept = {first, last - 1}
        if values:
            kept |= {min(values)[1], max(values)[1]}
        if len(values) < last - first:
            kept.add(next(at for at in range(first, last) if points[at][1] is None))
        found.extend(points[at] for at in sorted(kept))
    return found


def envelope(points: Sequence[Place], most: int) -> list[tuple[float, float | None, float | None]]:
    """(position, least, greatest) of at most `most` stretches of equally many points; no value where all are gaps."""
    stretches = min(most, len(points))
    found: list[tuple[float, float | None, float | None]] = []
    for index in range(stretches):
        first, last = index * len(points) // stretches, (index + 1) * len(points) // stretches
        values = [value for _, value in points[first:last] if value is not None]
        middle = points[(first + last) // 2][0]
        found.append((middle, min(values), max(values)) if values else (middle, None, None))
    return found


def smoothed(values: Sequence[float | None], weight: float) -> list[float | None]:
    """An exponential moving average with 0 ≤ `weight` < 1, corrected for its start; gaps stay and are passed over.

    The correction divides by 1 - weight^n, as in Adam (Kingma & Ba, 2015), so that the first value is itself.
    """
    held, seen = 0.0, 0
    found: list[float | None] = []
    for value in values:
        if value is None:
            found.append(None)
            continue
        seen += 1
        held = held * weight + (1 - weight) * value
        found.append(held / (1 - weight**seen))
    return found


def histogram(
    quantiles: Sequence[float], bins: int = 24, span: tuple[float, float] | None = None
) -> list[tuple[float, float, float]]:
    """Bins of equal width with their share of the rows, from the edges of bins of equal weight: (low, high, share).

    They cover `span`, which holds all edges, so that two histograms can stand beside each other; by default the edges.
    """
    edges = [q for q in quantiles if isfinite(q)]
    low, high = span or ((edges[0], edges[-1]) if edges else (0.0, 0.0))
    if len(edges) < 2 or low == high:
        return [(edges[0], edges[0], 1.0)] if edges else []
    width = (high - low) / bins
    shares = [0.0] * bins
    weight = 1 / (len(edges) - 1)
    for left, right in pairwise(edges):
        first, last = min(int((left - low) / width), bins - 1), min(int((right - low) / width), bins - 1)
        if first == last or left == right:
            shares[first] += weight
            continue
        for index in range(first, last + 1):
            inside = min(right, low + (index + 1) * width) - max(left, low + index * width)
            shares[index] += weight * max(inside, 0.0) / (right - left)
    return [(low + index * width, low + (index + 1) * width, share) for index, share in enumerate(shares)]


def spark_bars(shares: Sequence[float], *, width: int = 120, height: int = 28) -> str:
    """The path of small bars as SVG path data; numbers only, so safe anywhere."""
    most = max(shares, default=0.0) or 1.0
    step = width / max(len(shares), 1)
    parts = []
    for index, share in enumerate(shares):
        tall = max(share / most * (height - 1), 0.6 if share else 0.0)
        parts.append(f"M{index * step:.1f} {height}v{-tall:.1f}h{max(step - 0.8, 0.6):.1f}v{tall:.1f}z")
    return "".join(parts)
