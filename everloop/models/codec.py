"""The codec of `model` versions: packaged, measured on the holdout, with a canonical digest.

The manifest holds what the model is: its files, signature, label, frames and metrics. Who made it when, from which
code and in which run is lineage and the step's row, so that the same training gives the same id.
"""

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import numpy as np

from everloop.core.errors import InvalidInput
from everloop.core.ports import Blobs, Saved
from everloop.core.version import Version
from everloop.models.canonical import canonical_digest
from everloop.models.compiled.verifying import compiled, with_verdict
from everloop.models.flavours import library_of, names_of
from everloop.models.metrics import evaluate
from everloop.models.package import package
from everloop.models.predictor import CARD, Predictor, load, materialize
from everloop.models.signature import Field, conform, field_of
from everloop.models.training import Fitted

_EXAMPLE_ROWS = 5
_PROBE_ROWS = 64
_VERIFIED_ROWS = 4096

Array = np.ndarray[Any, Any]


class ModelCodec:
    """Saves a `Fitted` (or a bare estimator that knows its column names), loads a `Predictor`."""

    def save(self, value: Any, name: str, blobs: Blobs, facts: Mapping[str, Any]) -> Saved:
        """Store the model's files; `facts` are the asset's (service, label, columns, output) and the step's.

        Raises `InvalidInput` for an object that is no fitted model or does not answer as declared.
        """
        fitted = value if isinstance(value, Fitted) else Fitted(value, None)
        columns = _trained_on(fitted, facts)
        fields = tuple(field_of(column, array) for column, array in columns.items())
        output = str(facts.get("output", "probability"))
        packed = package(fitted.estimator, fields, {n: a[:_EXAMPLE_ROWS] for n, a in columns.items()}, output)
        label = str(facts.get("label", ""))
        metrics = measured(packed.predictor, fitted.holdout, label)
        files = {**packed.files, **fitted.beside} | _probe(fields, fitted.holdout)
        verdict: dict[str, Any] = {}
        if facts.get("compile"):
            real = ("training", columns) if fitted.holdout is None else ("holdout", _rows_of(fields, fitted.holdout))
            more, verdict = compiled(packed, facts["compile"], _spread(real[1], _VERIFIED_ROWS), real[0])
            files |= {**more, CARD: with_verdict(packed.files[CARD], verdict)}
        inputs = facts.get("inputs", {})
        manifest = {
            "flavor": library_of(fitted.estimator),
            "estimator": f"{type(fitted.estimator).__module__}.{type(fitted.estimator).__qualname__}",
            "format": packed.card["format"],
            "files": {path: blobs.put(content) for path, content in sorted(files.items())},
            "digest": canonical_digest(fitted.estimator),
            "signature": {"inputs": [field.manifest() for field in fields], "output": output},
            "service": str(facts.get("service_id") or facts.get("service", "")),
            "trainer": str(facts.get("trainer_id") or facts.get("trainer", "")),
            "label": label,
            "frame": next((str(i) for role, i in inputs.items() if role != "holdout"), ""),
            "holdout": str(inputs.get("holdout", "")),
            **({"compiled": verdict} if verdict else {}),
            "metrics": {metric: f"{measured:.12g}" for metric, measured in metrics.items()},
        }
        lineage = tuple((role, str(facts[f"{role}_id"])) for role in ("service", "trainer") if facts.get(f"{role}_id"))
        return Saved(Version("model", name, manifest, lineage), metrics)

    def load(self, manifest: Mapping[str, Any], blobs: Blobs, placements: Mapping[str, str]) -> Predictor:  # noqa: ARG002 - the port's shape
        """A predictor, for steps and checks that look at a model."""
        with TemporaryDirectory(prefix="everloop-model-") as folder:
            return load(materialize(manifest, blobs, Path(folder) / "model"))


codec = ModelCodec()
"""The one instance, which jobs name."""


def probe(manifest: Mapping[str, Any], blobs: Blobs) -> dict[str, Any]:
    """The recorded rows on which two trainings of a model are compared; empty when none were kept."""
    identity = manifest.get("files", {}).get("probe.json")
    rows: dict[str, Any] = msgspec.json.decode(blobs.get(identity)) if identity else {}
    return rows


def largest_difference(old: Mapping[str, Any], new: Mapping[str, Any], blobs: Blobs) -> float | None:
    """How far two trainings of a model are apart in what they answer for the recorded rows of the first.

    0.0 means equal bit for bit; None that there are no recorded rows, or the answers are no numbers of one shape.
    """
    rows = probe(old, blobs)
    if not rows:
        return None
    try:
        first, second = (np.asarray(codec.load(m, blobs, {}).scores(rows)) for m in (old, new))
    except InvalidInput:  # the new one takes other columns
        return None
    if first.shape != second.shape or first.dtype.kind not in "fiub":
        return None
    return float(np.max(np.abs(first.astype(np.float64) - second.astype(np.float64)), initial=0.0))


def _trained_on(fitted: Fitted, facts: Mapping[str, Any]) -> dict[str, Array]:
    """The training values of the columns that the estimator was fitted on, in its order."""
    names = names_of(fitted.estimator)
    count = getattr(fitted.estimator, "n_features_in_", None)
    declared = list(fitted.chosen or facts.get("columns") or (names if names is not None else []))
    if fitted.training is None:
        if not declared:
            raise InvalidInput(
                "the model does not say which columns it takes",
                hint="fit it on a DataFrame, or train it by a model function with a feature service",
            )
        return {str(name): np.zeros(1) for name in declared}
    label = facts.get("label")
    declared = declared or [name for name in fitted.training.columns if name != label]
    order = [str(name) for name in names] if names is not None else declared
    if not set(order) <= set(declared):
        strange = next(name for name in order if name not in declared)
        raise InvalidInput(
            f"the model was fitted on a column {strange!r}, which its feature service does not give",
            hint="it would be missing when the model serves; add it to the service or leave it out",
        )
    if names is None and count is not None and count != len(order):
        raise InvalidInput(
            f"the model was fitted on {count} columns, its feature service gives {len(order)}",
            hint="fit on all of them in their order (frame.drop(label)), or on a DataFrame, whose names are kept",
        )
    return {name: _array(fitted.training, name) for name in order}


def measured(predictor: Predictor, holdout: Any, label: str) -> dict[str, float]:
    """Every metric that fits what a predictor answers for the rows of a frame; empty without rows or a label."""
    if holdout is None or not label or len(holdout) == 0 or predictor.streams:
        return {}
    rows = {field.name: _array(holdout, field.name) for field in predictor.inputs}
    truth = _array(holdout, label)
    if predictor.output == "probability" and predictor.classes is not None and predictor.classes != [0, 1]:
        truth = (truth == predictor.classes[1]).astype(np.float64)
    return evaluate(truth, predictor.scores(rows), predictor.output, predictor.classes)


def _probe(fields: tuple[Field, ...], holdout: Any) -> dict[str, bytes]:
    """Some holdout rows, evenly spaced, for comparing two trainings by what they answer."""
    if holdout is None or len(holdout) == 0:
        return {}
    arrays = conform(fields, _spread(_rows_of(fields, holdout), _PROBE_ROWS))
    return {"probe.json": msgspec.json.encode({name: array.tolist() for name, array in arrays.items()})}


def _rows_of(fields: tuple[Field, ...], table: Any) -> dict[str, Array]:
    return {field.name: _array(table, field.name) for field in fields}


def _spread(columns: Mapping[str, Array], most: int) -> dict[str, Array]:
    """At most so many rows, evenly spaced."""
    count = len(next(iter(columns.values())))
    chosen = np.unique(np.linspace(0, count - 1, most).astype(np.int64))
    return {name: values[chosen] for name, values in columns.items()}


def _array(table: Any, name: str) -> Array:
    return np.asarray(table[name].to_numpy())
