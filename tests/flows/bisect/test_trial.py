"""Planted regressions are put down to what was planted, and two alike sides to nothing."""

import math
import shutil
import time
from dataclasses import replace

import pytest
from trial import FACTOR, PLANTED, World, planted, strength

from everloop.catalog.operation import invoke
from everloop.core.errors import Conflict
from everloop.flows.bisect import answer, operations
from everloop.flows.bisect.game import attribute
from everloop.flows.bisect.inside import narrowed
from everloop.flows.bisect.operations import OfEvidence, Question, RecordAnswer
from everloop.flows.bisect.running import Budget, Runs
from everloop.flows.bisect.settings import sides
from everloop.flows.bisect.student import quantile
from everloop.workspace.codecs import CODECS


def judge(context, folder, number, what):
    """Run one trial; whether it was decided rightly, None when the effect is under four standard deviations.

    Each is a project of its own: two trials may give the very same accuracy, which would be one version of one.
    """
    world = World(replace(context, project=f"trial{number}"), folder, number, what)
    try:
        found, players, runs, values = world.explain()
    finally:
        world.close()
        for one in (*world.roots.values(), *world.sites.values()):
            shutil.rmtree(one, ignore_errors=True)
    if not what:
        return found.state == "nothing", found, players, runs
    if strength(values, players.players) < 4:
        return None, found, players, runs
    wanted = {FACTOR[one] for one in what}
    named = found.contributions[: len(wanted)]
    right = {factor for one in named for factor in one.factors} == wanted and all(not one.noise for one in named)
    return right, found, players, runs


@pytest.mark.parametrize("what", [(one,) for one in PLANTED] + [("label noise", "changed parameter"), ()], ids=str)
def test_a_planted_regression_is_put_down_to_its_factor(context, tmp_path, what):
    right, found, players, runs = judge(context, tmp_path, 1 + len(str(what)), what)
    assert right, (found, players)
    assert players.equal.keys() >= {"evaluation"}
    assert runs.count.reused > 0  # what does not depend on the swapped factor is not run again


@pytest.mark.parametrize(
    ("what", "factor", "items"),
    [("changed parameter", "parameters", ("value/model.threshold",)), ("changed helper", "code", ("rules.py",))],
)
def test_it_is_found_inside_its_factor(context, tmp_path, what, factor, items):
    world = World(context, tmp_path, 3, (what,))
    try:
        good, bad = world.make()
        found = sides(context, good, bad)
        mixtures = Runs(context, found.step, "accuracy", world.load, codecs=CODECS)
        ends = [mixtures(side, 1) for side in (found.good, found.bad)]
        inside = narrowed(context, found, factor, mixtures, ends[1] - ends[0])[factor]
    finally:
        world.close()
    assert (inside.items, inside.reason) == (items, "one item")
    assert inside.effect.excludes_zero


def test_a_spent_budget_stops_and_goes_on_when_asked_again(context, tmp_path):
    world = World(context, tmp_path, 3, ("changed parameter",))
    try:
        good, bad = world.make()
        found = sides(context, good, bad)
        few = Runs(context, found.step, "accuracy", world.load, codecs=CODECS, budget=Budget(runs=5))
        with pytest.raises(Conflict, match="budget of 5 runs"):
            few.values(found, range(1, 4))
        rest = Runs(context, found.step, "accuracy", world.load, codecs=CODECS)
        rest.values(found, range(1, 4))
        again = Runs(context, found.step, "accuracy", world.load, codecs=CODECS)
        values = again.values(found, range(1, 4))
    finally:
        world.close()
    assert 0 < few.count.run <= 7
    assert again.count.run == 0
    answered = attribute(values, found.players)
    told = answer.manifest(answer.Asked(good, bad, "accuracy", 3), found, answered, {}, again.count)
    recorded = invoke(context, operations.record, RecordAnswer(name="value.model", found=told))
    shown = invoke(context, operations.show, OfEvidence(version=recorded.evidence))
    assert shown.found["contributions"][0]["factors"] == ["parameters"]
    assert "parameters" in shown.text
    planned = invoke(context, operations.plan, Question(good=good, bad=bad, metric="accuracy"))
    assert (planned.runs, planned.combinations) == (6 * planned.combinations, 2 ** len(found.players))


def wilson(hits, trials, level=0.95):
    """The interval of a share."""
    z = quantile(0.5 + level / 2, 10_000)
    centre, spread = hits + z * z / 2, z * math.sqrt(hits * (trials - hits) / trials + z * z / 4)
    return (centre - spread) / (trials + z * z), (centre + spread) / (trials + z * z)


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_the_whole_trial(context, tmp_path, capsys):
    right, weak, began, ran, number = [], 0, time.process_time(), 0, 0
    while len(right) < 200:
        number += 1
        decided, found, _, runs = judge(context, tmp_path, number, planted(number))
        ran += runs.count.run
        if decided is None:
            weak += 1
        else:
            right.append(decided)
            if not decided:
                with capsys.disabled():
                    print(  # noqa: T201 - what went wrong in a long run
                        number,
                        planted(number),
                        [(c.name, c.value) for c in found.contributions],
                        found.state,
                    )
    quiet = [judge(context, tmp_path, 10_000 + n, ())[0] for n in range(100)]
    low, high = wilson(sum(right), len(right))
    none_low, none_high = wilson(sum(quiet), len(quiet))
    with capsys.disabled():
        print(  # noqa: T201 - the figures of the trial
            f"\nright factor {sum(right)} of {len(right)} ({low:.3f} to {high:.3f}), {weak} under 4 sd left out; "
            f"nothing to explain {sum(quiet)} of {len(quiet)} ({none_low:.3f} to {none_high:.3f}); "
            f"{ran} steps run, {time.process_time() - began:.0f} s of CPU"
        )
    assert sum(right) >= 0.95 * len(right)
    assert sum(quiet) >= 0.95 * len(quiet)
