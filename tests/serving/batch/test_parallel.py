"""Scoring by several processes: what one would make, whoever of them is killed."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import graph_models
import numpy as np
import polars as pl
import psutil
import pytest
from serving_house import Place, folder_of, revision

from everloop.catalog import versions
from everloop.core.errors import InvalidInput, StepFailed, Unavailable
from everloop.core.version import Version
from everloop.data.definitions import Contract
from everloop.data.editing.applying import edit
from everloop.data.reading.forms import read
from everloop.serving.batch import scoring
from everloop.serving.batch.scoring import Means
from everloop.serving.table import Route

sys.path.insert(0, str(Path(__file__).parent))
from test_scoring import SCORER, captured  # beside this file: the line above makes it importable

X = {"inputs": [["x", "FP64"]], "caller": [["x", "FP64"]], "example": {"x": [1.0]}}


def serve(context, model):
    """A workspace's folder with one model as `delay`, and a dataset of several parts."""
    place = Place(Path(context.home))
    made = Version("revision", "delay", {"models": {}, "endpoint": "delay"})
    with context.write() as tx:
        versions.put(tx, context.project, made, actor="ada", at=1)
    entry = revision(folder_of(place.home, "m", model), 1, id=made.id, **X)
    place.serve(Route(context.project, "delay", [entry]))
    return place


def many(context, rows=300_000):
    return captured(context, "many", pl.DataFrame({"id": range(rows), "x": np.arange(rows) / 7}), key=())


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent.parent))


def test_several_processes_make_what_one_makes(context):
    serve(context, graph_models.Plus(1))
    data = many(context)
    alone = scoring.score(context, "delay", data, environment="sandbox/ada", means=Means(1))
    beside = scoring.score(context, "delay", data, environment="sandbox/ada", means=Means(1, processes=2))
    assert (beside.id, beside.reused) == (alone.id, 0)
    scores = read(context, beside.id).collect()
    assert scores["prediction"].to_list() == (scores["x"] + 1).to_list()
    edit(
        context, "clicks", scores.select("id", "x").head(9000), "append", "sandbox/ada", contract=Contract(key=("id",))
    )
    more = {"environment": "sandbox/ada", "by": ["id"], "name": "live", "means": Means(1, processes=2)}
    new = scoring.score_new(context, "delay", "clicks", **more)
    assert (new.rows, scoring.score_new(context, "delay", "clicks", **more).rows) == (9000, 0)
    live = read(context, "live", environment="sandbox/ada").collect().sort("id")
    assert live["prediction"].to_list() == scores["prediction"].head(9000).to_list()


def scorers(parent):
    """The processes that score for another."""
    children = psutil.Process(parent).children()
    return [child for child in children if "everloop.serving.batch.scorer" in child.cmdline()]


def wait_for(condition, seconds=60.0):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.02)
    raise AssertionError("it never came so")


def test_scorers_and_their_parent_are_killed_and_every_row_is_scored_once(context):
    serve(context, graph_models.Slow(0.02))
    data = many(context)
    with context.read() as tx:
        parts = len(versions.get(tx, context.project, data).manifest["parts"])
    arguments = [context.catalog.url, context.store.url, str(context.home), context.project, data]
    script = SCORER.replace("scoring.Means(1)", "scoring.Means(1, processes=2)")
    parent = subprocess.Popen([sys.executable, "-c", script, *map(str, arguments)], stdout=subprocess.PIPE)
    first = wait_for(lambda: scorers(parent.pid))[0]
    first.kill()
    wait_for(lambda: list((context.home / "scoring").glob("*/*.parquet")))
    left = scorers(parent.pid)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    psutil.wait_procs(left, timeout=30)
    assert not [process for process in left if process.is_running()]
    told = scoring.score(context, "delay", data, environment="sandbox/ada", means=Means(1, processes=2))
    assert 1 <= told.reused < parts
    assert read(context, told.id).collect()["id"].to_list() == list(range(300_000))
    with context.read() as tx:
        assert len(versions.history(tx, context.project, "data", "scores.delay", limit=5)) == 1


def test_what_goes_wrong_in_a_process_is_said(context, monkeypatch):
    serve(context, graph_models.Plus(1))
    failing = captured(context, "failing", pl.DataFrame({"id": [1, 2], "x": [1.0, -1.0]}))
    with pytest.raises(StepFailed, match="minus one"):
        scoring.score(context, "delay", failing, environment="sandbox/ada", means=Means(1, processes=2))
    monkeypatch.delenv("EVERLOOP_SERVING_RAY", raising=False)
    with pytest.raises(InvalidInput, match="no cluster is known here"):
        scoring.score(context, "delay", failing, environment="sandbox/ada", means=Means(1, cluster=True))
    monkeypatch.setattr("everloop.serving.batch.spreading._START", ["-c", "raise SystemExit(1)"])
    with pytest.raises(Unavailable, match="processes died over the start"):
        scoring.score(context, "delay", failing, environment="sandbox/ada", means=Means(1, processes=2))
