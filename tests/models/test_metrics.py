import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics

from everloop.core.errors import DataError
from everloop.models.metrics import ece, evaluate

ROWS = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 20).map(lambda i: i / 20)), min_size=2, max_size=60)


@given(ROWS)
def test_the_same_as_scikit_learn_with_ties(rows):
    truth, score = (np.array(column, dtype=np.float64) for column in zip(*rows, strict=True))
    found = evaluate(truth, score, "probability")
    assert found["brier"] == pytest.approx(metrics.brier_score_loss(truth, score, pos_label=1))
    assert found["log_loss"] == pytest.approx(metrics.log_loss(truth, score, labels=[0, 1]), rel=1e-9)
    assert found["accuracy"] == pytest.approx(metrics.accuracy_score(truth, score >= 0.5))
    if 0 < truth.sum() < len(truth):
        assert found["roc_auc"] == pytest.approx(metrics.roc_auc_score(truth, score))
        assert found["pr_auc"] == pytest.approx(metrics.average_precision_score(truth, score))
    else:
        assert "roc_auc" not in found
    numbers = evaluate(truth, score, "value")
    assert numbers["rmse"] == pytest.approx(metrics.root_mean_squared_error(truth, score))
    assert numbers["mae"] == pytest.approx(metrics.mean_absolute_error(truth, score))


def test_calibration_error_by_hand():
    truth, score = np.array([0.0, 1.0, 1.0, 1.0]), np.array([0.1, 0.15, 0.95, 1.0])
    assert ece(truth, score) == pytest.approx(abs(0.5 - 0.125) * 0.5 + abs(1 - 0.975) * 0.5)


def test_undefined_metrics_are_left_out_and_wrong_rows_refused():
    assert "roc_auc" not in evaluate([1, 1], [0.2, 0.3], "probability")
    with pytest.raises(DataError, match="0 labels"):
        evaluate([], [], "probability")
    with pytest.raises(DataError, match="0 or 1"):
        evaluate([1, 2], [0.2, 0.3], "probability")
    found = evaluate(["a", "b"], np.array([[0.9, 0.1], [0.6, 0.4]]), "probabilities", ["a", "b"])
    assert found["accuracy"] == 0.5
    assert found["log_loss"] == pytest.approx(metrics.log_loss(["a", "b"], [[0.9, 0.1], [0.6, 0.4]]))
