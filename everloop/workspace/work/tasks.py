"""What the kinds of tasks do. A task runs in a process of its own, for it may import a project's code.

The process loads what its kind needs and no more: monitors are asked every minute, and mostly nothing is due.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib import import_module
from typing import Any

from everloop import serving, watch
from everloop.catalog import verify
from everloop.catalog.context import Context
from everloop.catalog.operating import rollouts
from everloop.catalog.operation import invoke
from everloop.checks.request import CheckRequest
from everloop.core.errors import InvalidInput
from everloop.features.operations import Materialize, fill_views
from everloop.flows.assets import suggest
from everloop.models.webhooks import delivery
from everloop.serving.rollout import filling
from everloop.watch.operations import Tick, tick_now
from everloop.watch.parity.operations import Parity, compare
from everloop.workspace import work

Handler = Callable[[Context, Mapping[str, Any], str], Any]


def perform(ctx: Context, kind: str, payload: Mapping[str, Any], tracking_uri: str) -> Any:
    """Do a task and return its JSON-ready result; raises what went wrong."""
    if kind not in HANDLERS:
        raise InvalidInput(f"{kind!r} is no kind of task", hint=suggest(kind, HANDLERS))
    return HANDLERS[kind](ctx, payload, tracking_uri)


def _check(ctx: Context, payload: Mapping[str, Any], _uri: str) -> Any:
    return work.checking.run_change_check(ctx, CheckRequest.from_json(payload)).model_dump(mode="json")


def _retrain(ctx: Context, payload: Mapping[str, Any], uri: str) -> Any:
    return work.retraining.retrain(ctx, payload, tracking_uri=uri)


def _reproduce(ctx: Context, payload: Mapping[str, Any], _uri: str) -> Any:
    return work.reproducing.judge(ctx, str(payload["version"])).model_dump(mode="json")


def _go_on(ctx: Context, payload: Mapping[str, Any], uri: str) -> Any:
    resuming = import_module("everloop.workspace.flows.resuming")  # loads an engine, as the others of `work` do
    return resuming.perform(ctx, payload, tracking_uri=uri)


def _refresh(ctx: Context, payload: Mapping[str, Any], _uri: str) -> Any:
    return work.refreshing.refresh_live(ctx, payload)


def _watch(ctx: Context, payload: Mapping[str, Any], _uri: str) -> Any:
    def score(model: Any, frame: Any) -> Any:
        return watch.baseline.model_scorer(ctx)(model, frame)

    ready = replace(ctx, ports={**ctx.ports, "scorer": score})
    return invoke(ready, tick_now, Tick(environment=payload["environment"])).model_dump(mode="json")


def _seal(ctx: Context, _payload: Mapping[str, Any], _uri: str) -> Any:
    with ctx.read() as tx:
        endpoints = list(rollouts.of(tx, ctx.project, "production"))
    made = {name: serving.reading.seal_whole_hours(ctx, name) for name in endpoints}
    return {name: [sealed.id for sealed in parts if sealed.id] for name, parts in made.items()}


def _fill(ctx: Context, payload: Mapping[str, Any], _uri: str) -> Any:
    wanted = Materialize(environment=payload["environment"], views=tuple(payload["views"]))
    return invoke(ctx, fill_views, wanted).model_dump(mode="json")


def _parity(ctx: Context, payload: Mapping[str, Any], _uri: str) -> Any:
    with ctx.read() as tx:
        endpoints = list(rollouts.of(tx, ctx.project, payload["environment"]))
    told = {}
    for name in endpoints:
        wanted = {"sample": payload.get("sample", 1000), "start": payload.get("start")}
        found = invoke(ctx, compare, Parity(endpoint=name, environment=payload["environment"], **wanted))
        told[name] = {"summary": found.summary, "state": found.state, **found.figures}
    return told


def _deliver(ctx: Context, payload: Mapping[str, Any], _uri: str) -> Any:
    return delivery.deliver(ctx, payload)


def _sweep(ctx: Context, _payload: Mapping[str, Any], _uri: str) -> Any:
    with ctx.read() as tx:
        every = verify.projects(tx)
    for project in every:  # the store and the task are the workspace's, rules are a project's
        work.retaining.apply_rules(replace(ctx, project=project), dry_run=False)
    return work.sweeping.sweep_store(ctx)


def _score(ctx: Context, payload: Mapping[str, Any], _uri: str) -> Any:
    scoring = import_module("everloop.serving.batch.scoring")  # loads engines, and what a gateway loads
    return scoring.perform(ctx, payload)


HANDLERS: Mapping[str, Handler] = {
    "checks.run": _check,
    "flow.go_on": _go_on,
    "flow.reproduce": _reproduce,
    "flow.retrain": _retrain,
    "endpoints.score": _score,
    "data.refresh": _refresh,
    "predictions.seal": _seal,
    "store.sweep": _sweep,
    "watch.tick": _watch,
    delivery.TASK: _deliver,
    filling.TASK: _fill,
    "features.parity": _parity,
}
