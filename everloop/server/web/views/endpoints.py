"""Endpoints: what is wanted and what is observed, live counters, predictions, and what monitors found over time."""

import json
import shlex
from collections.abc import Iterable, Mapping
from typing import Any

from markupsafe import Markup
from starlette.responses import Response

from everloop.catalog import versions
from everloop.catalog.operating import alarms, predictions
from everloop.catalog.operating.alarms import Evaluation
from everloop.core.clock import DAY, HOUR, MINUTE
from everloop.core.errors import EverloopError, InvalidInput
from everloop.core.grants import Target
from everloop.server.web.charts import Chart, bar_chart, line_chart
from everloop.server.web.dag import Node, svg
from everloop.server.web.views.rolling.rollouts import rollout
from everloop.server.web.visit import Visit, data_answer
from everloop.serving.graph.drawing import ANSWER, QUESTION, Box, flow_of
from everloop.serving.graph.nodes import asked_of_caller, numbered
from everloop.serving.operations import EndpointView
from everloop.serving.revision import graph_of
from everloop.serving.rollout import observe

SPANS = {"2h": (2 * HOUR, 5 * MINUTE), "24h": (DAY, HOUR), "30d": (30 * DAY, DAY), "360d": (360 * DAY, 10 * DAY)}
"""Span of the chart of predictions, and the width of its bars."""
Manifests = Mapping[str, Mapping[str, Any]]
_RECENT = 20
_WINDOWS = 400
_ACROSS = 5
"""Layers of a graph that fit beside each other into a page of 1200 pixels; of more the first is on top."""


def index(visit: Visit) -> Response:
    """Endpoints of the protected environments."""
    environments = [e.name for e in visit.ask("environments.list", sandboxes=False).environments]
    found = {name: visit.ask("endpoints.list", environment=name).endpoints for name in environments}
    return visit.page("endpoints.html", title="Endpoints", here="/endpoints", found=found)


def show(visit: Visit) -> Response:
    """One endpoint."""
    name, environment = visit.part("name"), visit.query("environment", "production")
    endpoint = visit.ask("endpoints.show", name=name, environment=environment)
    span = visit.query("span", "24h")
    if span not in SPANS:
        raise InvalidInput(f"{span!r} is no span", hint="one of " + ", ".join(SPANS))
    ctx = visit.ctx
    with ctx.read() as tx:
        recent = predictions.newest(tx, ctx.project, name, _RECENT)
        held = versions.manifests(tx, ctx.project, [revision.id for revision in endpoint.revisions])
        ids = {i for m in held.values() for i in (*m.get("models", {}).values(), m.get("service") or "", m["endpoint"])}
        labels = versions.labels(tx, ctx.project, {*ids, *(row.revision for row in recent)} - {""})
        definitions = versions.manifests(tx, ctx.project, ids - {""})
    example = _example(visit, recent, held.get(endpoint.serving, {}), definitions)
    return visit.page(
        "endpoint.html",
        title=f"Endpoint {name}",
        here="/endpoints",
        endpoint=endpoint,
        manifests=held,
        labels=labels,
        recent=recent,
        span=span,
        spans=SPANS,
        traffic=_traffic(visit, name, span),
        monitors=[_monitor(visit, monitor) for monitor in _monitors(visit, name, environment)],
        alarms=visit.ask("alarms.list", endpoint=name, all=True, limit=10).alarms,
        example=json.dumps(example, indent=2),
        python=repr(example),
        shell=shlex.quote(json.dumps(example, indent=2)),
        graph=_graph(visit, endpoint, held, definitions),
        rollout=rollout(visit, endpoint),
        host=visit.request.headers.get("host", ""),
    )


def _graph(visit: Visit, endpoint: EndpointView, held: Manifests, definitions: Manifests) -> Markup:
    """The graph of the revision that serves, with what each node did; empty when nothing serves."""
    revision = held.get(endpoint.serving)
    if revision is None:
        return Markup("")
    flow = flow_of(numbered(graph_of(revision, definitions[revision["endpoint"]])))
    counted = _counted(endpoint)
    boxes = [Node(QUESTION, "Question", "", "", "subject")]
    for identity, box in flow.boxes.items():
        its = counted.get(str(box.number))
        note = f"{its['requests']:,} asked, p99 {its['p99_micros'] / 1000:.1f} ms" if its else "not asked yet"
        failed = f", {its['errors']:,} failed" if its and its["errors"] else ""
        kind = "model" if box.kind == "model" else ""
        label = f"{box.label}, {box.role}" if box.role not in ("", box.label) else box.label
        boxes.append(Node(identity, label, note + failed, _leads_to(visit, box), kind))
    boxes.append(Node(ANSWER, "Answer", "", "", "subject"))
    return Markup(svg(boxes, flow.arrows, most=_ACROSS))  # noqa: S704 - svg escapes labels, notes and addresses


def _leads_to(visit: Visit, box: Box) -> str:
    places = {"model": "models", "call": "endpoints"}
    return visit.at(places[box.kind], box.name) if box.kind in places else ""


def _counted(endpoint: EndpointView) -> dict[str, dict[str, int]]:
    """The counters of each node of the revision that serves, added over the gateways; quantiles: the largest."""
    total: dict[str, dict[str, int]] = {}
    for revision in endpoint.revisions:
        for its in revision.observed.values() if revision.id == endpoint.serving else ():
            for number, counted in its.get("nodes", {}).items():
                so_far = total.setdefault(number, dict.fromkeys(counted, 0))
                for name, value in counted.items():
                    so_far[name] = max(so_far[name], value) if name.endswith("micros") else so_far[name] + value
    return total


def stats(visit: Visit) -> Response:
    """The counters of each live revision, added over the gateways: for the live charts."""
    name, environment = visit.part("name"), visit.query("environment", "production")
    endpoint = visit.ask("endpoints.show", name=name, environment=environment)
    told = observe.gateways(visit.ctx.home, visit.ctx.wall())
    revisions = []
    for revision in endpoint.revisions:
        seen = [said["endpoints"].get(endpoint.address, {}).get(revision.id) for said in told]
        latency: dict[str, int] = {}
        for its in filter(None, seen):
            for bucket, count in its["latency"].items():
                latency[bucket] = latency.get(bucket, 0) + count
        totals = {key: sum(its[key] for its in filter(None, seen)) for key in ("requests", "errors", "fallbacks")}
        revisions.append({"label": f"v{revision.number}", "weight": revision.weight, **totals, "latency": latency})
    started = sorted(str(said["started"]) for said in told)
    return data_answer(
        {
            "wall": visit.ctx.wall(),
            "started": started,
            "phase": endpoint.phase,
            "revisions": revisions,
            "serving": endpoint.serving,
            "nodes": _counted(endpoint),
        }
    )


def prediction(visit: Visit) -> Response:
    """One prediction: what was asked and answered, and where the answer came from."""
    identity = visit.part("id")
    trace = visit.ask("predictions.trace", id=identity)
    return visit.page(
        "prediction.html", title=f"Prediction {identity[:12]}", here="/endpoints", trace=trace, asked=trace.prediction
    )


def _traffic(visit: Visit, name: str, span: str) -> Chart | None:
    """Predictions by revision over the span that ends now, by event time."""
    length, width = SPANS[span]
    until = (visit.ctx.now() // width + 1) * width
    starts = range(until - length, until, width)
    with visit.ctx.read() as tx:
        counted = [(at, predictions.counts(tx, visit.ctx.project, name, at, at + width)) for at in starts]
        known = {revision for _, counts in counted for revision in counts}
        labels = versions.labels(tx, visit.ctx.project, known)
        revisions = sorted(known, key=lambda i: (len(labels.get(i) or i), labels.get(i) or i))  # v9 before v10
    if not revisions:
        return None
    series = {
        labels.get(revision, revision[:12]).rpartition(" ")[2]: [(at, c.get(revision, 0)) for at, c in counted]
        for revision in revisions
    }
    return bar_chart(series, x="time (UTC)", y="predictions", kind="time", stacked=True)


def _monitors(visit: Visit, endpoint: str, environment: str) -> list[str]:
    held = visit.ask("environments.show", environment=environment)
    ids = {key.partition("/")[2]: i for key, i in held.entries.items() if key.startswith("monitor/")}
    with visit.ctx.read() as tx:
        manifests = versions.manifests(tx, visit.ctx.project, ids.values())
    return [name for name, i in sorted(ids.items()) if manifests.get(i, {}).get("endpoint") == endpoint]


def _monitor(visit: Visit, name: str) -> dict[str, Any]:
    """What a monitor found: newest look at each window, as charts of performance and of drift."""
    visit.ctx.need("read", Target("monitor", name))
    with visit.ctx.read() as tx:
        found = alarms.evaluations(tx, visit.ctx.project, name, limit=_WINDOWS)
    newest: dict[int, Evaluation] = {}
    for evaluation in found:
        newest.setdefault(evaluation.start, evaluation)
    windows = sorted(newest.values(), key=lambda e: e.start)
    known = {figure for window in windows for figure in window.figures}
    skipped = {"flagged", "severity", "rows", "estimate_error"}
    performance = {
        figure: [(w.start, w.figures[figure]) for w in windows if figure in w.figures]
        for figure in sorted(known - skipped)
    }
    drift: dict[str, list[tuple[float, float]]] = {
        figure: [(w.start, w.figures[figure]) for w in windows if figure in w.figures]
        for figure in ("flagged", "severity")
        if figure in known
    }
    return {
        "name": name,
        "windows": windows[::-1][:12],
        "performance": line_chart(performance, x="window begins (UTC)", y="performance", kind="time")
        if performance
        else None,
        "drift": line_chart(drift, x="window begins (UTC)", y="drift", kind="time", zero=True) if drift else None,
    }


def blank(wanted: Iterable[str], models: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """A question without content that can be asked: numbers and flags are as the models' signatures say, else texts."""
    empty = {"string": "", "boolean": False}
    kinds: dict[str, str] = {}
    for model in models:
        inputs = dict(model.get("signature") or {}).get("inputs") or []
        listed = json.loads(inputs) if isinstance(inputs, str) else inputs
        kinds |= {str(column.get("name")): str(column.get("type")) for column in listed}
    return {name: empty.get(kinds.get(name, "string"), 0) for name in wanted}


def _example(
    visit: Visit, recent: list[Any], revision: Mapping[str, Any], definitions: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """A question to start from: the newest one that was asked, or one that is empty as its columns' types allow."""
    service = definitions.get(str(revision.get("service") or ""), {})
    endpoint = definitions.get(str(revision.get("endpoint") or ""))
    wanted = asked_of_caller(graph_of(revision, endpoint), service) if endpoint else []
    empty = blank(wanted, [definitions.get(model, {}) for model in dict(revision.get("models", {})).values()])
    if not recent or not visit.may("predictions.get", id=recent[0].id):
        return empty
    try:
        last = visit.ask("predictions.get", id=recent[0].id)
    except EverloopError:  # its log was erased or lies elsewhere
        return empty
    known = {**last.inputs, **last.keys}
    return {name: known.get(name) for name in wanted} if wanted else known
