"""A workspace to import into, and what an import made of it."""

import math
from contextlib import closing
from copy import copy
from dataclasses import replace

import pytest

from everloop.catalog import chain, facts
from everloop.catalog.context import Actor, Context
from everloop.catalog.engine import Catalog
from everloop.catalog.tracking import artifacts, experiments, points, querying
from everloop.core.clock import SystemClock
from everloop.models.importing.copying import Plan
from everloop.models.importing.importing import import_from
from everloop.models.importing.opening import Origin, open_source
from everloop.models.importing.targets import Here
from everloop.store import DirectoryStore
from everloop.workspace.operations import load_operations


class House:
    """A workspace's catalog and store, with the few questions that tests ask."""

    def __init__(self, folder):
        load_operations()
        self.catalog = Catalog.open(f"sqlite:///{folder / 'catalog.sqlite'}")
        store = DirectoryStore(folder / "objects")
        actor = Actor.of("ada", "contributor")
        self.ctx = Context(actor, "default", SystemClock(), self.catalog, store, home=folder)

    def bring(self, kind, place, *, plan=None, target=None, **origin):
        """Import, and answer the report as JSON."""
        with closing(open_source(Origin(kind, str(place), **origin))) as source:
            return import_from(source, target or Here(self.ctx), plan or Plan(), lambda *_: None).json()

    def beside(self, project):
        """The same house, in another project."""
        other = copy(self)
        other.ctx = replace(self.ctx, project=project)
        return other

    def runs(self):
        """Every run by its name."""
        with self.ctx.read() as tx:
            every = runs_of(tx, self.ctx.project)
        return {run.name: run for run in every}

    def series(self, run, key):
        """(step, value) of a metric, in the order of steps; NaN as text."""
        with self.ctx.read() as tx:
            found = points.history(tx, self.ctx.project, run.id, key).rows
        return sorted((point.step, "NaN" if math.isnan(point.value) else point.value) for point in found)

    def files(self, owner):
        """Content of each file of a run or model, by path."""
        with self.ctx.read() as tx:
            found = artifacts.tree(tx, self.ctx.project, owner)
        return {one.path: self.ctx.store.get(one.object) for one in found}

    def everything(self):
        """All that was imported, as one value: a second import must not change it."""
        with self.ctx.read() as tx:
            found = runs_of(tx, self.ctx.project)
            # the same may come another way: a server, then its database
            every = [replace(run, number=0, tags={**run.tags, "everloop.import.source": ""}) for run in found]
            known = [
                points.history(tx, self.ctx.project, run.id, point.key).rows for run in every for point in run.metrics
            ]
            held = [artifacts.tree(tx, self.ctx.project, run.id) for run in found]
        return every, known, held

    def facts(self, *kinds):
        """Facts of these kinds, the oldest first."""
        chain.seal(self.catalog, self.ctx.clock)
        with self.ctx.read() as tx:
            return facts.tail(tx, self.ctx.project, kinds=kinds, limit=100)[::-1]


def runs_of(tx, project):
    return querying.search(tx, project, experiments.names(tx, project), limit=1000).rows


@pytest.fixture
def house(tmp_path):
    folder = tmp_path / "house"
    folder.mkdir()
    made = House(folder)
    yield made
    made.catalog.close()


@pytest.fixture
def reasons():
    """What a report says was not brought over: {(kind, reason): count}."""
    return lambda report: {(one["kind"], one["reason"]): one["count"] for one in report["unmapped"]}
