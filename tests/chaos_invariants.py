"""What holds after processes were killed at random: nothing is lost, nothing is there twice, everything verifies."""

import json
from collections import Counter

from everloop.catalog import chain, refs, steps, tasks
from everloop.catalog.governance import changes
from everloop.catalog.operating import predictions
from everloop.catalog.tracking import experiments, querying, runs
from everloop.catalog.verify import verify
from everloop.core.errors import EverloopError

KILLED = ("ended with status -9", "was ended by SIGKILL", "no attempt is left")
"""What a task says that was killed as often as it was begun again."""


def holds(workspace, project, client, told, experiment):
    """Everything below."""
    everything_verifies(workspace, project, client)
    predictions_are_all_there(workspace, project, told)
    runs_are_neither_lost_nor_doubled(workspace, project, told, experiment)
    tasks_had_one_effect(workspace, project)


def everything_verifies(workspace, project, client):
    """Objects, manifests, edges, refs and the chain of facts: asked of the server, and looked at from outside."""
    assert client.call("system.verify").findings == []
    chain.seal(workspace.catalog, workspace.clock)
    assert verify(workspace.catalog, workspace.store, key=workspace.key.public) == []
    with workspace.catalog.read() as tx:
        assert chain.verify_chain(tx, project, key=workspace.key.public) is None


def predictions_are_all_there(workspace, project, told):
    """Whatever a caller got an id for, and every label that was taken."""
    with workspace.catalog.read() as tx:
        missing = []
        for identity in told.predictions:
            try:
                predictions.get(tx, project, identity)
            except EverloopError as error:
                missing.append((identity, str(error)))
        labels = predictions.labels_of(tx, project, list(told.labels))
    assert missing == []
    assert {identity: label.value for identity, label in labels.items()} == told.labels


def runs_are_neither_lost_nor_doubled(workspace, project, told, experiment):
    """Every build's run is there and finished; a recipe finished once, and has its output; no run hangs open."""
    with workspace.catalog.read() as tx:
        wanted = {done.run for built in told.builds for done in built.results.steps if done.run}
        assert {runs.find(tx, project, run).status for run in wanted} <= {"FINISHED"}
        number = experiments.by_name(tx, project, experiment).id
        found = querying.search(tx, project, [number], limit=1000).rows
        assert Counter(run.status for run in found)["RUNNING"] == 0, [(r.id, r.tags) for r in found]
        finished = Counter(run.tags["everloop.recipe"] for run in found if run.status == "FINISHED")
        assert set(finished.values()) <= {1}
        for recipe in finished:
            row = steps.lookup(tx, project, recipe)
            assert row is not None
            assert row.output is not None


def tasks_had_one_effect(workspace, project):
    """No task gave up, no sandbox of the system's was proposed twice, every merge is in production's log."""
    with workspace.catalog.read() as tx:
        every = tasks.list(tx, project, limit=10_000)
        # a step whose tracking server died under it may fail, and says so, as does what was killed too often; what is
        # asked for again then comes to its end
        failed = [task for task in every if task.state == "failed"]
        assert {t.error for t in failed if not any(said in t.error for said in ("StepFailed", *KILLED))} == set()
        done = {json.dumps(task.payload) for task in every if task.state == "done"}
        assert {t.id for t in failed if json.dumps(t.payload) not in done and "StepFailed" not in t.error} == set()
        sources = Counter(
            c.source for c in changes.find(tx, project, limit=1000) if c.source.startswith("sandbox/auto")
        )
        assert set(sources.values()) <= {1}
        live = {move.new for move in refs.log(tx, project, refs.env_ref("production"), limit=1000)}
        for change in changes.find(tx, project, state="merged", limit=1000):
            assert change.merge_snapshot in live
