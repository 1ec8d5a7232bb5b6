"""Scatter: one mark a thing, which is a link to it."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from everloop.server.web.charts.chart import Chart, axis_data, clipped, drawing, mark, percent, shade_style
from everloop.server.web.charts.scale import Kind, Scale, band_scale, value_scale


@dataclass(frozen=True, slots=True)
class Thing:
    """What a mark stands for. `x` and `y` are numbers or texts; `shade` from 0 to 1 colours it, None does not."""

    name: str
    x: Any
    y: Any
    href: str = ""
    shade: float | None = None


def scatter_chart(
    things: Sequence[Thing], *, x: str, y: str, logs: tuple[bool, bool] = (False, False), title: str = ""
) -> Chart:
    """One circle a thing that has both values; an axis of texts gets one place a text."""
    x_scale, places_x = either_scale([thing.x for thing in things], log=logs[0])
    y_scale, places_y = either_scale([thing.y for thing in things], log=logs[1])
    drawn, rows = [], []
    for thing in things:
        at = (places_x(thing.x), places_y(thing.y))
        rows.append((thing.name, thing.x, thing.y))
        if at[0] is None or at[1] is None:
            continue
        drawn.append(_circle(thing, at[0], at[1], f"{thing.name}: {x} {thing.x}, {y} {thing.y}"))
    heading = title or f"{y} against {x}"
    return Chart(
        drawing(
            f'<g class="things {mark(0)}">{"".join(drawn)}</g>',
            title=heading,
            description=f"{len(drawn)} of {len(things)} have both values",
            x=x_scale,
            y=y_scale,
            names=(x, y),
        ),
        ("run", x, y),
        tuple(rows),
        heading,
        title or heading,
        (),
        {"x": axis_data(x_scale), "y": axis_data(y_scale), "series": []},
    )


def either_scale(values: Sequence[Any], *, log: bool = False) -> tuple[Scale, Any]:
    """An axis for values that are all numbers, or all texts, and a function from a value to its share or None."""
    held = [value for value in values if value is not None]
    kind: Kind = "log" if log else "linear"
    probe = Scale(kind, 1.0, 2.0, ())
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in held):
        scale = value_scale(held, kind)
        return scale, lambda value: scale.at(value) if probe.holds(value) else None
    texts = list(dict.fromkeys(str(value) for value in sorted(held, key=_order)))
    bands = band_scale(texts)
    places = {text: bands.at(index) for index, text in enumerate(texts)}
    return bands, lambda value: None if value is None else places[str(value)]


def _order(value: Any) -> tuple[int, float, str]:
    return (0, value, "") if isinstance(value, int | float) else (1, 0.0, str(value))


def _circle(thing: Thing, x: float, y: float, said: str) -> str:
    shaded = " shaded" if thing.shade is not None else ""
    circle = (
        f'<circle class="thing{shaded}"{shade_style(thing.shade)} cx="{percent(x)}" cy="{percent(1 - y)}" r="5">'
        f"<title>{escape(clipped(said, 200))}</title></circle>"
    )
    return f'<a href="{escape(thing.href)}">{circle}</a>' if thing.href else circle
