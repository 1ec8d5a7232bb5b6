"""The one estimator of all first models: columns as they are in the table in, answers out.

A first model's project holds a copy (see `shipped`), so that its model answers where there is no Everloop: all that is
needed for an answer is here, in `encoding` and in `definitions`, which are copied too.
"""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from everloop.models.baseline.definitions import TRIVIAL
from everloop.models.baseline.encoding import Encoder

Array = npt.NDArray[Any]
_NETWORK = "everloop.models.baseline.network"
"""Only for training."""
_DENSE = frozenset({"linear", "mlp"})


class Baseline:
    """A first model with scikit-learn's methods; see `definitions.ALGORITHMS` for its algorithms.

    Everything is seeded, and libraries use one thread where more of them would change sums.
    """

    def __init__(self, algorithm: str, task: str, roles: Mapping[str, str], seed: int = 0) -> None:
        """A model of `task` (`binary`, `classes`, `numbers`) from columns with these roles."""
        self.algorithm, self.task, self.roles, self.seed = algorithm, task, dict(roles), seed

    def get_params(self, *, deep: bool = True) -> dict[str, Any]:  # noqa: ARG002 - scikit-learn's shape
        """What it was made with."""
        return {"algorithm": self.algorithm, "task": self.task, "roles": self.roles, "seed": self.seed}

    def fit(self, frame: Any, label: Any) -> Self:
        """Learn from a frame with the columns and a label of one value a row."""
        values = np.asarray(label.to_numpy() if hasattr(label, "to_numpy") else label)
        self.feature_names_in_ = np.array(list(self.roles), dtype=object)
        self.n_features_in_ = len(self.roles)
        if self.task == "numbers":
            truth = values.astype(np.float64)
            self.middle_, self.scale_ = float(truth.mean()), float(truth.std()) or 1.0
            self.shares_ = np.zeros(0)
        else:
            self.classes_, place = np.unique(values, return_inverse=True)
            truth = place.astype(np.int64)
            self.shares_ = np.bincount(place, minlength=len(self.classes_)) / len(place)
        if self.algorithm == TRIVIAL:
            return self
        self.encoder_ = Encoder(self.roles, dense=self.algorithm in _DENSE, seed=self.seed)
        rated = None if self.task == "classes" else truth.astype(np.float64)
        matrix = self.encoder_.learn(frame, rated)
        if self.algorithm == "mlp":
            wanted = (truth - self.middle_) / self.scale_ if self.task == "numbers" else truth
            count = 0 if self.task == "numbers" else len(self.classes_)
            network = import_module(_NETWORK)
            self.layers_ = network.trained(matrix, wanted, count, self.seed)
        else:
            self.model_ = _MAKERS[self.algorithm](self.task == "numbers", self.seed).fit(matrix, truth)
        return self

    def predict(self, frame: Any) -> Array:
        """The number, or the likeliest class."""
        if self.task != "numbers":
            return np.asarray(self.classes_[np.argmax(self.predict_proba(frame), axis=1)])
        if self.algorithm == TRIVIAL:
            return np.full(_rows(frame), self.middle_)
        matrix = self.encoder_.encode(frame)
        if self.algorithm == "mlp":
            return np.asarray(self._network(matrix)[:, 0] * self.scale_ + self.middle_, dtype=np.float64)
        return np.asarray(self.model_.predict(matrix), dtype=np.float64)

    def predict_proba(self, frame: Any) -> Array:
        """The probability of each of `classes_`."""
        if self.algorithm == TRIVIAL:
            return np.tile(self.shares_, (_rows(frame), 1))
        matrix = self.encoder_.encode(frame)
        if self.algorithm == "mlp":
            odds = self._network(matrix)
            raised = np.exp(odds - odds.max(axis=1, keepdims=True))
            return np.asarray(raised / raised.sum(axis=1, keepdims=True))
        return np.asarray(self.model_.predict_proba(matrix), dtype=np.float64)

    def _network(self, matrix: Array) -> Array:
        """What the network says, in NumPy: asking it needs no torch."""
        held = matrix
        for place, (weight, bias) in enumerate(self.layers_):
            held = held @ weight + bias
            held = np.maximum(held, 0.0) if place < len(self.layers_) - 1 else held
        return held


def _rows(frame: Any) -> int:
    return len(next(iter(frame.values()))) if isinstance(frame, Mapping) else len(frame)


def _linear(numbers: bool, seed: int) -> Any:
    models = import_module("sklearn.linear_model")
    return models.Ridge(alpha=1.0) if numbers else models.LogisticRegression(max_iter=2000, random_state=seed)


def _hist_gradient_boosting(numbers: bool, seed: int) -> Any:
    ensemble = import_module("sklearn.ensemble")
    made = ensemble.HistGradientBoostingRegressor if numbers else ensemble.HistGradientBoostingClassifier
    return made(max_iter=200, learning_rate=0.06, max_leaf_nodes=31, early_stopping=False, random_state=seed)


def _xgboost(numbers: bool, seed: int) -> Any:
    library = import_module("xgboost")
    made = library.XGBRegressor if numbers else library.XGBClassifier
    return made(n_estimators=200, learning_rate=0.06, max_depth=6, tree_method="hist", random_state=seed, n_jobs=1)


def _lightgbm(numbers: bool, seed: int) -> Any:
    library = import_module("lightgbm")
    made = library.LGBMRegressor if numbers else library.LGBMClassifier
    sure = {"deterministic": True, "force_row_wise": True, "verbose": -1, "n_jobs": 1}
    return made(n_estimators=200, learning_rate=0.06, num_leaves=31, random_state=seed, **sure)


_MAKERS: Mapping[str, Callable[[bool, int], Any]] = {
    "linear": _linear,
    "hist_gradient_boosting": _hist_gradient_boosting,
    "xgboost": _xgboost,
    "lightgbm": _lightgbm,
}
