"""Planted regressions are put down to what was planted, and two alike sides to nothing."""

import math
import shutil
import time

import pytest
from trial import FACTOR, PLANTED, World, planted, strength

from everloop.flows.bisect.student import quantile


def judge(context, folder, number, what):
    """Run one trial; whether it was decided rightly, None when the effect is under four standard deviations."""
    world = World(context, folder, number, what)
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
