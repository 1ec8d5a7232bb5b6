"""The runner of model functions: what it gives them, and what must not stay in what they return."""

from dataclasses import dataclass, field

import numpy as np
import polars as pl
from sklearn.linear_model import LogisticRegression

from everloop.models.training import train


@dataclass
class Asked:
    function: object
    facts: dict = field(default_factory=lambda: {"columns": ["x"], "label": "y"})


class Wrapped:
    def __init__(self, model):
        self.model = model


def frames():
    rows = pl.DataFrame({"x": np.linspace(-1, 1, 40), "y": [0, 1] * 20, "asked_at": range(40)})
    return rows.head(30), rows.tail(10)


def test_the_function_gets_its_columns_and_never_the_holdout():
    seen = []
    training, holdout = frames()

    def model(frame):
        seen.append(frame)
        return LogisticRegression().fit(frame[["x"]].to_numpy(), frame["y"].to_numpy())

    fitted = train(Asked(model), {"frame": training, "holdout": holdout}, {}, {})
    assert seen[0].columns == ["x", "y"]
    assert len(seen[0]) == 30
    assert len(fitted.holdout) == 10


def test_the_run_that_autologging_notes_inside_a_model_is_dropped_wherever_it_is():
    training, holdout = frames()

    def model(frame):
        fitted = LogisticRegression().fit(frame[["x"]].to_numpy(), frame["y"].to_numpy())
        fitted._mlflow_run_id = "0" * 32
        return Wrapped([fitted])

    fitted = train(Asked(model), {"frame": training, "holdout": holdout}, {}, {})
    assert not hasattr(fitted.estimator.model[0], "_mlflow_run_id")
