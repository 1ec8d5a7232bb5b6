"""Profiles: what the columns of a version look like, in sketches that merge.

A profile is derived from its version and is no part of its identity (the quantile sketch draws random numbers). It is
an object of JSON, found by the placement of `profile_id(version)`. Columns with a tag keep only what says nothing
about a single value: type, rows, nulls, number of distinct values.
"""

import base64
import math
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import datasketches
import numpy as np
import orjson
import polars as pl
import pyarrow as pa

from everloop.catalog import placements
from everloop.catalog.context import Context
from everloop.core.errors import CorruptObject, DataError, NotFound
from everloop.core.ids import manifest_id
from everloop.data.codec import manifest_of, paths_of, table_batches, tables
from everloop.data.content.keys import key_text
from everloop.data.content.ordering import mixed, words
from everloop.data.content.schema import is_bytes, is_text, logical_type, plain
from everloop.data.contracts.associations import SAMPLED_PARTS, associations

KLL_K = 800
BINS = 256
TOP = 20
_COUNTED = 1_000
_HLL_BITS = 12
_FORM = 2
COVERAGE = 48
"""Pieces of equal weight that the coverage of a column of times is told in."""


class Distinct:
    """HyperLogLog with 4,096 registers (Flajolet et al. 2007, linear counting for few): about 1.6 % standard error."""

    def __init__(self, registers: np.ndarray[Any, np.dtype[np.uint8]] | None = None) -> None:
        """Start empty, or from registers."""
        self.registers = np.zeros(1 << _HLL_BITS, np.uint8) if registers is None else registers

    def add(self, hashes: np.ndarray[Any, np.dtype[np.uint64]]) -> None:
        """Count values by their 64-bit hashes."""
        index = (hashes >> np.uint64(64 - _HLL_BITS)).astype(np.intp)
        rest = (hashes << np.uint64(_HLL_BITS)) | np.uint64(1 << (_HLL_BITS - 1))
        # the position of the highest set bit: frexp of the upper 53 bits is exact enough to count leading zeros
        _, exponent = np.frexp((rest >> np.uint64(11)).astype(np.float64))
        rank = (54 - exponent).astype(np.uint8)
        np.maximum.at(self.registers, index, rank)

    def estimate(self) -> int:
        """How many distinct values there were, about."""
        m = float(len(self.registers))
        raw = 0.7213 / (1 + 1.079 / m) * m * m / float(np.sum(np.exp2(-self.registers.astype(np.float64))))
        empty = int(np.count_nonzero(self.registers == 0))
        return round(m * math.log(m / empty)) if empty and raw <= 2.5 * m else round(raw)

    def text(self) -> str:
        """The registers as text."""
        return base64.b64encode(zlib.compress(self.registers.tobytes())).decode()

    @classmethod
    def from_text(cls, text: str) -> "Distinct":
        """Read what `text` wrote."""
        return cls(np.frombuffer(zlib.decompress(base64.b64decode(text)), np.uint8).copy())


@dataclass(slots=True)
class Column:
    """The sketch of one column; `add` and `merge` are all that changes it."""

    type: str
    masked: bool = False
    rows: int = 0
    nulls: int = 0
    nans: int = 0
    distinct: Distinct = field(default_factory=Distinct)
    numbers: int = 0
    mean: float = 0.0
    spread: float = 0.0
    """Sum of squared distances from the mean."""
    low: float | str | None = None
    high: float | str | None = None
    kll: Any = None
    top: Counter[str] | None = None
    top_exact: bool = True
    times: Any = None
    """A quantile sketch of the moments in a column of times or dates, in microseconds UTC."""
    characters: int = 0
    """All characters of the texts together."""
    shortest: int | None = None
    longest: int | None = None

    def add(self, array: pa.Array) -> None:
        """Take a piece of the column in plain layout."""
        self.rows += len(array)
        self.nulls += array.null_count if not pa.types.is_null(array.type) else len(array)
        array = array.drop_null()
        type_ = array.type
        if not len(array) or pa.types.is_nested(type_):
            return
        if pa.types.is_floating(type_):
            array = self._without_nan(array)
        self.distinct.add(mixed(words(array)))
        if self.masked:
            return
        if pa.types.is_integer(type_) or pa.types.is_floating(type_) or pa.types.is_decimal(type_):
            self._add_numbers(np.asarray(array.cast(pa.float64()).to_numpy(zero_copy_only=False)))
        elif is_text(type_) or pa.types.is_boolean(type_):
            self._add_values(array)
            if is_text(type_):
                self._add_lengths(pa.compute.utf8_length(array))
        elif pa.types.is_timestamp(type_) or pa.types.is_date(type_):
            self._add_range(pa.compute.min_max(array).as_py())
            moments = array.cast(pa.timestamp("us", getattr(type_, "tz", None))).cast(pa.int64())
            self._add_times(np.asarray(moments.to_numpy(zero_copy_only=False), dtype=np.float64))
        elif not is_bytes(type_) and not pa.types.is_duration(type_):
            self._add_range(pa.compute.min_max(array).as_py())

    def _without_nan(self, array: pa.Array) -> pa.Array:
        values = np.asarray(array.to_numpy(zero_copy_only=False)) + 0.0
        there = ~np.isnan(values)
        self.nans += int(len(values) - there.sum())
        return pa.array(values[there], type=array.type)

    def _add_numbers(self, values: np.ndarray[Any, np.dtype[np.float64]]) -> None:
        finite = values[np.isfinite(values)]
        if not len(finite):
            return
        if self.kll is None:
            self.kll = datasketches.kll_doubles_sketch(KLL_K)
        self.kll.update(finite)
        mean = float(finite.mean())
        self._pool(len(finite), mean, float(((finite - mean) ** 2).sum()))
        self._extend(float(finite.min()), float(finite.max()))

    def _pool(self, count: int, mean: float, spread: float) -> None:
        """Chan, Golub, LeVeque 1979: pooled mean and sum of squares."""
        total = self.numbers + count
        if total:
            gap = mean - self.mean
            self.spread += spread + gap * gap * self.numbers * count / total
            self.mean += gap * count / total
            self.numbers = total

    def _add_values(self, array: pa.Array) -> None:
        counted = pl.Series(array).value_counts(sort=True)
        column, counts = counted.get_columns()
        if self.top is None:
            self.top = Counter()
        self.top_exact &= len(column) <= _COUNTED
        kept = zip(column.head(_COUNTED).to_list(), counts.head(_COUNTED).to_list(), strict=True)
        self.top.update({str(value): int(count) for value, count in kept})
        self._forget()
        self._extend(str(column.min()), str(column.max()))

    def _add_lengths(self, lengths: pa.Array) -> None:
        found = pa.compute.min_max(lengths).as_py()
        self.characters += pa.compute.sum(lengths).as_py()
        self._stretch(found["min"], found["max"])

    def _stretch(self, shortest: int, longest: int) -> None:
        self.shortest = shortest if self.shortest is None else min(self.shortest, shortest)
        self.longest = longest if self.longest is None else max(self.longest, longest)

    def _add_times(self, moments: np.ndarray[Any, np.dtype[np.float64]]) -> None:
        if self.times is None:
            self.times = datasketches.kll_doubles_sketch(KLL_K)
        self.times.update(moments)

    def _forget(self) -> None:
        if self.top is not None and len(self.top) > 4 * _COUNTED:
            self.top = Counter(dict(self.top.most_common(_COUNTED)))
            self.top_exact = False

    def _add_range(self, found: Mapping[str, Any]) -> None:
        self._extend(key_text(found["min"]), key_text(found["max"]))

    def _extend(self, low: Any, high: Any) -> None:
        self.low = low if self.low is None else min(self.low, low)
        self.high = high if self.high is None else max(self.high, high)

    def merge(self, other: "Column") -> None:
        """Take in the sketch of other rows of the same column; raises `DataError` for another type."""
        if other.type != self.type:
            raise DataError(f"profiles of {self.type} and {other.type} do not merge")
        self.masked |= other.masked
        self.rows, self.nulls, self.nans = self.rows + other.rows, self.nulls + other.nulls, self.nans + other.nans
        np.maximum(self.distinct.registers, other.distinct.registers, out=self.distinct.registers)
        self._pool(other.numbers, other.mean, other.spread)
        if other.low is not None:
            self._extend(other.low, other.high)
        if other.kll is not None:
            self.kll = self.kll or datasketches.kll_doubles_sketch(KLL_K)
            self.kll.merge(other.kll)
        if other.times is not None:
            self.times = self.times or datasketches.kll_doubles_sketch(KLL_K)
            self.times.merge(other.times)
        if other.shortest is not None and other.longest is not None:
            self.characters += other.characters
            self._stretch(other.shortest, other.longest)
        if other.top is not None:
            self.top = (self.top or Counter()) + other.top
            self.top_exact &= other.top_exact
            self._forget()

    def quantiles(self) -> list[float]:
        """The 257 edges of 256 bins of equal weight."""
        if self.kll is None:
            return []
        return [float(q) for q in self.kll.get_quantiles(np.linspace(0, 1, BINS + 1).tolist())]

    def coverage(self) -> list[int]:
        """The edges, in microseconds UTC, of pieces of equal weight of a column of times."""
        if self.times is None:
            return []
        return [round(q) for q in self.times.get_quantiles(np.linspace(0, 1, COVERAGE + 1).tolist())]

    def json(self) -> dict[str, Any]:
        """JSON-ready form with what people read and what merging needs."""
        found: dict[str, Any] = {"type": self.type, "rows": self.rows, "nulls": self.nulls, "masked": self.masked}
        found |= {"nans": self.nans, "distinct": self.distinct.estimate(), "hll": self.distinct.text()}
        if self.masked:
            return found
        found |= {"min": self.low, "max": self.high}
        if self.kll is not None:
            found |= {"numbers": self.numbers, "mean": self.mean, "spread": self.spread}
            found |= {"std": math.sqrt(self.spread / self.numbers), "quantiles": self.quantiles()}
            found |= {"kll": base64.b64encode(self.kll.serialize()).decode()}
        if self.times is not None:
            found |= {"coverage": self.coverage(), "times": base64.b64encode(self.times.serialize()).decode()}
        if self.shortest is not None:
            there = self.rows - self.nulls
            found |= {"shortest": self.shortest, "longest": self.longest, "characters": self.characters}
            found |= {"length": self.characters / there if there else 0.0}
        if self.top is not None:
            found |= {"top": [[v, n] for v, n in self.top.most_common(TOP)], "top_exact": self.top_exact}
            found |= {"counts": dict(self.top.most_common(_COUNTED))}
        return found

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> "Column":
        """Read what `json` wrote."""
        column = cls(found["type"], found["masked"], found["rows"], found["nulls"], found["nans"])
        column.distinct = Distinct.from_text(found["hll"])
        column.low, column.high = found.get("min"), found.get("max")
        if "kll" in found:
            column.kll = datasketches.kll_doubles_sketch.deserialize(base64.b64decode(found["kll"]))
            column.numbers, column.mean, column.spread = found["numbers"], found["mean"], found["spread"]
        if "times" in found:
            column.times = datasketches.kll_doubles_sketch.deserialize(base64.b64decode(found["times"]))
        if "shortest" in found:
            column.shortest, column.longest = found["shortest"], found["longest"]
            column.characters = found["characters"]
        if "counts" in found:
            column.top, column.top_exact = Counter(found["counts"]), found["top_exact"]
        return column


@dataclass(frozen=True, slots=True)
class Profile:
    """The sketches of all columns."""

    columns: Mapping[str, Column]
    associations: Mapping[str, Any] = field(default_factory=dict)
    """How columns go together, on a sample (`data.contracts.associations`); of a whole version only."""

    @property
    def rows(self) -> int:
        """How many rows were seen."""
        return max((column.rows for column in self.columns.values()), default=0)

    def merge(self, other: "Profile") -> None:
        """Take in the profile of other rows of the same table; raises `DataError` where columns differ."""
        if set(self.columns) != set(other.columns):
            raise DataError("profiles of tables with different columns do not merge")
        for name, column in self.columns.items():
            column.merge(other.columns[name])

    def json(self) -> dict[str, Any]:
        """JSON-ready form."""
        columns = {n: c.json() for n, c in self.columns.items()}
        return {"form": _FORM, "rows": self.rows, "columns": columns, "associations": dict(self.associations)}

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> "Profile":
        """Read what `json` wrote."""
        columns = {name: Column.from_json(column) for name, column in found["columns"].items()}
        return cls(columns, found.get("associations", {}))


def profile(table: Any, *, tags: Mapping[str, str] | None = None) -> Profile:
    """The profile of a table: polars, pandas, Arrow, or an iterator of record batches. Raises `DataError`."""
    schema, batches = table_batches(table, "profile")
    return _profile((pa.Table.from_batches([b]) for b in batches), schema, tags or {})


def _profile(pieces: Iterable[pa.Table], schema: pa.Schema, tags: Mapping[str, str]) -> Profile:
    columns = {f.name: Column(logical_type(f.type), f.name in tags) for f in schema}
    for piece in pieces:
        table = plain(piece)
        for name, column in columns.items():
            for chunk in table[name].chunks:
                column.add(chunk)
    return Profile(columns)


def profile_id(version: str) -> str:
    """The logical id under which the profile of a version is placed."""
    return manifest_id({"profile_of": version, "form": _FORM})


def part_profile_id(logical: str, tags: Iterable[str]) -> str:
    """The logical id under which the profile of one part is placed; `tags` are the columns that it masks."""
    return manifest_id({"profile_of_part": logical, "masked": sorted(tags), "form": _FORM})


def profile_of(ctx: Context, version: str) -> Profile:
    """The profile of a data version; made and stored when it is asked for the first time. Raises `NotFound`.

    Each part has its own, so that a version costs its new parts only; the others' are merged.
    """
    logical = profile_id(version)
    kept = _kept(ctx, [logical])
    if logical in kept:
        return kept[logical]
    manifest = manifest_of(ctx, version)
    if "external" in manifest:  # it has no parts here
        found = profile(pa.concat_tables(tables(paths_of(ctx, manifest))), tags=manifest["tags"])
    else:
        found = profile_of_parts(ctx, manifest)
    found = replace(found, associations=associations(paths_of(ctx, _sampled(manifest)), manifest["tags"]))
    _keep(ctx, {logical: found})
    return found


def profile_of_parts(ctx: Context, manifest: Mapping[str, Any]) -> Profile:
    """The merged profiles of the parts of a manifest, or of a choice of them: a window, a union. Raises `DataError`."""
    tags = manifest["tags"]
    ids = [part_profile_id(part["logical"], tags) for part in manifest["parts"]]
    kept = _kept(ctx, ids)
    new = [part for part, identity in zip(manifest["parts"], ids, strict=True) if identity not in kept]
    for part in new:
        (table,) = tables(paths_of(ctx, {**manifest, "parts": [part]}))
        made = {part_profile_id(part["logical"], tags): _profile([table], table.schema, tags)}
        if len(ids) > 1:  # the profile of a lone part is the version's
            _keep(ctx, made)
        kept |= made
    first, *rest = ids
    whole = Profile.from_json(kept[first].json()) if rest else kept[first]
    for identity in rest:
        whole.merge(kept[identity])
    return whole


def _sampled(manifest: Mapping[str, Any]) -> Mapping[str, Any]:
    """The manifest with a few of its parts, spread over all."""
    parts = manifest["parts"]
    step = max(1, len(parts) // SAMPLED_PARTS)
    return {**manifest, "parts": parts[::step][:SAMPLED_PARTS]}


def _kept(ctx: Context, logicals: list[str]) -> dict[str, Profile]:
    """The profiles that are there; what is broken or gone is not."""
    with ctx.read() as tx:
        placed = placements.resolve(tx, ctx.project, logicals)
    found = {}
    for logical, identity in placed.items():
        try:
            found[logical] = Profile.from_json(orjson.loads(ctx.store.get(identity)))
        except (NotFound, CorruptObject):  # derived: made again
            continue
    return found


def _keep(ctx: Context, profiles: Mapping[str, Profile]) -> None:
    stored = {logical: ctx.store.put(orjson.dumps(made.json())) for logical, made in profiles.items()}
    with ctx.catalog.write() as tx:  # derived, so no audit record of its own
        before = placements.resolve(tx, ctx.project, list(stored))
        for logical, identity in stored.items():
            if before.get(logical, identity) != identity:
                placements.replace(tx, ctx.project, logical, old=before[logical], new=identity)
        placements.put(tx, ctx.project, stored)
