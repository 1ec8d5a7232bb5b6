import types
import warnings

import pytest

from everloop.flows.assets import define
from everloop.models.training import Fitted, train

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what mlflow says about itself while it is imported
    import mlflow

FACTS = {"columns": ["distance", "hour"], "label": "late"}


def plain(frame, rate: float = 0.5):
    return types.SimpleNamespace(columns=frame.columns, rate=rate, predict=None)


def logging(frame):
    mlflow.autolog()
    mlflow.log_metric("rows", len(frame))
    with mlflow.start_run():
        mlflow.log_params({"a": 1})
        mlflow.set_tag("b", "2")
    return plain(frame)


def run(function, inputs, **params):
    asset = define(function, kind="model", facts=FACTS)
    return train(asset, inputs, params, {})


def test_the_function_gets_columns_and_label_and_never_the_holdout(training, holdout):
    made = run(plain, {"frame": training.lazy(), "holdout": holdout.lazy()}, rate=0.25)
    assert isinstance(made, Fitted)
    assert made.estimator.columns == ["distance", "hour", "late"]
    assert made.estimator.rate == 0.25
    assert made.training.columns == ["distance", "hour", "late"]
    assert len(made.holdout) == len(holdout)


def test_without_a_run_what_is_logged_goes_nowhere(training, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)
    before = mlflow.log_metric, mlflow.autolog, mlflow.start_run
    run(logging, {"frame": training})
    assert list(tmp_path.iterdir()) == []
    assert (mlflow.log_metric, mlflow.autolog, mlflow.start_run) == before


def test_an_error_puts_the_client_back(training, monkeypatch):
    monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)
    before = mlflow.autolog

    def fails(frame):
        mlflow.autolog()
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        run(fails, {"frame": training})
    assert mlflow.autolog is before
