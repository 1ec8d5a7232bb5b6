import threading

import pytest

from everloop.catalog import steps, versions
from everloop.core.errors import InvalidInput, StepFailed
from everloop.flows import flight
from everloop.flows.engine import objects_of
from everloop.flows.value import codec

CHAIN = """
def first():
    mark("first")
    return 20


def second(first, add: int = 1):
    mark("second")
    return first + add


def third(second, first):
    mark("third")
    return [first, second]


ASSETS = [define(first), define(second), define(third)]
"""


def value(ctx, identity):
    with ctx.read() as tx:
        return codec.load(versions.get(tx, ctx.project, identity).manifest, ctx.store, {})


def test_a_plan_runs_once_and_is_reused_on_each_database(author, each_context):
    project = author(CHAIN, each_context)
    done = project.run("third")
    assert value(each_context, done.outputs["value/third"]) == [20, 21]
    assert project.marks() == ["first", "second", "third"]
    again = project.run("third")
    assert again.outputs == done.outputs
    assert [s.reused for s in again.steps] == [True, True, True]
    assert project.marks() == ["first", "second", "third"]
    with each_context.read() as tx:
        (row,) = steps.of_output(tx, each_context.project, done.outputs["value/second"])
        assert row.params == {"add": 1}
        assert row.inputs == {"first": done.outputs["value/first"]}
        assert (row.code, row.runtime) == (done.code, done.runtime)
        assert versions.get(tx, each_context.project, done.runtime).manifest["packages"]["numpy"]["digest"]
        assert versions.get(tx, each_context.project, done.code).manifest["files"].keys() == {"flow.py"}
        edges = {(e.role, e.from_id) for e in versions.upstream(tx, each_context.project, row.output, depth=1)}
    expected = {("first", done.outputs["value/first"]), ("code", done.code), ("runtime", done.runtime)}
    assert edges == expected


def test_an_edit_repeats_only_what_depends_on_it(author):
    author(CHAIN).run("third")
    project = author(CHAIN.replace("return [first, second]", "return [second, first]"))
    project.run("third")
    assert project.marks() == ["first", "second", "third", "third"]


def test_an_edit_that_gives_the_same_output_stops_there(author):
    before = author(CHAIN).run("third")
    project = author(CHAIN.replace("return first + add", "return add + first"))
    after = project.run("third")
    assert project.marks() == ["first", "second", "third", "second"]
    assert after.outputs == before.outputs
    assert [s.reused for s in after.steps] == [True, False, True]


def test_parameters_are_part_of_the_recipe(author):
    project = author(CHAIN)
    done = project.run("third", params={"second": {"add": 5}})
    assert value(project.ctx, done.outputs["value/third"]) == [20, 25]
    project.run("third", params={"value/second": {"add": 5}})
    assert project.marks() == ["first", "second", "third"]
    with pytest.raises(InvalidInput) as caught:
        project.run("third", params={"second": {"ad": 5}})
    assert caught.value.hint == "did you mean add?"
    with pytest.raises(InvalidInput, match="not in the plan"):
        project.run("first", params={"second": {"add": 5}})
    with pytest.raises(InvalidInput, match="not JSON-ready"):
        project.run("third", params={"second": {"add": object()}})


def test_an_output_whose_bytes_are_gone_is_made_again(author):
    project = author(CHAIN)
    done = project.run("third")
    with project.ctx.read() as tx:
        manifest = versions.get(tx, project.ctx.project, done.outputs["value/second"]).manifest
    (lost,) = objects_of(manifest, {})
    project.ctx.store.path(lost).unlink()
    again = project.run("third")
    assert project.marks() == ["first", "second", "third", "second"]
    assert again.outputs == done.outputs


def test_without_the_cache_everything_runs(author):
    project = author(CHAIN)
    project.run("third")
    project.run("third", cached=False)
    assert project.marks() == ["first", "second", "third"] * 2


def test_given_assets_need_a_version(author):
    text = """
from everloop.flows.assets import Asset


def doubled(given):
    return given * 2


ASSETS = [Asset("value/given", None), define(doubled)]
"""
    project = author(text)
    with pytest.raises(InvalidInput, match="value/given has no version yet"):
        project.run("doubled")
    saved = codec.save(4, "given", project.ctx.store, {})
    with project.ctx.write() as tx:
        versions.put(tx, project.ctx.project, saved.version, actor="ada", at=0)
    done = project.run("doubled", given={"value/given": saved.version.id})
    assert value(project.ctx, done.outputs["value/doubled"]) == 8


def test_a_failure_names_the_step_and_shows_the_authors_frames_only(author):
    text = CHAIN.replace("return first + add", 'return {}["no such column"]')
    project = author(text)
    states = []
    with pytest.raises(StepFailed) as caught:
        project.run("third", progress=lambda step, state, _: states.append((step, state)))
    error = caught.value
    assert error.message.startswith("value/second failed: KeyError: 'no such column'")
    assert error.hint
    assert "everloop" not in error.details["traceback"].replace(str(project.root), "")
    assert 'return {}["no such column"]' in error.details["traceback"]
    assert ("value/second", "failed") in states
    author(CHAIN).run("third")
    assert project.marks() == ["first", "second", "second", "third"]  # what came before the failure was kept


def test_two_that_want_the_same_wait_for_one(author):
    slow = CHAIN.replace('mark("first")', 'mark("first"); import time; time.sleep(0.3)')
    project = author(slow)
    results = []
    threads = [threading.Thread(target=lambda: results.append(project.run("third").outputs)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4
    assert all(result == results[0] for result in results)
    assert sorted(project.marks()) == ["first", "second", "third"]
    assert not flight._held


def test_random_generators_are_seeded_from_the_recipe(author):
    text = """
import random
import numpy as np


def noise():
    return [random.random(), float(np.random.random())]


ASSETS = [define(noise)]
"""
    project = author(text)
    first = project.run("noise")
    assert project.run("noise", cached=False).outputs == first.outputs


def test_tracked_kinds_are_runs(author):
    class Sink:
        def __init__(self):
            self.seen = []

        def start(self, step, params, tags):
            self.seen.append(("start", step, dict(params), set(tags)))
            return "run-1"

        def log(self, run, samples):
            assert run == "run-1"

        def write(self, owner, lines, *, first=False, last=False):
            raise AssertionError("these steps print nothing")

        def finish(self, run, *, status, metrics, tx=None):
            self.seen.append(("finish", run, status, dict(metrics)))

    project, sink = author(CHAIN), Sink()
    done = project.run("second", runs=sink, tracked=frozenset({"value"}), environ=lambda step, run: {"FLOW_RUN": run})
    assert sink.seen[2:] == [
        ("start", "value/second", {"add": 1}, {"everloop.recipe"}),
        ("finish", "run-1", "FINISHED", {}),
    ]
    assert done.steps[1].run == "run-1"
    with project.ctx.read() as tx:
        assert [r.step for r in steps.of_run(tx, project.ctx.project, "run-1")] == ["value/first", "value/second"]
