"""Shapley values: they add up to the answer, by every method; sampling agrees with what is known exactly."""

import math
import time
import warnings

import numpy as np
import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import lightgbm
    import torch
    import xgboost

from sklearn.ensemble import GradientBoostingClassifier, HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from everloop.core.errors import InvalidInput
from everloop.models.explaining.shapley import method_of
from everloop.models.predictor import Predictor

NAMES = [f"f{n}" for n in range(4)]


@pytest.fixture(autouse=True)
def quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # shap and torch warn of their own dependencies
        yield


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(5)
    rows = rng.normal(size=(300, 4))
    return rows, (rows[:, 0] + rows[:, 1] * rows[:, 2] > 0).astype(int)


def predictor(model, output):
    classes = np.asarray(model.classes_).tolist() if hasattr(model, "classes_") else None
    inputs = [{"name": name, "type": "double"} for name in NAMES]
    return Predictor(model, {"inputs": inputs, "output": output, "classes": classes})


def columns(rows):
    return {name: rows[:, place] for place, name in enumerate(NAMES)}


def logit(share):
    return np.log(share / (1 - share))


def net(_x, _y):
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU(), torch.nn.Linear(3, 1), torch.nn.Sigmoid())


def of_three(rows, label):
    return label + (rows[:, 3] > 0.5)


CASES = {
    "histogram": ("trees, log-odds", "probability", lambda x, y: HistGradientBoostingClassifier(max_iter=9).fit(x, y)),
    "boosting": ("trees, log-odds", "probability", lambda x, y: GradientBoostingClassifier(n_estimators=9).fit(x, y)),
    "forest": ("trees, probability", "probability", lambda x, y: RandomForestClassifier(9).fit(x, y)),
    "forest of three": (
        "trees, probability",
        "probabilities",
        lambda x, y: RandomForestClassifier(9).fit(x, of_three(x, y)),
    ),
    "xgboost": ("trees, log-odds", "probability", lambda x, y: xgboost.XGBClassifier(n_estimators=9).fit(x, y)),
    "xgboost numbers": ("trees, value", "value", lambda x, y: xgboost.XGBRegressor(n_estimators=9).fit(x, y)),
    "lightgbm": ("trees, log-odds", "probability", lambda x, y: lightgbm.LGBMClassifier(verbose=-1).fit(x, y)),
    "lightgbm numbers": ("trees, value", "value", lambda x, y: lightgbm.LGBMRegressor(verbose=-1).fit(x, y)),
    "logistic": ("linear, log-odds", "probability", lambda x, y: LogisticRegression().fit(x, y)),
    "ridge": ("linear, value", "value", lambda x, y: Ridge().fit(x, y)),
    "pipeline": (
        "sampled, probability",
        "probability",
        lambda x, y: make_pipeline(StandardScaler(), LogisticRegression()).fit(x, y),
    ),
    "network": ("sampled, probability", "probability", net),
}


@pytest.mark.parametrize("name", CASES)
def test_what_the_inputs_add_and_the_base_make_the_answer(name, data):
    rows, label = data
    said, output, make = CASES[name]
    asked = predictor(make(rows, label), output)
    method = method_of(asked, columns(rows[:64]))
    assert method.name == said
    told = method.explain(columns(rows[:5]), 0.2)
    assert told.values.shape == (5, 4)
    assert told.base + told.values.sum(axis=1) == pytest.approx(told.output, abs=1e-4)
    answer = asked.scores(columns(rows[:5]))
    answer = answer.max(axis=1) if answer.ndim == 2 else answer
    expected = logit(answer.astype(np.float64)) if said.endswith("log-odds") else answer
    assert told.output == pytest.approx(expected, abs=1e-4)


def test_sampling_comes_to_the_exact_values(data):
    """Against every order of the inputs and every row of the background: the definition itself."""
    rows, label = data
    asked = predictor(make_pipeline(StandardScaler(), LogisticRegression()).fit(rows, label), "probability")
    background, row = rows[:6], rows[100]
    exact = np.zeros(4)
    for held in range(16):
        inside = [i for i in range(4) if held >> i & 1]
        for place in range(4):
            if place not in inside:
                with_it, without = background.copy(), background.copy()
                without[:, inside] = row[inside]
                with_it[:, [*inside, place]] = row[[*inside, place]]
                weight = math.factorial(len(inside)) * math.factorial(3 - len(inside)) / math.factorial(4)
                gained = asked.scores(columns(with_it)) - asked.scores(columns(without))
                exact[place] += weight * gained.mean()
    told = method_of(asked, columns(background)).explain(columns(row[None]), 1.5)
    assert told.values[0] == pytest.approx(exact, abs=0.02)
    assert told.base[0] == pytest.approx(asked.scores(columns(background)).mean(), abs=0.03)


def test_linear_values_are_the_definition_for_independent_inputs(data):
    rows, label = data
    model = Ridge().fit(rows, label)
    told = method_of(predictor(model, "value"), columns(rows)).explain(columns(rows[:3]), 0.1)
    assert told.values == pytest.approx(model.coef_ * (rows[:3] - rows.mean(axis=0)))
    assert told.base == pytest.approx(model.predict(rows).mean())


def test_sampling_ends_in_time(data):
    rows, label = data
    asked = predictor(make_pipeline(StandardScaler(), LogisticRegression()).fit(rows, label), "probability")
    method = method_of(asked, columns(rows[:64]))
    started = time.monotonic()
    method.explain(columns(rows[:10]), 0.3)
    assert time.monotonic() - started < 60  # ten rows, each at least one pair of orders


def test_classes_alone_are_not_explained_by_sampling(data):
    rows, label = data
    asked = predictor(make_pipeline(StandardScaler(), LogisticRegression()).fit(rows, label), "class")
    with pytest.raises(InvalidInput, match="classes alone"):
        method_of(asked, columns(rows[:8]))
