"""What a model version is compared with: its reference, how its windows vary, and what its scores mean.

Made once from the frames that the model was trained and measured on, stored beside it as evidence, found again by
the model's id.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from everloop.catalog import versions
from everloop.catalog.context import Context
from everloop.catalog.engine import Tx
from everloop.catalog.versions import VersionRow
from everloop.core.clock import Micros
from everloop.core.errors import InvalidInput
from everloop.core.ids import short
from everloop.core.version import Version
from everloop.data.reading.forms import read
from everloop.models.predictor import load, materialize
from everloop.watch.budget import QUARTER, Calibration, alpha, calibrate
from everloop.watch.drift import Limits
from everloop.watch.reference import SCORE, Counts, Reference, columns_of, profile
from everloop.watch.statistics.estimated import Calibrator, calibrator

Scorer = Callable[[VersionRow, pl.DataFrame], NDArray[np.float64]]
"""Scores of a model version on a frame, one number a row."""

_SEED = 20_130_101
"""The replay draws blocks; the same model gives the same calibration."""
_LEAST_FOR_SCORES = 200


@dataclass(frozen=True, slots=True)
class Baseline:
    """Everything that windows of one model version are compared with."""

    model: str
    reference: Reference
    replay: Calibration = field(default_factory=Calibration)
    window_rows: float = 0.0
    """Mean rows of the windows that were replayed; inflation grows with a window's rows."""
    chances: Calibrator | None = None
    """From scores to probabilities, on rows the model was not trained on; None for models that answer values."""

    def inflation(self, rows: int) -> dict[str, float]:
        """The inflation of each column for a window of `rows`.

        The variance of a window's share is s²/n + t², t² being how days differ: against s²/n alone that is
        1 + n t²/s², so what was measured at one window size holds for another in proportion.
        """
        scale = rows / self.window_rows if self.window_rows else 1.0
        return {name: 1 + (value - 1) * scale for name, value in self.replay.inflation.items()}

    def to_json(self) -> bytes:
        """A JSON object to store; `from_json` reads it."""
        body = {
            "schema": 1,
            "model": self.model,
            "reference": json.loads(self.reference.to_json()),
            "replay": {
                "inflation": dict(self.replay.inflation),
                "achieved": self.replay.achieved,
                "flagged": self.replay.flagged,
                "windows": self.replay.windows,
            },
            "window_rows": self.window_rows,
            "chances": self.chances.body() if self.chances else None,
        }
        return json.dumps(body, separators=(",", ":")).encode()

    @classmethod
    def from_json(cls, content: bytes) -> "Baseline":
        """Read what `to_json` wrote; raises `DataError`."""
        body = json.loads(content)
        return cls(
            model=body["model"],
            reference=Reference.from_json(json.dumps(body["reference"]).encode()),
            replay=Calibration(**body["replay"]),
            window_rows=body["window_rows"],
            chances=Calibrator.of(body["chances"]) if body["chances"] else None,
        )


def baseline_of(ctx: Context, model: str, window: Micros, budget: int, score: Scorer | None = None) -> Baseline:
    """The baseline of a model version for windows of this length; made and stored when it is asked for first.

    Raises `NotFound` for an unknown model, `InvalidInput` for one without frames to compare with.
    """
    with ctx.read() as tx:
        row = versions.get(tx, ctx.project, model)
        stored = _stored(tx, ctx.project, row, (window, budget))
        frames = _frames(tx, ctx.project, row)
    if stored is not None:
        return Baseline.from_json(ctx.store.get(stored))
    made = make(ctx, row, frames, (window, budget), score)
    if score is None:  # not kept: whoever may load models makes a better one
        return made
    identity = ctx.store.put(made.to_json())
    manifest = {"about": "baseline", "model": model, "window": window, "budget": budget, "object": identity}
    inputs = (("model", model), *((role, frame) for role, frame in frames.items()))
    with ctx.write() as tx:
        version = Version("evidence", f"baseline.{row.name}", manifest, inputs)
        versions.put(tx, ctx.project, version, actor=ctx.actor.name, at=ctx.now())
    return made


def make(
    ctx: Context, model: VersionRow, frames: Mapping[str, str], held: tuple[Micros, int], score: Scorer | None
) -> Baseline:
    """Profile the frames, replay them in windows, and learn what the scores mean; `held` is (window, budget).

    Scores of rows that the model was trained on are too good, but how they vary from window to window is not: so the
    scores of all rows are replayed, and those of the holdout alone become the reference.
    """
    window, budget = held
    parts = {role: read(ctx, identity).collect() for role, identity in frames.items()}
    whole = pl.concat(list(parts.values()), how="diagonal_relaxed")
    label, time = str(model.manifest.get("label", "")), _time_column(model, whole)
    holdout = parts.get("holdout")
    scores = None
    if score is not None and holdout is not None and holdout.height >= _LEAST_FOR_SCORES:
        scores = score(model, holdout)
        whole = whole.with_columns(pl.Series(SCORE, score(model, whole)))
    reference = profile(whole.select(_inputs(model, whole)), skip={label, *_times(whole)})
    counted = list(_windows(reference, whole, time, window)) if time else []
    rows = float(np.mean([max(c.rows for c in w.values()) for w in counted if w])) if counted else 0.0
    limits = Limits(alpha=alpha(budget, window, round(rows), reference.rows))
    rng = np.random.default_rng(_SEED)
    quarter = max(1, round(QUARTER / window))
    replay = calibrate(reference, counted, limits, budget=budget, per_quarter=quarter, rng=rng)
    if scores is None or holdout is None:
        return Baseline(model.id, reference, replay, rows)
    reference = Reference({**reference.columns, **profile({SCORE: scores}).columns})
    return Baseline(model.id, reference, replay, rows, _chances(scores, holdout, label))


def model_scorer(ctx: Context) -> Scorer:
    """Scores by loading the model itself. Its pickle runs code: for workers, never for server or gateway."""

    def score(model: VersionRow, frame: pl.DataFrame) -> NDArray[np.float64]:
        folder = materialize(model.manifest, ctx.store, ctx.home / "cache" / "models" / short(model.id))
        scores = np.asarray(load(folder).scores(columns_of(frame)), dtype=np.float64)
        return scores[:, -1] if scores.ndim > 1 else scores

    return score


def _inputs(model: VersionRow, frame: pl.DataFrame) -> list[str]:
    """The columns that the model takes, and its scores; every column where the manifest does not say."""
    signature = model.manifest.get("signature") or {}
    fields = signature.get("inputs", []) if isinstance(signature, Mapping) else []
    named = [field["name"] for field in fields if isinstance(field, Mapping)]
    return [name for name in frame.columns if name in named or name == SCORE] if named else frame.columns


def _frames(tx: Tx, project: str, model: VersionRow) -> dict[str, str]:
    """Ids of the model's frames by role, as its manifest says them, or the edges of its lineage."""
    said = {"training": str(model.manifest.get("frame", "")), "holdout": str(model.manifest.get("holdout", ""))}
    found = {role: identity for role, identity in said.items() if identity}
    if not found:
        edges = versions.upstream(tx, project, model.id, depth=1)
        kinds = {edge.from_id: versions.get(tx, project, edge.from_id).kind for edge in edges}
        found = {
            "holdout" if edge.role == "holdout" else "training": edge.from_id
            for edge in edges
            if kinds[edge.from_id] == "frame"
        }
    if not found:
        raise InvalidInput(
            f"{model.key} v{model.number} was not trained on a frame that is known here",
            hint="its windows have nothing to be compared with",
        )
    return found


def _stored(tx: Tx, project: str, model: VersionRow, held: tuple[Micros, int]) -> str | None:
    for row in versions.history(tx, project, "evidence", f"baseline.{model.name}"):
        same = (row.manifest.get("window"), row.manifest.get("budget")) == held
        if row.manifest.get("model") == model.id and same:
            return str(row.manifest["object"])
    return None


def _times(frame: pl.DataFrame) -> list[str]:
    return [name for name, kind in frame.schema.items() if kind.is_temporal()]


def _time_column(model: VersionRow, frame: pl.DataFrame) -> str | None:
    """The column with the time of the question: named by the model, or the frame's first time."""
    named = model.manifest.get("time")
    times = _times(frame)
    return named if named in times else next(iter(times), None)


def _windows(reference: Reference, frame: pl.DataFrame, time: str, window: Micros) -> Iterator[dict[str, Counts]]:
    """Counts of the frame's windows in their order; the ragged first and last are left out."""
    slots = pl.col(time).cast(pl.Datetime("us")).cast(pl.Int64) // window
    grouped = frame.with_columns(slots.alias("__slot")).partition_by("__slot", as_dict=True, include_key=False)
    for slot in sorted(key for key in grouped if key[0] is not None)[1:-1]:
        yield reference.count(grouped[slot])


def _chances(scores: NDArray[np.float64], holdout: pl.DataFrame, label: str) -> Calibrator | None:
    if label not in holdout.columns or not holdout.schema[label].is_numeric():
        return None
    truth = holdout[label].to_numpy().astype(np.float64)
    judged = np.isfinite(scores) & np.isfinite(truth)
    probabilities = bool(np.all((scores[judged] >= 0) & (scores[judged] <= 1)))
    if not probabilities or not set(np.unique(truth[judged])) <= {0.0, 1.0} or judged.sum() < _LEAST_FOR_SCORES:
        return None
    return calibrator(scores[judged], truth[judged])


def body_of(baseline: Baseline, budget: int) -> dict[str, Any]:
    """What a report says about its baseline."""
    return {
        "model": baseline.model,
        "rows": baseline.reference.rows,
        "columns": len(baseline.reference.columns),
        "budget": baseline.replay.text(budget),
        "achieved": baseline.replay.achieved,
    }
