"""Steps over lists are reproduced item by item, and single items by themselves."""

from everloop.catalog import versions
from everloop.flows.reproduce import reproduce

CODECS = {"value": "everloop.flows.value:codec"}
TEXT = """
import random
from everloop.flows.control import Each


def parts(count: int = 3):
    return [{"n": n % 2} for n in range(count)] + ["odd"]


def scored(part, parts, scale: float = 2.0):
    if part == "odd" and FAILS:
        raise ValueError("odd")
    return {"score": [part, random.random() * scale], "of": len(parts)}


def drifting(part):
    import time
    return time.time_ns() if part == "odd" else part


def summed(scored):
    return len(scored)


FAILS = False
EACH = Each("part", "parts", tolerate=0.5)
ASSETS = [define(parts), define(scored, each=EACH), define(drifting, each=EACH), define(summed)]
"""


def again(project, identity, processes):
    return reproduce(project.ctx, identity, executor=processes, codecs=CODECS, module="flow")


def items_of(project, identity):
    with project.ctx.read() as tx:
        return {one.from_id for one in versions.upstream(tx, project.ctx.project, identity, 1) if one.role == "item"}


def test_a_list_and_each_of_its_items_come_out_again(author, processes):
    project = author(TEXT)
    done = project.run("summed", executor=processes, params={"scored": {"scale": 3.0}})
    (project.root / "flow.py").write_text("this is not what was recorded")
    identity = done.outputs["value/scored"]
    verdict = again(project, identity, processes)
    assert (verdict.tier, verdict.factors, verdict.again) == ("bit", (), identity)
    items = items_of(project, identity)
    assert len(items) == 3, "equal items are one"
    for item in items:
        verdict = again(project, item, processes)
        assert (verdict.tier, verdict.factors, verdict.again, verdict.step) == ("bit", (), item, "value/scored")
    assert again(project, done.outputs["value/summed"], processes).tier == "bit"


def test_the_items_that_come_out_otherwise_are_named(author, processes):
    project = author(TEXT)
    done = project.run("drifting", executor=processes)
    identity = done.outputs["value/drifting"]
    verdict = again(project, identity, processes)
    assert verdict.tier == "different"
    assert verdict.factors == ("of 4 items these: 3 (different)",)
    assert verdict.again != identity
    tiers = sorted(again(project, item, processes).tier for item in items_of(project, identity))
    assert tiers == ["bit", "bit", "different"]


def test_what_failed_then_is_left_out_and_an_empty_list_is_the_same(author, processes):
    project = author(TEXT.replace("FAILS = False", "FAILS = True"))
    done = project.run("scored", executor=processes)
    identity = done.outputs["value/scored"]
    verdict = again(project, identity, processes)
    assert (verdict.tier, verdict.again) == ("bit", identity)
    bare = author(TEXT.replace('+ ["odd"]', ""))
    empty = bare.run("scored", executor=processes, params={"parts": {"count": 0}}).outputs["value/scored"]
    assert (again(bare, empty, processes).tier, items_of(bare, empty)) == ("bit", set())
