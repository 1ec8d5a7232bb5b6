"""Models of `serving_chaos`, loaded in worker processes: a good one, and one for each way to go wrong."""

import json
import time
from pathlib import Path
from typing import Any

import numpy as np


class Behaving:
    """Adds `x` up with a value; what `kind` says may go wrong besides."""

    def __init__(self, kind: str, value: float) -> None:
        self.kind, self.value = kind, value
        self.held: list[Any] = []

    def predict(self, columns: dict[str, Any]) -> dict[str, Any]:
        """One `prediction` a row; it behaves while `x` is 0, as it is when workers are warmed up."""
        wrong = bool(np.asarray(columns["x"], float).any())
        if self.kind == "raises" and wrong:
            raise ValueError("broken")
        if self.kind == "hangs" and wrong:
            time.sleep(3600)
        if self.kind == "eats" and wrong:
            self.held.append(np.ones(1 << 17))  # one MiB a batch, never given back
        return {"prediction": np.asarray(columns["x"], float) + self.value}


def load(folder: str) -> Behaving:
    """The model that a folder describes."""
    said = json.loads((Path(folder) / "chaos.json").read_text())
    return Behaving(said["kind"], said["value"])
