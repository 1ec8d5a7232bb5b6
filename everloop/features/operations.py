"""Operations on features: push facts, fill from datasets, look values up, list what an environment serves."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import Field

from everloop import data, features
from everloop.catalog import facts, refs, versions
from everloop.catalog.context import Context
from everloop.catalog.operation import Answer, Command, operation
from everloop.core.clock import Micros, iso
from everloop.core.errors import InvalidInput, NotFound
from everloop.core.grants import Target
from everloop.core.ports import OnlineStore
from everloop.data.heads import head
from everloop.data.sensitive.masking import hidden_of
from everloop.features.definitions import FeatureServiceDef, FeatureViewDef, Value, words_of
from everloop.features.states.keys import whole


class Push(Command):
    """Facts of a dataset, for every view over it in an environment. Times: microseconds or ISO 8601."""

    environment: str
    dataset: str
    rows: list[dict[str, Any]]
    up_to: Micros | None = None
    """Everything that was known before this time is pushed with these rows; watermarks of filled views move there."""


class Materialize(Command):
    """Fill the views of an environment from its data heads; no names means all."""

    environment: str
    views: tuple[str, ...] = ()
    up_to: Micros | None = None
    """Facts known before this time; now when left out."""


class ViewFilled(Answer):
    """What happened to one view."""

    view: str
    version: str
    facts: int
    new: int


class Filled(Answer):
    """What a push or a materialisation did."""

    views: list[ViewFilled]


class Get(Command):
    """Values of a service, or of one view, for entities; without `at`, as of now."""

    environment: str
    service: str = ""
    view: str = ""
    entities: list[dict[str, str | int | None]]
    at: Micros | None = None


class Values(Answer):
    """One mapping `{<view>__<feature>: value}` for each entity, and how far each view has been filled."""

    values: list[dict[str, Value]]
    watermarks: dict[str, Micros | None]
    at: Micros
    masked: tuple[str, ...] = ()
    """Features whose values the asker may not see; they are null here."""
    unknown: dict[str, int] = Field(default_factory=dict)
    """Views that hold no fact of some of the entities, and of how many; these have the values over nothing."""


class ListViews(Command):
    """Which environment."""

    environment: str


class ViewRow(Answer):
    """A feature view in an environment."""

    name: str
    version: str
    source: str
    entity: list[str]
    features: list[str]
    texts: list[str]
    """What each of them is, in words."""
    watermark: Micros | None
    """Up to which known time it is filled online; None: never."""


class ViewList(Answer):
    """The views of an environment, by name."""

    views: list[ViewRow]


def online_store(ctx: Context, environment: str) -> OnlineStore:
    """The store plugged in as the port `online`, else the one that the binding `online_store` names, else LMDB."""
    plugged: OnlineStore | None = ctx.ports.get("online")
    return features.places.store_of(ctx.home, environment) if plugged is None else plugged


def online_view(ctx: Context, environment: str, identity: str, view: FeatureViewDef) -> "features.online.OnlineView":
    """A view version as it is served in an environment."""
    return features.online.OnlineView.of(features.online.scope_of(ctx.project, environment), identity, view)


def pinned(ctx: Context, environment: str, kind: str) -> dict[str, tuple[str, Mapping[str, Any]]]:
    """Name -> (id, manifest) of the versions of a kind in the environment's snapshot. Raises `NotFound`."""
    with ctx.read() as tx:
        snapshot = refs.get(tx, ctx.project, refs.env_ref(environment))
        if snapshot is None:
            raise NotFound(f"there is no environment {environment!r}", hint="`everloop env list` shows them")
        entries: Mapping[str, str] = versions.get(tx, ctx.project, snapshot).manifest["entries"]
        wanted = {key.removeprefix(f"{kind}/"): i for key, i in entries.items() if key.startswith(f"{kind}/")}
        manifests = versions.manifests(tx, ctx.project, set(wanted.values()))
    return {name: (identity, manifests[identity]) for name, identity in sorted(wanted.items())}


def views_in(ctx: Context, environment: str) -> dict[str, tuple[str, FeatureViewDef]]:
    """Name -> (version id, definition) of the feature views of an environment."""
    found = pinned(ctx, environment, "view")
    return {name: (identity, FeatureViewDef.from_manifest(name, m)) for name, (identity, m) in found.items()}


def service_in(ctx: Context, environment: str, name: str) -> "features.online.OnlineService":
    """A feature service of an environment, ready to look up. Raises `NotFound`."""
    services = pinned(ctx, environment, "service")
    if name not in services:
        raise NotFound(
            f"{environment} has no feature service {name!r}", hint="it has " + (", ".join(services) or "none")
        )
    _, manifest = services[name]
    with ctx.read() as tx:
        manifests = versions.manifests(tx, ctx.project, set(manifest["views"].values()))
    definition = FeatureServiceDef.from_manifest(name, manifest, manifests)
    scope = features.online.scope_of(ctx.project, environment)
    return features.online.OnlineService.of(scope, definition, manifest["views"])


def _dataset(_ctx: Context, cmd: Push) -> Target:
    return Target("dataset", cmd.dataset, cmd.environment)


def _views(_ctx: Context, cmd: Any) -> Target:
    return Target("view", "*", cmd.environment)


def _service(_ctx: Context, cmd: Get) -> Target:
    return Target("view", cmd.view, cmd.environment) if cmd.view else Target("service", cmd.service, cmd.environment)


def _view_in(ctx: Context, environment: str, name: str) -> "features.online.OnlineView":
    views = views_in(ctx, environment)
    if name not in views:
        raise NotFound(f"{environment} has no feature view {name!r}", hint="it has " + (", ".join(views) or "none"))
    return online_view(ctx, environment, *views[name])


@operation("features.push", needs="data.capture", on=_dataset)
def push_rows(ctx: Context, cmd: Push) -> Filled:
    """Push facts of a dataset to the environment's feature views, as they become known.

    Entities are taken in the type that the environment's data has: under another nothing would be found, silently.
    """
    mine = {n: (i, v) for n, (i, v) in views_in(ctx, cmd.environment).items() if v.source == cmd.dataset}
    if not mine:
        raise NotFound(
            f"no feature view of {cmd.environment} reads {cmd.dataset!r}", hint="features.list shows the views"
        )
    if cmd.up_to is not None and cmd.up_to > ctx.now():
        raise InvalidInput("up_to lies in the future", hint="it says what has been pushed, not what will be")
    online = [online_view(ctx, cmd.environment, identity, view) for identity, view in mine.values()]
    store = online_store(ctx, cmd.environment)
    kinds = _key_kinds(ctx, cmd.environment, (view for _, view in mine.values()))
    rows = [{**row, **{n: _key_of(n, row[n], kind) for n, kind in kinds.items() if n in row}} for row in cmd.rows]
    done = features.reading.push_all(store, online, rows, now=ctx.now())
    if cmd.up_to is not None:
        features.reading.reached(store, online, cmd.up_to)
    filled = [ViewFilled(view=n, version=i, facts=done[n].facts, new=done[n].new) for n, (i, _) in mine.items()]
    return Filled(views=filled)


@operation("features.materialize", needs="data.capture", on=_views)
def fill_views(ctx: Context, cmd: Materialize) -> Filled:
    """Fill feature views from the environment's newest data, so that they can be served."""
    every = views_in(ctx, cmd.environment)
    unknown = [name for name in cmd.views if name not in every]
    if unknown:
        raise NotFound(
            f"{cmd.environment} has no feature view {unknown[0]!r}", hint="it has " + (", ".join(every) or "none")
        )
    up_to = ctx.now() if cmd.up_to is None else cmd.up_to
    if up_to > ctx.now():
        raise InvalidInput("up_to lies in the future", hint="facts are pushed when they are known")
    filled = [_fill(ctx, cmd.environment, every[name], up_to) for name in cmd.views or every]
    with ctx.write() as tx:
        payload = {"environment": cmd.environment, "up_to": up_to, "views": {f.view: f.version for f in filled}}
        facts.append(tx, ctx.project, ctx.fact("features.materialized", f"environment/{cmd.environment}", payload))
    return Filled(views=filled)


def _fill(ctx: Context, environment: str, pin: tuple[str, FeatureViewDef], up_to: Micros) -> ViewFilled:
    identity, view = pin
    paths = {}
    for name in view.datasets:
        version = head(ctx, environment, name)
        if version is None:
            raise NotFound(
                f"{environment} holds no data of {name!r}",
                hint=f"bring it up to date first: everloop refresh --env {environment}",
            )
        paths[name] = data.paths(ctx, version)
    online, store = online_view(ctx, environment, identity, view), online_store(ctx, environment)
    done = features.filling.materialize(store, online, paths[view.source], up_to, others=paths)
    return ViewFilled(view=view.name, version=identity, facts=done.facts, new=done.new)


@operation("features.get", needs="read", on=_service, reads=True)
def get_values(ctx: Context, cmd: Get) -> Values:
    """Look up the features of entities, as known at a time."""
    if bool(cmd.service) == bool(cmd.view):
        raise InvalidInput("give a service or a view", hint="one of them")
    if cmd.view:
        service = features.online.OnlineService.alone(_view_in(ctx, cmd.environment, cmd.view))
    else:
        service = service_in(ctx, cmd.environment, cmd.service)
    store, at = online_store(ctx, cmd.environment), ctx.now() if cmd.at is None else cmd.at
    try:
        iso(at)
    except (OverflowError, ValueError):
        raise InvalidInput(f"at {at} is no time of the years 1 to 9999", hint="microseconds since 1970 UTC") from None
    entities = _as_kept(ctx, cmd.environment, service.service, cmd.entities)
    found, reached, unknown = features.online.find(store, service, entities, at)
    kind = "view" if cmd.view else "service"
    identity, _ = pinned(ctx, cmd.environment, kind)[cmd.view or cmd.service]
    with ctx.read() as tx:
        row = versions.get(tx, ctx.project, identity)
    hidden = hidden_of(ctx, row, cmd.environment)
    values = [{name: None if name in hidden else value for name, value in one.items()} for one in found]
    marks = {view.view.name: at for view, at in zip(service.views, reached, strict=True)}
    shown = sorted(hidden.intersection(*values[:1])) if values else []
    return Values(values=values, watermarks=marks, at=at, masked=tuple(shown), unknown=dict(unknown))


def _as_kept(
    ctx: Context, environment: str, service: FeatureServiceDef, entities: Sequence[Mapping[str, str | int | None]]
) -> list[dict[str, str | int | None]]:
    """Entities in the types of the environment's data: under a key of another type nothing would be found, silently.

    A whole number may be written as text. Raises `InvalidInput` for a name or a type that cannot be meant.
    """
    kinds = _key_kinds(ctx, environment, service.views)
    for row in entities:
        unknown = row.keys() - set(service.entities)
        if unknown:
            raise InvalidInput(
                f"{service.name} has no entity {min(unknown)!r}", hint="it is asked by " + ", ".join(service.entities)
            )
    return [{name: _key_of(name, value, kinds.get(name)) for name, value in row.items()} for row in entities]


def _key_kinds(ctx: Context, environment: str, views: Iterable[FeatureViewDef]) -> dict[str, tuple[str, bool]]:
    """Entity -> the dataset that has it, and whether it is a whole number there; what has no data yet is left out."""
    kinds: dict[str, tuple[str, bool]] = {}
    for view in views:
        version = head(ctx, environment, view.source)
        with ctx.read() as tx:
            manifest = versions.get(tx, ctx.project, version).manifest if version else {}
        fields = dict(manifest.get("schema_fields", ()))
        kinds |= {name: (view.source, "int" in fields[name]) for name in view.entity if name in fields}
    return kinds


def _key_of(name: str, value: str | int | None, kind: tuple[str, bool] | None) -> str | int | None:
    if kind is None or value is None:
        return value
    source, number = kind
    if not number and not isinstance(value, str):
        raise InvalidInput(f"{name} is text in {source}, not the number {value}", hint=f'write it as "{value}"')
    if number and isinstance(value, str):
        meant = whole(value)
        if meant is None:
            raise InvalidInput(f"{name} is a whole number in {source}, not {value!r}")
        return meant
    return value


@operation("features.list", needs="read", on=_views, reads=True)
def list_views(ctx: Context, cmd: ListViews) -> ViewList:
    """List the feature views of an environment and how far each has been filled."""
    views = views_in(ctx, cmd.environment)
    online = [online_view(ctx, cmd.environment, identity, view) for identity, view in views.values()]
    reached = features.online.watermarks(online_store(ctx, cmd.environment), online)
    return ViewList(
        views=[
            ViewRow(
                name=name,
                version=identity,
                source=view.source,
                entity=list(view.entity),
                features=list(view.outputs),
                texts=[words_of(feature) for feature in view.features],
                watermark=at,
            )
            for (name, (identity, view)), at in zip(views.items(), reached, strict=True)
        ]
    )
