"""From a revision's versions to its entry in the routing table."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from everloop.core.errors import InvalidInput
from everloop.core.version import Version
from everloop.features.definitions import FeatureServiceDef
from everloop.features.transforms.definitions import raw_inputs
from everloop.features.transforms.packing import CARD
from everloop.serving.explaining.loader import LOADER as EXPLAINING
from everloop.serving.fusing.derived import NULL, nulls_apart
from everloop.serving.fusing.loader import LOADER as FUSED
from everloop.serving.graph.nodes import is_line, nodes_of
from everloop.serving.graph.planning import Plan, visit, without_code
from everloop.serving.revision import graph_of
from everloop.serving.sealing.files import digest
from everloop.serving.table import INLINE, LOADER, Explainer, Instead, Lookup, Part, Revision, Service

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


OF_TRANSFORMS = {"bool": "BOOL", "int64": "INT64", "float64": "FP64", "text": "BYTES"}
"""Types of transforms in the words of the open protocol."""


def example_of(folder: Path, names: Sequence[str]) -> dict[str, list[Any]]:
    """The first row of the input example that was stored with the model; empty when there is none that fits."""
    whole = folder / "transforms" / "example.json"
    if whole.is_file():
        rows = json.loads(whole.read_bytes())
        return {name: rows[name][:1] for name in names} if set(names) <= rows.keys() else {}
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
    folder_of: Callable[[str], Path],
    scope: str,
    loader: str,
) -> Revision:
    """The entry of a revision, with weight and number 0; `folder_of` says where a model's files are.

    Raises `InvalidInput` when look-up and request together do not feed a model.
    """
    graph = graph_of(version.manifest, manifests[version.manifest["endpoint"]])
    service_id = version.manifest["service"]
    service = FeatureServiceDef.from_manifest(version.name, manifests[service_id], manifests) if service_id else None
    lookup = _lookup(version, manifests, service, (graph, scope)) if service else None
    models = version.manifest["models"]
    workers = dict(manifests[version.manifest["endpoint"]].get("workers", {}))
    needs = dict(version.manifest.get("needs") or workers.get("needs", {}))
    where = {"needs": needs, "environment": workers.get("environment", "")}

    def part_of(role: str) -> Part:
        model = manifests[models[role]]
        fed = service if service and model.get("service") in (service_id, None, "") else None
        within = workers.get("inline", False) and bool(dict(model.get("compiled") or {}).get("verified"))
        chosen = INLINE if within and loader == LOADER else loader
        part = _part(version.name, model, fed, folder_of(models[role]), chosen)
        return msgspec.structs.replace(part, **where)

    first = next(iter(models))
    own = part_of(first)
    caller, inputs, nullable = own.inputs, own.inputs, own.nullable
    if service and is_line(graph):
        caller = _asked_of_caller(service, [pair for pair in inputs if not pair[0].endswith(NULL)])
    parts: dict[str, Part] = {}
    if not is_line(graph):
        plan = Plan(part_of, folder_of("").parent / "transforms", service)
        visit(plan, graph, set(), set())
        parts, caller, inputs, nullable = plan.parts, _pairs(plan.asked), *plan.logged()
    examples: dict[str, list[Any]] = own.example
    for part in parts.values():
        examples = {**part.example, **examples}
    return Revision(
        id=version.id,
        number=0,
        weight=0,
        model=models[first],
        folder=own.folder,
        inputs=inputs,
        caller=caller,
        example=examples,
        lookup=lookup,
        nullable=nullable,
        loader=own.loader,
        graph=without_code(graph),
        explainer=_explainer(manifests[version.manifest["endpoint"]], manifests[models[first]], own),
        parts=parts,
        sealed=own.sealed,
        **where,
    )


def _lookup(
    version: Version,
    manifests: Mapping[str, Mapping[str, Any]],
    service: FeatureServiceDef,
    where: tuple[Mapping[str, Any], str],
) -> Lookup:
    graph, scope = where
    manifest = manifests[version.manifest["service"]]
    views = {identity: dict(manifests[identity]) for identity in manifest["views"].values()}
    policy = _policy(graph)
    return Lookup(version.name, dict(manifest), views, scope, list(service.entities), **policy)


def _part(name: str, model: Mapping[str, Any], service: FeatureServiceDef | None, folder: Path, loader: str) -> Part:
    """What the worker of a model runs, behind the transforms of its feature service."""
    inputs, nullable = inputs_of(model.get("signature")), list[str]()
    if service:
        inputs, nullable = _before_transforms(service, inputs)
        if service.transforms:
            _check_packed(name, service, folder)
            loader = FUSED if loader in (LOADER, INLINE) else loader
    example = example_of(folder, [column for column, _ in inputs])
    inputs = [*inputs, *([column + NULL, "BOOL"] for column in nullable)]
    sealed = digest(model["files"]) if "files" in model else ""
    example = nulls_apart(example, nullable, 1) if example else example
    return Part(str(folder), loader, inputs, example, nullable, sealed=sealed)


def _explainer(endpoint: Mapping[str, Any], model: Mapping[str, Any], part: Part) -> Explainer | None:
    said = endpoint.get("explain")
    if said is None:
        return None
    names = [name for name, _ in inputs_of(model.get("signature"))]
    explaining = msgspec.structs.replace(part, loader=EXPLAINING, budget_micros=said["budget_micros"])
    return Explainer(explaining, names, said["rows"])


def _pairs(columns: Mapping[str, str]) -> list[list[str]]:
    return [[name, datatype] for name, datatype in columns.items()]


def _before_transforms(service: FeatureServiceDef, inputs: list[list[str]]) -> tuple[list[list[str]], list[str]]:
    """What a worker is asked with, `[name, datatype]`, and which of it may be null though its datatype cannot say so.

    Columns that transforms make are left out, and those that they read come in.
    """
    made = {column for one in service.transforms for column in one.outputs}
    needed = raw_inputs(service.transforms)
    asked = [pair for pair in inputs if pair[0] not in made]
    own = {name for name, _ in asked}
    extra = {name: kind for name, kind in needed.items() if name not in own}
    nullable = [name for name, kind in extra.items() if kind in ("int64", "bool")]
    return [*asked, *([name, OF_TRANSFORMS[kind]] for name, kind in extra.items())], nullable


def _check_packed(name: str, service: FeatureServiceDef, folder: Path) -> None:
    card = folder / CARD
    packed = json.loads(card.read_bytes())["transforms"] if card.is_file() else []
    if packed != [one.manifest() for one in service.transforms]:
        raise InvalidInput(
            f"endpoint {name}: the model does not carry the transforms of its feature service", hint="build it again"
        )


def _asked_of_caller(service: FeatureServiceDef, inputs: list[list[str]]) -> list[list[str]]:
    """`[name, datatype]` of what the caller sends: entity keys and request columns; raises `InvalidInput`."""
    unfed = [column for column, _ in inputs if column not in service.columns]
    if unfed:
        raise InvalidInput(
            f"the model needs {unfed[0]!r}, which its feature service does not give",
            hint="add it to the service's request columns",
        )
    types = dict(inputs)
    keys = list(service.entities)
    asked = [*keys, *(column for column in service.request if column in types and column not in keys)]
    return [[column, types.get(column, "BYTES")] for column in asked]


def _policy(graph: Mapping[str, Any]) -> dict[str, Any]:
    """What a graph says about features that are too old."""
    node = next(node for node in nodes_of(graph) if node["node"] == "lookup")
    return {"fresh_micros": node.get("fresh_micros", 0), "stale": node.get("stale", "fail")}


def service_of(
    project: str, name: str, service: Mapping[str, Any], manifests: Mapping[str, Mapping[str, Any]], scope: str
) -> Service:
    """The entry of a feature service, with nothing masked."""
    views = {identity: dict(manifests[identity]) for identity in service["views"].values()}
    definition = FeatureServiceDef.from_manifest(name, service, manifests)
    return Service(project, name, Lookup(name, dict(service), views, scope, list(definition.entities)), [])


def insteads(endpoint: Mapping[str, Any], simpler: str) -> list[Instead]:
    """The fallbacks of an endpoint in its order, where it says more than `previous`; `simpler` is a revision."""
    steps = endpoint["fallback"]
    if not isinstance(steps, list):
        return []
    told = []
    for step in steps:
        more = {key: step[key] for key in ("ttl_micros", "most", "values") if key in step}
        if step["fallback"] != "simpler":
            told.append(Instead(step["fallback"], **more))
        elif simpler:
            told.append(Instead("simpler", simpler))
    return told


def weighted(revision: Revision, weight: int, shadow_ppm: int = 0) -> Revision:
    """The same entry with a share of the traffic, or of its copies."""
    return msgspec.structs.replace(revision, weight=weight, shadow_ppm=shadow_ppm)


def numbered(revision: Revision, number: int) -> Revision:
    """The same entry with the number that people call it by."""
    return msgspec.structs.replace(revision, number=number)
