import numpy as np
import pytest

from everloop.core.clock import DAY, HOUR
from everloop.watch.budget import alarms_started, alpha, both_flagged, calibrate
from everloop.watch.definitions import advance
from everloop.watch.drift import Limits, compare
from everloop.watch.reference import profile
from everloop.watch.statistics import twosample


def test_independent_windows_square():
    assert both_flagged(0.01, 0.0) == pytest.approx(1e-4, rel=1e-3)
    assert both_flagged(0.01, 0.5) > 10 * both_flagged(0.01, 0.0)


def test_level_follows_the_budget():
    assert alpha(1, DAY, 2_000, 20_000) == pytest.approx(0.01)
    assert alpha(1, HOUR, 2_000, 2_000) < alpha(10, HOUR, 2_000, 2_000) <= 0.01
    assert alpha(1, HOUR, 2_000, 2_000) < alpha(1, HOUR, 2_000, 200_000)


@pytest.mark.parametrize(("length", "reference_rows", "references"), [(DAY, 2_000, 300), (HOUR, 2_000, 12)])
def test_simulated_quarters_keep_the_budget(length, reference_rows, references):
    """Stationary data, a reference as small as a window (the worst case): at most one alarm a quarter on average."""
    rng = np.random.default_rng(0)
    windows, columns, level = 91 * DAY // length, 3, alpha(1, length, 2_000, reference_rows)
    even = np.full(64, 1 / 64)
    p = np.empty((references, windows, columns))
    for column in range(columns):
        reference = rng.multinomial(reference_rows, even, size=references)
        window = rng.multinomial(2_000, even, size=(references, windows))
        p[..., column] = twosample.ks(reference[:, None, :], window)[1]
    flags = (twosample.holm(p) <= level).any(-1)
    assert alarms_started(flags).mean() <= 1


def test_hysteresis():
    def started(text):
        return int(alarms_started(np.array([[c == "1" for c in text]]))[0])

    assert started("0100010001") == 0
    assert started("101000") == 1
    assert started("11001101") == 1  # never three quiet ones in between
    assert started("11000110") == 2
    assert [advance(h) for h in ("", "1", "11", "101", "100", "1000", "1001")] == [
        "ok",
        "suspect",
        "alarm",
        "alarm",
        "suspect",
        "quiet",
        "suspect",
    ]


def days(rng, count, rows, weekend=0.0, wander=0.0):
    """Windows of a day: weekends differ, and every day has a mood of its own (autocorrelated)."""
    mood, made = 0.0, []
    for day in range(count):
        mood = 0.6 * mood + rng.normal(0, wander)
        centre = mood + (weekend if day % 7 in (5, 6) else 0.0)
        made.append({"x": rng.normal(centre, 1, rows), "c": rng.choice(list("ab"), rows)})
    return made


def test_autocorrelated_days_keep_the_budget_once_calibrated():
    rng = np.random.default_rng(1)
    quarter = days(rng, 98, 400, weekend=0.4, wander=0.15)
    reference = profile({name: np.concatenate([d[name] for d in quarter]) for name in ("x", "c")})
    counted = [reference.count(d) for d in quarter]
    found = calibrate(reference, counted, Limits(), budget=1, per_quarter=91, rng=rng)
    assert found.inflation["x"] > 3
    assert found.inflation["c"] < 2
    assert found.achieved is not None
    assert found.achieved <= 1
    assert f"{found.achieved:.2f} achieved" in found.text(1)

    later = [reference.count(d) for d in days(rng, 91, 400, weekend=0.4, wander=0.15)]
    naive = [compare(reference, w)[0].state == "drift" for w in later]
    calibrated = [compare(reference, w, Limits(), found.inflation)[0].state == "drift" for w in later]
    assert alarms_started(np.array([naive]))[0] >= 3  # what iid thresholds would have cost
    assert alarms_started(np.array([calibrated]))[0] <= 1


def test_bursts_are_widened_until_the_budget_holds():
    """Rain: mostly none, and every tenth day a lot, which no factor of ordinary days foretells."""
    rng = np.random.default_rng(3)
    quarter = [{"x": np.where(rng.random(600) < (0.6 if day % 10 < 2 else 0.03), 1.0, 0.0)} for day in range(120)]
    reference = profile({"x": np.concatenate([d["x"] for d in quarter])})
    found = calibrate(reference, [reference.count(d) for d in quarter], Limits(), budget=1, per_quarter=91, rng=rng)
    assert found.achieved <= 1
    assert compare(reference, reference.count({"x": np.zeros(600)}), Limits(), found.inflation)[0].state != "fault"


def test_independent_days_are_not_inflated_much():
    rng = np.random.default_rng(2)
    quarter = days(rng, 91, 400)
    reference = profile({name: np.concatenate([d[name] for d in quarter]) for name in ("x", "c")})
    found = calibrate(reference, [reference.count(d) for d in quarter], Limits(), budget=1, per_quarter=91, rng=rng)
    assert found.inflation["x"] < 1.6


def test_too_few_windows_say_so():
    reference = profile({"x": np.arange(1000.0)})
    found = calibrate(
        reference, [reference.count({"x": np.arange(9.0)})] * 5, Limits(), budget=1, per_quarter=91, rng=None
    )
    assert found.achieved is None
    assert "not calibrated" in found.text(1)
