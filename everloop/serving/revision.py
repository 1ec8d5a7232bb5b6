"""An endpoint revision: everything that an endpoint serves from, pinned by id. Pure."""

from collections.abc import Mapping
from typing import Any

from everloop.core.coherence import check_revision
from everloop.core.errors import InvalidInput, NotFound
from everloop.core.ids import is_id
from everloop.core.version import Version
from everloop.serving.computing import profiles
from everloop.serving.graph.nodes import nodes_of

_PINNED = ("lookup", "model")
SIMPLER = "(simpler)"
"""What the graph of a fallback is called among those of an endpoint; no challenger may be called so."""
Manifests = Mapping[str, Mapping[str, Any]]


def needed(entries: Mapping[str, str], endpoint: Mapping[str, Any]) -> tuple[str, ...]:
    """Ids of the versions that an endpoint names, in its graph and for its workers, as far as the snapshot has them."""
    graphs = [endpoint["graph"], *others_of(endpoint).values()]
    keys = [_key_of(node) for graph in graphs for node in nodes_of(graph) if node["node"] in _PINNED]
    return (*(entries[key] for key in dict.fromkeys(keys) if key in entries), *profiles.named(entries, endpoint))


def graph_of(revision: Mapping[str, Any], endpoint: Mapping[str, Any]) -> dict[str, Any]:
    """The graph of a revision (its manifest): the endpoint's own, that of a challenger, or of its fallback."""
    graph: dict[str, Any] = others_of(endpoint)[arm] if (arm := revision.get("arm")) else endpoint["graph"]
    return graph


def others_of(endpoint: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The graphs of an endpoint beside its own: those of challengers by name, and the simpler one of its fallback."""
    steps = endpoint.get("fallback")
    simpler = [step["graph"] for step in steps if "graph" in step] if isinstance(steps, list) else []
    return {**endpoint.get("challengers", {}), **({SIMPLER: simpler[0]} if simpler else {})}


def build(name: str, entries: Mapping[str, str], manifests: Manifests, arm: str = "") -> Version:
    """The revision of endpoint `name` that a snapshot's `entries` mean, or that of one of its challengers (`arm`).

    `manifests` holds those of the endpoint, and of what `needed` and the service's views name. Raises `NotFound`
    when the snapshot lacks a part, `InvalidInput` when the parts do not fit together.
    """
    endpoint_id = _pinned(entries, f"endpoint/{name}", name)
    endpoint = manifests[endpoint_id]
    models: dict[str, str] = {}
    service: str | None = None
    for node in nodes_of(graph_of({"arm": arm}, endpoint)):
        if node["node"] not in _PINNED:
            continue  # a transform is in the endpoint itself; an endpoint that is called chooses its own revision
        identity = _pinned(entries, _key_of(node), name)
        if identity not in manifests:
            raise NotFound(f"endpoint {name} needs {_key_of(node)}, whose version is not here")
        if node["node"] == "model":
            models[node["role"]] = identity
        else:
            service = identity
    views = dict(manifests.get(service, {}).get("views", {})) if service else {}
    # the code that made the models, not the snapshot's newest: an edit elsewhere is no reason to roll out again
    codes = [code for identity in models.values() if is_id(code := str(manifests[identity].get("code")))]
    needs = profiles.needs(name, entries, endpoint, manifests)
    manifest = {
        "endpoint": endpoint_id,
        "models": models,
        "service": service,
        "views": views,
        "code": codes[0] if codes else None,
        **({"arm": arm} if arm else {}),
        **({"needs": needs} if needs else {}),
    }
    wrong = check_revision(manifest, manifests)
    if wrong:
        raise InvalidInput(
            f"endpoint {name} cannot serve from this snapshot: {wrong[0].part} {wrong[0].reason}",
            hint="train the model on the feature service that the endpoint looks up",
            parts=[f"{w.part} {w.reason}" for w in wrong],
        )
    inputs = [("endpoint", endpoint_id), *(("model:" + role, i) for role, i in models.items())]
    inputs += [("view:" + view, identity) for view, identity in views.items()]
    inputs += [("service", service)] if service else []
    inputs += [("code", codes[0])] if codes else []
    return Version("revision", name, manifest, tuple(inputs))


def _key_of(node: Mapping[str, Any]) -> str:
    return f"model/{node['model']}" if node["node"] == "model" else f"service/{node['service']}"


def _pinned(entries: Mapping[str, str], key: str, endpoint: str) -> str:
    if key not in entries:
        raise NotFound(
            f"endpoint {endpoint} needs {key}, which the snapshot does not hold", hint="run it, then merge it too"
        )
    return entries[key]
