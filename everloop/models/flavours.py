"""Model libraries beside scikit-learn: how their models are asked, kept, and described to mlflow's client.

Estimators with scikit-learn's methods (XGBClassifier, LGBMRegressor) are asked by those. XGBoost's and LightGBM's own
boosters and torch modules (Lightning's too) answer in one call; `asked` gives that call scikit-learn's shape. No
library is imported that the model itself has not loaded.
"""

import io
import tempfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from everloop.core.errors import InvalidInput

TORCH_FILE = "data/model.pth"
_PICKLED_WITH = "mlflow.pytorch.pickle_module"

Array = np.ndarray[Any, Any]


def is_of(estimator: Any, package: str) -> bool:
    """Whether the object's class, or one that it is made from, comes from this package."""
    return any(base.__module__.partition(".")[0] == package for base in type(estimator).__mro__)


def is_torch(estimator: Any) -> bool:
    """Whether it is a torch module."""
    return is_of(estimator, "torch") and hasattr(estimator, "state_dict")


def library_of(estimator: Any) -> str:
    """The flavour that mlflow gives it: `xgboost`, `lightgbm`, `pytorch`, or `sklearn` for all with its methods."""
    if is_torch(estimator):
        return "pytorch"
    return next((name for name in ("xgboost", "lightgbm") if is_of(estimator, name)), "sklearn")


def is_booster(estimator: Any) -> bool:
    """Whether it is a booster of XGBoost or LightGBM itself, without scikit-learn's methods."""
    return library_of(estimator) in {"xgboost", "lightgbm"} and not hasattr(estimator, "get_params")


def names_of(estimator: Any) -> Sequence[str] | None:
    """The column names that it was fitted with; None when it got a matrix (LightGBM then invents `Column_0`, …)."""
    names = getattr(estimator, "feature_names_in_", None)
    if names is None:
        return None
    found = [str(name) for name in names]
    if is_of(estimator, "lightgbm") and found == [f"Column_{place}" for place in range(len(found))]:
        return None
    return found


def asked(estimator: Any, output: str) -> Callable[[Any], Array] | None:
    """One call that answers as scikit-learn's method for `output` would; None where that method is there itself.

    One number a row is the probability of the second class. What a torch module's `forward` gives is taken as it is:
    end it with a sigmoid or softmax where a probability is declared.
    """
    if is_torch(estimator):
        torch = import_module("torch")
        estimator.eval()

        def ask(rows: Any) -> Array:
            with torch.inference_mode():
                given = torch.as_tensor(np.asarray(rows, dtype=np.float32))
                return _shaped(estimator(given).detach().cpu().numpy(), output)

        return ask
    if not is_booster(estimator):
        return None
    if is_of(estimator, "xgboost"):
        matrix = import_module("xgboost").DMatrix
        return lambda rows: _shaped(
            estimator.predict(matrix(np.asarray(rows), feature_names=_named(estimator))), output
        )
    return lambda rows: _shaped(np.asarray(estimator.predict(np.asarray(rows))), output)


def check_answer(estimator: Any, answer: Array, output: str) -> None:
    """Refuse what cannot be the declared output; raises `InvalidInput`."""
    if output.startswith("probabilit") and not ((answer >= 0) & (answer <= 1)).all():
        raise InvalidInput(
            f"the {type(estimator).__name__} answers {answer.min():.3g} to {answer.max():.3g}, which is no probability",
            hint='end it with a sigmoid or softmax, or declare output="value"',
        )


def torch_bytes(module: Any) -> bytes:
    """A torch module as `torch.save` writes it, on the CPU and not training."""
    buffer = io.BytesIO()
    import_module("torch").save(module.cpu().eval(), buffer)
    return buffer.getvalue()


def torch_module(content: bytes) -> Any:
    """What `torch_bytes` wrote. Runs code, as every pickle does."""
    return import_module("torch").load(io.BytesIO(content), map_location="cpu", weights_only=False)


def pickle_inside(content: bytes) -> bytes:
    """The pickle inside of what `torch.save` wrote."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return archive.read(next(name for name in archive.namelist() if name.endswith("/data.pkl")))


def native_files(estimator: Any) -> dict[str, bytes]:
    """The files that mlflow's client wants beside the pickle to load the model by its own library's flavour."""
    library = library_of(estimator)
    if library == "pytorch":
        return {"data/pickle_module_info.txt": _PICKLED_WITH.encode()}
    if library == "xgboost":
        with tempfile.TemporaryDirectory(prefix="everloop-model-") as folder:
            path = Path(folder) / "model.ubj"
            estimator.save_model(path)
            return {"model.ubj": path.read_bytes()}
    if library == "lightgbm" and is_booster(estimator):
        return {"model.lgb": estimator.model_to_string().encode()}
    return {}


def flavours_of(
    estimator: Any, card: Mapping[str, Any], *, code: str | None, version: Callable[[str], str]
) -> dict[str, dict[str, Any]]:
    """The flavours of the `MLmodel` file beside `python_function`, by name; `version` knows what is installed."""
    library = library_of(estimator)
    found: dict[str, dict[str, Any]] = {}
    name = f"{type(estimator).__module__}.{type(estimator).__qualname__}"
    if library == "pytorch":
        return {"pytorch": {"model_data": "data", "pytorch_version": version("torch"), "code": code}}
    if library == "xgboost":
        installed = version("xgboost") or version("xgboost-cpu")
        found["xgboost"] = {
            "data": "model.ubj",
            "model_class": name,
            "model_format": "ubj",
            "xgb_version": installed,
            "code": code,
        }
    if library == "lightgbm":
        found["lightgbm"] = {
            "data": "model.lgb" if is_booster(estimator) else card["file"],
            "model_class": name,
            "serialization_format": card["format"],
            "lgb_version": version("lightgbm"),
            "code": code,
        }
    if not is_booster(estimator):
        found["sklearn"] = {
            "code": code,
            "pickled_model": card["file"],
            "serialization_format": card["format"],
            "sklearn_version": version("scikit-learn") or None,
        }
    return found


def loader_of(estimator: Any, card: Mapping[str, Any], predict: str) -> dict[str, Any]:
    """How `mlflow.pyfunc` loads it; scikit-learn's loader can be told which method to call."""
    library = library_of(estimator)
    if library == "pytorch":
        return {"loader_module": "mlflow.pytorch", "data": "data"}
    if is_booster(estimator):
        data = "model.ubj" if library == "xgboost" else "model.lgb"
        return {"loader_module": f"mlflow.{library}", "data": data}
    return {"loader_module": "mlflow.sklearn", "model_path": card["file"], "predict_fn": predict}


def _named(booster: Any) -> Any:
    return booster.feature_names


def _shaped(answer: Array, output: str) -> Array:
    """One number a row or one a class, as scikit-learn's `predict_proba` or `predict` would give it."""
    if answer.ndim == 2 and answer.shape[1] == 1:
        answer = answer[:, 0]
    if output == "probability" and answer.ndim == 1:
        return np.column_stack([1 - answer, answer])
    if output == "class":
        return answer.argmax(axis=1) if answer.ndim == 2 else (answer >= 0.5).astype(np.int64)
    return answer
