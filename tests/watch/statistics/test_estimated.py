import numpy as np
import pytest

from everloop.watch.statistics.estimated import ASSUMPTION, calibrator, estimate_accuracy, estimate_auc
from everloop.watch.statistics.performance import auc


def draw(rng, rows, shift=-1.0):
    """Scores that are no probabilities (squared), and labels drawn from the true ones."""
    chances = 1 / (1 + np.exp(-rng.normal(shift, 1.2, rows)))
    return chances**2, (rng.random(rows) < chances).astype(float)


def test_estimates_meet_a_simulated_truth():
    rng = np.random.default_rng(0)
    chances = calibrator(*draw(rng, 20_000))
    errors, inside, inside_accuracy = [], 0, 0
    for _ in range(150):
        scores, labels = draw(rng, 2_000)
        area = estimate_auc(scores, chances(scores))
        errors.append(area.value - auc(labels, scores))
        inside += area.low <= auc(labels, scores) <= area.high
        right = estimate_accuracy(chances(scores), float(chances(0.5)))
        inside_accuracy += right.low <= ((scores >= 0.5) == (labels > 0.5)).mean() <= right.high
    assert abs(np.mean(errors)) < 0.004
    assert np.mean(np.abs(errors)) < 0.015
    assert inside >= 130
    assert inside_accuracy >= 130


def test_it_follows_a_change_of_inputs():
    rng = np.random.default_rng(1)
    chances = calibrator(*draw(rng, 50_000))
    scores, labels = draw(rng, 50_000, shift=0.5)
    assert estimate_auc(scores, chances(scores)).value == pytest.approx(auc(labels, scores), abs=0.012)


def test_it_cannot_see_a_change_of_concept_and_says_so():
    rng = np.random.default_rng(2)
    scores, labels = draw(rng, 20_000)
    chances = calibrator(scores, labels)
    flipped = 1 - labels
    estimate = estimate_auc(scores, chances(scores))
    assert auc(flipped, scores) < 0.3 < estimate.value
    assert estimate.body()["assumption"] == ASSUMPTION


def test_past_error_widens_the_interval():
    rng = np.random.default_rng(3)
    scores, labels = draw(rng, 2_000)
    chances = calibrator(scores, labels)(scores)
    sure, unsure = estimate_auc(scores, chances), estimate_auc(scores, chances, error=0.05)
    assert unsure.high - unsure.low > 2 * (sure.high - sure.low)


def test_calibrator_survives_json():
    rng = np.random.default_rng(4)
    made = calibrator(*draw(rng, 3_000))
    assert made.of(made.body())(0.3) == made(0.3)
    assert np.all(np.diff(made.chances) >= 0)
