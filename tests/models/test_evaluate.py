import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics

from everloop.core.errors import DataError
from everloop.models import evaluate as ours

ROWS = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 20).map(lambda i: i / 20)), min_size=2, max_size=60)


@given(ROWS)
def test_the_same_as_scikit_learn_with_ties(rows):
    truth, score = (np.array(column, dtype=np.float64) for column in zip(*rows, strict=True))
    assert ours.brier(truth, score) == pytest.approx(metrics.brier_score_loss(truth, score, pos_label=1))
    assert ours.log_loss(truth, score) == pytest.approx(metrics.log_loss(truth, score, labels=[0, 1]), rel=1e-9)
    assert ours.accuracy(truth, score) == pytest.approx(metrics.accuracy_score(truth, score >= 0.5))
    assert ours.rmse(truth, score) == pytest.approx(metrics.root_mean_squared_error(truth, score))
    assert ours.mae(truth, score) == pytest.approx(metrics.mean_absolute_error(truth, score))
    if 0 < truth.sum() < len(truth):
        assert ours.roc_auc(truth, score) == pytest.approx(metrics.roc_auc_score(truth, score))
        assert ours.pr_auc(truth, score) == pytest.approx(metrics.average_precision_score(truth, score))
    else:
        assert math.isnan(ours.roc_auc(truth, score))


def test_calibration_error_by_hand():
    truth, score = np.array([0.0, 1.0, 1.0, 1.0]), np.array([0.1, 0.15, 0.95, 1.0])
    assert ours.ece(truth, score) == pytest.approx(abs(0.5 - 0.125) * 0.5 + abs(1 - 0.975) * 0.5)


def test_undefined_metrics_are_left_out_and_wrong_rows_refused():
    assert "roc_auc" not in ours.evaluate([1, 1], [0.2, 0.3], "probability")
    with pytest.raises(DataError, match="0 labels"):
        ours.evaluate([], [], "probability")
    with pytest.raises(DataError, match="0 or 1"):
        ours.evaluate([1, 2], [0.2, 0.3], "probability")
    found = ours.evaluate(["a", "b"], np.array([[0.9, 0.1], [0.6, 0.4]]), "probabilities", ["a", "b"])
    assert found["accuracy"] == 0.5
    assert found["log_loss"] == pytest.approx(metrics.log_loss(["a", "b"], [[0.9, 0.1], [0.6, 0.4]]))
