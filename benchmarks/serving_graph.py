"""The graph of `benchmarks/serving.py`: a look-up in LMDB, a transform, and the model behind a switch."""

import json
from collections.abc import Sequence as Listed
from pathlib import Path
from typing import Any

from everloop.core.clock import SECOND
from everloop.core.version import Version
from everloop.features.definitions import FeatureServiceDef, FeatureViewDef, last
from everloop.features.expressions import col
from everloop.features.online import OnlineView, advance, push, scope_of
from everloop.features.stores.places import open_place, place_of
from everloop.features.transforms.definitions import transform_of
from everloop.serving.graph.nodes import Lookup, Sequence, Switch, Transform, node_of
from everloop.serving.graph.planning import Plan, visit, without_code
from everloop.serving.rollout.entries import service_of
from everloop.serving.table import Part, Revision

ENTITIES = 1000
NOW = 1_790_000_000 * SECOND
"""Facts of then, which last: nothing is too old here."""


def made(load__half_last: Any) -> dict[str, Any]:
    """The model's last feature, from what was looked up."""
    return {"f19": load__half_last * 2.0}


def graph_revision(home: Path, plain: Revision, features: Listed[str], value: float) -> Revision:
    """The plain revision's model behind a look-up of half of `value`, which the transform doubles."""
    view = FeatureViewDef("load", "facts", "place", [last("half", ttl="36500d")], event_time="at", key="id")
    version = Version("view", view.name, view.manifest())
    service = FeatureServiceDef("inputs", [view], request=list(features[:-1]))
    scope = scope_of("b", "production")
    store = open_place(place_of(home, "production"))
    facts = [{"id": n, "place": str(n), "at": NOW, "half": value / 2} for n in range(ENTITIES)]
    online = OnlineView.of(scope, version.id, view)
    push(store, online, facts)
    advance(store, online, 2 * NOW)
    store.close()
    transform = transform_of(made, {"load__half_last": "float64"}, {"f19": "float64"})
    graph = Sequence(Lookup("inputs"), Transform(transform), Switch((col("f0") > 1000, "m"), otherwise="m"))
    manifest = node_of(graph)

    def part_of(_role: str) -> Part:
        return plain.workers[""]

    plan = Plan(part_of, home / "transforms", service)
    visit(plan, manifest, set(), set())
    inputs, nullable = plan.logged()
    lookup = service_of("b", "inputs", service.manifest({view.name: version.id}), {version.id: view.manifest()}, scope)
    return Revision(
        f"b3:{2:064x}",
        1,
        100,
        plain.model,
        plain.folder,
        inputs,
        [[name, datatype] for name, datatype in plan.asked.items()],
        {},
        lookup=lookup.lookup,
        nullable=nullable,
        graph=without_code(json.loads(json.dumps(manifest))),
        parts=plan.parts,
    )
