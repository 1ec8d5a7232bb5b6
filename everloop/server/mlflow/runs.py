"""Runs, their parameters, tags, metrics and inputs."""

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from everloop.catalog.context import Context
from everloop.catalog.engine import Tx
from everloop.catalog.tracking import inputs, logged, points, querying, runs
from everloop.catalog.tracking.rows import DatasetInput, ModelLink, Point, Run
from everloop.core.clock import Micros
from everloop.core.errors import Conflict, InvalidInput
from everloop.core.grants import Target
from everloop.server.mlflow.endpoint import Endpoint, on_run, on_runs, repeated
from everloop.server.mlflow.experiments import view_of
from everloop.server.mlflow.wire import (
    PARAM_LENGTH,
    TAG_LENGTH,
    Arguments,
    bounded,
    invalid,
    millis,
    missing,
    number,
    page,
    pairs,
    plain_key,
)

STATUSES = {1: "RUNNING", 2: "SCHEDULED", 3: "FINISHED", 4: "FAILED", 5: "KILLED"}
_MOST = {"metrics": 1000, "params": 100, "tags": 100}
_MOST_ENTITIES = 1000
_ALL = 1_000_000_000
_PLAIN = {"key", "value", "timestamp", "step"}
_LATEST = 1 << 53
_MOST_RUNS = 100
_MOST_SAMPLED = 2500
_MODEL_FIELDS = {"artifact_path", "flavors", "utc_time_created", "run_id"}
_LEGACY_MODELS_TAG = "mlflow.log-model.history"


def info_json(run: Run) -> dict[str, Any]:
    """What identifies a run."""
    return {
        "run_id": run.id,
        "run_uuid": run.id,
        "run_name": run.name,
        "experiment_id": run.experiment,
        "user_id": run.actor,
        "status": run.status,
        "start_time": millis(run.start),
        **({"end_time": millis(run.end)} if run.end is not None else {}),
        "artifact_uri": run.artifact_uri,
        "lifecycle_stage": run.stage,
    }


def metric_json(point: Point) -> dict[str, Any]:
    """A metric point."""
    return {
        "key": point.key,
        "value": number(point.value),
        "timestamp": millis(point.at),
        "step": point.step,
        **({"run_id": point.run} if point.run else {}),
        **({"model_id": point.model} if point.model else {}),
        **({"dataset_name": point.dataset} if point.dataset else {}),
        **({"dataset_digest": point.digest} if point.digest else {}),
    }


def run_json(run: Run, bare: Sequence[points.Newest] | None = None) -> dict[str, Any]:
    """A run with all that it holds; its newest points are `bare`, if these are given."""
    return {
        "info": info_json(run),
        "data": {
            "metrics": [metric_json(point) for point in run.metrics] if bare is None else _newest_json(run.id, bare),
            "params": pairs(run.params),
            "tags": pairs(run.tags),
        },
        "inputs": {
            "dataset_inputs": [_dataset_json(one) for one in run.datasets],
            "model_inputs": [{"model_id": link.model} for link in run.models_in],
        },
        "outputs": {"model_outputs": [{"model_id": link.model, "step": link.step} for link in run.models_out]},
    }


def _newest_json(run: str, rows: Sequence[points.Newest]) -> list[dict[str, Any]]:
    """What `metric_json` makes of each point, without making the points: a page of runs has thousands."""
    return [
        {
            "key": key,
            "value": value if not nan and value - value == 0 else number(math.nan if nan else value),
            "timestamp": at // 1000,
            "step": step,
            "run_id": run,
        }
        for key, step, at, value, nan in rows
    ]


def create(ctx: Context, args: Arguments) -> Mapping[str, Any]:
    """runs/create."""
    identity = repeated(ctx, args)
    try:
        with ctx.write() as tx:
            made = runs.create(
                tx,
                ctx.project,
                experiment=args.text("experiment_id", "0") or "0",
                actor=args.text("user_id", "") or ctx.actor.name,
                at=args.moment("start_time", ctx.now()),
                name=args.text("run_name", ""),
                tags=args.tags(),
                identity=identity,
            )
    except Conflict:
        if not identity:
            raise
        with ctx.read() as tx:
            made = runs.get(tx, ctx.project, identity)
    return {"run": run_json(made)}


def update(ctx: Context, args: Arguments) -> Mapping[str, Any]:
    """runs/update."""
    with ctx.write() as tx:
        run = runs.change(
            tx,
            ctx.project,
            args.run(),
            status=args.choice("status", STATUSES, ""),
            end=args.moment("end_time") if args.has("end_time") else None,
            name=args.text("run_name", ""),
        )
    return {"run_info": info_json(run)}


def delete(ctx: Context, args: Arguments) -> Mapping[str, Any]:
    """runs/delete."""
    with ctx.write() as tx:
        runs.delete_run(tx, ctx.project, args.run(), at=ctx.now())
    return {}


def restore(ctx: Context, args: Arguments) -> Mapping[str, Any]:
    """runs/restore."""
    with ctx.write() as tx:
        runs.restore(tx, ctx.project, args.run())
    return {}


def get(ctx: Context, args: Arguments) -> Mapping[str, Any]:
    """runs/get."""
    with ctx.read() as tx:
        return {"run": run_json(runs.get(tx, ctx.project, args.run()))}


def search(ctx: Context, args: Arguments) -> Mapping[str, Any]:
    """runs/search."""
    with ctx.read() as tx:
        found = querying.search_rows(
            tx,
            ctx.project,
            args.experiments(),
            filter_text=args.text("filter", ""),
            order_by=args.texts("order_by"),
            view=view_of(args, "run_view_type"),
            limit=args.limit(1000, 50_000),
            token=args.text("page_token", ""),
        )
        held = runs.bare(tx, found.rows)
    return page("runs", [run_json(one.run, one.metrics) for one in held], found.token)


def log_metric(ctx: Context, args: Arguments) -> Mapping[str, Any]:
    """runs/log-metric."""
    with ctx.write() as tx:
        run = runs.active(tx, ctx.project, args.run())
        points.log(tx, ctx.project, run.number, _own_models(ctx, tx, [_point(run.id, args)]))
    return {}


def log_parameter(ctx: Context, args: Arguments) -> Mapping[str, Any]:
    """runs/log-parameter."""
    with ctx.write() as tx:
        run = runs.active(tx, ctx.project, args.run())
        runs.log_params(tx, run, [(args.key(noun="Param key"), args.text("value", "")[:PARAM_LENGTH])])
    return {}


def set_tag(ctx: Context, args: Arguments) -> Mapping[str, Any]:
    """runs/set-tag."""
    with ctx.write() as tx:
        run = runs.active(tx, ctx.project, args.run())
        runs.set_tags(tx, run, {args.key(): args.text("value", "")[:TAG_LENGTH]})
    return {}


def delete_tag(ctx: Context, args: Arguments) -> Mapping[str, Any]:
    """runs/delete-tag."""
    with ctx.write() as tx:
        runs.delete_tag(tx, runs.active(tx, ctx.project, args.run()), args.text("key"))
    return {}


def log_batch(ctx: Context, args: Arguments) -> Mapping[str, Any]:
    """runs/log-batch: all of it or nothing."""
    identity = args.run()
    counts = {name: len(args.parts(name)) for name in _MOST}
    for name, most in _MOST.items():
        if counts[name] > most:
            raise InvalidInput(
                f"A batch logging request can contain at most {most} {name}. Got {counts[name]} {name}. "
                "Please split up batches and retry.",
                hint="send several batches",
            )
    if sum(counts.values()) > _MOST_ENTITIES:
        raise InvalidInput(
            f"A batch logging request can contain at most {_MOST_ENTITIES} metrics, params and tags together",
            hint="send several batches",
        )
    params = [(part.key(noun="Param key"), part.text("value", "")[:PARAM_LENGTH]) for part in args.parts("params")]
    twice = sorted(key for key, times in Counter(key for key, _ in params).items() if times > 1)
    if twice:
        raise InvalidInput(
            f"Duplicate parameter keys have been submitted: {twice}. "
            "Please ensure the request contains only one param value per param key.",
            hint="send each parameter once",
        )
    tags = args.tags()
    measured = _points(identity, args)
    with ctx.write() as tx:
        run = runs.active(tx, ctx.project, identity)
        runs.log_params(tx, run, params)
        points.log(tx, ctx.project, run.number, _own_models(ctx, tx, measured))
        runs.set_tags(tx, run, tags)
    return {}


def log_inputs(ctx: Context, args: Arguments) -> Mapping[str, Any]:
    """runs/log-inputs."""
    described = []
    for part in args.parts("datasets"):
        one = part.part("dataset")
        described.append(
            DatasetInput(
                name=bounded("name", one.text("name"), 500),
                digest=bounded("digest", one.text("digest"), 36),
                source_type=one.text("source_type"),
                source=bounded("source", one.text("source"), 65_535),
                schema=bounded("schema", one.text("schema", ""), 1_048_575) or None,
                profile=bounded("profile", one.text("profile", ""), 16_777_215) or None,
                tags={
                    bounded("key", tag.text("key"), 255): bounded("value", tag.text("value", ""), 500)
                    for tag in part.parts("tags")
                },
            )
        )
    links = [ModelLink(bounded("model_id", part.text("model_id"), 64)) for part in args.parts("models")]
    with ctx.write() as tx:
        run = runs.active(tx, ctx.project, args.run())
        inputs.log_datasets(tx, ctx.project, run, described)
        inputs.link_models(tx, run, "in", links)
    return {}


def log_outputs(ctx: Context, args: Arguments) -> Mapping[str, Any]:
    """runs/outputs."""
    links = [
        ModelLink(bounded("model_id", part.text("model_id"), 64), part.integer("step", 0))
        for part in args.parts("models")
    ]
    with ctx.write() as tx:
        inputs.link_models(tx, runs.active(tx, ctx.project, args.run()), "out", links)
    return {}


def log_model(ctx: Context, args: Arguments) -> Mapping[str, Any]:
    """runs/log-model, of clients before 3.0: the model's description is appended to a tag."""
    text = args.text("model_json")
    try:
        described = json.loads(text)
    except (ValueError, RecursionError):
        raise InvalidInput(f"Malformed model info. \n {text[:200]} \n is not a valid JSON.", hint="send JSON") from None
    absent = sorted(_MODEL_FIELDS - set(described)) if isinstance(described, dict) else sorted(_MODEL_FIELDS)
    if absent:
        raise InvalidInput(f"Model json is missing mandatory fields: {absent}", hint="send what Model.to_dict gives")
    with ctx.write() as tx:
        run = runs.get(tx, ctx.project, args.run())
        try:
            known = json.loads(run.tags.get(_LEGACY_MODELS_TAG, "[]"))
            tag = json.dumps([*known, described])
        except (ValueError, TypeError, RecursionError):
            raise InvalidInput(
                f"the run's tag {_LEGACY_MODELS_TAG} holds no list of models",
                hint="delete the tag, or log fewer models",
            ) from None
        runs.set_tags(tx, runs.active(tx, ctx.project, run.id), {_LEGACY_MODELS_TAG: tag})
    return {}


def history(ctx: Context, args: Arguments) -> Mapping[str, Any]:
    """metrics/get-history: whole, unless the caller asks for pages."""
    key, paged = args.text("metric_key"), args.has("max_results")
    with ctx.read() as tx:
        run = runs.find(tx, ctx.project, args.run())
        if not paged:
            return {"metrics": _series_json(run.id, key, points.whole_history(tx, run.number, key))}
        limit = min(args.limit(25_000, _ALL), 25_000)
        found = points.bare_history(tx, ctx.project, run.id, key, limit=limit, token=args.text("page_token", ""))
    return page("metrics", _series_json(run.id, key, found.rows), found.token)


def _series_json(run: str, key: str, rows: Sequence[points.Measured]) -> list[dict[str, Any]]:
    """What `metric_json` makes of each point, without making the points: a history has a hundred thousand."""
    return [
        {
            "key": key,
            "value": value if not nan and value - value == 0 else number(math.nan if nan else value),
            "timestamp": at // 1000,
            "step": step,
            "run_id": run,
        }
        for step, at, value, nan in rows
    ]


def history_interval(ctx: Context, args: Arguments) -> Mapping[str, Any]:
    """metrics/get-history-bulk-interval: a sample of steps that is the same for all runs."""
    identities = args.texts("run_ids")
    if not identities:
        raise missing("run_ids")
    _few_enough("GetMetricHistoryBulkInterval request must specify at most", identities)
    start = args.integer("start_step") if args.has("start_step") else None
    end = args.integer("end_step") if args.has("end_step") else None
    if (start is None) != (end is None):
        raise InvalidInput(
            "If either start step or end step are specified, both must be specified.", hint="leave both out for all"
        )
    if start is not None and end is not None and start > end:
        raise InvalidInput(
            f"end_step must be greater than start_step. Found start_step={start} and end_step={end}.", hint="swap them"
        )
    most = args.integer("max_results", 320)
    if not 1 <= most <= _MOST_SAMPLED:
        raise InvalidInput(f"max_results must be between 1 and {_MOST_SAMPLED}.", hint="320 is the default")
    with ctx.read() as tx:
        found = points.history_at_steps(
            tx, ctx.project, identities, args.text("metric_key"), start=start, end=end, most=most
        )
    return {"metrics": [metric_json(point) for point in found]}


def history_bulk(ctx: Context, args: Arguments) -> Mapping[str, Any]:
    """metrics/get-history-bulk, of the web pages."""
    identities = args.texts("run_id")
    if not identities:
        raise InvalidInput("GetMetricHistoryBulk request must specify at least one run_id.", hint="name some runs")
    _few_enough("GetMetricHistoryBulk request cannot specify more than", identities)
    if not args.text("metric_key", ""):
        raise InvalidInput("GetMetricHistoryBulk request must specify a metric_key.", hint="name a metric")
    left = min(args.limit(25_000, _ALL), 25_000)
    metrics: list[dict[str, Any]] = []
    with ctx.read() as tx:
        for identity in identities:
            found = points.bare_history(tx, ctx.project, identity, args.text("metric_key"), limit=max(left, 1))
            metrics.extend(_series_json(identity, args.text("metric_key"), found.rows[:left]))
            left -= len(found.rows[:left])
    return {"metrics": metrics}


def _few_enough(words: str, identities: list[str]) -> None:
    if len(identities) > _MOST_RUNS:
        raise InvalidInput(f"{words} {_MOST_RUNS} run_ids. Received {len(identities)} run_ids.", hint="ask in parts")


def _on_each_run(_ctx: Context, args: Arguments) -> Target:
    """One run when one is asked for, else runs in general."""
    named = args.texts("run_ids") or args.texts("run_id")
    return Target("run", named[0] if len(named) == 1 else "*")


def _own_models(ctx: Context, tx: Tx, measured: list[Point]) -> list[Point]:
    """The points, naming only models that the actor may write: a step measures others' models in its own run only."""
    named = {point.model for point in measured if point.model}
    if ctx.actor.kind != "task" or not named:
        return measured
    owners = logged.runs_of(tx, ctx.project, named)
    own = {model for model, run in owners.items() if ctx.actor.may("run.write", Target("run", run))}
    return [point if point.model in own else replace(point, model="") for point in measured]


def _point(run: str, args: Arguments) -> Point:
    return Point(
        key=args.key(shown="name", noun="Metric name"),
        value=args.double("value"),
        at=_recorded(args),
        step=args.integer("step", 0),
        model=args.text("model_id", ""),
        dataset=bounded("dataset_name", args.text("dataset_name", ""), 500),
        digest=bounded("dataset_digest", args.text("dataset_digest", ""), 36),
        run=run,
    )


def _points(run: str, args: Arguments) -> list[Point]:
    """The points of a batch. Plain ones are read here; every other, and every wrong one, where all rules are."""
    found: list[Point] = []
    for raw, part in zip(args.json("metrics") or (), args.parts("metrics"), strict=True):
        if raw.keys() == _PLAIN:
            key, value, at, step = raw["key"], raw["value"], raw["timestamp"], raw["step"]
            exact = type(value) is float and type(at) is int and type(step) is int and type(key) is str
            if exact and 0 <= at < _LATEST and abs(step) < _LATEST and plain_key(key):
                found.append(Point(key, value, at * 1000, step, run=run))
                continue
        found.append(_point(run, part))
    return found


def _recorded(args: Arguments) -> Micros:
    at = args.moment("timestamp")
    if at < 0:
        why = f"metric '{args.text('key')}'. Timestamp must be a nonnegative long (64-bit integer)"
        raise invalid("timestamp", args.integer("timestamp"), why)
    return at


def _dataset_json(one: DatasetInput) -> dict[str, Any]:
    described = {"name": one.name, "digest": one.digest, "source_type": one.source_type, "source": one.source}
    if one.schema is not None:
        described["schema"] = one.schema
    if one.profile is not None:
        described["profile"] = one.profile
    return {"dataset": described, "tags": pairs(one.tags)}


ENDPOINTS = (
    Endpoint("POST", "runs/create", create, on_runs),
    Endpoint("POST", "runs/update", update, on_run),
    Endpoint("POST", "runs/delete", delete, on_run, audited=True),
    Endpoint("POST", "runs/restore", restore, on_run, audited=True),
    Endpoint("GET", "runs/get", get, on_run, reads=True),
    Endpoint("POST", "runs/search", search, on_runs, reads=True),
    Endpoint("POST", "runs/log-metric", log_metric, on_run),
    Endpoint("POST", "runs/log-parameter", log_parameter, on_run),
    Endpoint("POST", "runs/set-tag", set_tag, on_run),
    Endpoint("POST", "runs/delete-tag", delete_tag, on_run),
    Endpoint("POST", "runs/log-batch", log_batch, on_run),
    Endpoint("POST", "runs/log-inputs", log_inputs, on_run),
    Endpoint("POST", "runs/outputs", log_outputs, on_run),
    Endpoint("POST", "runs/log-model", log_model, on_run),
    Endpoint("GET", "metrics/get-history", history, on_run, reads=True),
    Endpoint("GET", "metrics/get-history-bulk-interval", history_interval, _on_each_run, reads=True),
    Endpoint("GET", "metrics/get-history-bulk", history_bulk, _on_each_run, reads=True),
)
