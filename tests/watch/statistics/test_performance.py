import numpy as np
import pytest

from everloop.core.clock import DAY, HOUR
from everloop.core.errors import InvalidInput
from everloop.watch.statistics import performance


def draw(rng, rows):
    chances = 1 / (1 + np.exp(-rng.normal(-1, 1.2, rows)))
    return (rng.random(rows) < chances).astype(float), chances


def test_auc_counts_ties_half():
    assert performance.auc([1, 0, 1, 0], [0.8, 0.8, 0.9, 0.1]) == pytest.approx(3.5 / 4)
    assert np.isnan(performance.auc([1, 1], [0.2, 0.3]))


def test_delong_covers_the_truth():
    rng = np.random.default_rng(0)
    truth = np.mean([performance.auc(*draw(rng, 200_000)) for _ in range(4)])
    figures = [performance.delong(*draw(rng, 500)) for _ in range(800)]
    covered = np.mean([f.low <= truth <= f.high for f in figures])
    assert 0.93 < covered < 0.975


def test_an_objective_is_breached_only_when_the_interval_is():
    rng = np.random.default_rng(1)
    figure = performance.measure("roc_auc", *draw(rng, 3_000), rng=rng)
    assert performance.standing(figure, at_least=0.9) == "breached"
    assert performance.standing(figure, at_least=0.6) == "met"
    assert performance.standing(figure, at_least=figure.value) == "uncertain"
    assert performance.standing(None, at_least=0.6) == "unknown"
    loss = performance.measure("log_loss", *draw(rng, 3_000), rng=rng)
    assert performance.standing(loss, at_most=0.1) == "breached"


@pytest.mark.parametrize("metric", sorted(performance.METRICS))
def test_every_metric_has_an_interval_around_it(metric):
    rng = np.random.default_rng(2)
    figure = performance.measure(metric, *draw(rng, 800), rng=rng, resamples=100)
    assert figure.low <= figure.value <= figure.high
    assert figure.body()["rows"] == 800


def test_too_few_labels_are_no_figure():
    rng = np.random.default_rng(3)
    assert performance.measure("accuracy", *draw(rng, 20), rng=rng) is None
    assert performance.measure("roc_auc", np.zeros(100), np.linspace(0, 1, 100), rng=rng) is None
    with pytest.raises(InvalidInput, match="not a metric"):
        performance.measure("vibes", [1], [1], rng=rng)


def test_cohorts_are_judged_when_mature_and_as_known():
    at = np.arange(10) * HOUR
    labels = np.array([1, 0, 1, 0, np.nan, 1, 0, 1, 0, 1])
    recorded = np.where(np.isnan(labels), np.nan, at + 12 * HOUR)
    recorded[1] = 40 * HOUR  # came very late
    known = 12 * HOUR + 7 * HOUR
    then = performance.cohort(at, np.full(10, 0.5), labels, recorded, delay=12 * HOUR, known=known)
    assert then.mature.tolist() == [True] * 8 + [False] * 2
    assert then.judged.sum() == 6  # one never came, one not yet
    assert then.coverage == pytest.approx(6 / 8)
    now = performance.cohort(at, np.full(10, 0.5), labels, recorded, delay=12 * HOUR, known=2 * DAY)
    assert now.judged.sum() == 9


def test_maturity_counts_the_young_rightly():
    rng = np.random.default_rng(4)
    at = rng.uniform(0, 10 * DAY, 20_000)
    delay = rng.exponential(DAY, at.size)
    now = 10 * DAY
    recorded = np.where(at + delay <= now, at + delay, np.nan)
    shares = performance.maturity(at, recorded, now, [DAY, 2 * DAY])
    assert shares == pytest.approx(1 - np.exp([-1.0, -2.0]), abs=0.02)


def test_calibration_drift_holds_its_level_and_has_power():
    rng = np.random.default_rng(5)
    p = np.array([performance.calibration(*draw(rng, 1_000)).p for _ in range(300)])
    assert (p < 0.05).mean() < 0.09
    labels, scores = draw(rng, 4_000)
    good, sharp = performance.calibration(labels, scores), performance.calibration(labels, scores**2)
    assert good.ece < 0.02
    assert good.slope == pytest.approx(1, abs=0.15)
    assert sharp.ece > 0.1
    assert sharp.slope < 0.8
    assert sharp.p < 1e-9
    assert performance.calibration(np.ones(50), np.full(50, 0.5)) is None
