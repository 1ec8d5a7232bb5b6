"""A chart as a value: an SVG drawn here, the same numbers as a table, and what the script needs for its read-out.

The SVG has no view box: positions are percentages of the room that it gets, texts keep their size, and only paths lie
in a nested drawing that is stretched. So one drawing suits a phone and a wide screen, with no script. The room for
labels is the padding of the element, into which they overflow.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

from markupsafe import Markup

from everloop.server.web.charts.scale import Scale, Span

UNITS = 10_000
"""Width and height of the nested drawing of paths."""
MOST_ROWS, MOST_CELLS = 240, 4000
"""Size of the table beside a chart."""
COLOURS = 6
_LONGEST = 40
"""Characters of a name in a legend."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of the legend; `mark` is the class that colours it."""

    name: str
    mark: str


@dataclass(frozen=True, slots=True)
class Zoom:
    """The part of an axis that the address of the page asks for.

    `name` is the value of the query that holds it as `low..high` (empty: the chart cannot be zoomed), `span` what it
    says now, `whole` the address of the page without it.
    """

    name: str = ""
    span: Span | None = None
    whole: str = ""


@dataclass(frozen=True, slots=True)
class Chart:
    """What a page shows. `head` and `rows` are the table of the numbers, `data` what the script reads values from."""

    svg: Markup
    head: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...] = field(default=())
    label: str = ""
    title: str = ""
    legend: tuple[Entry, ...] = field(default=())
    data: Mapping[str, Any] = field(default_factory=dict)
    zoom: Zoom = Zoom()
    width: str = ""
    """The least width as CSS, for drawings that a narrow screen should rather scroll."""


def mark(index: int) -> str:
    """The class of the series at `index`: six colours, then the same six dashed, dotted and so on."""
    return f"s{index % COLOURS} d{index // COLOURS % 4}"


def shade_style(shade: float | None) -> str:
    """The place of a thing on the ramp of colours, for the style sheet to mix."""
    return "" if shade is None else f' style="--shade:{min(max(shade, 0.0), 1.0):.3f}"'


def clipped(text: str, longest: int = _LONGEST) -> str:
    """A name short enough for a legend or an axis."""
    return text if len(text) <= longest else text[: longest - 1] + "…"


def percent(share: float) -> str:
    """A share of a length, as SVG says it."""
    return f"{share * 100:.2f}".rstrip("0").rstrip(".") + "%"


def units(share: float) -> int:
    """A share of a length in the units of the nested drawing; what lies far outside stays drawable."""
    return round(min(max(share, -9.0), 10.0) * UNITS)


def paths(content: str, *, clip: bool) -> str:
    """A nested drawing of paths, stretched over the plot; `clip` hides what lies outside."""
    return (
        f'<svg class="paths{" clip" if clip else ""}" viewBox="0 0 {UNITS} {UNITS}" preserveAspectRatio="none" '
        f'width="100%" height="100%">{content}</svg>'
    )


def drawing(content: str, *, title: str, description: str, x: Scale, y: Scale, names: tuple[str, str]) -> Markup:
    """The whole SVG: grid and marks of the axes, then `content`; every text is escaped here."""
    widest = max((len(tick.label) for tick in y.ticks), default=1)
    name_y = f'<text class="name" x="0" y="0" dy="-0.8em">{escape(clipped(names[1]))}</text>' if names[1] else ""
    name_x = f'<text class="name end" x="100%" y="100%" dy="2.75em">{escape(clipped(names[0]))}</text>'
    head = f"<title>{escape(title)}</title><desc>{escape(description)}</desc>"
    axes = _value_axis(y) + _position_axis(x)
    svg = (
        f'<svg class="plot" role="img" style="--left:{min(max(widest, 2), 16)}ch">{head}{axes}{name_y}{name_x}'
        f"{content}</svg>"
    )
    return Markup(svg)  # noqa: S704 - every text in it went through escape


def _value_axis(scale: Scale) -> str:
    lines, texts = [], []
    for tick in scale.ticks:
        at = percent(1 - scale.at(tick.at))
        base = ' class="base"' if tick.at == 0 else ""
        lines.append(f'<line{base} x1="0" x2="100%" y1="{at}" y2="{at}"/>')
        texts.append(f'<text x="-8" y="{at}" dy="0.33em">{escape(clipped(tick.label, 18))}</text>')
    return f'<g class="grid">{"".join(lines)}</g><g class="axis y">{"".join(texts)}</g>'


def _position_axis(scale: Scale) -> str:
    texts = []
    for index, tick in enumerate(scale.ticks):
        share = scale.at(tick.at)
        if not -1e-9 <= share <= 1 + 1e-9:
            continue
        # every second mark goes where there is little room
        rank = "" if index % 2 == 0 else ' class="thin"'
        texts.append(
            f'<text{rank} x="{percent(share)}" y="100%" dy="1.45em">{escape(clipped(tick.label, 14))}</text>'
            f'<line{rank} x1="{percent(share)}" x2="{percent(share)}" y1="100%" y2="100%"/>'
        )
    return f'<g class="axis x">{"".join(texts)}</g>'


def rule(y: Scale, at: float, text: str) -> str:
    """A horizontal line with its meaning: a bound that people agreed on."""
    share = percent(1 - y.at(at))
    return (
        f'<g class="rule"><line x1="0" x2="100%" y1="{share}" y2="{share}"/>'
        f'<text x="100%" y="{share}" dy="-0.35em">{escape(clipped(text))}</text></g>'
    )


def axis_data(scale: Scale) -> dict[str, Any]:
    """An axis as the script knows it."""
    told: dict[str, Any] = {"kind": scale.kind, "low": scale.low, "high": scale.high}
    return told | ({"labels": list(scale.labels)} if scale.labels else {})


def table(series: Mapping[str, Sequence[tuple[Any, Any]]]) -> tuple[tuple[Any, ...], ...]:
    """Rows by position with one cell a series; thinned to what a person may read."""
    merged: dict[Any, dict[str, Any]] = {}
    for name, points in series.items():
        for at, value in points:
            merged.setdefault(at, {})[name] = value
    every = [(at, *(merged[at].get(name) for name in series)) for at in sorted(merged)]
    most = max(20, min(MOST_ROWS, MOST_CELLS // (len(series) + 1)))
    stride = -(-len(every) // most) if every else 1
    return tuple(every[::stride])
