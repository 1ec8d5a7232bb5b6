"""Models for graphs, loaded in worker processes, and functions for their transforms."""

import os
import time
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass
class Plus:
    """`x` plus a number; a negative `x` fails, -9 kills, -5 takes two seconds."""

    number: float
    output: str = "prediction"

    def predict(self, columns: dict[str, Any]) -> Any:
        x = np.asarray(columns["x"], float)
        if (x == -9).any():
            os._exit(1)
        if (x == -5).any():
            time.sleep(2)
        if (x == -1).any():
            raise ValueError("minus one")
        return {self.output: x + self.number}


@dataclass
class Tardy(Plus):
    """As `Plus`, and takes half a second over what fails."""

    def predict(self, columns: dict[str, Any]) -> Any:
        if (np.asarray(columns["x"], float) == -1).any():
            time.sleep(0.5)
        return super().predict(columns)


@dataclass
class Label:
    """A text for every row."""

    text: str

    def predict(self, columns: dict[str, Any]) -> Any:
        return {"prediction": np.full(len(columns["x"]), self.text, object)}


@dataclass
class Sum:
    """The sum of all its columns."""

    def predict(self, columns: dict[str, Any]) -> Any:
        return {"prediction": np.sum([np.asarray(values, float) for values in columns.values()], axis=0)}


@dataclass
class Slow:
    """Takes `seconds` for a batch, however many rows it has; says how many it had, and how many batches there were."""

    seconds: float
    batches: int = 0

    def predict(self, columns: dict[str, Any]) -> Any:
        time.sleep(self.seconds)
        self.batches += 1
        rows = len(columns["x"])
        return {"rows": np.full(rows, float(rows)), "batches": np.full(rows, float(self.batches))}
