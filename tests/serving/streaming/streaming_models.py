"""Models that answer in parts, loaded in worker processes."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import joblib
import numpy as np


def load(folder: str) -> Any:
    return joblib.load(Path(folder) / "model.joblib")


@dataclass
class Words:
    """Says as many words as it is asked for; below zero it fails at once, at a half in the middle."""

    pause: float = 0.0
    size: int = 0
    told: str = ""
    counted: str = ""
    streams = True

    def parts(self, columns: dict[str, Any]) -> Iterator[str]:
        wanted = float(columns["x"][0])
        if wanted < 0:
            raise ValueError("fewer than no words")
        try:
            for number in range(int(wanted)):
                time.sleep(self.pause)
                if self.counted:
                    Path(self.counted).write_text(str(number))
                yield f"word {number} " + "x" * self.size
            if wanted % 1:
                raise ValueError("half a word")
        except GeneratorExit:
            if self.told:
                Path(self.told).write_text("closed")
            raise

    def predict(self, columns: dict[str, Any]) -> Any:
        answers = np.empty(len(columns["x"]), object)
        answers[:] = ["".join(Words().parts({"x": [value]})) for value in columns["x"]]
        return answers


@dataclass
class Plain:
    """Doubles."""

    def predict(self, columns: dict[str, Any]) -> Any:
        return np.asarray(columns["x"], float) * 2


class Speaker:
    """An estimator whose predict yields."""

    def predict(self, rows: Any) -> Iterator[str]:
        yield str(rows[0][0])
        yield "!"
