"""Runs side by side: what differs, curves over each other, parallel coordinates, scatter; each view is an address."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.responses import Response

from everloop.core.errors import InvalidInput
from everloop.server.web.charts import Chart, Row, Thing, histogram_chart, parallel_chart, scatter_chart
from everloop.server.web.charts.scale import LARGEST
from everloop.server.web.views.tracking import curves
from everloop.server.web.visit import Visit

MOST_COMPARED = 100
VIEWS = {"": "Differences", "curves": "Curves", "parallel": "Parallel coordinates", "scatter": "Scatter"}
_CURVES, _COLUMNS = 6, 8
_COLOURED = 12
"""More lines than this are coloured by a value instead of each in its own colour."""
_BINS = 16
_HIDDEN_TAGS = ("mlflow.log-model", "mlflow.runName", "mlflow.user")


@dataclass(frozen=True, slots=True)
class Line:
    """One thing that runs have: a value each (None where a run has none)."""

    name: str
    values: tuple[Any, ...]
    differ: bool


@dataclass(frozen=True, slots=True)
class Group:
    """Lines of one kind."""

    title: str
    numbers: bool
    lines: tuple[Line, ...]


@dataclass(frozen=True, slots=True)
class Compared:
    """The runs, a name for each that no other has, and their values by column (`metrics.loss`, `params.depth`)."""

    visit: Visit
    found: tuple[Any, ...]
    names: tuple[str, ...]
    columns: Mapping[str, tuple[Any, ...]]

    @property
    def differing(self) -> list[str]:
        """Columns in which not all runs say the same, parameters first."""
        return [name for name, values in self.columns.items() if any(value != values[0] for value in values)]

    def href(self, index: int) -> str:
        """The page of a run."""
        return self.visit.at("runs", self.found[index].run.id)


def compare(visit: Visit) -> Response:
    """Two to a hundred runs, in the view that the address names."""
    ids = [one for text in visit.request.query_params.getlist("runs") for one in text.split(",") if one]
    ids = list(dict.fromkeys(ids))
    if not 2 <= len(ids) <= MOST_COMPARED:
        raise InvalidInput(f"choose 2 to {MOST_COMPARED} runs to compare", hint="tick them in the table of runs")
    view = visit.query("view")
    if view not in VIEWS:
        raise InvalidInput(f"{view!r} is no view of runs", hint="one of " + ", ".join(filter(None, VIEWS)))
    compared = _read(visit, ids)
    shown = {"": _differences, "curves": _curves, "parallel": _parallel, "scatter": _scatter}[view](compared)
    return visit.page(
        "compare.html",
        title=f"{len(ids)} runs compared",
        here="/runs",
        runs=[one.run for one in compared.found],
        names=compared.names,
        ids=",".join(ids),
        view=view,
        views=VIEWS,
        chosen=shown,
    )


def _read(visit: Visit, ids: Sequence[str]) -> Compared:
    found = visit.ask("runs.compare", runs=tuple(ids)).runs
    plain = [one.run.name for one in found]
    names = [one.run.name if plain.count(one.run.name) == 1 else f"{one.run.name} ({one.run.id[:6]})" for one in found]
    columns: dict[str, tuple[Any, ...]] = {}
    for kind in ("params", "metrics"):
        every = [getattr(one.run, kind) for one in found]
        for key in sorted({key for values in every for key in values}):
            columns[f"{kind}.{key}"] = _as_numbers([values.get(key) for values in every])
    return Compared(visit, found, tuple(names), columns)


def _as_numbers(values: Sequence[Any]) -> tuple[Any, ...]:
    """Texts as numbers where all of them are some: a parameter is always stored as text."""
    try:
        return tuple(None if value is None else float(value) for value in values)
    except ValueError:
        return tuple(values)


def _differences(compared: Compared) -> dict[str, Any]:
    """What was given, measured and used, a line each; all of it, or what differs."""
    only = compared.visit.query("only") == "differences"
    kinds: tuple[tuple[str, bool, Callable[[Any], Mapping[str, Any]]], ...] = (
        ("Parameters", False, lambda one: one.run.params),
        ("Metrics", True, lambda one: one.run.metrics),
        ("Data inputs", False, lambda one: one.inputs),
        ("Code", False, lambda one: one.code),
        ("Environment", False, lambda one: one.environment),
        ("Tags", False, lambda one: {k: v for k, v in one.run.tags.items() if not k.startswith(_HIDDEN_TAGS)}),
    )
    groups = []
    for title, numbers, values_of in kinds:
        every = [values_of(one) for one in compared.found]
        lines = []
        for name in sorted({name for values in every for name in values}):
            values = tuple(held.get(name) for held in every)
            differ = any(value != values[0] for value in values)
            if differ or not only:
                lines.append(Line(name, values, differ))
        groups.append(Group(title, numbers, tuple(lines)))
    return {"only": only, "groups": [group for group in groups if group.lines]}


def _curves(compared: Compared) -> dict[str, Any]:
    """Histories of chosen metrics over each other, by step or time, smoothed where asked."""
    visit = compared.visit
    metrics = [name.partition(".")[2] for name in compared.columns if name.startswith("metrics.")]
    asked = [one for one in visit.request.query_params.getlist("metric") if one in metrics]
    how = curves.look(visit)
    offered = _numeric(compared) if len(compared.found) > _COLOURED else []
    colour = visit.query("colour") if visit.query("colour") in offered else next(iter(offered), "")
    shades = _shades(compared, colour) if colour else {}
    named = [(one.run, name) for one, name in zip(compared.found, compared.names, strict=True)]
    charts: list[Chart] = []
    for metric in asked or metrics:
        if len(charts) == (len(asked) or _CURVES):
            break
        chart = curves.curve(visit, named, metric, how, shades=shades, most=1000)
        if chart is not None:
            charts.append(chart)
    return {
        "charts": charts,
        "metrics": metrics,
        "asked": asked or [chart.title for chart in charts],
        "how": how,
        "positions": curves.POSITIONS,
        "smoothings": curves.SMOOTHINGS,
        "colour": colour,
        "colours": offered,
    }


def _numeric(compared: Compared) -> list[str]:
    """Columns of numbers that differ, metrics first: what lines can be coloured by."""
    found = [
        name
        for name in compared.differing
        if all(value is None or isinstance(value, float) for value in compared.columns[name])
    ]
    return sorted(found, key=lambda name: not name.startswith("metrics."))


def _shades(compared: Compared, column: str) -> dict[str, float]:
    """For each run the rank of its value in a column, from 0 to 1; runs without one are left out."""
    values = compared.columns[column]
    ordered = sorted({value for value in values if isinstance(value, float) and not math.isnan(value)})
    place = {value: index / max(len(ordered) - 1, 1) for index, value in enumerate(ordered)}
    return {name: place[value] for name, value in zip(compared.names, values, strict=True) if value in place}


def _parallel(compared: Compared) -> dict[str, Any]:
    """One axis a column, one line a run; ranges on axes keep those inside."""
    visit = compared.visit
    asked = [one for one in visit.request.query_params.getlist("column") if one in compared.columns]
    columns = asked or _telling(compared)
    offered = _numeric(compared)
    colour = visit.query("colour")
    colour = colour if colour in offered else next((c for c in offered if c in columns), "")
    brushes = brushes_of(visit, columns)
    shades = _shades(compared, colour) if colour else {}
    rows = []
    for index, name in enumerate(compared.names):
        values = {column: compared.columns[column][index] for column in columns}
        out = any(not within(values[column], bounds) for column, bounds in brushes.items())
        rows.append(Row(name, values, compared.href(index), None if out else shades.get(name), out))
    chart = None
    if columns:
        whole = visit.zoom("brush", read=False)
        chart = parallel_chart(rows, columns, title=f"{len(rows)} runs", brushes=brushes, zoom=whole)
    return {
        "chart": chart,
        "columns": list(compared.columns),
        "asked": columns,
        "colour": colour,
        "colours": offered,
        "brushes": brushes,
        "inside": [row for row in rows if not row.out] if brushes else [],
    }


def _telling(compared: Compared) -> list[str]:
    """The columns that differ and do not say another thing for each run in words: what a drawing can show."""
    found = []
    for name in compared.differing:
        texts = {value for value in compared.columns[name] if isinstance(value, str)}
        if len(texts) <= _COLUMNS and all(len(text) <= 40 for text in texts):
            found.append(name)
    params, metrics = ([name for name in found if name.startswith(kind)] for kind in ("params.", "metrics."))
    return params[: _COLUMNS - min(len(metrics), 3)] + metrics[:3]


def brushes_of(visit: Visit, columns: Sequence[str]) -> dict[str, tuple[float, float]]:
    """The ranges that the address chooses on axes of parallel coordinates."""
    found = {}
    for text in visit.request.query_params.getlist("brush"):
        column, _, span = text.rpartition(":")
        try:
            low, high = map(float, span.split(".."))
        except ValueError as error:
            hint = "write brush=metrics.loss:0.1..0.5"
            raise InvalidInput(f"brush={text!r} is no range of a column", hint=hint) from error
        if math.isnan(low) or math.isnan(high):
            raise InvalidInput(f"brush={text!r} is no range of a column", hint="write brush=metrics.loss:0.1..0.5")
        if column in columns:
            found[column] = (low, high)
    return found


def within(value: Any, bounds: tuple[float, float]) -> bool:
    """Whether a value lies in a range; texts and nothing do not."""
    return isinstance(value, float) and bounds[0] <= value <= bounds[1]


def _scatter(compared: Compared) -> dict[str, Any]:
    """One column against another; a column against itself is its distribution."""
    visit = compared.visit
    telling = _telling(compared) or list(compared.columns)
    x = visit.query("x") if visit.query("x") in compared.columns else next(iter(telling), "")
    y = visit.query("y") if visit.query("y") in compared.columns else next(reversed(telling), "")
    offered = _numeric(compared)
    colour = visit.query("colour") if visit.query("colour") in offered else ""
    shades = _shades(compared, colour) if colour else {}
    logs = (visit.query("logx") == "1", visit.query("logy") == "1")
    chart = None
    if x and x == y and x in offered:
        chart = histogram_chart(_bins(compared.columns[x]), x=x, y="runs")
    elif x:
        things = [
            Thing(name, compared.columns[x][i], compared.columns[y][i], compared.href(i), shades.get(name))
            for i, name in enumerate(compared.names)
        ]
        chart = scatter_chart(things, x=x, y=y, logs=logs)
    columns = list(compared.columns)
    return {"chart": chart, "columns": columns, "x": x, "y": y, "colour": colour, "colours": offered, "logs": logs}


def _bins(values: Sequence[Any]) -> list[tuple[float, float, float]]:
    """How many runs lie in each of some bins of equal width; values that no axis can show are left out."""
    held = sorted(value for value in values if isinstance(value, float) and abs(value) <= LARGEST)
    width = (held[-1] - held[0]) / _BINS if held else 0.0
    if not width:  # one value, or values too near to divide by what lies between them
        return [(held[0], held[0], float(len(held)))] if held else []
    counts = [0.0] * _BINS
    for value in held:
        counts[min(int((value - held[0]) / width), _BINS - 1)] += 1
    return [(held[0] + width * index, held[0] + width * (index + 1), count) for index, count in enumerate(counts)]
