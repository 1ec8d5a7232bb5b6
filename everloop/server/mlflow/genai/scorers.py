"""Scorers of an experiment, and on which share of new traces each is asked."""

from collections.abc import Mapping
from typing import Any

from everloop.catalog.context import Context
from everloop.catalog.genai import scorers
from everloop.catalog.genai.rows import OnlineConfig, Scorer
from everloop.core.errors import InvalidInput
from everloop.core.grants import Target
from everloop.server.mlflow.endpoint import Endpoint, on_experiment
from everloop.server.mlflow.wire import Arguments, bounded, invalid, millis


def scorer_json(found: Scorer) -> dict[str, Any]:
    """A version of a scorer for the client."""
    return {
        "experiment_id": int(found.experiment),
        "scorer_name": found.name,
        "scorer_version": found.number,
        "serialized_scorer": found.body,
        "creation_time": millis(found.created),
        "scorer_id": found.id,
    }


def config_json(found: OnlineConfig) -> dict[str, Any]:
    """What is said of asking a scorer."""
    return {
        "online_scoring_config_id": found.id,
        "scorer_id": found.scorer,
        "sample_rate": found.rate,
        "experiment_id": found.experiment,
        **({} if found.filter is None else {"filter_string": found.filter}),
    }


def register(ctx: Context, args: Arguments) -> Mapping[str, Any]:
    """POST scorers/register."""
    name = bounded("name", args.text("name"), 256)
    if not name.strip():
        raise InvalidInput("Scorer name cannot be empty or consist only of whitespace.", hint="give it a name")
    body = args.text("serialized_scorer")
    with ctx.write() as tx:
        made = scorers.register(tx, ctx.project, args.text("experiment_id"), name, body, at=ctx.now())
    return {
        "version": made.number,
        "scorer_id": made.id,
        "experiment_id": made.experiment,
        "name": made.name,
        "serialized_scorer": made.body,
        "creation_time": millis(made.created),
    }


def list_newest(ctx: Context, args: Arguments) -> Mapping[str, Any]:
    """GET scorers/list: the newest version of each."""
    named = [*args.texts("experiment_ids"), *args.texts("experiment_id")]
    with ctx.read() as tx:
        return {"scorers": [scorer_json(one) for one in scorers.newest(tx, ctx.project, named)]}


def list_versions(ctx: Context, args: Arguments) -> Mapping[str, Any]:
    """GET scorers/versions."""
    with ctx.read() as tx:
        found = scorers.versions(tx, ctx.project, args.text("experiment_id"), args.text("name"))
    return {"scorers": [scorer_json(one) for one in found]}


def get(ctx: Context, args: Arguments) -> Mapping[str, Any]:
    """GET scorers/get."""
    with ctx.read() as tx:
        found = scorers.get(tx, ctx.project, args.text("experiment_id"), args.text("name"), _number(args))
    return {"scorer": scorer_json(found)}


def delete(ctx: Context, args: Arguments) -> Mapping[str, Any]:
    """DELETE scorers/delete: one version, or all."""
    with ctx.write() as tx:
        scorers.remove(tx, ctx.project, args.text("experiment_id"), args.text("name"), _number(args))
    return {}


def configure(ctx: Context, args: Arguments) -> Mapping[str, Any]:
    """PUT scorers/online-config."""
    rate = args.double("sample_rate")
    if not 0 <= rate <= 1:
        raise invalid("sample_rate", str(rate), "it lies between 0 and 1")
    with ctx.write() as tx:
        made = scorers.configure(
            tx,
            ctx.project,
            args.text("experiment_id"),
            args.text("name"),
            rate=rate,
            filter_text=args.text("filter_string", "") if args.has("filter_string") else None,
        )
    return {"config": config_json(made)}


def list_configs(ctx: Context, args: Arguments) -> Mapping[str, Any]:
    """GET scorers/online-configs."""
    with ctx.read() as tx:
        return {"configs": [config_json(one) for one in scorers.configs(tx, ctx.project, args.texts("scorer_ids"))]}


def _number(args: Arguments) -> int | None:
    if not args.has("version"):
        return None
    found = args.integer("version")
    if not 1 <= found < 2**31:
        raise invalid("version", found, "versions are counted from 1")
    return found


def _on_listed(_ctx: Context, args: Arguments) -> Target:
    named = [*args.texts("experiment_ids"), *args.texts("experiment_id")]
    return Target("experiment", named[0] if len(named) == 1 else "*")


ENDPOINTS = (
    Endpoint("POST", "scorers/register", register, on_experiment, audited=True, api="3.0"),
    Endpoint("GET", "scorers/list", list_newest, _on_listed, reads=True, api="3.0"),
    Endpoint("GET", "scorers/versions", list_versions, on_experiment, reads=True, api="3.0"),
    Endpoint("GET", "scorers/get", get, on_experiment, reads=True, api="3.0"),
    Endpoint("DELETE", "scorers/delete", delete, on_experiment, audited=True, api="3.0"),
    Endpoint("PUT", "scorers/online-config", configure, on_experiment, audited=True, api="3.0"),
    Endpoint("GET", "scorers/online-configs", list_configs, _on_listed, reads=True, api="3.0"),
)
