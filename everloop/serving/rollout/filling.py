"""Before a revision serves, the views that it looks up must be filled; which services a gateway may look up."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from everloop.catalog import refs, tasks, versions
from everloop.catalog.context import Actor, Context
from everloop.catalog.engine import Tx
from everloop.core.clock import MINUTE, SECOND, Micros
from everloop.core.snapshot import Snapshot
from everloop.data.sensitive.masking import hidden
from everloop.data.sensitive.tags import Tagging
from everloop.features.definitions import FeatureServiceDef
from everloop.features.online import OnlineService, scope_of, watermarks
from everloop.features.operations import online_store
from everloop.serving.rollout.entries import service_of
from everloop.serving.table import Lookup, Revision, Service

TASK = "features.fill"
_AGAIN: Micros = MINUTE
_LOOK: Micros = 5 * SECOND


@dataclass(slots=True)
class Filling:
    """What one controller remembers: which fillings it asked for, and the services of each project."""

    asked: dict[tuple[str, str, tuple[str, ...]], Micros] = field(default_factory=dict)
    looked: dict[tuple[str, str], tuple[Micros, str, list[Service]]] = field(default_factory=dict)

    def waits(self, ctx: Context, environment: str, lookup: Lookup | None) -> str:
        """What a revision with this look-up waits for, empty for nothing; has a worker fill it, once a minute."""
        if lookup is None or lookup.stale != "fail":
            return ""
        service = OnlineService.from_manifest(lookup.scope, lookup.name, lookup.service, lookup.views)
        reached = watermarks(online_store(ctx, environment), service.views)
        missing = tuple(v.view.name for v, at in zip(service.views, reached, strict=True) if at is None)
        if not missing:
            return ""
        key, wall = (ctx.project, environment, missing), ctx.wall()
        if wall - self.asked.get(key, -_AGAIN) >= _AGAIN:
            self.asked[key] = wall
            payload = {"environment": environment, "views": list(missing)}
            with ctx.write() as tx:
                tasks.enqueue(tx, ctx.project, TASK, payload, actor=ctx.actor.name, now=wall, dedupe=environment)
        return f"it waits until {', '.join(missing)} {'is' if len(missing) == 1 else 'are'} filled online"

    def services(self, ctx: Context, environment: str) -> list[Service]:
        """Every feature service of the environment; what carries a tag is masked for whoever asks a gateway."""
        with ctx.read() as tx:
            snapshot = refs.get(tx, ctx.project, refs.env_ref(environment)) or ""
        looked, before, found = self.looked.get((ctx.project, environment), (0, "", []))
        wall = ctx.wall()
        if before != snapshot or wall - looked >= _LOOK:  # tags may be given and taken without a new snapshot
            found = _services(ctx, environment, snapshot) if snapshot else []
            self.looked[ctx.project, environment] = (wall, snapshot, found)
        return found


def with_key_types(ctx: Context, environment: str, entry: Revision) -> Revision:
    """The entry with whole numbers as such among the entity keys: a key of another type would find nothing, silently.

    The type is that of the column in the data that the environment holds; without data a key is text.
    """
    if entry.lookup is None:
        return entry
    with ctx.read() as tx:
        types = _key_types(tx, ctx.project, environment, entry.lookup.views)
    caller = [[name, types.get(name, kind) if kind == "BYTES" else kind] for name, kind in entry.caller]
    return msgspec.structs.replace(entry, caller=caller, lookup=msgspec.structs.replace(entry.lookup, types=types))


def _key_types(tx: Tx, project: str, environment: str, views: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """`INT64` or `BYTES` of the entity keys of views, as far as the environment holds their data."""
    types: dict[str, str] = {}
    for view in views.values():
        head = refs.get(tx, project, refs.head_ref(environment, view["source"]))
        fields = versions.get(tx, project, head).manifest.get("schema_fields", []) if head else []
        types |= {name: "INT64" if "int" in kind else "BYTES" for name, kind in fields if name in view["entity"]}
    return types


def _services(ctx: Context, environment: str, snapshot: str) -> list[Service]:
    with ctx.read() as tx:
        entries = Snapshot.from_manifest(versions.get(tx, ctx.project, snapshot).manifest).entries
        rows = [versions.get(tx, ctx.project, i) for key, i in sorted(entries.items()) if key.startswith("service/")]
        views = {identity for row in rows for identity in row.manifest["views"].values()}
        manifests: Mapping[str, Mapping[str, object]] = versions.manifests(tx, ctx.project, views)
        tagging = Tagging(tx, ctx.project)
        tags = [tagging.columns(row) for row in rows]
    anybody = ctx.as_actor(Actor.of("gateway", "viewer", kind="service"))
    made = []
    for row, carried in zip(rows, tags, strict=True):
        service = service_of(ctx.project, row.name, row.manifest, manifests, scope_of(ctx.project, environment))
        masked = hidden(anybody, row.kind, row.name, environment, carried)
        with ctx.read() as tx:
            types = _key_types(tx, ctx.project, environment, service.lookup.views)
        lookup = msgspec.structs.replace(service.lookup, types=types)
        lists = FeatureServiceDef.from_manifest(row.name, row.manifest, manifests).lists
        spread = {column for columns in lists.values() for column in columns}  # look-ups answer lists as lists
        made.append(msgspec.structs.replace(service, lookup=lookup, masked=sorted(masked - spread)))
    return made
