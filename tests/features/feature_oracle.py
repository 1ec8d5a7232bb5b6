"""What features mean, in the plainest Python: one question at a time, over a list of dicts, with fractions."""

import math
from collections import Counter
from decimal import Decimal, localcontext
from fractions import Fraction
from typing import Any

import expression_oracle

from everloop.features.definitions import Feature, FeatureViewDef, hop_of
from everloop.features.definitions.feature import SCALED
from everloop.features.definitions.filters import AllOf, AnyOf
from everloop.features.states.columns import columns_of
from everloop.features.states.facts import facts_of


def answer(view: FeatureViewDef, rows: list[dict[str, Any]], entity: tuple, at: int) -> dict[str, Any]:
    """The view's values for an entity at a time; `rows` in any order, with times in microseconds."""
    rows = [row | {name: expression_oracle.value(node, row) for name, node in view.expressions.items()} for row in rows]
    mine = [r for r in distinct(view, rows) if tuple(r[c] for c in view.entity) == entity]
    known = [r for r in mine if r[view.known_time] is not None and r[view.known_time] < at]
    return {f.name: value(view, f, known, at) for f in view.features}


def value(view: FeatureViewDef, feature: Feature, known: list[dict[str, Any]], at: int) -> Any:
    if feature.parts:
        above, below = (exact(view, part, known, at) for part in feature.parts)
        return float(above / below) if below else None
    inside = [r for r in known if sees(view, feature, r, at)]
    inside.sort(key=lambda r: (r[view.event_time], identity(view, r)))
    return FUNCTIONS[feature.function](feature, inside)


def sees(view: FeatureViewDef, feature: Feature, row: dict[str, Any], at: int) -> bool:
    event = row[view.event_time]
    if event is None or event >= at or not passes(feature.where, row):
        return False
    if feature.window is None:
        return True
    if feature.function in ("last", "last_k"):
        return event >= at - feature.window
    hop = hop_of(feature.window)
    return event >= (at - feature.window) // hop * hop


def exact(view: FeatureViewDef, feature: Feature, known: list[dict[str, Any]], at: int) -> Fraction:
    inside = [r for r in known if sees(view, feature, r, at)]
    if feature.function == "count":
        return Fraction(len(inside))
    return Fraction(sum(numbers(feature, inside)), 10**feature.scale)


def numbers(feature: Feature, rows: list[dict[str, Any]]) -> list[int]:
    """The scaled integers of the values that are there."""
    return [rounded(v, feature.scale) for v in there(feature, rows)]


def there(feature: Feature, rows: list[dict[str, Any]]) -> list[Any]:
    return [r[feature.column] for r in rows if not missing(r[feature.column])]


def missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def as_kind(feature: Feature, value: Any) -> Any:
    if missing(value):
        return None
    return float(value) + 0.0 if feature.kind == "number" else value  # there is one zero


def mean_of(feature: Feature, rows: list[dict[str, Any]]) -> float | None:
    found = numbers(feature, rows)
    return float(Fraction(sum(found), len(found) * 10**feature.scale)) if found else None


def variance_of(feature: Feature, rows: list[dict[str, Any]]) -> Fraction | None:
    found = [Fraction(v, 10**feature.scale) for v in numbers(feature, rows)]
    if len(found) <= feature.size:
        return None
    middle = sum(found) / len(found)
    return sum((v - middle) ** 2 for v in found) / (len(found) - feature.size)


def stddev_of(feature: Feature, rows: list[dict[str, Any]]) -> float | None:
    found = variance_of(feature, rows)
    if found is None:
        return None
    with localcontext(prec=400):
        return float((Decimal(found.numerator) / Decimal(found.denominator)).sqrt())


def top_of(feature: Feature, rows: list[dict[str, Any]]) -> list[Any]:
    counts = Counter(as_kind(feature, v) for v in there(feature, rows))
    ranked = sorted(counts, key=lambda v: (-counts[v], v.encode() if isinstance(v, str) else v))
    return ranked[: feature.size]


def distinct_of(feature: Feature, rows: list[dict[str, Any]]) -> int:
    return len({v if isinstance(v, str) else Fraction(v) for v in there(feature, rows)})


def histogram_of(feature: Feature, rows: list[dict[str, Any]]) -> list[int]:
    counts = [0] * (len(feature.edges) + 1)
    for number in numbers(feature, rows):
        counts[sum(number >= edge for edge in feature.edges)] += 1
    return counts


def quantile_of(feature: Feature, rows: list[dict[str, Any]]) -> float | None:
    found = sorted(numbers(feature, rows))
    if not found:
        return None
    number = found[max(1, math.ceil(Fraction(feature.quantile) * len(found))) - 1]
    width = 1
    while abs(number) // width >= 2 ** (feature.size + 1):
        width *= 2
    low = abs(number) // width * width
    return math.copysign(1, number) * float((low + Fraction(width - 1, 2)) / 10**feature.scale) if number else 0.0


def extreme_of(feature: Feature, rows: list[dict[str, Any]]) -> float | None:
    found = numbers(feature, rows)
    return float(Fraction((min if feature.function == "min" else max)(found), 10**feature.scale)) if found else None


FUNCTIONS = {
    "count": lambda f, rows: len(rows),
    "sum": lambda f, rows: float(Fraction(sum(numbers(f, rows)), 10**f.scale)),
    "mean": mean_of,
    "variance": lambda f, rows: None if (v := variance_of(f, rows)) is None else float(v),
    "stddev": stddev_of,
    "min": extreme_of,
    "max": extreme_of,
    "first": lambda f, rows: as_kind(f, rows[0][f.column]) if rows else None,
    "last": lambda f, rows: as_kind(f, rows[-1][f.column]) if rows else None,
    "last_k": lambda f, rows: [as_kind(f, v) for v in there(f, rows)[::-1][: f.size]],
    "top_k": top_of,
    "distinct": distinct_of,
    "histogram": histogram_of,
    "quantile": quantile_of,
}


def rounded(number: float, scale: int) -> int:
    """The scaled integer kept of a number: rounded half to even after the multiplication in double precision."""
    return number * 10**scale if isinstance(number, int) else round(number * float(10**scale))


def passes(where: Any, row: dict[str, Any]) -> bool:
    if where is None:
        return True
    if isinstance(where, AllOf):
        return all(passes(part, row) for part in where.parts)
    if isinstance(where, AnyOf):
        return any(passes(part, row) for part in where.parts)
    found, wanted = row[where.column], where.value
    if missing(found):
        return False
    return {
        "==": lambda: found == wanted,
        "!=": lambda: found != wanted,
        "<": lambda: found < wanted,
        "<=": lambda: found <= wanted,
        ">": lambda: found > wanted,
        ">=": lambda: found >= wanted,
        "in": lambda: found in wanted,
        "not in": lambda: found not in wanted,
    }[where.op]()


def distinct(view: FeatureViewDef, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of the same content once: what a feature reads, and the key."""
    return list({tuple(content(view, row)): row for row in rows}.values())


def content(view: FeatureViewDef, row: dict[str, Any]) -> list[Any]:
    if view.reads:  # every column of the dataset that it reads, and nothing that was looked up
        return [None if missing(row[c]) else row[c] for c in view.stored]
    found = [row[c] for c in (*view.entity, view.event_time, view.known_time, *view.key)]
    for feature in (part for f in view.features for part in f.parts or (f,)):
        counts = passes(feature.where, row)
        value = row[feature.column] if feature.column else 1
        if missing(value) or not counts:
            value = None
        elif feature.function in SCALED:
            value = rounded(value, feature.scale)
        else:
            value = value if isinstance(value, str) else Fraction(value)
        null_counts = feature.function in ("count", "first", "last", "last_k", "top_k")
        found.append((counts if null_counts else value is not None, value))
    return found


def identity(view: FeatureViewDef, row: dict[str, Any]) -> int:
    """The fact's id. The one thing that the oracle asks the product: any total order would do, but it must be this."""
    facts, _ = facts_of(view, columns_of(view, [row]))
    return int(facts.id[0])
