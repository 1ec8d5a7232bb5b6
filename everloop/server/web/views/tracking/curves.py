"""Histories of metrics as charts: of several runs over each other, and one in full."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.responses import Response

from everloop.catalog.context import Context
from everloop.catalog.tracking import points, runs
from everloop.core.clock import SECOND, parse_time
from everloop.core.errors import InvalidInput, NotFound
from everloop.core.grants import Target
from everloop.models import console
from everloop.server.web.charts import Chart, envelope, line_chart, smoothed
from everloop.server.web.charts.scale import Kind
from everloop.server.web.visit import Visit

POSITIONS: dict[str, tuple[Kind, str, str]] = {
    "step": ("whole", "step", "steps"),
    "relative": ("duration", "time since the start of the run", "seconds"),
    "time": ("time", "time (UTC)", "times"),
}
"""Kind of the axis, its name, and the value of the address that holds the part shown."""
SMOOTHINGS = ("0", "0.5", "0.8", "0.9", "0.95", "0.98")
MOST, SMALL = 2000, 300
"""Points of a run in a chart as wide as the page, and in one of many."""
_FEWEST = 60
_STRETCHES = 200
"""Places of the band behind a smoothed line."""
_POINTS = 9000
"""Points of one chart, over all of its runs."""


@dataclass(frozen=True, slots=True)
class Look:
    """How the address asks for curves to be drawn: over what (`x`), how smooth (0 to 1), on which scale."""

    x: str
    smooth: float
    log: bool


def look(visit: Visit) -> Look:
    """Read `x`, `smooth` and `y`; raises `InvalidInput`."""
    by, text = visit.query("x") or "step", visit.query("smooth") or "0"
    if by not in POSITIONS:
        raise InvalidInput(f"x={by!r} is no axis", hint="one of " + ", ".join(POSITIONS))
    try:
        weight = float(text)
    except ValueError:
        weight = -1.0
    if not 0 <= weight < 1:
        raise InvalidInput(f"smooth={text!r} is no smoothing", hint="a number from 0 to 0.99")
    return Look(by, weight, visit.query("y") == "log")


def curve(
    visit: Visit,
    whose: Sequence[tuple[Any, str]],
    metric: str,
    how: Look,
    *,
    shades: Mapping[str, float] | None = None,
    most: int = MOST,
) -> Chart | None:
    """One metric of some runs, each with its name in the chart; None when none has two points of it.

    The catalog thins long histories to about `most` points of each run, spikes kept; a part of the axis is read with
    more detail. Behind a smoothed line lies the raw one, or from the least to the greatest of many values a band.
    """
    kind, said, place = POSITIONS[how.x]
    zoom = visit.zoom(place)
    shown = max(_FEWEST, min(most, _POINTS // len(whose)))
    between = {}
    if how.x == "step" and zoom.span is not None:  # one step beyond on each side, so that lines reach the edge
        between = {"start": int(zoom.span[0]) - 1, "end": int(zoom.span[1]) + 1}
    ids = tuple(run.id for run, _ in whose)
    read = visit.ask("runs.series", runs=ids, metric=metric, most=shown, thin="shape", **between).series
    lines: dict[str, list[tuple[float, Any]]] = {}
    raw: dict[str, list[tuple[float, Any]]] = {}
    bands: dict[str, list[tuple[float, Any, Any]]] = {}
    for (run, name), one in zip(whose, read, strict=True):
        if len(one.steps) < 2:
            continue
        places = _places(one, how.x, parse_time(run.start))
        values = [value if isinstance(value, float | int) else None for value in one.values]
        lines[name] = list(zip(places, smoothed(values, how.smooth) if how.smooth else values, strict=True))
        if how.smooth and not shades:
            behind = list(zip(places, values, strict=True))
            if len(behind) <= _STRETCHES * 2:
                raw[name] = behind
            else:
                bands[name] = envelope(behind, _STRETCHES)
    if not lines:
        return None
    return line_chart(
        lines,
        x=said,
        y=metric,
        kind=kind,
        log=how.log,
        bands=bands,
        faint=raw,
        shades=shades,
        zoom=zoom,
        title=metric,
    )


def show(visit: Visit) -> Response:
    """The whole history of one metric of a run."""
    run = visit.ask("runs.show", run=visit.part("run")).run
    metric = visit.part("metric")
    if metric not in run.metrics:
        raise NotFound(f"the run has no metric {metric!r}", hint="its page lists them")
    how = look(visit)
    return visit.page(
        "metric.html",
        title=f"{metric} of {run.name}",
        here="/runs",
        run=run,
        metric=metric,
        chart=curve(visit, [(run, metric)], metric, how),
        how=how,
        positions=POSITIONS,
        smoothings=SMOOTHINGS,
    )


def state(ctx: Context, run: str) -> str:
    """What a running run measured and printed, as a text that changes with it; empty once it ended. `NotFound`."""
    ctx.need("read", Target("run", run))
    with ctx.read() as tx:
        found = runs.find(tx, ctx.project, run)
        if found.status not in ("RUNNING", "SCHEDULED"):
            return ""
        newest = points.newest(tx, [found.number]).get(found.number, ())
        lines = console.printed(tx, ctx.project, found.id)
    return f"{found.status} {lines} {hash(repr(newest))}"


def _places(one: Any, by: str, start: int) -> list[float]:
    if by == "step":
        return list(one.steps)
    return [(at - start) / SECOND if by == "relative" else at for at in one.times]
