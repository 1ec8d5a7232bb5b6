"""Whoever is killed, whenever: what was acknowledged is there, nothing is there twice, and everything verifies."""

import json
import sys
from collections import Counter

import pytest
from chaos_story import Chaos, live_shop

from everloop.catalog import chain, refs, steps, tasks
from everloop.catalog.governance import changes
from everloop.catalog.operating import predictions
from everloop.catalog.tracking import experiments, querying, runs
from everloop.catalog.verify import verify
from everloop.core.errors import EverloopError


@pytest.mark.parametrize(
    ("kills", "pause"),
    [pytest.param(3, (1.0, 4.0), id="3"), pytest.param(50, (0.2, 4.0), id="50", marks=pytest.mark.slow)],
)
@pytest.mark.timeout(900)
def test_what_was_acknowledged_survives(tmp_path, kills, pause):
    shop = live_shop(tmp_path / "shop")
    try:
        told = Chaos(shop, seed=2013 + kills, kills=kills, pause=pause).rage()
        sys.stderr.write(json.dumps({"kills": told.kills, "replies": told.replies, "did": told.did}) + "\n")
        assert told.troubles == []
        assert told.kills.total() == kills
        assert told.replies["200"] > 20
        _everything_verifies(shop)
        _predictions_are_all_there(shop, told)
        _runs_are_neither_lost_nor_doubled(shop, told)
        _tasks_had_one_effect(shop)
        assert shop.down() == 0
    finally:
        shop.close()


def _everything_verifies(shop):
    assert shop.person("ada").call("system.verify").findings == []
    workspace = shop.workspace
    chain.seal(workspace.catalog, workspace.clock)
    assert verify(workspace.catalog, workspace.store, key=workspace.key.public) == []
    with workspace.catalog.read() as tx:
        assert chain.verify_chain(tx, "shop", key=workspace.key.public) is None


def _predictions_are_all_there(shop, told):
    with shop.workspace.catalog.read() as tx:
        missing = []
        for identity in told.predictions:
            try:
                predictions.get(tx, "shop", identity)
            except EverloopError as error:
                missing.append((identity, str(error)))
        labels = predictions.labels_of(tx, "shop", list(told.labels))
    assert missing == []
    assert {identity: label.value for identity, label in labels.items()} == told.labels


def _runs_are_neither_lost_nor_doubled(shop, told):
    with shop.workspace.catalog.read() as tx:
        wanted = {done.run for built in told.builds for done in built.results.steps if done.run}
        assert {runs.find(tx, "shop", run).status for run in wanted} <= {"FINISHED"}
        experiment = experiments.by_name(tx, "shop", "comeback").id
        found = querying.search(tx, "shop", [experiment], limit=1000).rows
        assert Counter(run.status for run in found)["RUNNING"] == 0, [(r.id, r.tags) for r in found]
        finished = Counter(run.tags["everloop.recipe"] for run in found if run.status == "FINISHED")
        assert set(finished.values()) <= {1}
        for recipe in finished:
            row = steps.lookup(tx, "shop", recipe)
            assert row is not None
            assert row.output is not None


def _tasks_had_one_effect(shop):
    with shop.workspace.catalog.read() as tx:
        every = tasks.list(tx, "shop", limit=10_000)
        # a step whose tracking server died under it may fail, and says so; nothing else may
        assert {t.error for t in every if t.state == "failed" and "StepFailed" not in t.error} == set()
        sources = Counter(c.source for c in changes.find(tx, "shop", limit=1000) if c.source.startswith("sandbox/auto"))
        assert set(sources.values()) <= {1}
        for change in changes.find(tx, "shop", state="merged", limit=1000):
            assert change.merge_snapshot in {
                move.new for move in refs.log(tx, "shop", refs.env_ref("production"), limit=1000)
            }
