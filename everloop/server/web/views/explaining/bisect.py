"""What a metric lost by: the waterfall from the good version to the bad one, and every figure behind it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.responses import Response

from everloop.server.web.visit import Visit

WIDTH, ROW, LEFT, RIGHT = 760, 34, 170, 150


@dataclass(frozen=True, slots=True)
class Bar:
    """One row of the waterfall, in pixels."""

    label: str
    kind: str
    """`end`, `gain`, `loss` or `noise`."""
    x: float
    width: float
    y: int
    low: float
    """Where the interval begins; equal to `high` where there is none to show."""
    high: float
    text: str


def show(visit: Visit) -> Response:
    """One answer, by its evidence."""
    found = visit.ask("bisect.show", version=visit.part("spec"))
    told = found.found
    return visit.page(
        "bisect.html",
        title=f"What {told['metric']} lost by",
        found=found,
        told=told,
        bars=waterfall(told),
        width=WIDTH,
        left=LEFT,
        row=ROW,
    )


def waterfall(told: Mapping[str, Any]) -> list[Bar]:
    """From the good mean through every contribution to the bad one; none when there is nothing to explain."""
    if not told["contributions"]:
        return []
    good, bad = (float(told["measured"][side][0]) for side in ("good", "bad"))
    at, rows = good, list[tuple[str, str, float, float, Sequence[float], str]]()
    rows.append(("good", "end", good, good, (), f"{good:.4g}"))
    for one in told["contributions"]:
        mean, low, high = (float(text) for text in one["value"])
        kind = "noise" if one["noise"] else "gain" if mean > 0 else "loss"
        rows.append((" + ".join(one["factors"]), kind, at, at + mean, (at + low, at + high), f"{mean:+.4g}"))
        at += mean
    rows.append(("bad", "end", bad, bad, (), f"{bad:.4g}"))
    every = [value for _, _, a, b, ends, _ in rows for value in (a, b, *ends)]
    least, most = min(every), max(every)
    scale = (WIDTH - LEFT - RIGHT) / ((most - least) or 1.0)

    def place(value: float) -> float:
        return round(LEFT + (value - least) * scale, 1)

    return [
        Bar(
            label,
            kind,
            min(place(a), place(b)) - (2 if kind == "end" else 0),
            max(abs(place(b) - place(a)), 4 if kind == "end" else 1),
            n * ROW,
            place(ends[0]) if ends else 0,
            place(ends[1]) if ends else 0,
            text,
        )
        for n, (label, kind, a, b, ends, text) in enumerate(rows)
    ]
