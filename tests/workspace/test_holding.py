"""A legal hold stops erasure, expiry and sweep on every kind of place; rules let old runs, traces and frames go."""

import os
import time

import numpy as np
import polars as pl
import pytest

from everloop import data
from everloop.catalog import refs, versions
from everloop.catalog.genai import spans, traces
from everloop.catalog.genai.rows import Span
from everloop.catalog.governance import annotations
from everloop.catalog.governance.annotations import Annotation
from everloop.catalog.operating import predictions
from everloop.catalog.operating.predictions import Segment
from everloop.catalog.operation import invoke
from everloop.catalog.tracking import artifacts, experiments, runs
from everloop.catalog.verify import verify
from everloop.core.clock import DAY, SystemClock
from everloop.core.errors import InvalidInput, NotFound, PolicyRefused
from everloop.core.version import Version
from everloop.data.definitions import Contract, Folder, SourceDef
from everloop.data.editing import edit
from everloop.data.trees.packing.compacting import compact
from everloop.serving import log
from everloop.serving.columns import Column, Layout, Output, pack_answer
from everloop.store.layout import file_of
from everloop.workspace.home import FixedClock
from everloop.workspace.work.erasing import Erase, Hold, Nothing
from everloop.workspace.work.retaining import AskExpire, AskSweep, AskUsage, Retain
from everloop.workspace.work.sweeping import sweep_store

KEY = "customer-0004711-x"
HERE = "sandbox/ada/x"


@pytest.fixture
def ctx(each_context):
    edit(
        each_context,
        "orders",
        pl.DataFrame({"customer": [KEY, "c2"], "n": [1, 2]}),
        "append",
        HERE,
        contract=Contract.of("n", tags={"customer": "subject"}),
    )
    return each_context


def hold(ctx, place, **more):
    return invoke(ctx, "data.hold", Hold(dataset=place, reason="case 7", **more))


def a_run(ctx, at=1, **params):
    with ctx.write() as tx:
        experiments.ensure_default(tx, ctx.project, 1)
        made = runs.create(tx, ctx.project, experiment="0", actor="ada", at=at)
        runs.log_params(tx, made, list(params.items()))
        stored = ctx.store.put(f"weights of {made.id}".encode())
        artifacts.put(tx, ctx.project, made.id, "w.txt", identity=stored, size=9, at=1)
        runs.finish(tx, ctx.project, made.id, status="FINISHED", at=9)
    past = time.time() - 30 * 86_400
    os.utime(file_of(ctx.store.root, stored), (past, past))
    return made.id, stored


def a_trace(ctx, body, number=1):
    with ctx.write() as tx:
        experiments.ensure_default(tx, ctx.project, 1)
        told = Span(f"tr-{number:032x}", f"{number:016x}", "", "ask", "LLM", "OK", 1000, 2000, body)
        spans.record(tx, ctx.project, "0", [told])
    return told.trace


def a_prediction(ctx):
    layout, out = Layout((Column("x", "FP64"),)), (Output("prediction", "FP64"),)
    appender = log.Appender(ctx.home / "serving" / "log" / "g1")
    for number in (1, 2):
        entry = log.Entry(
            f"id{number}", 1, 1, ctx.project, "churn", "b3:1", 1, log.raw(layout.pairs()), layout.pack({"x": [1.0]}, 1),
            log.raw([o.listed() for o in out]), pack_answer(out, {"prediction": np.array([1.0])}),
            {"customer": [KEY]}, 17, "", "predict",
        )  # fmt: skip
        appender.append(entry)
        appender.close()
    with ctx.write() as tx:
        for number in (1, 2):
            predictions.record_progress(tx, Segment("g1", number, 0, closed=True))
    first = log.segments(ctx.home / "serving" / "log" / "g1")[0]
    os.utime(first, (1, 1))


@pytest.mark.parametrize("what", ["run", "run's experiment", "trace", "predictions", "model"])
def test_an_erasure_is_refused_where_a_hold_speaks_of_the_subject_and_only_there(ctx, what):
    if what in ("run", "run's experiment"):
        run, _ = a_run(ctx, customer=KEY)
        place = f"run/{run}" if what == "run" else "experiment/0"
    elif what == "trace":
        a_trace(ctx, f'{{"customer": "{KEY}"}}')
        place = "experiment/0"
    elif what == "predictions":
        a_prediction(ctx)
        place = "predictions"
    else:
        named = ctx.store.put(f'{{"customer": ["{KEY}"]}}'.encode())
        with ctx.write() as tx:
            model = Version("model", "churn", {"flavor": "x", "files": {"example.json": named}})
            versions.put(tx, ctx.project, model, actor="ada", at=1)
        place = "model/churn"
    other, _ = a_run(ctx, depth="6")
    hold(ctx, f"run/{other}")
    hold(ctx, place)
    with pytest.raises(PolicyRefused, match="case 7"):
        invoke(ctx, "data.erase", Erase(subject=KEY))
    assert set(invoke(ctx, "data.holds", Nothing()).holds) == {place, f"run/{other}"}
    hold(ctx, place, release=True)
    assert invoke(ctx, "data.erase", Erase(subject=KEY)).rows == 1
    assert verify(ctx.catalog, ctx.store) == []


def test_a_hold_names_something_that_can_be_held(ctx):
    for wrong in ("nonsense/x", "data/", "x/y/z/"):
        with pytest.raises(InvalidInput):
            hold(ctx, wrong)
    with pytest.raises(NotFound, match="no legal hold"):
        hold(ctx, "orders", release=True)


def test_rules_let_old_runs_and_traces_go_and_holds_and_models_keep_theirs(ctx):
    old, _ = a_run(ctx, 1, depth="6")
    held, _ = a_run(ctx, 2, depth="7")
    a_run(ctx, 3, depth="8")
    trace = a_trace(ctx, "{}")
    with pytest.raises(InvalidInput):
        invoke(ctx, "data.retain", Retain(kind="runs", name="*"))
    with pytest.raises(InvalidInput):
        invoke(ctx, "data.retain", Retain(kind="traces", days=1, tag="personal"))
    invoke(ctx, "data.retain", Retain(kind="runs", name="Def*", days=10))
    invoke(ctx, "data.retain", Retain(kind="traces", name="Def*", days=10))
    hold(ctx, f"run/{held}")
    dry = invoke(ctx, "data.expire", AskExpire())
    assert (dry.runs, dry.traces) == ([old], 1)  # one is held, and one the newest
    hold(ctx, "experiment/0")
    stopped = invoke(ctx, "data.expire", AskExpire(dry_run=False))
    assert (stopped.runs, stopped.traces) == ([], 0)
    with ctx.write() as tx, pytest.raises(PolicyRefused, match="case 7"):
        traces.delete_some(tx, ctx.project, "0", identities=[trace])
    hold(ctx, "experiment/0", release=True)
    done = invoke(ctx, "data.expire", AskExpire(dry_run=False))
    assert (done.runs, done.traces) == (dry.runs, 1)
    assert invoke(ctx, "data.expire", AskExpire(dry_run=False)).runs == []
    with ctx.read() as tx, pytest.raises(NotFound):
        traces.get(tx, ctx.project, trace)


def test_a_sweep_frees_no_file_of_a_run_or_version_under_a_hold(ctx, context_of):
    run, weights = a_run(ctx, depth="6")
    with ctx.write() as tx:
        runs.delete_run(tx, ctx.project, run, at=ctx.now())
    later = context_of(ctx.catalog, clock=FixedClock(SystemClock().wall() + 30 * DAY))
    hold(ctx, f"run/{run}")
    sweep_store(later)
    assert ctx.store.has(weights)
    hold(ctx, f"run/{run}", release=True)
    would = invoke(later, "data.sweep", AskSweep())
    assert ctx.store.has(weights)
    done = invoke(later, "data.sweep", AskSweep(dry_run=False))
    assert not ctx.store.has(weights)
    assert (would.removed, would.bytes, would.packs) == (done.removed, done.bytes, done.packs)
    assert verify(ctx.catalog, ctx.store) == []


def test_segments_under_a_hold_stay_whatever_the_rule_of_any_project_says(ctx, context_of):
    a_prediction(ctx)
    other = context_of(ctx.catalog, project="elsewhere")
    invoke(other, "data.retain", Retain(kind="predictions", days=1))
    hold(ctx, "predictions")
    assert invoke(other, "data.expire", AskExpire(dry_run=False)).segments == 0
    hold(ctx, "predictions", release=True)
    assert invoke(other, "data.expire", AskExpire(dry_run=False)).segments == 1


def test_a_rule_by_tag_counts_tags_that_people_gave_and_frames_have_rules_of_their_own(ctx):
    for n in range(3):
        edit(ctx, "orders", pl.DataFrame({"customer": ["c3"], "n": [10 + n]}), "append", HERE)
    invoke(ctx, "data.retain", Retain(kind="data", tag="secret"))
    assert invoke(ctx, "data.expire", AskExpire()).versions == []
    with ctx.write() as tx:
        annotations.put(tx, ctx.project, Annotation("data", "orders", "n", "tag", "secret", "said", "ada", ctx.now()))
    assert [one["number"] for one in invoke(ctx, "data.expire", AskExpire()).versions] == [1, 2, 3]
    invoke(ctx, "data.retain", Retain(kind="data", tag="secret", off=True))
    invoke(ctx, "data.retain", Retain(kind="frame"))
    assert invoke(ctx, "data.expire", AskExpire()).versions == []


def test_the_sweep_writes_packs_again_and_usage_says_what_folders_hold(ctx, tmp_path):
    root = tmp_path / "project"
    (root / "files").mkdir(parents=True)
    for name in ("a", "b", "c"):
        (root / "files" / f"{name}.bin").write_bytes(np.random.default_rng(ord(name)).bytes(50_000))
    source = SourceDef("files", Folder("files/**"))
    first = data.capture(ctx, source, root=root).id
    (root / "files" / "a.bin").unlink()
    (root / "files" / "b.bin").unlink()
    second = data.capture(ctx, source, root=root).id
    held = {one["id"]: one for one in invoke(ctx, "data.usage", AskUsage(name="files")).versions}
    assert held[first]["alone"] >= 100_000
    assert 50_000 <= held[second]["shared"] < 60_000
    assert compact(ctx, dry_run=True).freed == 0
    invoke(ctx, "data.retain", Retain(kind="data", name="files"))
    with ctx.write() as tx:
        refs.move(tx, ctx.project, refs.head_ref(HERE, "files"), old=None, new=second, actor="ada", at=1)
    hold(ctx, "files")
    assert invoke(ctx, "data.expire", AskExpire(dry_run=False)).versions == []
    hold(ctx, "files", release=True)
    assert [one["number"] for one in invoke(ctx, "data.expire", AskExpire(dry_run=False)).versions] == [1]
    would = invoke(ctx, "data.sweep", AskSweep())
    done = invoke(ctx, "data.sweep", AskSweep(dry_run=False))
    assert (would.packs, would.freed) == (done.packs, done.freed) == (1, 100_000)
    assert [path for path, _ in data.trees.open_tree(ctx, second).items()] == ["c.bin"]
    assert invoke(ctx, "data.sweep", AskSweep(dry_run=False)).packs == 0
    assert verify(ctx.catalog, ctx.store) == []
