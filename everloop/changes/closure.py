"""Whether every endpoint of a snapshot would serve a coherent revision: its models, service and views fit together."""

from collections.abc import Iterator, Mapping
from typing import Any

from everloop.catalog import versions
from everloop.catalog.engine import Tx
from everloop.core.coherence import check_revision, walk
from everloop.core.snapshot import Delta

_FEEDS = ("endpoint", "model", "service", "view", "code")


def incoherences(tx: Tx, project: str, entries: Mapping[str, str], delta: Delta) -> list[str]:
    """Reasons why an endpoint of these entries must not serve, for people; none when nothing it needs changes."""
    if not any(key.partition("/")[0] in _FEEDS for key in delta):
        return []
    served = {key: i for key, i in entries.items() if key.partition("/")[0] in _FEEDS}
    manifests = versions.manifests(tx, project, set(served.values()))
    found: list[str] = []
    for key, identity in served.items():
        if key.startswith("endpoint/"):
            endpoint = manifests.get(identity, {})
            found.extend(f"{key}: {reason}" for reason in _endpoint(endpoint, entries, manifests))
            for name, graph in _others(endpoint):
                reasons = _endpoint({**endpoint, "graph": graph}, entries, manifests)
                found.extend(f"{key}, {name}: {reason}" for reason in reasons)
    return found


def closed_revision(endpoint: Mapping[str, Any], entries: Mapping[str, str]) -> dict[str, Any]:
    """What an endpoint's manifest names, pinned by these entries: models by role, service, views, code."""
    nodes = list(walk(endpoint["graph"])) if "graph" in endpoint else []
    models = {n["role"]: entries.get(f"model/{n['model']}", "") for n in nodes if n["node"] == "model"}
    service = next((entries.get(f"service/{n['service']}", "") for n in nodes if n["node"] == "lookup"), None)
    views = {key.removeprefix("view/"): i for key, i in entries.items() if key.startswith("view/")}
    code = next((i for key, i in sorted(entries.items()) if key.startswith("code/")), "")
    return {"models": models, "service": service, "views": views, "code": code}


def _others(endpoint: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The graphs that serve beside the endpoint's own."""
    for name, graph in endpoint.get("challengers", {}).items():
        yield f"challenger {name}", graph
    steps = endpoint.get("fallback")
    for step in steps if isinstance(steps, list) else ():
        if "graph" in step:
            yield "fallback", step["graph"]


def _endpoint(
    endpoint: Mapping[str, Any], entries: Mapping[str, str], manifests: Mapping[str, Mapping[str, Any]]
) -> Iterator[str]:
    revision = closed_revision(endpoint, entries)
    absent = ["feature service"] if revision["service"] == "" else []
    absent += [f"model ({role})" for role, model in revision["models"].items() if not model]
    if absent:
        yield f"names a {' and a '.join(absent)} that the snapshot does not hold"
        return
    for problem in check_revision(revision, manifests):
        yield f"{problem.part} {problem.reason}"
