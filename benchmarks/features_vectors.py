"""Vectors: 20,000 images and 20,000 texts made by a generator, encoded, indexed, and asked for their neighbours.

    python benchmarks/features_vectors.py [--quick]

Prints one JSON line a figure: CPU seconds of the encoders as the step runs them, and p50 and p99 of a look-up of ten
neighbours on one thread. The goal is 5 ms for 20,000 vectors.
"""

import argparse
import functools
import json
import os
import sys
import time
from types import SimpleNamespace

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import polars as pl

from everloop.features.vectors.encoding import encode
from everloop.features.vectors.nearest import METRICS, Index

SEED = 7
EDGE = 16
WORDS = ("red", "blue", "old", "new", "large", "small", "lamp", "chair", "table", "clock", "mirror", "shelf")


class Pictures:
    """A folder of made pictures, as an encoder's step sees it."""

    def __init__(self, count: int) -> None:
        """Draw them; the same count gives the same pictures."""
        self.paths = [f"{number:06}.raw" for number in range(count)]
        self._pixels = np.random.default_rng(SEED).integers(0, 256, (count, EDGE * EDGE), np.uint8)

    def items(self) -> "zip[tuple[str, bytes]]":
        """Path and bytes of each."""
        return zip(self.paths, (row.tobytes() for row in self._pixels), strict=True)


def of_pictures(files: list[bytes]) -> np.ndarray:
    """Patches of a picture through fixed random filters: 64 numbers."""
    pixels = np.stack([np.frombuffer(content, np.uint8) for content in files]).astype(np.float32) / 255
    patches = pixels.reshape(-1, 4, 4, 4, 4).swapaxes(2, 3).reshape(len(files), 16, 16)
    filters = np.random.default_rng(SEED).normal(size=(16, 4)).astype(np.float32)
    return np.maximum(patches @ filters, 0).reshape(len(files), 64)


def of_texts(texts: list[str]) -> np.ndarray:
    """Hashed words: 384 numbers."""
    from sklearn.feature_extraction.text import HashingVectorizer  # noqa: PLC0415 - only this encoder needs it

    return np.asarray(HashingVectorizer(n_features=384, alternate_sign=True).transform(texts).todense())


def encoded(function: object, rows: object, dim: int, column: str) -> np.ndarray:
    """The vectors that an encoder's step makes."""
    asset = SimpleNamespace(
        function=functools.partial(print, encode=function),
        facts={
            "encoder": {"dim": dim, "column": column, "vector": "embedding", "batch": 256},
            "contract": {"key": ["id"], "event_time": None, "known_time": None},
        },
    )
    return encode(asset, {"rows": rows}, {}, {})["embedding"].to_numpy()


def say(name: str, value: float, unit: str, goal: float | None = None) -> None:
    """One line."""
    met = None if goal is None else value <= goal
    print(json.dumps({"name": name, "value": round(value, 4), "unit": unit, "goal": goal, "met": met}))


def main() -> int:
    """Make, encode, ask."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="2,000 of each")
    count = 2_000 if parser.parse_args().quick else 20_000
    rng = np.random.default_rng(SEED)
    texts = pl.LazyFrame({"id": range(count), "text": [" ".join(rng.choice(WORDS, 6)) for _ in range(count)]})
    for what, function, rows, dim, column in (
        ("images", of_pictures, Pictures(count), 64, ""),
        ("texts", of_texts, texts, 384, "text"),
    ):
        began = time.process_time()
        vectors = encoded(function, rows, dim, column)
        say(f"encode {count} {what} into {dim} numbers", time.process_time() - began, "CPU s")
        index = Index.of(vectors)
        for metric in METRICS:
            took = []
            for question in vectors[rng.integers(0, count, 60)]:
                began = time.perf_counter()
                index.nearest(question, 10, metric)
                took.append((time.perf_counter() - began) * 1e3)
            p50, p99 = np.percentile(took, [50, 99])
            say(f"nearest of {count} {what}, {metric}, p50", float(p50), "ms", 5.0)
            say(f"nearest of {count} {what}, {metric}, p99", float(p99), "ms")
    return 0


if __name__ == "__main__":
    sys.exit(main())
