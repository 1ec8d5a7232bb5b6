"""What a set of first models is made of, as values: the tasks, the algorithms, and where each is installed."""

from collections.abc import Mapping
from importlib.util import find_spec

ALGORITHMS: Mapping[str, tuple[str, str]] = {
    "trivial": ("", ""),
    "linear": ("sklearn", "scikit-learn"),
    "hist_gradient_boosting": ("sklearn", "scikit-learn"),
    "xgboost": ("xgboost", "xgboost"),
    "lightgbm": ("lightgbm", "lightgbm"),
    "mlp": ("torch", "torch"),
}
"""For each algorithm the module that it needs and the distribution that brings it; `trivial` is what all must beat."""
TRIVIAL = "trivial"
METRICS: Mapping[str, tuple[str, str]] = {
    "binary": ("roc_auc", "max"),
    "classes": ("log_loss", "min"),
    "numbers": ("rmse", "min"),
}
"""By which metric the algorithms of a task are compared, and which way is better."""
OUTPUTS: Mapping[str, str] = {"binary": "probability", "classes": "probabilities", "numbers": "value"}
"""What a model of each task answers; see `TrainerDef.output`."""


def installed() -> tuple[str, ...]:
    """The algorithms that can be tried here."""
    return tuple(name for name, (module, _) in ALGORITHMS.items() if not module or find_spec(module) is not None)


def missing() -> dict[str, str]:
    """The algorithms that cannot, with the distribution that each needs."""
    here = installed()
    return {name: package for name, (_, package) in ALGORITHMS.items() if name not in here}
