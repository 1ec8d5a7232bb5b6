"""Runs: a table in MLflow's language, one run with its curves and files, several side by side."""

import json
import mimetypes
from typing import Any
from urllib.parse import quote

from starlette.concurrency import iterate_in_threadpool
from starlette.responses import Response, StreamingResponse

from everloop.core.errors import NotFound
from everloop.server.web.charts import Chart, line_chart
from everloop.server.web.visit import Visit

_ROWS = 50
_MOST_CHARTS = 24
_LARGEST_TEXT = 256 << 10
_CHUNK = 1 << 16
_PICTURES = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp"})
"""Shown in place; SVG is not, for it may hold script."""
_ORDERS = (
    ("", "Newest first"),
    ("attributes.start_time ASC", "Oldest first"),
    ("attributes.end_time DESC", "Finished last first"),
)


def index(visit: Visit) -> Response:
    """The table: experiment, filter, order, columns and page are all in the address."""
    experiment, wanted, order = visit.query("experiment"), visit.query("filter"), visit.query("order")
    found = visit.ask(
        "runs.list",
        experiment=experiment,
        filter=wanted,
        order_by=(order,) if order else (),
        limit=_ROWS,
        token=visit.query("token"),
    )
    metrics = sorted({name for run in found.runs for name in run.metrics})
    params = sorted({name for run in found.runs for name in run.params})
    offered = [*(f"metrics.{m}" for m in metrics), *(f"params.{p}" for p in params)]
    asked = [one for one in visit.request.query_params.getlist("column") if one]
    columns = asked or [*(f"metrics.{m}" for m in metrics[:4]), *(f"params.{p}" for p in params[:3])]
    return visit.page(
        "runs.html",
        title="Runs",
        here="/runs",
        runs=found.runs,
        cells={run.id: [_cell(run, column) for column in columns] for run in found.runs},
        token=found.token,
        experiments=visit.ask("experiments.list", limit=200).experiments,
        experiment=experiment,
        filter=wanted,
        order=order,
        orders=_orders(order, metrics),
        columns=columns,
        offered=sorted({*offered, *columns}),
        asked=asked,
    )


def show(visit: Visit) -> Response:
    """One run."""
    found = visit.ask("runs.show", run=visit.part("run"))
    run = found.run
    charts = [_curve(visit, (run.id,), metric, {run.id: metric}) for metric in list(run.metrics)[:_MOST_CHARTS]]
    return visit.page(
        "run.html",
        title=run.name,
        here="/runs",
        found=found,
        run=run,
        charts=[chart for chart in charts if chart is not None and len(chart.rows) > 1],
        tags={name: value for name, value in run.tags.items() if not name.startswith("mlflow.log-model")},
    )


def preview(visit: Visit) -> Response:
    """A file of a run: text and JSON as text, pictures as pictures, anything else as a download."""
    run, artifact = _artifact(visit)
    kind = _kind(artifact.path)
    text, note = "", ""
    if kind in _PICTURES:
        note = ""
    elif artifact.size > _LARGEST_TEXT:
        note = "too large to show here"
    else:
        try:
            text = visit.ctx.store.get(artifact.object).decode("utf-8")
        except UnicodeDecodeError:
            note = "not a text"
        text = _tidy(text) if artifact.path.endswith(".json") else text
    return visit.page(
        "artifact.html",
        title=artifact.path,
        here="/runs",
        run=run,
        artifact=artifact,
        picture=kind in _PICTURES,
        text=text,
        note=note,
    )


def raw(visit: Visit) -> Response:
    """The bytes of a file. Pictures are shown in place, all else is saved; nothing in it runs as a page of ours."""
    _, artifact = _artifact(visit)
    kind = _kind(artifact.path)
    shown = kind in _PICTURES and "download" not in visit.request.query_params
    name = quote(artifact.path.rpartition("/")[2], safe="")
    headers = {
        "Content-Length": str(artifact.size),
        "Content-Disposition": "inline" if shown else f"attachment; filename*=UTF-8''{name}",
        "Content-Security-Policy": "sandbox; default-src 'none'",
        "X-Content-Type-Options": "nosniff",
        "Cache-Control": "no-store",
        "Cross-Origin-Resource-Policy": "same-origin",
    }
    stream = visit.ctx.store.open(artifact.object)
    body = iterate_in_threadpool(_read(stream))
    return StreamingResponse(body, headers=headers, media_type=kind if shown else "application/octet-stream")


def _read(stream: Any) -> Any:
    with stream:
        while chunk := stream.read(_CHUNK):
            yield chunk


def _artifact(visit: Visit) -> tuple[Any, Any]:
    found = visit.ask("runs.show", run=visit.part("run"))
    path = visit.part("path")
    artifact = next((one for one in found.artifacts if one.path == path), None)
    if artifact is None:
        raise NotFound(f"the run has no file {path!r}", hint="its page lists them")
    return found.run, artifact


def _kind(path: str) -> str:
    return mimetypes.guess_type(path)[0] or "application/octet-stream"


def _tidy(text: str) -> str:
    try:
        return json.dumps(json.loads(text), indent=2, ensure_ascii=False)
    except ValueError:
        return text


def _cell(run: Any, column: str) -> Any:
    entity, _, name = column.partition(".")
    if entity == "metrics":
        return run.metrics.get(name)
    if entity == "params":
        return run.params.get(name)
    return run.tags.get(name) if entity == "tags" else None


def _orders(order: str, metrics: list[str]) -> list[tuple[str, str]]:
    offered = list(_ORDERS)
    offered += [
        (f"metrics.`{m}` {way}", f"{m} {sign}") for m in metrics[:12] for way, sign in (("DESC", "↓"), ("ASC", "↑"))
    ]
    if order and order not in {value for value, _ in offered}:
        offered.append((order, order))
    return offered


def _curve(visit: Visit, runs: tuple[str, ...], metric: str, names: dict[str, str]) -> Chart | None:
    found = visit.ask("runs.series", runs=runs, metric=metric)
    series = {
        names[one.run]: list(zip(one.steps, one.values, strict=True)) for one in found.series if len(one.steps) > 1
    }
    return line_chart(series, x="step", y=metric, kind="whole") if series else None
