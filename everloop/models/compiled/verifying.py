"""Whether a compiled model answers as the fitted one does: asked with the same rows before either serves."""

import json
from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from everloop.core.errors import InvalidInput
from everloop.models.package import Package

FILE = "model.onnx"
_PACKAGES = ("onnx", "onnxruntime", "skl2onnx", "onnxmltools")
_ALONE = 8
"""Rows that are also asked one by one: an answer must not depend on its neighbours."""

Array = np.ndarray[Any, Any]


def compiled(
    packed: Package, wanted: Mapping[str, str], rows: Mapping[str, Array], source: str
) -> tuple[dict[str, bytes], dict[str, Any]]:
    """The compiled model's file, empty where there is none, and the verdict, which says why.

    `rows` are real ones, `source` says whose (`holdout`, `training`). A model that cannot be compiled is no error: it
    is served as it was fitted, and the verdict says so.
    """
    verdict: dict[str, Any] = {**wanted, "verified": False, "rows": len(next(iter(rows.values()))), "of": source}
    verdict["with"] = _installed()
    missing = [name for name in _PACKAGES if name not in verdict["with"]]
    if missing:
        return {}, {**verdict, "reason": f"{missing[0]} is not installed (the extra onnx brings it)"}
    answer = packed.predictor.answer(rows)
    takes = _takes_missing(packed, rows)
    verdict |= {"file": FILE, "dtype": answer.dtype.str, "missing": "taken" if takes else "refused"}
    for double in (True, False):
        content, said = _tried(packed, verdict, rows, answer, double=double)
        if said["verified"]:
            return {FILE: content}, {**verdict, **said}
    return {}, {**verdict, **said}


def _tried(
    packed: Package, verdict: Mapping[str, Any], rows: Mapping[str, Array], answer: Array, *, double: bool
) -> tuple[bytes, dict[str, Any]]:
    """One conversion, and how its answers compare."""
    native = packed.predictor
    converting, session = (import_module(f"everloop.models.compiled.{name}") for name in ("converting", "session"))
    try:
        content = converting.converted(native.estimator, native.inputs, native.frame, double=double)
        other = session.Compiled(content, {**packed.card, "compiled": verdict}, lambda: native)
        tolerance, holes = float(verdict["tolerance"]), verdict["missing"] == "taken"
        return content, _compared(native, other, rows, answer, tolerance, holes=holes)
    except InvalidInput as error:
        return b"", {"verified": False, "reason": error.message}
    except Exception as error:  # noqa: BLE001 - the runtime refuses models by exceptions of its own
        said = str(error).strip().splitlines() or [""]
        return b"", {"verified": False, "reason": f"it does not run: {type(error).__name__}: {said[0][:200]}"}


def _compared(
    native: Any, other: Any, rows: Mapping[str, Array], answer: Array, tolerance: float, *, holes: bool
) -> dict[str, Any]:
    given = other.answer(rows)
    reason = _differ(answer, given, tolerance)
    for place in range(min(_ALONE, len(answer))):
        one = {name: values[place : place + 1] for name, values in rows.items()}
        reason = reason or _differ(answer[place : place + 1], other.answer(one), tolerance)
    if holes and (pierced := _pierced(rows)):
        reason = reason or _differ(native.answer(pierced), other.answer(pierced), tolerance)
    said = {"difference": f"{_apart(answer, given):.3g}"} if answer.shape == given.shape else {}
    return {**said, "verified": not reason, "reason": reason}


def _differ(expected: Array, given: Array, tolerance: float) -> str:
    """Why two answers are not alike; empty when they are."""
    if expected.shape != given.shape:
        return f"it answers {list(given.shape)} for {list(expected.shape)}"
    if expected.dtype.kind != "f":
        wrong = int((expected != given).sum())
        return f"{wrong} of {len(expected)} rows have another class" if wrong else ""
    apart = _apart(expected, given)
    return f"it is off by {apart:.3g}, more than {tolerance:g}" if not apart <= tolerance else ""


def _apart(expected: Array, given: Array) -> float:
    """The largest difference, relative to numbers beyond 1; infinite where one is no number and the other is."""
    if expected.dtype.kind != "f":
        return float((expected != given).mean())
    both = np.isnan(expected) & np.isnan(given)
    difference = np.abs(expected.astype(np.float64) - given) / np.maximum(np.abs(expected), 1.0)
    return float(np.max(np.where(both, 0.0, np.where(np.isnan(difference), np.inf, difference)), initial=0.0))


def _pierced(rows: Mapping[str, Array]) -> dict[str, Array]:
    """A row for each column of floats, in which that one is missing; empty when there is none."""
    floats = [name for name, values in rows.items() if values.dtype.kind == "f"]
    made = {name: np.repeat(values[:1], len(floats)) for name, values in rows.items()}
    for place, name in enumerate(floats):
        made[name][place] = np.nan
    return made if floats else {}


def _takes_missing(packed: Package, rows: Mapping[str, Array]) -> bool:
    pierced = _pierced(rows)
    if not pierced:
        return True
    try:
        answer = packed.predictor.answer(pierced)
    except Exception:  # noqa: BLE001 - models refuse in any way
        return False
    return answer.dtype.kind != "f" or bool(np.isfinite(answer).all())


def _installed() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def with_verdict(card: bytes, verdict: Mapping[str, Any]) -> bytes:
    """The model's card, which says whether its compiled form may be used."""
    return json.dumps({**json.loads(card), "compiled": verdict}, separators=(",", ":")).encode()
