"""How far two distributions lie apart, from the sketches of their profiles: no row is read."""

from math import log

from everloop.data.profiles import Column

_BINS = 10
_FLOOR = 1e-4
"""Share that an empty bin counts as, so that the stability index stays finite."""
_TOLD = {
    "ks": "Kolmogorov-Smirnov distance",
    "psi": "population stability index",
    "tv": "total variation distance",
}


def told(test: str) -> str:
    """The name of a test for people."""
    return _TOLD[test]


def distance(old: Column, new: Column, test: str) -> float | None:
    """The distance by `ks` (numbers), `psi` (numbers or values) or `tv` (values); None where the test does not apply.

    `ks` is the largest difference of the two distribution functions, at the quantiles of both (sketches of rank error
    0.3 %); `psi` sums (q - p) ln(q / p) over ten bins of equal weight of the old one, or over values; `tv` is half the
    sum of |q - p| over values. Values beyond the sketch's most frequent are one value, "others".
    """
    if old.kll is not None and new.kll is not None:
        if test == "ks":
            points = sorted({*old.quantiles(), *new.quantiles()})
            pairs = zip(old.kll.get_cdf(points), new.kll.get_cdf(points), strict=True)
            return max(abs(float(p) - float(q)) for p, q in pairs)
        if test == "psi":
            edges = sorted({float(q) for q in old.kll.get_quantiles([i / _BINS for i in range(1, _BINS)])})
            return _index([float(p) for p in old.kll.get_pmf(edges)], [float(q) for q in new.kll.get_pmf(edges)])
        return None
    if old.top is not None and new.top is not None and test in ("psi", "tv"):
        p, q = _shares(old, new)
        return _index(p, q) if test == "psi" else sum(abs(a - b) for a, b in zip(p, q, strict=True)) / 2
    return None


def drift_of(old: Column, new: Column) -> tuple[str, float] | None:
    """The test that fits a column, and what it gives: for pages. None where nothing can be said."""
    for test in ("ks", "tv"):
        found = None if old.masked or new.masked or old.type != new.type else distance(old, new, test)
        if found is not None:
            return told(test), found
    return None


def _index(p: list[float], q: list[float]) -> float:
    pairs = [(max(a, _FLOOR), max(b, _FLOOR)) for a, b in zip(p, q, strict=True)]
    return sum((b - a) * log(b / a) for a, b in pairs)


def _shares(old: Column, new: Column) -> tuple[list[float], list[float]]:
    tops = [dict(column.top or {}) for column in (old, new)]
    values = sorted({*tops[0], *tops[1]})
    sides = []
    for column, top in zip((old, new), tops, strict=True):
        there = max(column.rows - column.nulls, 1)
        found = [top.get(value, 0) / there for value in values]
        sides.append([*found, max(0.0, 1.0 - sum(found))])
    return sides[0], sides[1]
