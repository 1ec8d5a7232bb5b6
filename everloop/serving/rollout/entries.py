"""From a revision's versions to its entry in the routing table."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from everloop.core.errors import InvalidInput
from everloop.core.version import Version
from everloop.features.definitions import FeatureServiceDef
from everloop.serving.definitions import nodes_of
from everloop.serving.table import Lookup, Revision, Service

DATATYPES = {
    "boolean": "BOOL",
    "integer": "INT32",
    "long": "INT64",
    "float": "FP32",
    "double": "FP64",
    "string": "BYTES",
}
"""MLflow's column types in the words of the open protocol."""


def inputs_of(signature: Any) -> list[list[str]]:
    """`[name, datatype]` of a model's inputs from its MLflow signature; raises `InvalidInput`."""
    inputs = signature.get("inputs") if isinstance(signature, Mapping) else None
    listed = json.loads(inputs) if isinstance(inputs, str) else inputs
    if not isinstance(listed, Sequence) or not listed:
        raise InvalidInput("the model has no signature", hint="package it with an input example")
    pairs = []
    for column in listed:
        datatype = DATATYPES.get(str(column.get("type")))
        if datatype is None or not column.get("name"):
            raise InvalidInput(
                f"the model's input {column.get('name')!r} is of type {column.get('type')!r}, which is not served",
                hint="one of " + ", ".join(DATATYPES),
            )
        pairs.append([str(column["name"]), datatype])
    return pairs


def example_of(folder: Path, names: Sequence[str]) -> dict[str, list[Any]]:
    """The first row of the input example that MLflow stored with the model; empty when there is none that fits."""
    for file in ("serving_input_example.json", "input_example.json"):
        path = folder / file
        if path.is_file():
            stored = json.loads(path.read_bytes())
            split = stored.get("dataframe_split", stored) if isinstance(stored, dict) else {}
            if split.get("data") and set(names) <= set(split.get("columns", ())):
                row = dict(zip(split["columns"], split["data"][0], strict=True))
                return {name: [row[name]] for name in names}
    return {}


def entry_of(
    version: Version,
    manifests: Mapping[str, Mapping[str, Any]],
    *,
    folder: Path,
    scope: str,
    loader: str,
) -> Revision:
    """The entry of a revision, with weight and number 0.

    Raises `InvalidInput` when look-up and request together do not feed the model.
    """
    model_id = next(iter(version.manifest["models"].values()))
    inputs = inputs_of(manifests[model_id].get("signature"))
    lookup, caller = None, inputs
    service_id = version.manifest["service"]
    if service_id:
        lookup, caller = _looked_up(version.name, manifests[service_id], manifests, inputs, scope)
        lookup = msgspec.structs.replace(lookup, **_policy(manifests[version.manifest["endpoint"]]))
    return Revision(
        id=version.id,
        number=0,
        weight=0,
        model=model_id,
        folder=str(folder),
        inputs=inputs,
        caller=caller,
        example=example_of(folder, [name for name, _ in inputs]),
        lookup=lookup,
        loader=loader,
    )


def _looked_up(
    name: str,
    service: Mapping[str, Any],
    manifests: Mapping[str, Mapping[str, Any]],
    inputs: list[list[str]],
    scope: str,
) -> tuple[Lookup, list[list[str]]]:
    views = {identity: dict(manifests[identity]) for identity in service["views"].values()}
    definition = FeatureServiceDef.from_manifest(name, service, manifests)
    unfed = [column for column, _ in inputs if column not in definition.columns]
    if unfed:
        raise InvalidInput(
            f"the model needs {unfed[0]!r}, which its feature service does not give",
            hint="add it to the service's request columns",
        )
    types = dict(inputs)
    keys = list(definition.entities)
    asked = [*keys, *(column for column in definition.request if column in types and column not in keys)]
    caller = [[column, types.get(column, "BYTES")] for column in asked]
    return Lookup(name, dict(service), views, scope, keys), caller


def _policy(endpoint: Mapping[str, Any]) -> dict[str, Any]:
    """What an endpoint's manifest says about features that are too old."""
    node = next(node for node in nodes_of(endpoint["graph"]) if node["node"] == "lookup")
    return {"fresh_micros": node.get("fresh_micros", 0), "stale": node.get("stale", "fail")}


def service_of(
    project: str, name: str, service: Mapping[str, Any], manifests: Mapping[str, Mapping[str, Any]], scope: str
) -> Service:
    """The entry of a feature service, with nothing masked."""
    views = {identity: dict(manifests[identity]) for identity in service["views"].values()}
    definition = FeatureServiceDef.from_manifest(name, service, manifests)
    return Service(project, name, Lookup(name, dict(service), views, scope, list(definition.entities)), [])


def weighted(revision: Revision, weight: int) -> Revision:
    """The same entry with a share of the traffic."""
    return msgspec.structs.replace(revision, weight=weight)


def numbered(revision: Revision, number: int) -> Revision:
    """The same entry with the number that people call it by."""
    return msgspec.structs.replace(revision, number=number)
