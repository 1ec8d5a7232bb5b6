"""Our functions of probability against SciPy's, over the range that the monitors use."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize
from scipy import special as theirs

from everloop.watch.statistics import special

SHARES = st.floats(1e-12, 1 - 1e-12)


@given(st.floats(-37, 37))
def test_the_normal_distribution(x):
    assert special.normal_below(x) == pytest.approx(theirs.ndtr(x), rel=1e-12)


@given(SHARES)
def test_its_quantiles(share):
    assert special.normal_quantile(share) == pytest.approx(theirs.ndtri(share), rel=1e-12, abs=1e-12)


@settings(max_examples=300)
@given(st.integers(1, 80), st.floats(0, 1200))
def test_chi_squared(freedom, x):
    assert special.chi_squared_above(freedom, x) == pytest.approx(theirs.chdtrc(freedom, x), rel=1e-9, abs=1e-300)


def test_chi_squared_over_arrays():
    freedom = np.array([[1], [2], [19], [64]])
    x = np.array([0.0, 0.3, 18.0, 200.0])
    assert special.chi_squared_above(freedom, x) == pytest.approx(theirs.chdtrc(freedom, x), rel=1e-10)


@given(st.floats(1e-300, 1.0))
def test_chi_squared_of_one_degree_turned_round(share):
    assert special.chi_squared_exceeded(share) == pytest.approx(theirs.chdtri(1, share), rel=1e-9, abs=1e-12)


@given(st.floats(0, 12))
def test_kolmogorov(x):
    assert special.kolmogorov_above(x) == pytest.approx(theirs.kolmogorov(x), rel=1e-9, abs=1e-15)


@settings(max_examples=300)
@given(st.integers(-1, 400_000), st.integers(0, 400_000), st.floats(0, 1))
def test_the_binomial_distribution(k, n, p):
    for ours, name in ((special.binomial_above, "bdtrc"), (special.binomial_up_to, "bdtr")):
        hits = min(max(k, 0), n)  # theirs knows no other
        found, expected = float(ours(hits, n, p)), float(getattr(theirs, name)(hits, n, p))
        assert found == pytest.approx(expected, rel=1e-7, abs=1e-13)
    assert special.binomial_above(-1, n, p) == 1.0


@given(st.integers(0, 40), st.integers(1, 40), SHARES)
def test_small_binomials_to_the_last_digits(k, n, p):
    k = min(k, n)
    assert special.binomial_up_to(k, n, p) == pytest.approx(theirs.bdtr(k, n, p), rel=1e-11, abs=1e-300)
    assert special.binomial_above(k, n, p) == pytest.approx(theirs.bdtrc(k, n, p), rel=1e-11, abs=1e-300)


def test_far_tails_keep_their_digits():
    assert special.binomial_above(99, 100_000, 1e-5) == pytest.approx(theirs.bdtrc(99, 100_000, 1e-5), rel=1e-8)


@given(st.floats(-700, 700), SHARES)
def test_the_logistic_function_and_its_inverse(x, share):
    assert special.logistic(x) == pytest.approx(theirs.expit(x), rel=1e-14)
    assert special.log_odds(share) == pytest.approx(theirs.logit(share), rel=1e-9, abs=1e-12)


@given(st.lists(st.tuples(st.floats(-5, 5), st.floats(0.1, 9)), min_size=1, max_size=40))
def test_isotonic_regression(pairs):
    values, weights = np.array(pairs).T
    expected = optimize.isotonic_regression(values, weights=weights).x
    assert special.isotonic(values, weights) == pytest.approx(expected, rel=1e-9, abs=1e-9)
