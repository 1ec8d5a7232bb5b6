"""Models for the tests, loaded in worker processes: real scikit-learn ones, and some that misbehave."""

import os
import signal
import time
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import joblib
import numpy as np


def load(folder: str) -> Any:
    return joblib.load(Path(folder) / "model.joblib")


@dataclass
class Constant:
    """Answers `value`, whatever is asked."""

    value: float

    def predict(self, columns: dict[str, Any]) -> Any:
        return np.full(len(next(iter(columns.values()))), self.value)


@dataclass
class Heavy:
    """Answers `value`, and holds some megabytes once it is loaded."""

    value: float
    ballast: Any = field(default=None, repr=False)

    def predict(self, columns: dict[str, Any]) -> Any:
        if self.ballast is None:
            self.ballast = np.ones(1 << 20)  # 8 MiB
        return np.full(len(next(iter(columns.values()))), self.value)


@dataclass
class Flavoured:
    """Answers the version of a package that only environments of their own have."""

    def predict(self, columns: dict[str, Any]) -> Any:
        return np.full(len(next(iter(columns.values()))), float(import_module("flavour").NUMBER))


@dataclass
class Threads:
    """Answers how many threads its libraries may use."""

    def predict(self, columns: dict[str, Any]) -> Any:
        return np.full(len(next(iter(columns.values()))), float(os.environ["OMP_NUM_THREADS"]))


@dataclass
class Estimator:
    """A fitted scikit-learn classifier over the numeric columns in order."""

    estimator: Any
    names: tuple[str, ...]

    def predict(self, columns: dict[str, Any]) -> Any:
        table = np.column_stack([np.asarray(columns[name], float) for name in self.names])
        return {"probability": self.estimator.predict_proba(table)[:, 1]}


@dataclass
class Moody:
    """Echoes `distance`; distances below zero make it misbehave."""

    def predict(self, columns: dict[str, Any]) -> Any:
        distance = np.asarray(columns["distance"], float)
        if (distance == -1).any():
            raise ValueError("no negative distances")
        if (distance == -2).any():
            os.kill(os.getpid(), signal.SIGKILL)
        if (distance == -3).any():
            time.sleep(3600)
        if (distance == -4).any():
            time.sleep(0.2)
        return {"echo": distance, "carrier": np.array([str(c) for c in columns["carrier"]], object)}


@dataclass
class Broken:
    """Raises, always."""

    def predict(self, columns: dict[str, Any]) -> Any:
        raise RuntimeError("trained on another planet")


@dataclass
class BrokenLater:
    """Answers its example, and nothing else."""

    def predict(self, columns: dict[str, Any]) -> Any:
        if (np.asarray(columns["distance"], float) != 100.0).any():
            raise RuntimeError("only ever saw the example")
        return np.zeros(len(columns["distance"]))


@dataclass
class Values:
    """An estimator that answers `value`; a broken one refuses all but zeros."""

    value: float
    breaks: bool = False

    def predict(self, matrix: Any) -> Any:
        if self.breaks and np.any(matrix):
            raise RuntimeError("the wrong unit")
        return np.full(len(matrix), self.value)


class Summed:
    """An estimator that adds its inputs up; a missing one counts nothing."""

    def predict(self, matrix: Any) -> Any:
        return np.nansum(np.asarray(matrix, float), axis=1)


class Added:
    """A predictor that adds its columns up; a missing value counts nothing."""

    def predict(self, columns: dict[str, Any]) -> Any:
        return np.nansum(np.column_stack([np.asarray(values, float) for values in columns.values()]), axis=1)


class Unloadable:
    """Pickles, and does not come back."""

    def __reduce__(self) -> Any:
        return (_explode, ())


def _explode() -> Any:
    raise ImportError("a package is missing")


@dataclass
class Switched:
    """Echoes `distance` as `prediction`, and raises while a file is there."""

    path: str

    def predict(self, columns: dict[str, Any]) -> Any:
        if Path(self.path).exists():
            raise ValueError("switched off")
        return {"prediction": np.asarray(columns["distance"], float)}


@dataclass
class Counted:
    """Answers how often it was asked."""

    asked: int = 0

    def predict(self, columns: dict[str, Any]) -> Any:
        self.asked += 1
        return np.full(len(columns["distance"]), float(self.asked))
