"""What one feature view is: its definition, how far it is filled, where its facts come from, who uses it."""

from collections.abc import Mapping
from typing import Any

from everloop import features
from everloop.catalog import refs, versions
from everloop.catalog.context import Context
from everloop.catalog.governance import annotations
from everloop.catalog.operation import Answer, Command, operation
from everloop.core.clock import Micros
from everloop.core.errors import NotFound
from everloop.core.grants import Target
from everloop.core.snapshot import Snapshot
from everloop.core.version import Version
from everloop.data.catalogue.documents import said_of
from everloop.data.sensitive.tags import tags_of
from everloop.features.definitions import FeatureViewDef, Value, words_of
from everloop.features.operations import online_store, online_view


class ShowView(Command):
    """A view of an environment."""

    view: str
    environment: str = "production"


class FeatureShown(Answer):
    """One feature. Times in microseconds; what does not apply is None or empty."""

    output: str
    """Its column in frames and look-ups: `<view>__<feature>`."""
    text: str
    """What it is, in words: `mean of dep_delay over 3 h`."""
    description: str
    """What the code or a person says that it means."""
    gives: str
    """integer, number or text; integers, numbers or texts for a list."""
    inputs: list[str]
    """The columns that a model reads it by: itself, or one for each place of a list."""
    empty: Value
    """Its value for an entity without facts."""
    tags: list[str]
    """Of what it is made from; its values are null to whoever may not read them."""
    definition: dict[str, Any]
    """As the manifest has it: function, column, window, hop, scale, filter."""


class UsedBy(Answer):
    """Somebody who reads the view, in this environment."""

    kind: str
    """view, service, model or endpoint."""
    name: str
    version: str


class ReadView(Answer):
    """A view that this one reads."""

    name: str
    version: str


class ViewShown(Answer):
    """A feature view of an environment."""

    name: str
    version: str
    number: int
    made_at: Micros
    owner: str
    description: str
    labels: list[str]
    environment: str
    source: str
    source_version: str
    """The data that the environment holds of its source now; empty when there is none."""
    reads: list[ReadView]
    """The views whose features its rows have too."""
    entity: list[str]
    event_time: str
    known_time: str
    slack: Micros
    watermark: Micros | None
    """Up to which known time it is filled online; None: never."""
    lag: Micros | None
    """How far that lies behind now."""
    features: list[FeatureShown]
    used_by: list[UsedBy]


def _view(_ctx: Context, cmd: ShowView) -> Target:
    return Target("view", cmd.view, cmd.environment)


@operation("features.show", needs="read", on=_view, reads=True)
def show(ctx: Context, cmd: ShowView) -> ViewShown:
    """Show a feature view: definition, freshness, source, who uses it."""
    with ctx.read() as tx:
        snapshot = refs.get(tx, ctx.project, refs.env_ref(cmd.environment))
        if snapshot is None:
            raise NotFound(f"there is no environment {cmd.environment!r}", hint="`everloop env list` shows them")
        entries = Snapshot.from_manifest(versions.get(tx, ctx.project, snapshot).manifest).entries
        if f"view/{cmd.view}" not in entries:
            has = sorted(key.partition("/")[2] for key in entries if key.startswith("view/"))
            raise NotFound(
                f"{cmd.environment} has no feature view {cmd.view!r}", hint="it has " + (", ".join(has) or "none")
            )
        row = versions.get(tx, ctx.project, entries[f"view/{cmd.view}"])
        manifests = versions.manifests(tx, ctx.project, set(entries.values()))
        head = refs.get(tx, ctx.project, refs.head_ref(cmd.environment, row.manifest["source"]))
        said = said_of(annotations.of(tx, ctx.project, "view", cmd.view))
        tags = tags_of(tx, ctx.project, row)
    view = FeatureViewDef.from_manifest(cmd.view, row.manifest)
    online = online_view(ctx, cmd.environment, row.id, view)
    reached = features.online.watermark(online_store(ctx, cmd.environment), online)
    return ViewShown(
        name=cmd.view,
        version=row.id,
        number=row.number,
        made_at=row.at,
        owner=said.owner,
        description=said.description,
        labels=list(said.labels),
        environment=cmd.environment,
        source=view.source,
        source_version=head or "",
        reads=[ReadView(name=read.view.name, version=read.space.rpartition("/")[2]) for read in online.reads],
        entity=list(view.entity),
        event_time=view.event_time,
        known_time=view.known_time or view.event_time,
        slack=view.slack,
        watermark=reached,
        lag=None if reached is None else max(0, ctx.now() - reached),
        features=[
            FeatureShown(
                output=f"{view.name}__{feature.name}",
                text=words_of(feature),
                description=said.columns.get(feature.name, ""),
                gives=feature.output,
                inputs=[f"{view.name}__{column}" for column in feature.inputs],
                empty=feature.empty,
                tags=sorted(tags.get(feature.name, ())),
                definition=feature.manifest(),
            )
            for feature in view.features
        ],
        used_by=_used_by(cmd.view, row.id, entries, manifests),
    )


def _used_by(
    view: str, identity: str, entries: Mapping[str, str], manifests: Mapping[str, Mapping[str, Any]]
) -> list[UsedBy]:
    """Views that read this version of the view, services that pin it, models trained on them, endpoints that ask."""
    above = {key: i for key, i in entries.items() if key.startswith("view/") and _reads(manifests[i], view, identity)}
    services = {
        key.partition("/")[2]: i
        for key, i in entries.items()
        if key.startswith("service/") and manifests[i].get("views", {}).get(view) == identity
    }
    found = [UsedBy(kind="view", name=key.partition("/")[2], version=i) for key, i in above.items()]
    found += [UsedBy(kind="service", name=name, version=i) for name, i in services.items()]
    for key, i in entries.items():
        kind, _, name = key.partition("/")
        manifest = manifests[i]
        reads = kind == "model" and manifest.get("service") in services.values()
        asks = kind == "endpoint" and _looks_up(manifest.get("graph", {})) & services.keys()
        if reads or asks:
            found.append(UsedBy(kind=kind, name=name, version=i))
    return found


def _reads(manifest: Mapping[str, Any], view: str, identity: str) -> bool:
    held = (read for read in manifest.get("reads", ()) if read["name"] == view)
    return any(Version("view", view, {k: v for k, v in read.items() if k != "name"}).id == identity for read in held)


def _looks_up(graph: Mapping[str, Any]) -> set[str]:
    nodes = graph.get("nodes", [graph])
    return {node["service"] for node in nodes if node.get("node") == "lookup"}
