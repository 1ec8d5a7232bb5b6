"""Evaluation datasets: inputs with what is expected of them, shared between experiments."""

import json
from collections.abc import Mapping
from typing import Any

from everloop.catalog.context import Context
from everloop.catalog.genai import datasets
from everloop.catalog.genai.rows import EvaluationDataset, Record
from everloop.core.errors import InvalidInput
from everloop.core.grants import Target
from everloop.server.mlflow.endpoint import Endpoint
from everloop.server.mlflow.wire import Arguments, bounded, invalid, millis, page

_SOURCES = frozenset({"UNSPECIFIED", "TRACE", "HUMAN", "DOCUMENT", "CODE"})
_TYPES = {bool: "boolean", int: "integer", float: "float", str: "string", list: "array", dict: "object"}
_MOST_FIELDS = 1000


def dataset_json(found: EvaluationDataset) -> dict[str, Any]:
    """A dataset for the client."""
    return {
        "dataset_id": found.id,
        "name": found.name,
        "tags": json.dumps(dict(found.tags)),
        "digest": found.digest,
        "created_time": millis(found.created),
        "last_update_time": millis(found.updated),
        "created_by": found.created_by,
        "last_updated_by": found.updated_by,
        "experiment_ids": list(found.experiments),
        **({} if found.schema is None else {"schema": found.schema}),
        **({} if found.profile is None else {"profile": found.profile}),
    }


def create(ctx: Context, args: Arguments) -> Mapping[str, Any]:
    """POST datasets/create."""
    name = bounded("name", args.text("name"), 255)
    if not name.strip():
        raise invalid("name", name, "a name that people can read is expected")
    with ctx.write() as tx:
        made = datasets.create(
            tx,
            ctx.project,
            name,
            actor=ctx.actor.name,
            at=ctx.now(),
            experiment_ids=args.texts("experiment_ids"),
            tags=_object(args, "tags"),
            schema=args.text("schema", "") or None,
            profile=args.text("profile", "") or None,
        )
    return {"dataset": dataset_json(made)}


def get(ctx: Context, args: Arguments) -> Mapping[str, Any]:
    """GET datasets/<id>."""
    with ctx.read() as tx:
        return {"dataset": dataset_json(datasets.get(tx, ctx.project, args.text("dataset_id")))}


def delete(ctx: Context, args: Arguments) -> Mapping[str, Any]:
    """DELETE datasets/<id>."""
    with ctx.write() as tx:
        datasets.remove(tx, ctx.project, args.text("dataset_id"))
    return {}


def search(ctx: Context, args: Arguments) -> Mapping[str, Any]:
    """GET or POST datasets/search."""
    with ctx.read() as tx:
        found = datasets.search(
            tx,
            ctx.project,
            experiment_ids=args.texts("experiment_ids"),
            filter_text=args.text("filter_string", ""),
            order_by=args.texts("order_by"),
            limit=args.limit(50, 1000),
            token=args.text("page_token", ""),
        )
    return page("datasets", [dataset_json(one) for one in found.rows], found.token)


def set_tags(ctx: Context, args: Arguments) -> Mapping[str, Any]:
    """PATCH datasets/<id>/tags."""
    with ctx.write() as tx:
        tags = _object(args, "tags")
        found = datasets.set_tags(tx, ctx.project, args.text("dataset_id"), tags, at=ctx.now())
    return {"dataset": dataset_json(found)}


def delete_tag(ctx: Context, args: Arguments) -> Mapping[str, Any]:
    """DELETE datasets/<id>/tags/<key>."""
    with ctx.write() as tx:
        datasets.delete_tag(tx, ctx.project, args.text("dataset_id"), args.text("key"))
    return {}


def upsert(ctx: Context, args: Arguments) -> Mapping[str, Any]:
    """POST datasets/<id>/records: the same inputs are the same record."""
    given = _decoded(args, "records")
    if not isinstance(given, list) or not all(isinstance(one, dict) for one in given):
        raise InvalidInput("records must be a JSON list of objects", hint='[{"inputs": {"question": "…"}}]')
    records = [_record(one) for one in given]
    with ctx.write() as tx:
        identity = args.text("dataset_id")
        known = datasets.get(tx, ctx.project, identity).schema
        added, merged = datasets.upsert(
            tx,
            ctx.project,
            identity,
            records,
            schema=_schema(known, records),
            by=args.text("updated_by", "") or ctx.actor.name,
            at=ctx.now(),
        )
    return {"inserted_count": added, "updated_count": merged}


def list_records(ctx: Context, args: Arguments) -> Mapping[str, Any]:
    """GET datasets/<id>/records."""
    with ctx.read() as tx:
        found = datasets.records(
            tx,
            ctx.project,
            args.text("dataset_id"),
            limit=args.limit(1000, 1000),
            token=args.text("page_token", ""),
        )
    answer = {"records": json.dumps([_record_json(one) for one in found.rows])}
    return {**answer, **({"next_page_token": found.token} if found.token else {})}


def delete_records(ctx: Context, args: Arguments) -> Mapping[str, Any]:
    """DELETE datasets/<id>/records."""
    with ctx.write() as tx:
        named = args.texts("dataset_record_ids")
        count = datasets.remove_records(tx, ctx.project, args.text("dataset_id"), named, at=ctx.now())
    return {"deleted_count": count}


def experiment_ids(ctx: Context, args: Arguments) -> Mapping[str, Any]:
    """GET datasets/<id>/experiment-ids."""
    with ctx.read() as tx:
        return {"experiment_ids": list(datasets.get(tx, ctx.project, args.text("dataset_id")).experiments)}


def link(ctx: Context, args: Arguments) -> Mapping[str, Any]:
    """POST datasets/<id>/add-experiments."""
    with ctx.write() as tx:
        named = args.texts("experiment_ids")
        return {"dataset": dataset_json(datasets.link(tx, ctx.project, args.text("dataset_id"), named, at=ctx.now()))}


def unlink(ctx: Context, args: Arguments) -> Mapping[str, Any]:
    """POST datasets/<id>/remove-experiments."""
    with ctx.write() as tx:
        named = args.texts("experiment_ids")
        found = datasets.unlink(tx, ctx.project, args.text("dataset_id"), named, at=ctx.now())
    return {"dataset": dataset_json(found)}


def _on_dataset(_ctx: Context, args: Arguments) -> Target:
    return Target("evaluation-dataset", args.text("dataset_id", "*") or "*")


def _decoded(args: Arguments, name: str) -> Any:
    try:
        return json.loads(args.text(name))
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"'{name}' is not JSON: {str(error)[:100]}", hint="send a JSON text") from None


def _object(args: Arguments, name: str) -> dict[str, Any]:
    """An object that comes as a JSON text."""
    found = _decoded(args, name) if args.text(name, "") else {}
    if not isinstance(found, dict):
        raise invalid(name, str(found)[:100], "a JSON object is expected")
    return found


def _record(given: Mapping[str, Any]) -> Record:
    inputs = given.get("inputs", {})
    if not isinstance(inputs, dict):
        raise InvalidInput("inputs of a record must be an object", hint='{"inputs": {"question": "…"}}')
    for name in ("expectations", "tags", "source"):
        if not isinstance(given.get(name), dict | None):
            raise InvalidInput(f"{name} of a record must be an object", hint="or leave it out")
    source = given.get("source") or {}
    told = source.get("source_data")
    data: dict[str, Any] = told if isinstance(told, dict) else {}
    kind = str(source.get("source_type", "")).upper()
    return Record(
        inputs=inputs,
        outputs=given.get("outputs"),
        expectations=given.get("expectations"),
        tags=given.get("tags"),
        source=given.get("source"),
        source_type=kind if kind in _SOURCES else "",
        source_id=str(data.get("trace_id") or data.get("source_id") or ""),
    )


def _record_json(one: Record) -> dict[str, Any]:
    found = {
        "dataset_record_id": one.id,
        "dataset_id": one.dataset,
        "inputs": one.inputs,
        "tags": one.tags or {},
        "created_time": millis(one.created),
        "last_update_time": millis(one.updated),
        "created_by": one.created_by,
        "last_updated_by": one.updated_by,
    }
    for name in ("outputs", "expectations", "source"):
        if (value := getattr(one, name)) is not None:
            found[name] = value
    if one.source_type:
        found["source_type"] = one.source_type
    if one.source_id:
        found["source_id"] = one.source_id
    return found


def _schema(known: str | None, records: list[Record]) -> str | None:
    """The types of the fields that records have, joined with those that are known."""
    found: dict[str, Any] = json.loads(known) if known else {"inputs": {}, "outputs": {}, "expectations": {}}
    for record in records:
        for part in ("inputs", "outputs", "expectations"):
            fields = getattr(record, part)
            if isinstance(fields, dict) and isinstance(types := found.setdefault(part, {}), dict):
                for name, value in fields.items():
                    if len(types) < _MOST_FIELDS:
                        types.setdefault(name, _TYPES.get(type(value), "null"))
    return json.dumps(found) if records else None


def _endpoint(method: str, path: str, handler: Any, *, reads: bool = False, audited: bool = False) -> Endpoint:
    return Endpoint(method, f"datasets/{path}", handler, _on_dataset, reads=reads, audited=audited, api="3.0")


ENDPOINTS = (
    _endpoint("POST", "create", create, audited=True),
    _endpoint("POST", "search", search, reads=True),
    _endpoint("GET", "search", search, reads=True),
    _endpoint("GET", "{dataset_id}", get, reads=True),
    _endpoint("DELETE", "{dataset_id}", delete, audited=True),
    _endpoint("PATCH", "{dataset_id}/tags", set_tags),
    _endpoint("DELETE", "{dataset_id}/tags/{key}", delete_tag),
    _endpoint("POST", "{dataset_id}/records", upsert),
    _endpoint("GET", "{dataset_id}/records", list_records, reads=True),
    _endpoint("DELETE", "{dataset_id}/records", delete_records, audited=True),
    _endpoint("GET", "{dataset_id}/experiment-ids", experiment_ids, reads=True),
    _endpoint("POST", "{dataset_id}/add-experiments", link),
    _endpoint("POST", "{dataset_id}/remove-experiments", unlink),
)
