"""Columns as numbers, learnt on training rows: what was not seen then has a place of its own, and nulls stay nulls.

Nothing of the label reaches a row through itself: rates of values are cross-fitted (Micci-Barreca, A preprocessing
scheme for high-cardinality categorical attributes, 2001, with the rows' own labels left out).
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
_PARTS = 5
_SMOOTH = 10.0


class Encoder:
    """Turns columns into a matrix of float64. `dense`: without NaN and of one scale, as linear models need."""

    def __init__(self, roles: Mapping[str, str], *, dense: bool, seed: int = 0) -> None:
        """Encode these columns; see `columns.Columns.roles`."""
        self.roles, self.dense, self.seed = dict(roles), dense, seed
        self.held: dict[str, dict[str, Any]] = {}
        self.middle: Array = np.zeros(0)
        self.scale: Array = np.ones(0)

    def learn(self, frame: Any, truth: Array | None) -> Array:
        """Learn from training rows and give their matrix; `truth` is the label as numbers, None: no rates of it."""
        blocks = []
        for name, role in self.roles.items():
            values = column(frame, name)
            if role == "number":
                number = numbers(values)
                known = number[np.isfinite(number)]
                self.held[name] = {"fill": float(np.median(known)) if len(known) else 0.0}
                self.held[name]["nulls"] = bool(len(known) < len(number))
            elif role == "category":
                self.held[name] = {"values": sorted({str(one) for one in values if one is not None})}
            elif role == "date":
                days = dates(values).astype("datetime64[D]").astype(np.int64)
                real = days[~np.isnat(dates(values))]
                self.held[name] = {"first": int(real.min()) if len(real) else 0}
            elif role == "many":
                blocks.append(self._learn_many(name, values, truth))
                continue
            blocks.append(self._block(name, role, values))
        return self._scaled(np.concatenate(blocks, axis=1), learn=True)

    def encode(self, frame: Any) -> Array:
        """The matrix of any rows."""
        blocks = [self._block(name, role, column(frame, name)) for name, role in self.roles.items()]
        return self._scaled(np.concatenate(blocks, axis=1), learn=False)

    def _block(self, name: str, role: str, values: Array) -> Array:
        held = self.held.get(name, {})
        if role == "number":
            number = numbers(values)
            gone = ~np.isfinite(number)
            filled = np.where(gone, held["fill"] if self.dense else np.nan, number)
            return np.column_stack([filled, gone] if held["nulls"] and self.dense else [filled])
        if role == "flag":
            return np.array([[np.nan if one is None else float(one)] for one in values], dtype=np.float64)
        if role == "category":
            place = {value: number for number, value in enumerate(held["values"])}
            found = np.zeros((len(values), len(place) + 1))
            found[np.arange(len(values)), [place.get(str(one), len(place)) for one in values]] = 1.0
            return found
        if role == "date":
            return _parts_of(dates(values), held["first"], dense=self.dense)
        seen = [held["seen"].get(str(one), (0, held["mean"])) for one in values]
        return np.array([[np.log1p(count), rate] for count, rate in seen], dtype=np.float64)

    def _learn_many(self, name: str, values: Array, truth: Array | None) -> Array:
        """Counts and rates of a text with many values; each training row gets the rate of the other parts."""
        texts = np.array([str(one) for one in values])
        label = np.zeros(len(texts)) if truth is None else truth
        _, place, count = np.unique(texts, return_inverse=True, return_counts=True)
        mean = float(label.mean())
        total = np.bincount(place, label)
        rates = (total + _SMOOTH * mean) / (count + _SMOOTH)
        names = np.unique(texts)
        seen = {str(n): (int(c), float(r)) for n, c, r in zip(names, count, rates, strict=True)}
        self.held[name] = {"seen": seen, "mean": mean}
        # a stream of its own: somebody's data may have been drawn from the same seed
        part = np.random.default_rng([self.seed, 0x70617274]).integers(0, _PARTS, len(texts))
        inside = np.zeros((_PARTS, len(names)))
        held = np.zeros((_PARTS, len(names)))
        np.add.at(inside, (part, place), label)
        np.add.at(held, (part, place), 1.0)
        others = (total[place] - inside[part, place] + _SMOOTH * mean) / (count[place] - held[part, place] + _SMOOTH)
        return np.column_stack([np.log1p(count[place]), others])

    def _scaled(self, matrix: Array, *, learn: bool) -> Array:
        if not self.dense:
            return matrix
        matrix = np.nan_to_num(matrix, nan=0.0)
        if learn:
            self.middle, spread = matrix.mean(axis=0), matrix.std(axis=0)
            self.scale = np.where(spread > 0, spread, 1.0)
        return np.asarray((matrix - self.middle) / self.scale)


def column(frame: Any, name: str) -> Array:
    """A column of a frame of any library, or of a map of arrays."""
    values = frame[name]
    return np.asarray(values.to_numpy() if hasattr(values, "to_numpy") else values)


def numbers(values: Array) -> Array:
    """As float64, with NaN for null."""
    if values.dtype.kind == "O":
        return np.array([np.nan if one is None else float(one) for one in values], dtype=np.float64)
    return values.astype(np.float64)


def dates(values: Array) -> Array:
    """ISO texts (or dates) in seconds, with NaT for null and for what is no date."""
    if values.dtype.kind == "M":
        return values.astype("datetime64[s]")
    found = np.full(len(values), np.datetime64("NaT"), dtype="datetime64[s]")
    for place, one in enumerate(values):
        if isinstance(one, str) and one:
            try:
                found[place] = np.datetime64(one.replace(" ", "T"), "s")
            except ValueError:
                continue
    return found


def _parts_of(when: Array, first: int, *, dense: bool) -> Array:
    """Days since the first, month, weekday and hour; nulls are NaN, or the first."""
    gone = np.isnat(when)
    safe = np.where(gone, np.datetime64(0, "s"), when)
    days = safe.astype("datetime64[D]").astype(np.int64)
    month = safe.astype("datetime64[M]").astype(np.int64) % 12
    found = np.column_stack([days - first, month, (days + 3) % 7, safe.astype(np.int64) // 3600 % 24]).astype(
        np.float64
    )
    found[gone] = 0.0 if dense else np.nan
    return found
