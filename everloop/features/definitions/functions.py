"""The functions that an author makes features with.

All of them take `name=` (else made of column, function and window), `where=` (which facts count; see `filters`) and
`description=`. `over=` is a window; `ttl=` an age. Numbers become decimals of `scale=` digits when they come in.
"""

from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from itertools import pairwise
from typing import Any, TypedDict, Unpack

from everloop.core.errors import DefinitionError, EverloopError
from everloop.core.ids import checked_name
from everloop.features.definitions.feature import Feature, Function, Kind, duration
from everloop.features.definitions.filters import filter_of
from everloop.features.expressions import Expr, Node
from everloop.features.expressions.author import is_expression, typed_node

Column = str | Expr
"""A column of the source, or an expression over its columns (`el.col("price") * el.col("n")`; Polars' too)."""

LARGEST_SCALE = 15
"""10**15 is an exact double, and leaves three digits before the point in 64 bits."""
LARGEST_EDGE = 2**53 - 1
"""Times 10 to the scale: the largest integer that every reader of a definition's JSON keeps exact."""
MOST_KEPT, MOST_EDGES, MOST_BITS, SMALLEST_SKETCH, LARGEST_SKETCH = 1000, 1000, 20, 16, 65536


class Said(TypedDict, total=False):
    """What every function takes beside its own arguments."""

    name: str
    where: Any
    description: str


def count(*, over: str, **said: Unpack[Said]) -> Feature:
    """How many facts lie in the window; 0 when none."""
    return _made("count", "", f"count_{over}", said, window=duration(over))


def sum(column: Column, *, over: str, scale: int = 6, **said: Unpack[Said]) -> Feature:  # noqa: A001 - the author's word
    """Exact decimal sum of the column's values that are not null; 0.0 when none."""
    return _made("sum", column, f"sum_{over}", said, window=duration(over), scale=scale)


def mean(column: Column, *, over: str, scale: int = 6, **said: Unpack[Said]) -> Feature:
    """Exact sum over count of the values that are not null, rounded once; null when none."""
    return _made("mean", column, f"mean_{over}", said, window=duration(over), scale=scale)


def variance(column: Column, *, over: str, sample: bool = True, scale: int = 6, **said: Unpack[Said]) -> Feature:
    """Variance from exact sums of values and squares, rounded once; `sample` divides by n - 1.

    Null for no value, and for a single one with `sample`.
    """
    name = f"variance_{over}"
    return _made("variance", column, name, said, window=duration(over), scale=scale, size=int(sample))


def stddev(column: Column, *, over: str, sample: bool = True, scale: int = 6, **said: Unpack[Said]) -> Feature:
    """Square root of the exact variance, rounded once; null where `variance` is."""
    return _made("stddev", column, f"stddev_{over}", said, window=duration(over), scale=scale, size=int(sample))


def min(column: Column, *, over: str, scale: int = 6, **said: Unpack[Said]) -> Feature:  # noqa: A001 - the author's word
    """Smallest value in the window; null when none."""
    return _made("min", column, f"min_{over}", said, window=duration(over), scale=scale)


def max(column: Column, *, over: str, scale: int = 6, **said: Unpack[Said]) -> Feature:  # noqa: A001 - the author's word
    """Largest value in the window; null when none."""
    return _made("max", column, f"max_{over}", said, window=duration(over), scale=scale)


def last(column: Column, *, ttl: str | None = None, kind: Kind = "number", **said: Unpack[Said]) -> Feature:
    """The value of the newest fact by (event time, fact id), null included, if it is at most `ttl` old.

    A null in the newest fact is the answer: it is never filled from an older one.
    """
    return _made("last", column, "last", said, window=_age(ttl), kind=kind)


def first(column: Column, *, over: str | None = None, kind: Kind = "number", **said: Unpack[Said]) -> Feature:
    """The value of the oldest fact by (event time, fact id), null included: in the window, or of all time."""
    name = "first" if over is None else f"first_{over}"
    return _made("first", column, name, said, window=_age(over), kind=kind)


def last_k(column: Column, k: int, *, ttl: str | None = None, kind: Kind = "number", **said: Unpack[Said]) -> Feature:
    """Values of the newest `k` facts that have one, newest first, none older than `ttl`."""
    _within("k", k, 1, MOST_KEPT)
    return _made("last_k", column, f"last_{k}", said, window=_age(ttl), kind=kind, size=k)


def top_k(column: Column, k: int, *, over: str, kind: Kind = "text", **said: Unpack[Said]) -> Feature:
    """The `k` most frequent values in the window; of equally frequent ones the smaller comes first (text: by UTF-8)."""
    _within("k", k, 1, MOST_KEPT)
    return _made("top_k", column, f"top_{k}_{over}", said, window=duration(over), kind=kind, size=k)


def distinct(column: Column, *, over: str, sketch: int = 0, **said: Unpack[Said]) -> Feature:
    """How many different values lie in the window, nulls not counted.

    Exact (values are told apart by 64 bits). With `sketch=n`, only the n smallest hashes of a tile are kept: exact
    up to n values, then an estimate with a relative standard error of about 1 / sqrt(n - 2) (bottom-k sketch;
    Bar-Yossef and others 2002, Beyer and others 2007). The hash is fixed: batch and online estimate the same number.
    """
    if sketch:
        _within("sketch", sketch, SMALLEST_SKETCH, LARGEST_SKETCH)
    return _made("distinct", column, f"distinct_{over}", said, window=duration(over), size=sketch)


def ratio(numerator: Feature, denominator: Feature, **said: Unpack[Said]) -> Feature:
    """One count or sum divided by another, exact, rounded once; null when the denominator is 0."""
    parts = (numerator, denominator)
    for part in parts:
        if part.function not in {"count", "sum"}:
            raise DefinitionError(f"a ratio of {part.function}", hint="a ratio is made of counts and sums")
    return _made("ratio", "", f"{numerator.name}_per_{denominator.name}", said, window=None, parts=parts)


def histogram(
    column: Column, edges: Sequence[float | str], *, over: str, scale: int = 6, **said: Unpack[Said]
) -> Feature:
    """How many values lie below the first edge, in `[edge, next edge)`, …, at or above the last: a list of counts."""
    scaled = _edges(column, edges, scale)
    if not 0 < len(scaled) <= MOST_EDGES or any(a >= b for a, b in pairwise(scaled)):
        raise DefinitionError(f"edges of {column} do not ascend", hint=f"1 to {MOST_EDGES} numbers, ascending")
    if any(e != int(e) for e in scaled):
        raise DefinitionError(
            f"an edge of {column} has more than {scale} digits", hint="give the feature a larger scale="
        )
    name = f"histogram_{over}"
    return _made("histogram", column, name, said, window=duration(over), scale=scale, edges=tuple(map(int, scaled)))


def _edges(column: Column, edges: Sequence[float | str], scale: int) -> tuple[Decimal, ...]:
    """Edges times 10 to the scale, as they were written; numbers that a definition's hash can hold."""
    try:
        scaled = tuple(Decimal(str(e)).scaleb(scale) for e in edges)
    except InvalidOperation as error:
        raise DefinitionError(f"an edge of {column} is no number", hint="edges=[0, 10, 100]") from error
    if not all(e.is_finite() and abs(e) <= LARGEST_EDGE for e in scaled):
        raise DefinitionError(
            f"an edge of {column} is beyond ±2**53 / 10**{scale}",
            hint="a finite number; a smaller scale= allows larger ones",
        )
    return scaled


def quantile(
    column: Column, q: float | str, *, over: str, bits: int = 7, scale: int = 6, **said: Unpack[Said]
) -> Feature:
    """The value of rank ceil(q n) among the n values of the window, up to a relative error of 2**-(bits + 1).

    Values are counted in buckets that share their `bits` + 1 leading bits (as in HdrHistogram), an integer rule: sums
    of counts are exact in any order. The answer is the middle of the bucket: exact for scaled values below
    2**(bits + 1).
    """
    try:
        share = Decimal(str(q))
    except InvalidOperation:
        share = Decimal(-1)
    if not 0 <= share <= 1:
        raise DefinitionError(f"quantile {q} is not between 0 and 1", hint="write 0.95 for the 95th percentile")
    _within("bits", bits, 1, MOST_BITS)
    percent = format((share * 100).normalize(), "f").replace(".", "_")
    text = str(Fraction(share))
    name = f"p{percent}_{over}"
    return _made("quantile", column, name, said, window=duration(over), scale=scale, size=bits, quantile=text)


def column_of(column: Any, name: str) -> tuple[str, Node | None]:
    """The name of a column, and its tree where it is computed, which needs a `name` for the feature."""
    if isinstance(column, str):
        return column, None
    if not is_expression(column):
        raise DefinitionError(f"{column!r} is no column", hint='a name, or an expression such as el.col("a") / 2')
    node = typed_node(column)
    if node.op == "column" and node.type == "float64":
        return str(node.value), None
    if not name:
        raise DefinitionError(f"a feature of {node} needs a name", hint='name="revenue_7d"')
    return str(node), node


def _made(function: Function, column: Column, stem: str, said: Said, **more: Any) -> Feature:
    """A feature, checked; its name is made of the column and `stem` unless the author gave one."""
    read, tree = column_of(column, said.get("name", ""))
    name = said.get("name") or (f"{read}_{stem}" if read else stem)
    try:
        checked_name(name)
    except EverloopError as error:
        raise DefinitionError(f"feature {name!r}: {error.message}", hint=error.hint) from None
    if function not in {"count", "ratio"} and not read:
        raise DefinitionError(f"feature {name}: {function} needs a column")
    if more.get("kind", "number") not in {"number", "integer", "text"}:
        raise DefinitionError(f"feature {name}: kind {more['kind']!r}", hint='kind is "number", "integer" or "text"')
    if not 0 <= more.get("scale", 0) <= LARGEST_SCALE:
        raise DefinitionError(
            f"feature {name}: scale {more['scale']} is not between 0 and {LARGEST_SCALE}",
            hint="scale is the number of decimal digits to keep, for example scale=2 for cents",
        )
    where = filter_of(said.get("where"))
    return Feature(name, function, read, where=where, description=said.get("description", ""), expression=tree, **more)


def _age(text: str | None) -> int | None:
    return None if text is None else duration(text)


def _within(what: str, number: int, least: int, most: int) -> None:
    said: Any = number
    if not isinstance(said, int) or not least <= number <= most:
        raise DefinitionError(f"{what}={said!r} is not between {least} and {most}", hint="a whole number")
