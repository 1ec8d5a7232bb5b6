"""Parallel coordinates: one upright axis a column, one line a thing (Inselberg, 1985)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from markupsafe import Markup

from everloop.server.web.charts.chart import Chart, Zoom, clipped, paths, percent, shade_style, units
from everloop.server.web.charts.points import either_scale
from everloop.server.web.charts.scale import Scale

_MARKS = 9
"""Texts beside one axis at most."""
_RATIO = 200


@dataclass(frozen=True, slots=True)
class Row:
    """A thing with its values by column; `shade` from 0 to 1 colours its line; one that is `out` is pale."""

    name: str
    values: Mapping[str, Any]
    href: str = ""
    shade: float | None = None
    out: bool = False


def parallel_chart(
    rows: Sequence[Row],
    columns: Sequence[str],
    *,
    title: str,
    brushes: Mapping[str, tuple[float, float]] | None = None,
    zoom: Zoom | None = None,
) -> Chart:
    """Lines through the values of each row; a value that is missing interrupts its line.

    `brushes` are the ranges chosen on axes of numbers: they are drawn, and whoever made the rows says who is `out`.
    Dragging along an axis puts its range as `column:low..high` into the value of the address that `zoom` names.
    """
    values = {column: [row.values.get(column) for row in rows] for column in columns}
    scales = {column: either_scale(held, log=_wide(held)) for column, held in values.items()}
    spots = {column: _spot(index, len(columns)) for index, column in enumerate(columns)}
    lines = []
    for row in sorted(rows, key=lambda row: not row.out):  # those that are out lie below
        path = _path([(spots[c], scales[c][1](row.values.get(c))) for c in columns])
        said = escape(clipped(row.name, 100))
        line = (
            f'<path class="thread{" out" if row.out else ""}{" shaded" if row.shade is not None else ""}"'
            f'{shade_style(row.shade)} d="{path}"><title>{said}</title></path>'
        )
        lines.append(f'<a href="{escape(row.href)}" aria-label="{said}">{line}</a>' if row.href else line)
    axes = "".join(_axis(column, scales[column][0], spots[column], (brushes or {}).get(column)) for column in columns)
    told = [
        {"name": column, "at": spots[column], "low": scale.low, "high": scale.high, "kind": scale.kind}
        for column, (scale, _) in scales.items()
    ]
    svg = (
        f'<svg class="plot parallel" role="img"><title>{escape(title)}</title>'
        f"<desc>{len(rows)} lines over {escape(', '.join(columns))}</desc>"
        f"{paths(''.join(lines), clip=False)}{axes}</svg>"
    )
    return Chart(
        Markup(svg),  # noqa: S704 - every text in it went through escape
        ("run", *columns),
        tuple((row.name, *(row.values.get(column) for column in columns)) for row in rows),
        title,
        title,
        (),
        {"axes": told},
        zoom or Zoom(),
        width=f"{max(len(columns), 2) * 7.2:.0f}rem",
    )


def _wide(values: Sequence[Any]) -> bool:
    """Whether numbers reach over so many powers of ten that only a logarithmic axis tells them apart."""
    probe = Scale("linear", 0.0, 1.0, ())
    held = [value for value in values if isinstance(value, str) or probe.holds(value)]
    if not held or not all(isinstance(value, int | float) and value > 0 for value in held):
        return False
    return bool(max(held) / min(held) >= _RATIO)


def _spot(index: int, count: int) -> float:
    """Where an axis stands: the first and the last stand at the edges."""
    return index / (count - 1) if count > 1 else 0.5


def _path(places: Sequence[tuple[float, float | None]]) -> str:
    parts, pen = [], "M"
    for index, (at, share) in enumerate(places):
        if share is None:
            pen = "M"
            continue
        parts.append(f"{pen}{units(at)} {units(1 - share)}")
        alone = pen == "M" and (index + 1 == len(places) or places[index + 1][1] is None)
        parts.append("h1" if alone else "")
        pen = "L"
    return "".join(parts)


def _edge(scale: Scale, value: float) -> float:
    """Where the edge of a range lies; one beyond the axis, which may have no place on it, at the axis's end."""
    if scale.low < value < scale.high:
        return scale.at(value)
    return 0.0 if value <= scale.low else 1.0


def _axis(name: str, scale: Scale, at: float, brush: tuple[float, float] | None) -> str:
    where = percent(at)
    side = "end" if at >= 0.999 else ""
    marks = scale.ticks[:: max(1, -(-len(scale.ticks) // _MARKS))]
    texts = "".join(
        f'<text class="{side}" x="{where}" y="{percent(1 - scale.at(tick.at))}" dx="{-7 if side else 7}" dy="0.33em">'
        f"{escape(clipped(tick.label, 14))}</text>"
        for tick in marks
    )
    shown = ""
    if brush is not None and scale.kind != "band":
        low, high = sorted(_edge(scale, edge) for edge in brush)
        shown = (
            f'<svg x="{where}" overflow="visible"><rect class="brush" x="-7" width="14" y="{percent(1 - high)}" '
            f'height="{percent(max(high - low, 0.0))}"/></svg>'
        )
    short = name.partition(".")[2] or name
    anchor = {0.0: "start"}.get(at, side or "middle")
    return (
        f'<g class="column" data-column="{escape(name)}">'
        f'<line x1="{where}" x2="{where}" y1="0" y2="100%"/>{shown}'
        f'<text class="head {anchor}" x="{where}" y="0" dy="-0.9em">{escape(clipped(short, 18))}'
        f"<title>{escape(name)}</title></text>{texts}</g>"
    )
