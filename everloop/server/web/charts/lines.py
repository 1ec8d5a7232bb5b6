"""Lines over one axis, with gaps, bands of least to greatest, and rules."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, Literal

from everloop.core.clock import iso
from everloop.server.web.charts.chart import (
    Chart,
    Entry,
    Zoom,
    axis_data,
    clipped,
    drawing,
    mark,
    paths,
    rule,
    shade_style,
    table,
    units,
)
from everloop.server.web.charts.scale import Kind, Scale, Span, position_scale, value_scale
from everloop.server.web.charts.thin import Place, thinned

Points = Sequence[tuple[float, Any]]
Band = Sequence[tuple[float, Any, Any]]
_DOTTED = 60
"""A line of at most so many points shows each."""
_DRAWN = 1600
"""Points of one path; a screen has no more columns."""


def line_chart(
    series: Mapping[str, Points],
    *,
    x: str,
    y: str,
    kind: Kind = "linear",
    log: bool = False,
    zero: bool = False,
    bands: Mapping[str, Band] | None = None,
    marks: Sequence[tuple[float, str]] = (),
    zoom: Zoom | None = None,
    faint: Mapping[str, Points] | None = None,
    shades: Mapping[str, float] | None = None,
    title: str = "",
) -> Chart:
    """Lines over positions of a `kind`; a value that is no finite number leaves a gap.

    `bands` holds (position, least, greatest) of a series whose points stand for more than they show; `faint` the same
    series before they were smoothed; `marks` are horizontal rules. `shades`, from 0 to 1, colours series by what they
    are instead of by their place, for more of them than there are colours; they have no legend.
    """
    bands, faint, shades, zoom = bands or {}, faint or {}, shades or {}, zoom or Zoom()
    span = zoom.span
    x_scale = position_scale((at for points in series.values() for at, _ in points), kind, span)
    inside = _inside(span)
    heights = [value for points in (*series.values(), *faint.values()) for at, value in points if inside(at)]
    heights += [edge for band in bands.values() for at, low, high in band if inside(at) for edge in (low, high)]
    value_kind: Kind = "log" if log else "linear"
    y_scale = value_scale((*heights, *(at for at, _ in marks)), value_kind, zero=zero)
    drawn = []
    for index, (name, points) in enumerate(series.items()):
        parts = [_band(bands[name], x_scale, y_scale)] if name in bands else []
        if name in faint:
            parts.append(f'<path class="faint" d="{_path(_places(faint[name], y_scale), x_scale, y_scale)}"/>')
        parts.append(_line(_places(points, y_scale), x_scale, y_scale))
        drawn.append(_group(index, name, shades.get(name), "".join(parts)))
    rules = "".join(rule(y_scale, at, text) for at, text in marks if y_scale.holds(at))
    names = list(series)
    heading = title or f"{y} by {x}"
    svg = drawing(
        paths("".join(drawn), clip=span is not None) + rules,
        title=heading,
        description=described(series, y_scale),
        x=x_scale,
        y=y_scale,
        names=(x, "" if y in (title, *names[:1]) else y),
    )
    return Chart(
        svg,
        (x, *names),
        shown_rows(table(series), kind),
        f"{heading}: {', '.join(map(clipped, names))}",
        title or y,
        tuple(Entry(clipped(name), mark(index)) for index, name in enumerate(names))
        if len(names) > 1 and not shades
        else (),
        {"x": axis_data(x_scale), "y": axis_data(y_scale), "series": _told(series, y_scale, shades)},
        zoom,
    )


def described(series: Mapping[str, Points], y: Scale) -> str:
    """The chart in words: the reach of each series, and where it ends."""
    said = []
    for name, points in list(series.items())[:12]:
        values = [value for _, value in points if y.holds(value)]
        if values:
            said.append(f"{clipped(name)}: {min(values):.4g} to {max(values):.4g}, last {values[-1]:.4g}")
    more = f"; and {len(series) - 12} more" if len(series) > 12 else ""
    return "; ".join(said) + more


def shown_rows(rows: tuple[tuple[Any, ...], ...], kind: Kind) -> tuple[tuple[Any, ...], ...]:
    """Rows whose position reads as a time where it is one."""
    if kind != "time":
        return rows
    return tuple((iso(int(row[0]))[:19].replace("T", " "), *row[1:]) for row in rows)


def rounded(value: float) -> float:
    """Seven digits: more than a read-out shows, fewer bytes than a float has."""
    return float(f"{value:.7g}")


def _group(index: int, name: str, shade: float | None, content: str) -> str:
    """The parts of one series, in its colour."""
    look = mark(index) if shade is None else "shaded"
    title = f"<title>{escape(clipped(name))}</title>"
    return f'<g class="s {look}"{shade_style(shade)} data-s="{index}">{title}{content}</g>'


def _inside(span: Span | None) -> Any:
    return (lambda at: span[0] <= at <= span[1]) if span else (lambda _at: True)


def _places(points: Points, y: Scale) -> list[Place]:
    ordered = sorted(points, key=lambda point: point[0])
    return thinned([(at, value if y.holds(value) else None) for at, value in ordered], _DRAWN)


def _line(places: Sequence[Place], x: Scale, y: Scale) -> str:
    line = f'<path class="line" d="{_path(places, x, y)}"/>'
    held = [place for place in places if place[1] is not None]
    if len(held) <= _DOTTED:
        return line + f'<path class="dots" d="{_dots(held, x, y)}"/>'
    alone = [place for at, place in enumerate(places) if place[1] is not None and _alone(places, at)]
    return line + (f'<path class="dots" d="{_dots(alone, x, y)}"/>' if alone else "")


def _alone(places: Sequence[Place], at: int) -> bool:
    before = places[at - 1][1] if at else None
    after = places[at + 1][1] if at + 1 < len(places) else None
    return before is None and after is None


def _path(places: Sequence[Place], x: Scale, y: Scale) -> str:
    parts: list[str] = []
    pen: Literal["M", "L"] = "M"
    for at, value in places:
        if value is None:
            pen = "M"
            continue
        parts.append(f"{pen}{units(x.at(at))} {units(1 - y.at(value))}")
        pen = "L"
    return "".join(parts)


def _dots(places: Sequence[Place], x: Scale, y: Scale) -> str:
    """Points as strokes of no length with round ends: a stretched drawing would make circles oval."""
    return "".join(f"M{units(x.at(at))} {units(1 - y.at(value))}h0" for at, value in places if value is not None)


def _band(band: Band, x: Scale, y: Scale) -> str:
    """Areas between least and greatest, one for each stretch without a gap."""
    parts, run = [], list[tuple[float, float, float]]()
    for at, low, high in [*sorted(band, key=lambda point: point[0]), (0.0, None, None)]:
        if y.holds(low) and y.holds(high):
            run.append((at, low, high))
            continue
        if len(run) > 1:
            upper = [f"{units(x.at(p))} {units(1 - y.at(h))}" for p, _, h in run]
            lower = [f"{units(x.at(p))} {units(1 - y.at(n))}" for p, n, _ in reversed(run)]
            parts.append(f"M{'L'.join((*upper, *lower))}z")
        run = []
    return f'<path class="band" d="{"".join(parts)}"/>' if parts else ""


def _told(series: Mapping[str, Points], y: Scale, shades: Mapping[str, float]) -> list[dict[str, Any]]:
    """What the script reads values from; positions that a series shares with the first are sent once."""
    told: list[dict[str, Any]] = []
    first: list[float] = []
    for index, (name, points) in enumerate(series.items()):
        places = _places(points, y)
        at = [place[0] for place in places]
        values = [None if value is None else rounded(value) for _, value in places]
        shared = index > 0 and at == first
        first = first or at
        shade = {"shade": round(shades[name], 3)} if name in shades else {}
        one = {"name": clipped(name), "mark": mark(index), "y": values, **shade}
        told.append(one if shared else one | {"x": at})
    return told
