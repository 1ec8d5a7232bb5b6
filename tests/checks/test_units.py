"""Which changes of a column are mistakes, and that ordinary drift is none of them."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from everloop.checks.units import find_changes

ROWS = 2_000


def columns(seed, shift=0.0):
    r = np.random.default_rng(seed)
    delay = np.where(r.random(ROWS) < 0.4, 0.0, r.gamma(1.5, 25.0 * (1 + shift), ROWS))
    return {
        "temperature": r.normal(14 + 10 * shift, 8, ROWS),
        "distance": r.choice([187, 760, 1089, 2475], ROWS, p=[0.2, 0.3, 0.3, 0.2]) + r.integers(0, 40, ROWS),
        "wind": r.gamma(3, 3.5, ROWS),
        "delay": delay,
        "balance": r.normal(-5, 2, ROWS),
        "flag": r.random(ROWS) < 0.2,
        "count": r.poisson(3, ROWS),
        "share": r.beta(2, 5, ROWS),
        "carrier": r.choice(["AA", "UA", "B6"], ROWS),
        "visibility": np.where(r.random(ROWS) < 0.03, np.nan, 10 - r.gamma(0.3, 2, ROWS)),
    }


def frame(seed, shift=0.0, **changed):
    made = columns(seed, shift)
    made.update({name: change(made[name]) for name, change in changed.items()})
    return pl.DataFrame(made)


def found(**changed):
    return {f.column: f.diagnosis for f in find_changes(frame(2, **changed), frame(1))}


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("shift", [0.0, 0.15, 0.3])
def test_ordinary_drift_is_no_change_of_unit(seed, shift):
    assert find_changes(frame(seed + 100, shift), frame(1)) == []


@pytest.mark.parametrize(
    ("column", "change", "words"),
    [
        ("delay", lambda v: v * 60, "minutes and seconds"),
        ("delay", lambda v: v / 60, "minutes and seconds"),
        ("distance", lambda v: v * 1.609344, "miles and kilometres"),
        ("distance", lambda v: v / 1000, "thousandths"),
        ("wind", lambda v: v * 1.852, "nautical miles"),
        ("wind", lambda v: v * 7.3, "7."),
        ("share", lambda v: v * 100, "hundredths"),
        ("count", lambda v: v * 1000, "thousandths"),
        ("temperature", lambda v: v * 1.8 + 32, "Celsius became Fahrenheit"),
        ("temperature", lambda v: (v - 32) / 1.8, "Fahrenheit became Celsius"),
        ("temperature", lambda v: v + 273.15, "became kelvin"),
    ],
)
def test_a_wrong_unit_is_named(column, change, words):
    (finding,) = find_changes(frame(2, **{column: change}), frame(1))
    assert (finding.column, finding.diagnosis) == (column, "unit")
    assert words in finding.text


def test_a_wrong_unit_shows_through_drift():
    drifted = frame(7, 0.3, delay=lambda v: v * 60)
    assert [(f.column, f.diagnosis) for f in find_changes(drifted, frame(1))] == [("delay", "unit")]


@given(factor=st.floats(6, 1e6), seed=st.integers(0, 50))
def test_any_large_factor_is_found(factor, seed):
    (finding,) = find_changes(frame(seed + 100, wind=lambda v: v * factor), frame(1))
    assert finding.factor == pytest.approx(factor, rel=0.15)


def test_other_faults_have_their_names():
    assert found(balance=lambda v: -v) == {"balance": "sign"}
    assert found(wind=lambda v: np.full(ROWS, 3.0)) == {"wind": "constant"}
    assert found(wind=lambda v: np.where(np.arange(ROWS) % 3 == 0, np.nan, v)) == {"wind": "null_spike"}
    assert found(carrier=lambda v: np.array(["AA"] * ROWS)) == {"carrier": "constant"}
    assert found(count=lambda v: v.astype(str)) == {"count": "type"}


def test_missing_columns_are_found_and_new_ones_are_not():
    old, new = frame(1), frame(2)
    assert [f.diagnosis for f in find_changes(new.drop("wind"), old)] == ["missing"]
    assert find_changes(new.with_columns(extra=1), old) == []
    assert find_changes(new.drop("wind").lazy(), old.lazy(), ignore=("wind",)) == []


def test_few_rows_say_nothing():
    assert find_changes(frame(2, wind=lambda v: v * 60).head(30), frame(1)) == []


def test_empty_and_all_null_columns_do_not_raise():
    nothing = pl.DataFrame({"a": pl.Series([], dtype=pl.Float64)})
    assert find_changes(nothing, nothing) == []
    nulls = pl.DataFrame({"a": pl.Series([None] * 100, dtype=pl.Float64)})
    assert find_changes(nulls, nulls) == []
    assert [f.diagnosis for f in find_changes(nulls, pl.DataFrame({"a": np.arange(100.0)}))] == ["null_spike"]
