"""Vectors: 20,000 images and 20,000 texts made by a generator, encoded, indexed, and asked for their neighbours.

CPU seconds of the encoders as the step runs them; a look-up of ten neighbours on one thread, in process; and the
nearest neighbour as a model behind a gateway, asked over HTTP. The peer is scikit-learn's brute-force search over the
same vectors. The goal is 5 ms for 20,000 vectors, in half of the questions.

    python benchmarks/features_vectors.py [--quick]
"""

import argparse
import functools
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import msgspec
import numpy as np
import polars as pl
import serving
from figure import Record, cpu, figure, finish
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.neighbors import NearestNeighbors

from everloop.core.signing import SigningKey
from everloop.features.vectors.encoding import encode
from everloop.features.vectors.nearest import METRICS, Index, NearestLabel
from everloop.serving import table as tables
from everloop.serving.table import Revision, Route, Table

SEED = 7
EDGE = 16
GOAL = 5.0
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


def quantiles(act: Callable[[np.ndarray], object], questions: np.ndarray) -> tuple[float, float]:
    """p50 and p99, in milliseconds."""
    took = []
    for question in questions:
        began = time.perf_counter()
        act(question)
        took.append((time.perf_counter() - began) * 1e3)
    p50, p99 = np.percentile(took, [50, 99])
    return float(p50), float(p99)


def figures(*, quick: bool) -> Iterator[Record]:
    """Make, encode, ask."""
    count = 2_000 if quick else 20_000
    rng = np.random.default_rng(SEED)
    texts = pl.LazyFrame({"id": range(count), "text": [" ".join(rng.choice(WORDS, 6)) for _ in range(count)]})
    for what, function, rows, dim, column in (
        ("images", of_pictures, Pictures(count), 64, ""),
        ("texts", of_texts, texts, 384, "text"),
    ):
        made: list[np.ndarray] = []
        spent = cpu(lambda f=function, r=rows, d=dim, c=column, m=made: m.append(encoded(f, r, d, c)))
        vectors = made[0]
        yield figure(f"encode {count} {what} into {dim} numbers", "CPU s", spent)
        index, questions = Index.of(vectors), vectors[rng.integers(0, count, 60)]
        for metric in METRICS:
            ours = quantiles(lambda q, i=index, m=metric: i.nearest(q, 10, m), questions)
            theirs = None if metric == "dot" else quantiles(_peer(vectors, metric), questions)[0]
            name = f"nearest of {count} {what}, {metric}"
            peer = None if theirs is None else "scikit-learn"
            yield figure(f"{name}, p50", "ms", ours[0], limit=GOAL, peer=peer, theirs=theirs)
            yield figure(f"{name}, p99", "ms", ours[1])
        yield from served(what, vectors, 1.0 if quick else 4.0)


def _peer(vectors: np.ndarray, metric: str) -> Callable[[np.ndarray], object]:
    found = NearestNeighbors(n_neighbors=10, algorithm="brute", metric=metric).fit(vectors)
    return lambda question: found.kneighbors(question[None])


def served(what: str, vectors: np.ndarray, seconds: float) -> Iterator[Record]:
    """The nearest vector's number, asked of a gateway over HTTP by one connection."""
    count, dim = vectors.shape
    model = NearestLabel().fit(vectors, np.arange(count, dtype=float))
    with tempfile.TemporaryDirectory() as folder:
        server = gateway(Path(folder), model, dim)
        try:
            body = msgspec.json.encode({f"x_{place:03d}": float(v) for place, v in enumerate(vectors[count // 3])})
            url = f"http://127.0.0.1:{server.port}{server.path}"
            answer = serving.ask_until_answered(url, body)
            assert answer["predictions"] == [count // 3], answer
            cell = serving.measure(server, body, 1, seconds)
        finally:
            server.process.send_signal(signal.SIGTERM)
            server.process.wait(20)
    floor = quantiles(lambda q: model.predict(q[None]), vectors[:60])[0]
    yield figure(f"nearest of {count} {what} in a graph, over HTTP, p50", "ms", cell.p50, limit=GOAL, floor=floor)
    yield figure(f"nearest of {count} {what} in a graph, over HTTP, p99", "ms", cell.p99)


def gateway(home: Path, model: Any, dim: int) -> serving.Server:
    """A gateway that serves a model of a vector's dimensions."""
    key = SigningKey.generate()
    (home / "keys").mkdir()
    (home / "keys" / "verify.pem").write_bytes(key.public.to_pem())
    folder = home / "model"
    folder.mkdir()
    names = [f"x_{place:03d}" for place in range(dim)]
    inputs = [{"name": name, "type": "float"} for name in names]
    card = {"format": "pickle", "file": "model.pkl", "inputs": inputs, "output": "value"}
    (folder / "everloop.json").write_bytes(msgspec.json.encode(card))
    (folder / "model.pkl").write_bytes(pickle.dumps(model))
    columns = [[name, "FP32"] for name in names]
    revision = Revision(serving.IDENTITY, 1, 100, serving.IDENTITY, str(folder), columns, columns, {})
    tables.write(home / "serving" / "routes.json", Table(1, "production", [Route("b", "m", [revision])]), key)
    bound = serving.listening()
    process = subprocess.Popen(
        [sys.executable, "-m", "everloop.serving.gateway", "--home", str(home), "--fd", str(bound.fileno())],
        pass_fds=(bound.fileno(),),
    )
    return serving.Server(process, bound.getsockname()[1], "/endpoints/b/m/predict")


def main() -> None:
    """Measure, print, end with 1 when a target was missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="2,000 of each")
    finish(figures(quick=parser.parse_args().quick))


if __name__ == "__main__":
    main()
