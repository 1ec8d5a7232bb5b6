"""What a feature and its filter are, in words that people read: pages, the command line and answers share them."""

from fractions import Fraction

from everloop.core.clock import DAY, HOUR, MINUTE, SECOND, Micros
from everloop.features.definitions.feature import SCALED, Feature
from everloop.features.definitions.filters import AllOf, Filter, Where

USUAL_SCALE = 6


def words_of(feature: Feature) -> str:
    """`mean of dep_delay over 3 h, where carrier == AA`."""
    if feature.function == "ratio":
        above, below = (_part(part) for part in feature.parts)
        return f"{above} / {below}{_where(feature.where)}"
    return _function(feature) + _window(feature) + _digits(feature) + _where(feature.where)


def length(span: Micros) -> str:
    """`3 h`, `90 s`, `7 d`: in the largest unit that divides it; a day is said as `24 h`, longer ones in days."""
    for unit, size, least in (("d", DAY, 2), ("h", HOUR, 1), ("min", MINUTE, 1), ("s", SECOND, 1)):
        if span % size == 0 and span >= least * size:
            return f"{span // size} {unit}"
    return f"{span / 1000:g} ms"


def filter_words(where: Filter, *, inside: bool = False) -> str:
    """`carrier == AA and (delay > 15 or delay < -15)`."""
    if isinstance(where, Where):
        if where.expression is not None:
            return str(where.expression)
        value = where.value
        listed = f"({', '.join(map(str, value))})" if isinstance(value, tuple) else str(value)
        return f"{where.column} {where.op} {listed}"
    joined = (" and " if isinstance(where, AllOf) else " or ").join(filter_words(p, inside=True) for p in where.parts)
    return f"({joined})" if inside and len(where.parts) > 1 else joined


def _part(part: Feature) -> str:
    text = words_of(part)
    return f"({text})" if part.where is not None else text


def _where(where: Filter | None) -> str:
    return "" if where is None else f", where {filter_words(where)}"


def _function(feature: Feature) -> str:
    column, size = feature.column, feature.size
    match feature.function:
        case "count":
            text = "count"
        case "last_k":
            text = f"newest {size} of {column}"
        case "top_k":
            text = f"{size} most frequent of {column}"
        case "distinct":
            text = f"distinct values of {column}" + (f", estimated from {size} hashes" if size else "")
        case "histogram":
            edges = ", ".join(f"{edge / 10**feature.scale:g}" for edge in feature.edges)
            text = f"counts of {column} between {edges}"
        case "quantile":
            text = f"quantile {float(Fraction(feature.quantile)):g} of {column}"
        case "variance" | "stddev":
            name = "variance" if feature.function == "variance" else "standard deviation"
            text = f"{name} of {column}{'' if size else ' as a whole'}"
        case _:
            text = f"{feature.function} of {column}"
    return text


def _window(feature: Feature) -> str:
    if feature.window is None:
        return ""
    return f", at most {length(feature.window)} old" if not feature.hop else f" over {length(feature.window)}"


def _digits(feature: Feature) -> str:
    exact = f", within {100 * 2.0 ** -(feature.size + 1):.2g} %" if feature.function == "quantile" else ""
    if feature.function not in SCALED or feature.scale == USUAL_SCALE:
        return exact
    return exact + (f", to {feature.scale} digits" if feature.scale else ", in whole numbers")
