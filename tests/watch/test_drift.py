import json

import numpy as np
import pytest

from everloop.watch.budget import alarms_started
from everloop.watch.drift import Limits, compare
from everloop.watch.reference import profile

SHARES = np.array([8, 7, 6, 5, 4, 3, 2, 1]) / 36


def frame(rng, rows, shift=0.0):
    """Twelve columns of the kinds that real tables have, all of one distribution, the first one shifted."""
    made = {f"normal{i}": rng.normal(shift if i == 0 else 0.0, 1.0, rows) for i in range(4)}
    made |= {f"tail{i}": rng.pareto(1.5, rows) for i in range(2)}
    made["zeros"] = np.where(rng.random(rows) < 0.6, 0.0, rng.exponential(size=rows))
    made["count"] = rng.poisson(3, rows)
    made["nulls"] = np.where(rng.random(rows) < 0.1, np.nan, rng.normal(size=rows))
    made |= {f"level{i}": rng.choice(list("abcdefgh"), rows, p=SHARES) for i in range(2)}
    made["many"] = np.char.add("id", np.minimum(rng.zipf(1.6, rows), 5000).astype(str))
    return made


def test_false_alarms_stay_within_the_stated_rate_over_references_too():
    rng = np.random.default_rng(0)
    flags = np.array(
        [
            [
                any(v.state in ("drift", "fault") for v in compare(reference, reference.count(frame(rng, 1_000))))
                for _ in range(9)
            ]
            for reference in (profile(frame(rng, 10_000)) for _ in range(30))
        ]
    )
    assert flags.mean() <= 0.02  # stated: 1 % of windows
    assert alarms_started(flags).sum() <= 1


def test_a_fifth_of_a_deviation_is_found_in_the_first_windows():
    rng = np.random.default_rng(1)
    first = []
    for _ in range(12):
        reference = profile(frame(rng, 20_000))
        windows = [compare(reference, reference.count(frame(rng, 2_000, shift=0.2))) for _ in range(3)]
        found = [next(v for v in w if v.column == "normal0").state == "drift" for w in windows]
        first.append(found)
        assert sum(v.state == "drift" for v in windows[0]) <= 2
    assert np.mean(first) > 0.9
    assert (alarms_started(np.array(first)) == 1).all()  # an alarm within 3 windows, every time
    assert np.mean([sum(f[:2]) == 2 for f in first]) > 0.8  # mostly within 2


def test_windows_too_small_cannot_tell():
    rng = np.random.default_rng(2)
    reference = profile(frame(rng, 20_000))
    verdicts = compare(reference, reference.count(frame(rng, 60)))
    assert {v.state for v in verdicts} == {"cannot tell"}
    assert verdicts[0].text.startswith("cannot tell (n=60, smallest visible shift=0.6")


def test_large_windows_need_an_effect():
    """A hundredth of a deviation is significant with a million rows, and of no use to anybody."""
    rng = np.random.default_rng(3)
    reference = profile({"x": rng.normal(size=500_000)})
    window = reference.count({"x": rng.normal(0.02, 1, 500_000)})
    (verdict,) = compare(reference, window)
    assert verdict.tests[1].adjusted < 1e-6
    assert verdict.state == "ok"


def fault_of(before, now):
    reference = profile({"x": before})
    (verdict,) = compare(reference, reference.count({"x": now}))
    assert verdict.diagnosis is not None, verdict
    assert verdict.state == "fault"
    return verdict.diagnosis


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (lambda x: x * 1000, "x1000"),
        (lambda x: x / 1000, "x0.001"),
        (lambda x: x * 60, "x60"),
        (lambda x: x * 1.8 + 32, "°C to °F"),
        (lambda x: (x - 32) / 1.8, "°F to °C"),
    ],
)
def test_a_change_of_unit_is_named(change, name):
    rng = np.random.default_rng(4)
    before, now = rng.normal(12, 9, 20_000), rng.normal(12, 9, 800)
    found = fault_of(before, change(now))
    assert found.fault == "unit change"
    assert name in found.text


@pytest.mark.parametrize("factor", [1.609344, 1 / 2.54, -1.0])
def test_a_factor_that_seasons_make_is_drift_and_no_fault(factor):
    rng = np.random.default_rng(4)
    reference = profile({"x": rng.normal(12, 9, 20_000)})
    (verdict,) = compare(reference, reference.count({"x": rng.normal(12, 9, 800) * factor}))
    assert verdict.state == "drift"


def test_a_score_has_no_unit():
    rng = np.random.default_rng(4)
    reference = profile({"prediction": rng.random(20_000)})
    (verdict,) = compare(reference, reference.count({"prediction": rng.random(800) / 60}))
    assert verdict.state == "drift"


def test_real_drift_is_no_change_of_unit():
    rng = np.random.default_rng(5)
    reference = profile({"x": rng.normal(12, 9, 20_000), "y": rng.exponential(size=20_000)})
    windows = [{"x": rng.normal(20, 9, 800), "y": rng.exponential(6, 800)} for _ in range(20)]
    for window in windows:
        assert {v.state for v in compare(reference, reference.count(window))} == {"drift"}


def test_zeros_do_not_hide_a_change_of_unit():
    rng = np.random.default_rng(6)
    before = np.where(rng.random(20_000) < 0.5, 0.0, rng.exponential(30, 20_000))
    now = np.where(rng.random(900) < 0.5, 0.0, rng.exponential(30, 900))
    found = fault_of(before, now * 60)
    assert "x60" in found.text
    assert found.bare == "looks like x60 (minutes to seconds, or hours to minutes)"


def test_other_faults_are_named():
    rng = np.random.default_rng(7)
    usual = rng.normal(size=5_000)
    assert fault_of(usual, np.where(np.arange(500) < 300, np.nan, rng.normal(size=500))).fault == "null spike"
    assert fault_of(usual, np.full(500, 0.25)).text == "every one of 500 values is 0.25"
    assert fault_of(usual, np.array(["n/a"] * 10 + [0.5] * 490, dtype=object)).fault == "wrong type"


def test_a_renamed_level_is_named():
    rng = np.random.default_rng(8)
    before, now = rng.choice(list("abcdefgh"), 8_000, p=SHARES), rng.choice(list("abcdefgh"), 600, p=SHARES)
    found = fault_of(before, np.where(now == "b", "B ", now))
    assert found.fault == "renamed level"
    assert "'b' is now 'B '" in found.text
    assert found.bare == "1 of the values (same share under a new name)"


def test_new_levels_are_drift_and_counted():
    rng = np.random.default_rng(9)
    reference = profile({"carrier": rng.choice(["UA", "AA", "DL"], 10_000)})
    window = rng.choice(["UA", "AA", "DL", "ZZ"], 900, p=[0.32, 0.32, 0.31, 0.05])
    (verdict,) = compare(reference, reference.count({"carrier": window}))
    assert verdict.state == "drift"
    assert "never seen in training ('ZZ')" in verdict.text
    said = json.dumps(verdict.masked().body())
    assert "never seen in training" in said
    assert not any(level in said for level in ("UA", "AA", "DL", "ZZ"))


def test_a_nightly_profile_is_left_out_by_inflation():
    rng = np.random.default_rng(10)
    reference = profile({"x": rng.normal(size=20_000)})
    window = reference.count({"x": rng.normal(0.25, 1, 1_000)})
    assert compare(reference, window)[0].state == "drift"
    assert compare(reference, window, Limits(), {"x": 20.0})[0].state == "cannot tell"


def test_verdicts_are_json():
    rng = np.random.default_rng(11)
    reference = profile(frame(rng, 5_000))
    body = compare(reference, reference.count(frame(rng, 500)))[0].body()
    assert {t["what"] for t in body["tests"]} <= {"distribution", "nulls", "unseen", "range"}
