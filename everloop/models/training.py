"""The runner of a model function: gives it its frame, and its run to the ordinary mlflow client."""

import functools
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from typing import Any, Protocol

HOLDOUT = "holdout"
"""The input with the rows that the function never sees."""
_FLAVOURS = ("sklearn", "xgboost", "lightgbm", "pytorch", "keras", "statsmodels", "catboost")


class Trained(Protocol):
    """What the runner needs of an asset."""

    @property
    def function(self) -> Callable[..., Any]:
        """The author's function."""
        ...

    @property
    def facts(self) -> Mapping[str, Any]:
        """What the definition said; see `Project.assets`."""
        ...


def train(asset: Trained, inputs: Mapping[str, Any], params: Mapping[str, Any], _facts: Mapping[str, Any]) -> Any:
    """Call the function with the service's columns and the label, and return the estimator that it returns.

    The holdout is not among what it gets. Where the step has a tracking run and the function uses mlflow, the
    run is active inside it, and autologging keeps from saving models: the returned object is the model.
    """
    name, frame = next((n, value) for n, value in inputs.items() if n != HOLDOUT)
    said = asset.facts
    table = frame.collect() if hasattr(frame, "collect") else frame
    columns = [*said["columns"], said["label"]]
    with _active_run(asset.function):
        return asset.function(**{name: table.select(columns)}, **params)


@contextmanager
def _active_run(function: Callable[..., Any]) -> Iterator[None]:
    run = os.environ.get("MLFLOW_RUN_ID", "")
    if not run or not _uses_mlflow(function):
        yield
        return
    mlflow = import_module("mlflow")
    _keep_models_out(mlflow)
    with mlflow.start_run(run_id=run):
        yield


def _uses_mlflow(function: Callable[..., Any]) -> bool:
    """Whether the function or its module names mlflow; importing it takes seconds, so only then."""
    code = function.__code__
    module = sys.modules.get(function.__module__)
    return "mlflow" in code.co_names or "mlflow" in code.co_varnames or hasattr(module, "mlflow")


def _keep_models_out(mlflow: Any) -> None:
    """Make `mlflow.autolog()` and the flavours' own leave models and datasets to us."""
    mlflow.autolog = functools.partial(mlflow.autolog, log_models=False, log_datasets=False, silent=True)
    for flavour in _FLAVOURS:
        module = sys.modules.get(f"mlflow.{flavour}")
        if module is not None and hasattr(module, "autolog"):
            module.autolog = functools.partial(module.autolog, log_models=False)
