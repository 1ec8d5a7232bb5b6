"""The rollout controller: makes what an environment wants come true, and goes back when it turns out bad.

`reconcile` is called again and again (twice a second is fine). Each call reads the wanted snapshot and what the
gateways observed, takes one step of each endpoint's state machine, records it with its facts in one
transaction, and then writes the routing table if it differs. A crash between the two is repaired by the next
call, for the table follows from the recorded state alone.

A snapshot is followed only when a merge, a roll-back or genesis put the pointer there (`rollout.trust`). Otherwise what
serves goes on serving, guarded as ever, and the endpoints say why they are blocked.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from everloop.catalog import facts, refs, versions
from everloop.catalog.context import Context
from everloop.catalog.operating import rollouts
from everloop.catalog.operating.callers import callers, explaining
from everloop.core.clock import Micros
from everloop.core.errors import EverloopError
from everloop.core.ports import Blobs
from everloop.core.signing import SigningKey
from everloop.core.snapshot import Snapshot
from everloop.core.version import Version
from everloop.features.online import scope_of
from everloop.models import predictor
from everloop.serving import revision as revisions
from everloop.serving import table as tables
from everloop.serving.rollout import entries as revision_entries
from everloop.serving.rollout.evidence import Evidence
from everloop.serving.rollout.experiments import routed, split_of
from everloop.serving.rollout.filling import Filling, with_key_types
from everloop.serving.rollout.observe import Observer
from everloop.serving.rollout.state import Event, Observed, Plan, Rollout, step
from everloop.serving.rollout.trust import refusal
from everloop.serving.rollout.trying import Trying
from everloop.serving.table import LOADER, Revision, Route, Service, Table

Materialize = Callable[[Mapping[str, Any], Blobs, Path], Any]
"""(model manifest, object store, folder): makes the folder of the model's files, all or nothing."""

Tokens = tuple[dict[str, list[str]], list[str]]
"""Digests of tokens that may ask, each with its projects; those that may also ask for explanations."""


class Controller:
    """Keeps one workspace's routing table; one process at a time runs it."""

    def __init__(
        self,
        home: Path,
        key: SigningKey,
        *,
        materialize: Materialize = predictor.materialize,
        loader: str = LOADER,
        replay: bool = False,
    ) -> None:
        """Write `home/serving/routes.json`, signed with `key`."""
        self._home, self._key, self._materialize = home, key, materialize
        self._loader, self._replay = loader, replay
        self._path = home / "serving" / "routes.json"
        self._observer = Observer()
        self._entries: dict[tuple[str, str, str], Revision] = {}
        self._table: Table | None = None
        self._filling = Filling()
        self._evidence = Evidence()
        self._trying = Trying(self._evidence)
        self._unfit: set[str] = set()
        self._arms: dict[tuple[str, str, tuple[str, ...]], dict[str, str]] = {}
        self._trusted: set[tuple[str, str, str]] = set()
        self._refused: dict[tuple[str, str], str] = {}

    def reconcile(
        self,
        contexts: Iterable[Context],
        environment: str = "production",
    ) -> list[Event]:
        """One step for every endpoint of `environment` in each context's project; returns what happened."""
        tokens: Tokens = ({}, [])
        wall = 0
        happened: list[Event] = []
        routes: list[Route] = []
        services: list[Service] = []
        for index, ctx in enumerate(contexts):
            if index == 0:
                wall = ctx.wall()
                self._observer.look(self._home, wall)
                with ctx.read() as tx:
                    tokens = callers(tx, at=wall), explaining(tx, at=wall)
            for name, endpoint, state, events in self._steps(ctx, environment):
                happened.extend(events)
                try:
                    route = self._route(ctx, environment, name, endpoint, state)
                except EverloopError:
                    route = self._before(ctx.project, name)  # better than to take the endpoint away
                if route is not None:
                    routes.append(route)
            services.extend(self._filling.services(ctx, environment))
        self._write(environment, routes, tokens, services, wall)
        return happened

    def _steps(self, ctx: Context, environment: str) -> list[tuple[str, Mapping[str, Any], Rollout, tuple[Event, ...]]]:
        with ctx.read() as tx:
            snapshot = refs.get(tx, ctx.project, refs.env_ref(environment))
            held = versions.manifests(tx, ctx.project, [snapshot] if snapshot else [])
            entries = dict(Snapshot.from_manifest(held[snapshot]).entries) if snapshot else {}
            states = {n: Rollout.from_told(t) for n, t in rollouts.of(tx, ctx.project, environment).items()}
            names = [key.partition("/")[2] for key in entries if key.startswith("endpoint/")]
            manifests = _manifests(ctx, tx, entries, names)
        refused = self._refusal(ctx, environment, snapshot) if snapshot else ""
        if refused:
            known = {**dict.fromkeys(names, Rollout()), **states}
            return [self._held(ctx, environment, name, state, refused) for name, state in known.items()]
        for gone in states.keys() - set(names):
            with ctx.write() as tx:
                rollouts.delete(tx, ctx.project, environment, gone)
                facts.append(tx, ctx.project, ctx.fact("rollout.removed", gone, {"environment": environment}))
        done = []
        for name in names:
            before = states.get(name, Rollout())
            state, events = self._step(ctx, environment, name, (entries, manifests), before)
            done.append((name, manifests[entries[f"endpoint/{name}"]], state, events))
        return done

    def _step(
        self,
        ctx: Context,
        environment: str,
        name: str,
        wanted: tuple[Mapping[str, str], revisions.Manifests],
        before: Rollout,
    ) -> tuple[Rollout, tuple[Event, ...]]:
        entries, manifests = wanted
        plan = Plan.from_manifest(manifests[entries[f"endpoint/{name}"]])
        version: Version | None = None
        blocked = ""
        observed = self._observer.observed(f"{ctx.project}.{name}")
        try:
            version = revisions.build(name, entries, manifests)
            if version.id != before.target or before.phase == "starting":
                self._files(ctx, version.manifest, manifests)
                # refuses what could not be routed
                made = self._made(version, 0, manifests, scope_of(ctx.project, environment))
                blocked = self._filling.waits(ctx, environment, made.lookup)
        except EverloopError as error:
            version, blocked = None, error.message
        if version and blocked:
            observed = replace(observed, ready=observed.ready - {version.id})
        observed = self._found(ctx, name, before, plan, observed)
        state, events = step(before, version.id if version else "", plan, observed, ctx.now())
        state = state.with_blocked(blocked)
        if version is not None:
            endpoint = manifests[entries[f"endpoint/{name}"]]
            arms = self._others(ctx, version, entries, manifests)
            state, more = self._with_simpler(state, arms.pop(revisions.SIMPLER, ""), observed)
            events = (*events, *more)
            moved = (state, plan, observed)
            state, more = self._trying.step(ctx, environment, (name, endpoint), arms, moved)
            events = (*events, *more)
        self._save(ctx, environment, name, (before, state), events=events, version=version)
        return state, events

    def _with_simpler(self, state: Rollout, simpler: str, observed: Observed) -> tuple[Rollout, tuple[Event, ...]]:
        """The fallback's own revision beside the target; without it, and said once, where it cannot serve."""
        events = tuple[Event, ...]()
        if simpler in observed.problems and simpler not in self._unfit:
            self._unfit.add(simpler)
            events = (Event("fallback_failed", {"revision": simpler, "reason": observed.problems[simpler]}),)
        wanted = "" if simpler in self._unfit else simpler
        return (state if state.simpler == wanted else replace(state, simpler=wanted)), events

    def _others(
        self, ctx: Context, champion: Version, entries: Mapping[str, str], manifests: revisions.Manifests
    ) -> dict[str, str]:
        """The revisions of an endpoint's other graphs, by name; their versions are kept and their files made once."""
        endpoint = manifests[champion.manifest["endpoint"]]
        key = (ctx.project, champion.id, revisions.needed(entries, endpoint))  # others may change where it does not
        made = self._arms.get(key)
        if made is None:
            names = revisions.others_of(endpoint)
            built = {arm: revisions.build(champion.name, entries, manifests, arm) for arm in names}
            for version in built.values():
                self._files(ctx, version.manifest, manifests)
            with ctx.write() as tx:
                versions.put_many(tx, ctx.project, built.values(), actor=ctx.actor.name, at=ctx.now())
            made = self._arms[key] = {arm: version.id for arm, version in built.items()}
        return dict(made)

    def _found(self, ctx: Context, name: str, before: Rollout, plan: Plan, observed: Observed) -> Observed:
        """What is observed, with what the guardrails on answers found, while the target may still go back."""
        if before.phase not in ("canary", "live") or not before.previous:
            # an experiment goes on to compare with the target
            self._evidence.forget((before.previous,) if before.experiment else (before.target, before.previous))
            return observed
        pair = (before.target, before.previous)
        return replace(observed, findings=self._evidence.findings(ctx, name, pair, plan.guards, before.entered))

    def _held(
        self, ctx: Context, environment: str, name: str, before: Rollout, refused: str
    ) -> tuple[str, Mapping[str, Any], Rollout, tuple[Event, ...]]:
        """A step that follows nothing new: by the definition of the revision that is rolled out already."""
        state, events, endpoint = before, tuple[Event, ...](), dict[str, Any]()
        if before.target:
            with ctx.read() as tx:
                revision = versions.get(tx, ctx.project, before.target).manifest
                endpoint = dict(versions.get(tx, ctx.project, revision["endpoint"]).manifest)
            observed, plan = self._observer.observed(f"{ctx.project}.{name}"), Plan.from_manifest(endpoint)
            state, events = step(before, "", plan, self._found(ctx, name, before, plan, observed), ctx.now())
        state = state.with_blocked(refused)
        self._save(ctx, environment, name, (before, state), events=events)
        return name, endpoint, state, events

    def _refusal(self, ctx: Context, environment: str, snapshot: str) -> str:
        """Why the pointer is not followed; each refusal is a fact once. A merge never unhappens, so trust is kept."""
        if (ctx.project, environment, snapshot) in self._trusted:
            return ""
        refused = refusal(ctx, environment, snapshot, self._key.public)
        if not refused:
            self._trusted.add((ctx.project, environment, snapshot))
        elif self._refused.get((ctx.project, environment)) != snapshot:
            payload = {"snapshot": snapshot, "reason": refused}
            with ctx.write() as tx:
                facts.append(tx, ctx.project, ctx.fact("rollout.refused", environment, payload))
        self._refused[ctx.project, environment] = snapshot if refused else ""
        return refused

    @staticmethod
    def _save(
        ctx: Context,
        environment: str,
        name: str,
        moved: tuple[Rollout, Rollout],
        *,
        events: tuple[Event, ...],
        version: Version | None = None,
    ) -> None:
        before, state = moved
        if state != before:
            with ctx.write() as tx:
                if version is not None:
                    versions.put(tx, ctx.project, version, actor=ctx.actor.name, at=ctx.now())
                rollouts.save(tx, ctx.project, environment, name, state.told(), updated=ctx.now())
                for event in events:
                    payload = {"environment": environment, **event.payload}
                    facts.append(tx, ctx.project, ctx.fact(f"rollout.{event.kind}", name, payload))

    def _files(self, ctx: Context, revision: Mapping[str, Any], manifests: revisions.Manifests) -> None:
        for identity in revision["models"].values():
            folder = self._folder(identity)
            if not folder.is_dir():
                self._materialize(manifests[identity], ctx.store, folder)

    def _folder(self, model: str) -> Path:
        return self._home / "serving" / "models" / model.removeprefix("b3:")

    def _route(
        self, ctx: Context, environment: str, name: str, endpoint: Mapping[str, Any], state: Rollout
    ) -> Route | None:
        if not endpoint:
            return None
        plan = Plan.from_manifest(endpoint)
        weights = routed(state, state.weights(plan))
        if not weights:
            return None
        weights += [(state.simpler, 0)] if state.simpler else []
        return Route(
            project=ctx.project,
            name=name,
            revisions=[
                revision_entries.weighted(
                    self._entry(ctx, environment, identity),
                    weight,
                    plan.shadow_ppm if state.phase == "shadow" and identity == state.target else 0,
                )
                for identity, weight in weights
            ],
            tolerance=float(endpoint["rollout"].get("shadow", {}).get("tolerance", 0.01)),
            fallback="previous" if endpoint["fallback"] else None,
            instead=revision_entries.insteads(endpoint, state.simpler),
            full_disk=endpoint["full_disk"],
            traced_ppm=endpoint.get("traced_ppm", 0),
            deadline_micros=endpoint["deadline_micros"],
            limits=dict(endpoint.get("limits", {})),
            split=split_of(name, endpoint, state),
            **_workers(endpoint),
        )

    def _entry(self, ctx: Context, environment: str, identity: str) -> Revision:
        """The table's entry of a revision; its parts never change, so it is made once."""
        entry = self._entries.get((ctx.project, environment, identity))
        if entry is None:
            with ctx.read() as tx:
                row = versions.get(tx, ctx.project, identity)
                pinned = [*row.manifest["models"].values(), *row.manifest["views"].values()]
                pinned += [row.manifest["service"]] if row.manifest["service"] else []
                pinned += [row.manifest["endpoint"]]
                manifests = versions.manifests(tx, ctx.project, pinned)
            self._files(ctx, row.manifest, manifests)
            scope = scope_of(ctx.project, environment)
            entry = self._made(Version("revision", row.name, row.manifest), row.number, manifests, scope)
        if entry.lookup is not None and len(entry.lookup.types) < len(entry.lookup.keys):  # its data may come later
            entry = with_key_types(ctx, environment, entry)
        self._entries[ctx.project, environment, identity] = entry
        return entry

    def _made(self, version: Version, number: int, manifests: revisions.Manifests, scope: str) -> Revision:
        made = revision_entries.entry_of(version, manifests, folder_of=self._folder, scope=scope, loader=self._loader)
        return revision_entries.numbered(made, number)

    def _before(self, project: str, name: str) -> Route | None:
        routes = self._current().routes
        return next((route for route in routes if (route.project, route.name) == (project, name)), None)

    def _current(self) -> Table:
        """The table that gateways have; an empty one when there is none, or one that nobody may serve."""
        if self._table is None:
            try:
                self._table = tables.load(self._path, self._key.public)
            except EverloopError:
                self._table = Table(0, "", [])
        return self._table

    def _write(
        self,
        environment: str,
        routes: list[Route],
        tokens: Tokens,
        services: list[Service],
        wall: Micros,
    ) -> None:
        current = self._current()
        # from the clock, so that it rises even when the file was lost: gateways refuse a sequence that falls
        sequence = max(current.sequence + 1, wall // 1000)
        table = Table(sequence, environment, routes, self._replay, tokens[0], services, tokens[1])
        if not tables.same(table, current) or not self._path.is_file():
            tables.write(self._path, table, self._key)
            self._table = table


def _workers(endpoint: Mapping[str, Any]) -> dict[str, Any]:
    """What a route says of its workers where its definition does."""
    said = dict(endpoint.get("workers", {}))
    for own in ("inline", "needs", "environment", "compute"):  # its parts say so
        said.pop(own, None)
    return {"max_queue": said.pop("queue"), **said} if said else {}


def _manifests(ctx: Context, tx: Any, entries: Mapping[str, str], names: list[str]) -> revisions.Manifests:
    """Manifests of endpoints, of what their graphs name, and of the views of their services."""
    endpoints = versions.manifests(tx, ctx.project, [entries[f"endpoint/{name}"] for name in names])
    needed = {identity for manifest in endpoints.values() for identity in revisions.needed(entries, manifest)}
    parts = versions.manifests(tx, ctx.project, needed)
    views = {identity for manifest in parts.values() for identity in dict(manifest.get("views") or {}).values()}
    return {**endpoints, **parts, **versions.manifests(tx, ctx.project, views)}
