"""What features mean, in the plainest Python: one question at a time, over a list of dicts, with fractions."""

import math
from fractions import Fraction
from typing import Any

import expression_oracle

from everloop.features.definitions import Feature, FeatureViewDef
from everloop.features.states.facts import columns_of, facts_of


def answer(view: FeatureViewDef, rows: list[dict[str, Any]], entity: tuple, at: int) -> dict[str, Any]:
    """The view's values for an entity at a time; `rows` in any order, with times in microseconds."""
    rows = [row | {name: expression_oracle.value(node, row) for name, node in view.expressions.items()} for row in rows]
    mine = [r for r in distinct(view, rows) if tuple(r[c] for c in view.entity) == entity]
    known = [r for r in mine if r[view.known_time] is not None and r[view.known_time] < at]
    return {f.name: value(view, f, known, at) for f in view.features}


def value(view: FeatureViewDef, feature: Feature, known: list[dict[str, Any]], at: int) -> Any:
    known = [r for r in known if r[view.event_time] is not None and r[view.event_time] < at and passes(feature, r)]
    if feature.function == "last":
        return newest(view, feature, known, at)
    tail = (at - feature.window) // feature.hop * feature.hop
    inside = [r for r in known if tail <= r[view.event_time]]
    if feature.function == "count":
        return len(inside)
    values = [r[feature.column] for r in inside]
    numbers = [rounded(v, feature.scale) for v in values if v is not None and not math.isnan(v)]
    if feature.function == "sum":
        return float(Fraction(sum(numbers), 10**feature.scale))
    if not numbers:
        return None
    if feature.function == "mean":
        return float(Fraction(sum(numbers), len(numbers) * 10**feature.scale))
    return float(Fraction((min if feature.function == "min" else max)(numbers), 10**feature.scale))


def newest(view: FeatureViewDef, feature: Feature, known: list[dict[str, Any]], at: int) -> float | None:
    oldest = -math.inf if feature.window is None else at - feature.window
    fresh = [r for r in known if r[view.event_time] >= oldest]
    if not fresh:
        return None
    found = max(fresh, key=lambda r: (r[view.event_time], identity(view, r)))[feature.column]
    return None if found is None or math.isnan(found) else float(found) + 0.0  # there is one zero


def rounded(number: float, scale: int) -> int:
    """The scaled integer kept of a number: rounded half to even after the multiplication in double precision."""
    return number * 10**scale if isinstance(number, int) else round(number * float(10**scale))


def passes(feature: Feature, row: dict[str, Any]) -> bool:
    if feature.where is None:
        return True
    found, wanted = row[feature.where.column], feature.where.value
    if found is None or (isinstance(found, float) and math.isnan(found)):
        return False
    return {
        "==": found == wanted,
        "!=": found != wanted,
        "<": found < wanted,
        "<=": found <= wanted,
        ">": found > wanted,
        ">=": found >= wanted,
    }[feature.where.op]


def distinct(view: FeatureViewDef, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of the same content once: what a feature reads, and the key."""
    return list({tuple(content(view, row)): row for row in rows}.values())


def content(view: FeatureViewDef, row: dict[str, Any]) -> list[Any]:
    found = [row[c] for c in (*view.entity, view.event_time, view.known_time, *view.key)]
    for feature in view.features:
        counts = passes(feature, row)
        number = row[feature.column] if feature.column else 1
        missing = number is None or math.isnan(number)
        if feature.function in ("count", "last"):
            found.append((counts, None if missing or not counts else number))
        else:
            found.append(None if missing or not counts else rounded(number, feature.scale))
    return found


def identity(view: FeatureViewDef, row: dict[str, Any]) -> int:
    """The fact's id. The one thing that the oracle asks the product: any total order would do, but it must be this."""
    facts, _ = facts_of(view, columns_of(view, [row]))
    return int(facts.id[0])
