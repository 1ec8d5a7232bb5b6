"""Coherence: an endpoint revision pins everything it serves from, by id, and the parts fit together."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from everloop.core.ids import is_id


@dataclass(frozen=True, slots=True)
class Incoherence:
    """One reason why a revision must not serve."""

    part: str
    reason: str


def check_revision(
    revision: Mapping[str, object],
    manifests: Mapping[str, Mapping[str, object]],
) -> tuple[Incoherence, ...]:
    """Find what does not fit in an endpoint revision; an empty tuple means coherent.

    `revision` holds `models` {role: model id}, `service` (id or None), `views` {name: view id} and
    `code` (id). `manifests` holds the manifest of every id that is known. A model that was trained on
    a feature service must be served with that very service; every view of the service must be pinned.
    """
    found: list[Incoherence] = []
    models, views = revision.get("models"), revision.get("views")
    service = revision.get("service")
    if not isinstance(models, Mapping) or not models:
        return (Incoherence("models", "the revision pins no model"),)
    if not isinstance(views, Mapping):
        return (Incoherence("views", "the revision has no map of views"),)
    for part, identity in [
        *(("model:" + r, m) for r, m in models.items()),
        *(("view:" + n, v) for n, v in views.items()),
    ]:
        if not isinstance(identity, str) or not is_id(identity):
            found.append(Incoherence(part, "is not pinned by id"))
        elif identity not in manifests:
            found.append(Incoherence(part, "names a version that is not in the catalog"))
    for role, model in models.items():
        trained_on = manifests.get(str(model), {}).get("service")
        if trained_on and trained_on != service:  # a model without a feature service says ""
            found.append(Incoherence("model:" + str(role), "was trained on another version of its feature service"))
    if isinstance(service, str):
        found.extend(_missing_views(manifests.get(service, {}), views))
    return tuple(found)


def _missing_views(service: Mapping[str, object], views: Mapping[object, object]) -> list[Incoherence]:
    needed = service.get("views")
    if not isinstance(needed, Mapping):
        return [Incoherence("service", "names a version that is not in the catalog")]
    return [
        Incoherence("view:" + str(name), "differs from the one that the feature service pins")
        for name, identity in needed.items()
        if views.get(name) != identity
    ]


def below(node: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The nodes that a node holds, in order."""
    kind = node["node"]
    if kind == "sequence":
        return list(node["nodes"])
    if kind == "switch":
        return [case["node"] for case in node["cases"]] + ([node["otherwise"]] if node["otherwise"] else [])
    if kind == "splitter":
        return [share["node"] for share in node["shares"]]
    if kind == "ensemble":
        return [member["node"] for member in node["members"]]
    return []


def walk(node: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """A node and everything below it, parents first: the place in this order is a node's number."""
    yield node
    for inner in below(node):
        yield from walk(inner)
