"""A small project with people, to propose, review and merge in."""

import itertools

import pytest

from everloop.catalog import versions
from everloop.catalog.context import Actor
from everloop.catalog.operation import invoke
from everloop.changes import environments, merging, proposing, provenance, reviewing
from everloop.checks.record import record_finding
from everloop.checks.request import Finding
from everloop.core.clock import ReplayClock
from everloop.core.version import Version

ROLES = {
    "ada": ("contributor",),
    "bob": ("approver", "deployer"),
    "cyd": ("contributor", "approver", "deployer"),
    "eve": ("admin",),
    "sam": ("approver", "steward"),
    "lone": ("contributor", "approver", "deployer"),
}


class World:
    """Operations by name of the person, through `invoke`, so with their permissions."""

    def __init__(self, ctx, mode):
        self.root = ctx
        self.mode = mode
        self.count = itertools.count(1)
        environments.create_workspace_environments(ctx, mode)

    def by(self, name, kind="person"):
        return self.root.as_actor(Actor.of(name, *ROLES.get(name, ("contributor",)), kind=kind))

    def version(self, key, **manifest):
        kind, name = key.split("/")
        made = Version(kind, name, manifest or {"text": str(next(self.count))})
        with self.root.catalog.write() as tx:
            versions.put(tx, self.root.project, made, actor=manifest.get("by", "nobody"), at=self.root.now())
        return made.id

    def sandbox(self, person, topic="work", base="production"):
        name = f"sandbox/{person}/{topic}{next(self.count)}"
        invoke(self.by(person), environments.create_sandbox, environments.CreateSandbox(environment=name, base=base))
        return name

    def commit(self, person, sandbox, **entries):
        keys = {key.replace("__", "/"): value for key, value in entries.items()}
        return invoke(self.by(person), environments.commit, environments.Commit(environment=sandbox, entries=keys))

    def propose(self, person, source, target="production", **more):
        cmd = proposing.Propose(source=source, target=target, title=f"from {source}", enqueue=False, **more)
        return invoke(self.by(person), proposing.propose, cmd)

    def proposal(self, person="ada", target="production", **entries):
        """A change of one new source definition, or of the given keys, from a sandbox of the person."""
        sandbox = self.sandbox(person)
        self.commit(person, sandbox, **(entries or {"source__flights": self.version("source/flights")}))
        return self.propose(person, sandbox, target)

    def approve(self, person, number, kind="person", **more):
        return invoke(self.by(person, kind), reviewing.approve, reviewing.Approve(number=number, **more))

    def merge(self, person, number):
        return invoke(self.by(person), merging.merge, proposing.Numbered(number=number))

    def show(self, number):
        return reviewing.show(self.root, proposing.Numbered(number=number))

    def close(self, person, number):
        return invoke(self.by(person), proposing.close, proposing.Numbered(number=number))

    def update(self, person, number):
        return invoke(self.by(person), proposing.update, proposing.Numbered(number=number))

    def revert(self, person, number):
        return invoke(self.by(person), proposing.revert, proposing.Revert(number=number, enqueue=False))

    def rollback(self, person, environment="production", to="previous"):
        return invoke(self.by(person), provenance.rollback, provenance.Rollback(environment=environment, to=to))

    def entries(self, environment="production"):
        return environments.show(self.root, environments.Named(environment=environment)).entries

    @property
    def worker(self):
        """What a task works with."""
        return self.root.as_actor(Actor.of("everloop", "worker", kind="service"))

    def run_checks(self, number, state="passed", **by_name):
        """Pretend that every pending check ran with this outcome (or the one given for its name)."""
        for request in reviewing.pending_checks(self.root, number):
            outcome = by_name.get(request.name, state)
            record_finding(self.worker, request, Finding(outcome, f"{request.name} {outcome}", {"rows": "10"}))

    def all_through(self, person, change, approver="bob"):
        """Approve and merge."""
        self.run_checks(change.number)
        self.approve(approver, change.number)
        return self.merge(approver, change.number)


@pytest.fixture(scope="session")
def world_class():
    return World


@pytest.fixture
def make_world(context_of):
    def make(catalog, mode="team", project="flights", **more):
        return World(context_of(catalog, project=project, clock=ReplayClock(1_000_000), **more), mode)

    return make


@pytest.fixture
def team(make_world, sqlite_catalog):
    return make_world(sqlite_catalog, "team")


@pytest.fixture
def solo(make_world, sqlite_catalog):
    return make_world(sqlite_catalog, "solo")


@pytest.fixture(params=["solo", "team"])
def each_mode(request, make_world, sqlite_catalog):
    return make_world(sqlite_catalog, request.param)
