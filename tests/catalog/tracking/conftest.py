"""A tracked project on each database."""

import pytest

from everloop.catalog.tracking import experiments, points, runs
from everloop.catalog.tracking.rows import Point

PROJECT = "flights"


class Tracked:
    """Runs of one project in an open write transaction, with short verbs for tests."""

    def __init__(self, tx):
        self.tx = tx
        self.at = 1_000_000

    def run(self, *, experiment="0", params=None, tags=None, metrics=None, name="", project=PROJECT):
        experiments.ensure_default(self.tx, project, 0)
        self.at += 1_000_000
        made = runs.create(self.tx, project, experiment=experiment, actor="ada", at=self.at, name=name, tags=tags or {})
        runs.log_params(self.tx, made, list((params or {}).items()))
        points.log(
            self.tx, project, made.number, [Point(key, value, self.at) for key, value in (metrics or {}).items()]
        )
        return made


@pytest.fixture
def tracked(catalog):
    with catalog.write() as tx:
        yield Tracked(tx)
