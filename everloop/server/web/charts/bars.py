"""Bars: over times, over texts, and as histograms."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Literal

from everloop.server.web.charts.chart import Chart, Entry, axis_data, clipped, drawing, mark, percent, table
from everloop.server.web.charts.lines import described, rounded, shown_rows
from everloop.server.web.charts.scale import Kind, Scale, band_scale, position_scale, value_scale

_AIR = 0.16
"""Share of a place that stays free between bars."""


def bar_chart(
    series: Mapping[str, Sequence[tuple[Any, float]]],
    *,
    x: str,
    y: str,
    kind: Literal["band", "time"] = "band",
    stacked: bool = False,
    title: str = "",
) -> Chart:
    """Bars over texts, or over times that lie equally far apart (each bar begins at its time)."""
    places = list(dict.fromkeys(at for points in series.values() for at, _ in points))
    heights = _heights(series, places, stacked=stacked)
    y_scale = value_scale((top for column in heights for _, _, top in column), zero=True)
    x_scale, starts, width = _places(places, kind)
    drawn: dict[int, list[str]] = {index: [] for index in range(len(series))}
    for start, column in zip(starts, heights, strict=True):
        room = width * (1 - _AIR) / (1 if stacked else max(len(series), 1))
        for index, bottom, top in column:
            left = start + width * _AIR / 2 + (0 if stacked else room * index)
            drawn[index].append(_bar(left, room, y_scale.at(bottom), y_scale.at(top)))
    groups = "".join(
        f'<g class="s {mark(index)}" data-s="{index}">{"".join(bars)}</g>' for index, bars in drawn.items()
    )
    heading = title or f"{y} by {x}"
    svg = drawing(groups, title=heading, description=described(series, y_scale), x=x_scale, y=y_scale, names=(x, y))
    shift = (x_scale.high - x_scale.low) * width / 2 if kind == "time" else 0
    told = []
    for index, (name, points) in enumerate(series.items()):
        at = [place + shift if kind == "time" else places.index(place) for place, _ in points]
        values = [rounded(value) if y_scale.holds(value) else None for _, value in points]
        told.append({"name": clipped(name), "mark": mark(index), "x": at, "y": values})
    rows = table(series) if kind == "time" else _in_order(series, places)
    return Chart(
        svg,
        (x, *series),
        shown_rows(rows, kind),
        f"{heading}: {', '.join(map(clipped, series))}",
        title or y,
        tuple(Entry(clipped(name), mark(i)) for i, name in enumerate(series)) if len(series) > 1 else (),
        {"x": axis_data(x_scale) | {"shift": shift}, "y": axis_data(y_scale), "series": told, "bars": True},
    )


def histogram_chart(
    bins: Sequence[tuple[float, float, float]], *, x: str, y: str, kind: Kind = "linear", title: str = ""
) -> Chart:
    """Bars of (low, high, height) that stand side by side over an axis of numbers."""
    x_scale = position_scale([edge for low, high, _ in bins for edge in (low, high)], kind)
    y_scale = value_scale([height for _, _, height in bins], zero=True)
    drawn = []
    for low, high, height in bins:
        left, right = x_scale.at(low), x_scale.at(high)
        if high <= low:  # one value only: a bar in the middle of its axis
            left, right = 0.4, 0.6
        drawn.append(_bar(left, (right - left) * 0.94, 0.0, y_scale.at(height)))
    heading = title or f"{y} by {x}"
    told = {
        "name": y,
        "mark": mark(0),
        "x": [rounded((low + high) / 2) for low, high, _ in bins],
        "y": [rounded(height) for _, _, height in bins],
    }
    return Chart(
        drawing(
            f'<g class="s {mark(0)}" data-s="0">{"".join(drawn)}</g>',
            title=heading,
            description=described({y: [((low + high) / 2, height) for low, high, height in bins]}, y_scale),
            x=x_scale,
            y=y_scale,
            names=(x, y),
        ),
        (f"{x}, from", "to", y),
        tuple((f"{low:.5g}", high, height) for low, high, height in bins),
        f"{heading} in {len(bins)} bins",
        title or x,
        (),
        {"x": axis_data(x_scale), "y": axis_data(y_scale), "series": [told], "bars": True},
    )


def _bar(left: float, width: float, bottom: float, top: float) -> str:
    bottom, top = min(bottom, top), max(bottom, top)
    tall = top - bottom
    if tall <= 0:
        return ""
    return (
        f'<rect x="{percent(left)}" y="{percent(1 - top)}" width="{percent(max(width, 0.001))}" '
        f'height="{percent(tall)}"/>'
    )


def _heights(
    series: Mapping[str, Sequence[tuple[Any, float]]], places: Sequence[Any], *, stacked: bool
) -> list[list[tuple[int, float, float]]]:
    """For each place (series, bottom, top); stacked ones stand on those below."""
    probe = Scale("linear", 0.0, 1.0, ())
    found: dict[Any, list[tuple[int, float, float]]] = {at: [] for at in places}
    for index, points in enumerate(series.values()):
        for at, value in points:
            if not probe.holds(value):
                continue
            bottom = found[at][-1][2] if stacked and found[at] else 0.0
            found[at].append((index, bottom, bottom + value))
    return list(found.values())


def _places(places: Sequence[Any], kind: Literal["band", "time"]) -> tuple[Scale, list[float], float]:
    """The axis, where each place begins on it, and how wide a place is; as shares of the axis."""
    if kind == "band":
        scale = band_scale([str(place) for place in places])
        return scale, [scale.at(index - 0.5) for index in range(len(places))], 1 / max(len(places), 1)
    ordered = sorted(places)
    gap = min((b - a for a, b in pairwise(ordered)), default=1_000_000)
    scale = position_scale([ordered[0], ordered[-1] + gap] if ordered else [], "time")
    return scale, [scale.at(place) for place in places], gap / (scale.high - scale.low)


def _in_order(series: Mapping[str, Sequence[tuple[Any, float]]], places: Sequence[Any]) -> tuple[tuple[Any, ...], ...]:
    held = [dict(points) for points in series.values()]
    return tuple((place, *(values.get(place) for values in held)) for place in places)
