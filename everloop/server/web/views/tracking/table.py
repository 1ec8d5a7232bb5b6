"""The table of runs: experiments, filter, order, columns and place are all in the address."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlencode

from starlette.responses import Response

from everloop.core.errors import InvalidInput, NotFound
from everloop.server.web.visit import Visit

SIZES = (50, 100, 250)
_MOST_SHOWN = 40
"""Columns of one table."""
_TRIED, _KEPT = 14, 5
"""How many common keys of each kind are looked at when nobody chose, and how many of those that differ are shown."""
_DULL = ("system/", "mlflow.", "everloop.")
_FIXED = {
    "status": ("State", "status"),
    "experiment": ("Experiment", ""),
    "started": ("Started", "start_time"),
    "duration": ("Took", "duration"),
    "user": ("User", "user_id"),
    "code": ("Code", "tags.`mlflow.source.git.commit`"),
    "inputs": ("Inputs", ""),
}
"""Columns that every run has, by name: their heading, and what orders by them."""
_PART = ("experiment", "filter", "order", "column", "view", "rows")
"""What of the address makes the table; the rest says where in it one is."""


@dataclass(frozen=True, slots=True)
class Heading:
    """A column as its heading shows it."""

    name: str
    text: str
    number: bool
    order: str
    """What a click orders by; empty when one cannot order by it."""
    sorted: str
    """`ascending`, `descending` or empty."""


@dataclass(frozen=True, slots=True)
class Wrong:
    """A filter or order that is not understood, cut at the place of the mistake."""

    before: str
    at: str
    after: str
    reason: str
    hint: str


def index(visit: Visit) -> Response:
    """The table, or what is wrong with what was asked for."""
    asked = visit.request.query_params
    experiments = tuple(dict.fromkeys(one for one in asked.getlist("experiment") if one))
    filter_text, order = visit.query("filter").strip(), visit.query("order")
    wanted: dict[str, Any] = {
        "experiments": experiments,
        "filter": filter_text,
        "order_by": (order,) if order else (),
        "view": _one_of(visit.query("view"), ("active", "deleted", "all")),
        "limit": int(_one_of(visit.query("rows"), [str(size) for size in (SIZES[1], *SIZES)])),
        "token": visit.query("token"),
    }
    known = visit.ask("runs.columns", experiments=experiments)
    chosen = list(dict.fromkeys(one for one in asked.getlist("column") if one))[:_MOST_SHOWN]
    columns = chosen or _tried(known, experiments)
    measured = [one for one in columns if one not in _FIXED]
    wrong, found = None, None
    try:
        found = visit.ask("runs.table", columns=tuple(measured), **wanted)
    except InvalidInput as error:
        wrong = _wrong(error, filter_text, order)
    cells = {row.id: dict(zip(measured, row.cells, strict=True)) for row in found.rows} if found else {}
    if not chosen and found:
        columns = _telling(columns, cells, found.rows)
    first = max(visit.whole("first", 1) or 1, 1)
    return visit.page(
        "runs.html",
        title="Runs",
        here="/runs",
        status=400 if wrong else 200,
        found=found,
        rows=found.rows if found else (),
        cells=cells,
        wrong=wrong,
        columns=columns,
        request_columns=chosen,
        headings=[_heading(one, order) for one in ("name", *columns)],
        bars=_bars(order, cells),
        known=known,
        fixed={name: text for name, (text, _) in _FIXED.items()},
        offered={kind: _offered(getattr(known, kind), kind, columns) for kind in ("metrics", "params", "tags")},
        experiments=visit.ask("experiments.list", limit=500).experiments,
        experiment=experiments,
        filter=filter_text,
        order=order,
        view=wanted["view"],
        size=wanted["limit"],
        sizes=SIZES,
        first=first,
        query=_query(visit),
        views=visit.ask("views.list", page="runs").views,
        may_write=visit.may("runs.delete", runs=("x",)),
    )


def act(visit: Visit) -> Response:
    """What is done with the ticked runs, and with saved views."""
    wanted = visit.part("act")
    if wanted in ("delete", "restore"):
        visit.ask(f"runs.{wanted}", runs=visit.every("runs"))
    elif wanted == "save":
        visit.ask("views.save", page="runs", name=visit.form.get("name", ""), query=_query(visit))
    elif wanted == "forget":
        visit.ask("views.delete", page="runs", name=visit.form.get("name", ""))
    else:
        raise NotFound(f"nothing can be done to runs by {wanted!r}", hint="use the buttons of the page")
    query = _query(visit)
    return visit.go_to(visit.at("runs") + (f"?{query}" if query else ""))


def _query(visit: Visit) -> str:
    """The part of the address that makes the table, without the place in it."""
    kept = [(name, value) for name, value in parse_qsl(visit.request.url.query) if name in _PART and value]
    return urlencode(kept)


def _one_of(text: str, allowed: Sequence[str]) -> str:
    return text if text in allowed else allowed[0]


def _tried(known: Any, experiments: Sequence[str]) -> list[str]:
    """The columns from which the table chooses by itself: common ones that people logged."""
    fixed = [name for name in _FIXED if name != "experiment" or len(experiments) != 1]
    metrics = [f"metrics.{one.key}" for one in known.metrics if not one.key.startswith(_DULL)]
    params = [f"params.{one.key}" for one in known.params]
    return [*fixed, *metrics[:_TRIED], *params[:_TRIED]]


def _telling(columns: Sequence[str], cells: Mapping[str, Mapping[str, Any]], rows: Sequence[Any]) -> list[str]:
    """Of the columns that were tried, those that are not the same in every row, and that some row has."""
    silent = {name for name in ("code", "inputs") if not any(getattr(row, name) for row in rows)}
    kept, counts = [], {"metrics": 0, "params": 0}
    for column in columns:
        kind = column.partition(".")[0]
        if column in silent:
            continue
        if column not in _FIXED:
            values = {row[column] for row in cells.values()}
            if counts[kind] >= _KEPT or (len(cells) > 1 and len(values) <= 1):
                continue
            counts[kind] += 1
        kept.append(column)
    return kept


def _heading(name: str, order: str) -> Heading:
    if name == "name":
        text, by = "Run", "run_name"
    elif name in _FIXED:
        text, by = _FIXED[name]
    else:
        kind, _, text = name.partition(".")
        by = f'{kind}."{text}"' if "`" in text else f"{kind}.`{text}`"
    key, _, way = order.rpartition(" ")
    mine = bool(by) and key == by
    number = name.startswith("metrics.") or name == "duration"
    other = {"DESC": "ASC", "ASC": "DESC"}[way] if mine and way in ("ASC", "DESC") else "DESC" if number else "ASC"
    state = {"DESC": "descending", "ASC": "ascending"}.get(way, "") if mine else ""
    return Heading(name, text, number, f"{by} {other}" if by else "", state)


def _bars(order: str, cells: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """How long the bar is behind the value that orders the rows, by run: the share of the widest on the page."""
    column = order.rpartition(" ")[0].replace("`", "")
    values = {run: row[column] for run, row in cells.items() if isinstance(row.get(column), float)}
    low, high = min(values.values(), default=0.0), max(values.values(), default=0.0)
    return {run: (value - low) / (high - low) for run, value in values.items()} if high > low else {}


def _offered(counts: Sequence[Any], kind: str, columns: Sequence[str]) -> list[tuple[str, str, int, bool]]:
    """(column, key, runs that have it, whether it is shown) for the choice of columns."""
    ours_last = sorted(counts, key=lambda one: one.key.startswith(_DULL))
    listed = [(f"{kind}.{one.key}", one.key, one.runs, f"{kind}.{one.key}" in columns) for one in ours_last]
    there = {name for name, *_ in listed}
    missing = [one for one in columns if one.startswith(f"{kind}.") and one not in there]
    return [*((one, one.partition(".")[2], 0, True) for one in missing), *listed]


def _wrong(error: InvalidInput, filter_text: str, order: str) -> Wrong:
    details = error.details
    if "place" not in details:
        return Wrong("", "", "", error.message, error.hint)
    text = order if details.get("of") == "order" else filter_text
    place = min(int(details["place"]), len(text))
    end = place + int(details.get("length") or 0)
    if end == place and place < len(text):  # a name that nothing knows: to the end of the word
        end = next((i for i, c in enumerate(text) if i > place and c in " =<>!"), len(text))
    return Wrong(text[:place], text[place:end], text[end:], str(details.get("reason", error.message)), error.hint)
