import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as oracle

from everloop.checks.bootstrap import Resampling, compare, interval
from everloop.core.errors import DataError, InvalidInput
from everloop.models.metrics import METRICS, measure

ORACLES = {
    "roc_auc": oracle.roc_auc_score,
    "average_precision": oracle.average_precision_score,
    "pr_auc": oracle.average_precision_score,
    "log_loss": lambda t, s, **w: oracle.log_loss(t, s, labels=[0, 1], **w),
    "brier": oracle.brier_score_loss,
    "accuracy": lambda t, s, **w: oracle.accuracy_score(t, s >= 0.5, **w),
    "mae": oracle.mean_absolute_error,
    "mse": oracle.mean_squared_error,
    "rmse": oracle.root_mean_squared_error,
    "r2": oracle.r2_score,
}


def sample(seed, n, *, ties=False):
    random = np.random.default_rng(seed)
    truth = (random.random(n) < 0.3).astype(float)
    truth[:2] = (0, 1)
    score = np.clip(0.3 + 0.3 * truth + random.normal(0, 0.25, n), 0.001, 0.999)
    return truth, np.round(score, 1).clip(0.1, 0.9) if ties else score


@pytest.mark.parametrize("name", METRICS)
@given(seed=st.integers(0, 10_000), n=st.integers(4, 60), ties=st.booleans())
def test_metrics_equal_those_of_scikit_learn_weighted_too(name, seed, n, ties):
    truth, score = sample(seed, n, ties=ties)
    assert measure(name, truth, score) == pytest.approx(ORACLES[name](truth, score), abs=1e-12)
    weights = np.random.default_rng(seed + 1).integers(0, 4, n).astype(float)
    weights[:2] += 1
    found = METRICS[name].prepare(truth, score)(np.stack([weights, np.ones(n)]))
    assert found[0] == pytest.approx(ORACLES[name](truth, score, sample_weight=weights), abs=1e-9)


def test_what_has_no_meaning_is_refused():
    truth, score = sample(0, 20)
    with pytest.raises(InvalidInput, match="'aucc' is not a metric"):
        measure("aucc", truth, score)
    with pytest.raises(DataError, match="no rows with a label"):
        measure("rmse", np.array([]), np.array([]))
    with pytest.raises(DataError, match="not a finite number"):
        measure("rmse", truth, np.full(20, np.nan))
    with pytest.raises(DataError, match="needs labels 0 and 1"):
        measure("roc_auc", truth * 2, score)
    with pytest.raises(DataError, match="all labels are 1"):
        measure("roc_auc", np.ones(20), score)
    with pytest.raises(DataError, match="truths for"):
        measure("rmse", truth[:5], score)


def test_the_interval_covers_about_as_often_as_it_says():
    # true AUC of two unit normals a distance d apart is Phi(d / sqrt 2)
    true = 0.7602
    hits = 0
    for seed in range(200):
        random = np.random.default_rng(seed)
        truth = (np.arange(300) < 100).astype(float)
        score = random.normal(truth * 1.0, 1.0)
        found = interval("roc_auc", truth, score, Resampling(n_boot=200, seed=seed))
        hits += found.low <= true <= found.high
    assert 0.89 <= hits / 200 <= 0.99


def test_an_equal_challenger_is_seldom_found_better_and_a_better_one_is():
    alarms = detections = 0
    for seed in range(60):
        random = np.random.default_rng(seed)
        truth = (random.random(600) < 0.4).astype(float)
        common = truth + random.normal(0, 1.0, 600)
        champion = common + random.normal(0, 0.5, 600)
        equal = common + random.normal(0, 0.5, 600)
        how = Resampling(n_boot=200, seed=seed)
        alarms += compare("roc_auc", truth, champion, equal, how).improvement.low > 0
        detections += compare("roc_auc", truth, champion, truth + random.normal(0, 0.6, 600), how).improvement.low > 0
    assert alarms <= 6
    assert detections >= 57


def test_pairing_makes_the_interval_narrow_and_seeds_make_it_repeatable():
    truth, score = sample(3, 500)
    near = score + np.random.default_rng(1).normal(0, 0.01, 500)
    how = Resampling(n_boot=300)
    found = compare("roc_auc", truth, score, near, how)
    single = interval("roc_auc", truth, score, how)
    assert found.improvement.high - found.improvement.low < 0.3 * (single.high - single.low)
    assert compare("roc_auc", truth, score, near, how) == found
    assert compare("roc_auc", truth, score, near, Resampling(n_boot=300, seed=1)) != found


def test_lower_is_better_where_it_is():
    truth, score = sample(5, 400)
    worse = np.clip(score + 0.2, 0.001, 0.999)
    assert compare("brier", truth, score, worse, Resampling(n_boot=100)).improvement.high < 0


def test_groups_are_drawn_together():
    random = np.random.default_rng(0)
    days = np.repeat(np.arange(20), 100)
    truth = random.random(2000) < 0.5
    error = np.repeat(random.normal(0, 1, 20), 100)
    score = truth + error
    alone = interval("rmse", truth.astype(float), score, Resampling(n_boot=200))
    by_day = interval("rmse", truth.astype(float), score, Resampling(n_boot=200, groups=days))
    assert by_day.high - by_day.low > 3 * (alone.high - alone.low)


def test_too_rare_a_class_cannot_be_resampled():
    truth = np.zeros(30)
    truth[0] = 1
    with pytest.raises(DataError, match="cannot be resampled"):
        interval("roc_auc", truth, np.linspace(0, 1, 30), Resampling(n_boot=50))
