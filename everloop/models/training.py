"""The runner of a model function: gives it its frame, and its run to the ordinary mlflow client."""

import base64
import functools
import json
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from types import FunctionType, ModuleType
from typing import Any, Protocol, Self

from everloop.core.errors import DataError
from everloop.models.predictor import forget

HOLDOUT = "holdout"
"""The input with the rows that the function never sees."""
SELECTION = "selection"
"""The input that says which columns the function gets; see `selection.steps`."""
SEARCH = "search"
"""The input that says which parameters a search found best."""
TRANSFORMS = "transforms"
"""The input with the packed code that makes columns of a request, `{path: base64}`; it is filed beside the model."""
_BESIDE = (HOLDOUT, SELECTION, SEARCH, TRANSFORMS)
EXAMPLE_ROWS = 5
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


@dataclass(frozen=True, slots=True)
class Fitted:
    """What a model function returned, and the rows that the codec describes and measures it by."""

    estimator: Any
    training: Any
    """The rows that the function got (a Polars frame: the service's columns and the label)."""
    holdout: Any = None
    """The rows that it never saw, with at least the same columns; None: it is not measured."""
    beside: Mapping[str, bytes] = field(default_factory=dict)
    """Files that belong into the model's folder, by path."""
    chosen: Sequence[str] = ()
    """The columns that the function got, where they are fewer than the service's; empty: all of them."""


def train(asset: Trained, inputs: Mapping[str, Any], params: Mapping[str, Any], _facts: Mapping[str, Any]) -> Fitted:
    """Call the function with the service's columns and the label; what it returns is the model.

    The holdout is not among what it gets. Where the step has a tracking run and the function uses mlflow, the
    run is active inside it, and autologging keeps from saving models: the returned object is the model. Without a
    run what it logs goes nowhere.
    """
    name, frame = next((n, value) for n, value in inputs.items() if n not in _BESIDE)
    said = asset.facts
    table = frame.collect() if hasattr(frame, "collect") else frame
    chosen = inputs[SELECTION]["chosen"] if SELECTION in inputs else list(said["columns"])
    if not chosen:
        raise DataError("the selection left no column", hint="its ranking says why; loosen select= or keep= some")
    columns = [*chosen, said["label"]]
    training = table.select(columns)
    found = inputs[SEARCH]["params"] if SEARCH in inputs else {}
    with active_run(asset.function):
        estimator = asset.function(**{name: training}, **params, **found)
    # autologging writes its run into what it saw fitted: the same training would never give the same bytes
    forget(estimator, "_mlflow_run_id", lambda thing: not isinstance(thing, type | FunctionType | ModuleType))
    holdout: Any = inputs.get(HOLDOUT)
    packed = inputs.get(TRANSFORMS, {})
    beside = {path: base64.b64decode(text) for path, text in packed.items()}
    if packed:  # a worker warms up on what it will be asked, not on what the model alone takes
        example = table.select(said["columns"]).head(EXAMPLE_ROWS)
        rows = {name: [_plain(value) for value in example[name].to_list()] for name in example.columns}
        beside["transforms/example.json"] = json.dumps(rows, allow_nan=False).encode()
    return Fitted(estimator, training, holdout.collect() if hasattr(holdout, "collect") else holdout, beside, chosen)


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


@contextmanager
def active_run(function: Callable[..., Any], *, quiet: bool = False) -> Iterator[None]:
    """Have what a function logs by mlflow go to the step's run; `quiet`, or without a run: nowhere."""
    if not _uses_mlflow(function):
        yield
        return
    mlflow = import_module("mlflow")
    run = "" if quiet else os.environ.get("MLFLOW_RUN_ID", "")
    with ExitStack() as undo:
        if run:
            _keep_models_out(mlflow, function, undo)
            # the engine measures the step: one way, also where the author switched on the client's own
            undo.enter_context(mlflow.start_run(run_id=run, log_system_metrics=False))
        else:
            _silence(mlflow, undo)
        yield


def _uses_mlflow(function: Callable[..., Any]) -> bool:
    """Whether the function or its module names mlflow; importing it takes seconds, so only then."""
    code = function.__code__
    module = sys.modules.get(function.__module__)
    return "mlflow" in code.co_names or "mlflow" in code.co_varnames or hasattr(module, "mlflow")


def _keep_models_out(mlflow: Any, function: Callable[..., Any], undo: ExitStack) -> None:
    """Make `mlflow.autolog()` and the flavours' own leave models and datasets to us."""
    for flavour in _FLAVOURS:
        if flavour in function.__code__.co_names:  # `mlflow.sklearn.autolog()`: loaded now, so that it can be quietened
            import_module(f"mlflow.{flavour}")
    _replace(mlflow, "autolog", _always(mlflow.autolog, log_models=False, log_datasets=False, silent=True), undo)
    for flavour in _FLAVOURS:
        module = sys.modules.get(f"mlflow.{flavour}")
        if module is not None and hasattr(module, "autolog"):
            _replace(module, "autolog", _always(module.autolog, log_models=False), undo)


def _always(function: Callable[..., Any], **fixed: Any) -> Callable[..., Any]:
    """The function with some arguments that its caller cannot change, and all else that mlflow reads off it."""

    @functools.wraps(function)
    def called(*arguments: Any, **named: Any) -> Any:
        return function(*arguments, **{**named, **fixed})

    return called


def _silence(mlflow: Any, undo: ExitStack) -> None:
    """Let a step without a run (a reproduction) log nowhere, rather than to a database beside its code."""
    for name in [name for name in vars(mlflow) if name.startswith(("log_", "set_", "start_run", "end_run", "autolog"))]:
        _replace(mlflow, name, _Nowhere(), undo)
    for flavour in _FLAVOURS:
        module = sys.modules.get(f"mlflow.{flavour}")
        for name in ("autolog", "log_model"):
            if module is not None and hasattr(module, name):
                _replace(module, name, _Nowhere(), undo)


def _replace(module: Any, name: str, value: Any, undo: ExitStack) -> None:
    undo.callback(setattr, module, name, getattr(module, name))
    setattr(module, name, value)


class _Nowhere:
    """Takes any call and any `with`, and does nothing."""

    def __call__(self, *_arguments: object, **_named: object) -> "_Nowhere":
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        pass
