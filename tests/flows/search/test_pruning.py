"""Which trials are ended early, as numbers."""

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st

from everloop.core.errors import DataError
from everloop.core.inside import reporting
from everloop.flows.search.definitions import Hyperband, Median
from everloop.flows.search.pruning import bars, ended_at
from everloop.flows.search.trial import attempted, figures

curves = st.lists(st.lists(st.floats(-10, 10), min_size=1, max_size=6), min_size=5, max_size=12)


def steps(values):
    return [(step, value) for step, value in enumerate(values)]


@given(curves)
def test_medians_end_what_optuna_ends(many):
    *past, last = many
    study = optuna.create_study(pruner=optuna.pruners.MedianPruner(n_startup_trials=1, n_warmup_steps=0))
    for one in past:
        trial = study.ask()
        for step, value in steps(one):
            trial.report(value, step)
        study.tell(trial, one[-1])
    trial, expected = study.ask(), None
    for step, value in steps(last):
        trial.report(value, step)
        if trial.should_prune():
            expected = step
            break
    rule = Median(startup=1)
    held = bars(rule, len(past), {number: ("done", steps(one)) for number, one in enumerate(past)})
    assert ended_at(steps(last), held) == expected


def test_the_best_so_far_counts_and_nan_never_passes():
    held = bars(Median(startup=1), 1, {0: ("done", [(1, 5.0), (2, 4.0)])})
    assert ended_at([(1, 3.0), (2, 9.0)], held) is None
    assert ended_at([(1, 6.0), (2, 1.0)], held) == 1
    assert ended_at([(1, float("nan"))], held) == 1


def test_trials_that_were_ended_do_not_count_for_the_median():
    assert bars(Median(startup=2), 5, {0: ("done", [(1, 1.0)]), 1: ("pruned", [(1, 9.0)])}) == {}


def test_one_in_three_goes_on_from_each_rung():
    rule = Hyperband(9)
    mine = [number for number in range(60) if bars(rule, number, {}) == {"best": False, "at": {}}]
    assert len(mine) == 60  # nobody is ended by an empty past
    past = {number: ("done", [(step, float(number)) for step in (1, 3, 9)]) for number in range(30)}
    ended = [ended_at([(1, v), (3, v), (9, v)], bars(rule, 0, past)) for v in (0.0, 2.0, 29.0)]
    assert ended == [None, None, 1]
    assert max(len(bars(rule, number, past)["at"]) for number in range(30)) == 2  # rungs 1 and 3
    assert min(len(bars(rule, number, past)["at"]) for number in range(30)) == 0  # a bracket that ends nobody


def test_a_trial_is_ended_inside_and_its_reports_are_kept():
    def work():
        for step in range(5):
            reporting.report(float(step), step=step)
        return 7.0

    given_bars = {"search": {"bars": {"best": False, "at": {"3": 2.5}}, "sign": 1.0}}
    whole = attempted(work, {})
    assert (whole["state"], whole["result"], len(whole["reports"])) == ("done", 7.0, 5)
    ended = attempted(work, given_bars)
    assert (ended["state"], ended["reports"]) == ("pruned", [[0, 0.0], [1, 1.0], [2, 2.0], [3, 3.0]])
    reporting.report(1.0, step=1)  # outside of a search nothing happens


def test_steps_of_reports_count_up():
    def back():
        reporting.report(1.0, step=2)
        reporting.report(1.0, step=2)

    with pytest.raises(DataError, match="report of step 2 after 2"):
        attempted(back, {})


def test_figures_are_the_numbers_of_a_result():
    assert figures({"a": 1, "b": True, "c": "x", "d": 2.5}) == {"a": 1.0, "d": 2.5}
    assert figures(0.5) == {"": 0.5}
    assert figures("none") == {}
