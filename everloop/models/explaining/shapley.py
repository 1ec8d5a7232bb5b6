"""Shapley values of one answer: base + sum(values) = output, for each row.

- trees: the path-dependent values of Lundberg, Erion & Lee (2018), by XGBoost and LightGBM themselves, by `shap` for
  scikit-learn (the extra `explain`);
- linear models: coefficient * (value - mean of the background), which is exact for inputs taken as independent;
- any other: sampled permutations (Strumbelj & Kononenko, 2014), each with its reverse, against rows of the background.
  Each permutation adds up exactly, so their mean does.

Of a classifier the class that is explained is the second of two, else the likeliest one of the row.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np

from everloop.core.errors import InvalidInput
from everloop.models.flavours import is_booster, library_of
from everloop.models.predictor import Predictor

Array = np.ndarray[Any, Any]
_TREES = frozenset(
    f"{kind}{task}"
    for kind in ("HistGradientBoosting", "GradientBoosting", "RandomForest", "ExtraTrees", "DecisionTree")
    for task in ("Classifier", "Regressor")
)
_PROBABLE = frozenset(("RandomForestClassifier", "ExtraTreesClassifier", "DecisionTreeClassifier"))
"""Whose trees vote with probabilities; the others' add up to log-odds."""


@dataclass(frozen=True, slots=True)
class Explained:
    """Of n rows and k inputs."""

    base: Array
    """(n,): the answer before anything is known."""
    values: Array
    """(n, k): what each input adds."""
    output: Array
    """(n,): the answer that is explained, in the units of the explanation."""


@dataclass(frozen=True, slots=True)
class Method:
    """How a model is explained."""

    name: str
    """`trees`, `linear` or `sampled`, and the units: `log-odds`, `probability` or `value`."""
    explain: Callable[[Mapping[str, Array], float], Explained]
    """(columns, seconds that it may take) -> explanation."""


def method_of(predictor: Predictor, background: Mapping[str, Array]) -> Method:
    """The exact method where there is one, else sampling against `background`, some real rows.

    Raises `InvalidInput` for a model that answers classes alone.
    """
    estimator = predictor.estimator
    library = library_of(estimator)
    name = type(estimator).__name__
    raw: Callable[[Array], tuple[Array, Array]] | None = None
    if library == "xgboost":
        raw = _xgboost(estimator)
    elif library == "lightgbm":
        raw = _lightgbm(estimator)
    elif name in _TREES and type(estimator).__module__.startswith("sklearn."):
        raw = _shap(estimator)
    elif hasattr(estimator, "coef_") and np.ndim(estimator.coef_) in (1, 2) and hasattr(estimator, "intercept_"):
        return Method(f"linear, {_units(predictor)}", _linear(predictor, background))
    if raw is None:
        return Method(
            f"sampled, {'value' if predictor.output == 'value' else 'probability'}", _sampled(predictor, background)
        )
    units = "probability" if name in _PROBABLE else _units(predictor)
    return Method(f"trees, {units}", _of_trees(predictor, raw))


def _units(predictor: Predictor) -> str:
    return "value" if predictor.output == "value" else "log-odds"


def _of_trees(predictor: Predictor, raw: Callable[[Array], tuple[Array, Array]]) -> Any:
    def explain(columns: Mapping[str, Array], _seconds: float) -> Explained:
        matrix = np.asarray(predictor.arranged(columns), np.float64)
        base, values = raw(matrix)
        return _of_one_class(base, values)

    return explain


def _of_one_class(base: Array, values: Array) -> Explained:
    """Of (n, c) bases and (n, k, c) values the class that is explained."""
    totals = base + values.sum(axis=1)
    place = np.full(len(totals), totals.shape[1] - 1) if totals.shape[1] <= 2 else totals.argmax(axis=1)
    rows = np.arange(len(totals))
    return Explained(base[rows, place], values[rows, :, place], totals[rows, place])


def _xgboost(estimator: Any) -> Callable[[Array], tuple[Array, Array]]:
    booster = estimator if is_booster(estimator) else estimator.get_booster()
    matrix = import_module("xgboost").DMatrix

    def raw(rows: Array) -> tuple[Array, Array]:
        given = matrix(rows, feature_names=booster.feature_names)
        found = np.asarray(booster.predict(given, pred_contribs=True), np.float64)
        found = found[:, None, :] if found.ndim == 2 else found
        return found[:, :, -1], found[:, :, :-1].transpose(0, 2, 1)

    return raw


def _lightgbm(estimator: Any) -> Callable[[Array], tuple[Array, Array]]:
    def raw(rows: Array) -> tuple[Array, Array]:
        found = np.asarray(estimator.predict(rows, pred_contrib=True), np.float64)
        found = found.reshape(len(rows), -1, rows.shape[1] + 1)
        return found[:, :, -1], found[:, :, :-1].transpose(0, 2, 1)

    return raw


def _shap(estimator: Any) -> Callable[[Array], tuple[Array, Array]]:
    trees = import_module("shap").TreeExplainer(estimator)

    def raw(rows: Array) -> tuple[Array, Array]:
        values = np.asarray(trees.shap_values(rows, check_additivity=False), np.float64)
        values = values[:, :, None] if values.ndim == 2 else values
        base = np.broadcast_to(np.atleast_1d(trees.expected_value), (len(rows), values.shape[2]))
        return base, values

    return raw


def _linear(predictor: Predictor, background: Mapping[str, Array]) -> Any:
    weights = np.atleast_2d(predictor.estimator.coef_).astype(np.float64)
    intercept = np.atleast_1d(predictor.estimator.intercept_).astype(np.float64)
    mean = np.asarray(predictor.arranged(background), np.float64).mean(axis=0)

    def explain(columns: Mapping[str, Array], _seconds: float) -> Explained:
        matrix = np.asarray(predictor.arranged(columns), np.float64)
        values = (matrix - mean)[:, :, None] * weights.T[None, :, :]
        base = np.broadcast_to(weights @ mean + intercept, (len(matrix), len(weights)))
        return _of_one_class(base, values)

    return explain


def _sampled(predictor: Predictor, background: Mapping[str, Array]) -> Any:
    if predictor.output == "class":
        raise InvalidInput("a model that answers classes alone is not explained", hint='declare output="probabilities"')
    names = [field.name for field in predictor.inputs]
    random = np.random.default_rng(0)
    known = len(next(iter(background.values())))

    def score(rows: Mapping[str, Array], place: int | None) -> Array:
        answer = predictor.scores(rows)
        return np.asarray(answer if answer.ndim == 1 else answer[:, place], np.float64)

    def one(row: Mapping[str, Array], seconds: float) -> tuple[float, Array, float]:
        end = time.monotonic() + seconds
        first = predictor.scores(row)
        place = int(first[0].argmax()) if first.ndim == 2 else None
        values, base, output, rounds = np.zeros(len(names)), 0.0, 0.0, 0
        while not rounds or time.monotonic() < end:
            order = random.permutation(len(names))
            other = int(random.integers(known))
            for way in (order, order[::-1]):
                along = score(_path(row, background, other, [names[i] for i in way]), place)
                values[way] += np.diff(along)
                base, output = base + along[0], along[-1]
            rounds += 1
        return base / (2 * rounds), values / (2 * rounds), output

    def explain(columns: Mapping[str, Array], seconds: float) -> Explained:
        count = len(columns[names[0]])
        told = [one({n: columns[n][i : i + 1] for n in names}, seconds / count) for i in range(count)]
        base, values, output = zip(*told, strict=True)
        return Explained(np.array(base), np.array(values), np.array(output))

    return explain


def _path(row: Mapping[str, Array], background: Mapping[str, Array], other: int, order: list[str]) -> dict[str, Array]:
    """From a row of the background to the row itself, one input more at each step: len(order) + 1 rows."""
    path = {name: np.repeat(background[name][other : other + 1], len(order) + 1) for name in order}
    for step, name in enumerate(order):
        path[name][step + 1 :] = row[name][0]
    return path
