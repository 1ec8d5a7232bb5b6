"""Charts as values: what Plotly draws in the browser, with the same numbers as a table for everybody else."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from itertools import pairwise
from math import isfinite
from typing import Any

_MOST_ROWS = 400
_LONGEST = 36
"""Characters of a label in a legend."""


@dataclass(frozen=True, slots=True)
class Chart:
    """`spec` is `{"traces", "layout"}` for the browser; `head` and `rows` the table of the same numbers."""

    spec: Mapping[str, Any]
    head: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...] = field(default=())
    label: str = ""
    title: str = ""


def line_chart(
    series: Mapping[str, Sequence[tuple[Any, Any]]],
    *,
    x: str,
    y: str,
    integers: bool = False,
    times: bool = False,
    marks: Sequence[tuple[float, str]] = (),
) -> Chart:
    """Lines over one axis; values that are no finite numbers leave a gap. `marks` are horizontal lines."""
    traces = []
    for name, points in series.items():
        values = [value if _finite(value) else None for _, value in points]
        trace = {
            "type": "scatter",
            "mode": "lines+markers" if len(points) <= 60 else "lines",
            "name": _plain(name),
            "x": [at for at, _ in points],
            "y": values,
            "line": {"width": 1.8},
            "marker": {"size": 5},
        }
        traces.append(trace)
    layout: dict[str, Any] = {"xaxis": {"title": {"text": _plain(x)}}, "yaxis": {"title": {"text": _plain(y)}}}
    layout["showlegend"] = len(series) > 1
    if integers:
        layout["xaxis"] |= {"tickformat": "d", "dtick": _step([at for points in series.values() for at, _ in points])}
    if times:
        layout["xaxis"] |= {"type": "date"}
    if marks:
        layout["shapes"] = [
            {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": at, "y1": at, "line": {"dash": "dot", "width": 1}}
            for at, _ in marks
        ]
        layout["annotations"] = [
            {
                "xref": "paper",
                "x": 1,
                "y": at,
                "text": text,
                "showarrow": False,
                "xanchor": "right",
                "yanchor": "bottom",
            }
            for at, text in marks
        ]
    return Chart({"traces": traces, "layout": layout}, (x, *series), _table(series), f"{y} by {x}: {', '.join(series)}")


def bar_chart(
    series: Mapping[str, Sequence[tuple[Any, Any]]], *, x: str, y: str, stacked: bool = False, times: bool = False
) -> Chart:
    """Bars over one axis."""
    traces = [
        {"type": "bar", "name": _plain(name), "x": [at for at, _ in points], "y": [value for _, value in points]}
        for name, points in series.items()
    ]
    layout: dict[str, Any] = {
        "xaxis": {"title": {"text": _plain(x)}, **({"type": "date"} if times else {})},
        "yaxis": {"title": {"text": _plain(y)}, "rangemode": "tozero"},
        "showlegend": len(series) > 1,
        "barmode": "stack" if stacked else "group",
        "bargap": 0.15,
    }
    return Chart({"traces": traces, "layout": layout}, (x, *series), _table(series), f"{y} by {x}: {', '.join(series)}")


def histogram(quantiles: Sequence[float], bins: int = 24) -> list[tuple[float, float, float]]:
    """Bins of equal width with their share of the rows, from the edges of bins of equal weight: (low, high, share)."""
    edges = [q for q in quantiles if isfinite(q)]
    if len(edges) < 2 or edges[0] == edges[-1]:
        return [(edges[0], edges[0], 1.0)] if edges else []
    low, high = edges[0], edges[-1]
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


def _plain(text: str) -> str:
    """A label that Plotly shows as it is: it takes some HTML in labels for markup, links among it."""
    return escape(text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…", quote=False)


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and isfinite(value)


def _step(positions: Sequence[Any]) -> int:
    numbers = [at for at in positions if isinstance(at, int)]
    return max(1, (max(numbers) - min(numbers)) // 8) if numbers else 1


def _table(series: Mapping[str, Sequence[tuple[Any, Any]]]) -> tuple[tuple[Any, ...], ...]:
    """Rows by position with one cell a series; thinned to what a person may read."""
    merged: dict[Any, dict[str, Any]] = {}
    for name, points in series.items():
        for at, value in points:
            merged.setdefault(at, {})[name] = value
    every = [(at, *(cells.get(name) for name in series)) for at, cells in merged.items()]
    stride = -(-len(every) // _MOST_ROWS) if every else 1
    return tuple(every[::stride])
