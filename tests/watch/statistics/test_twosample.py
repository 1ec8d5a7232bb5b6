import numpy as np
import pytest
from scipy import stats

from everloop.watch.statistics import twosample


def test_exact_kolmogorov_smirnov_agrees_with_scipy():
    rng = np.random.default_rng(0)
    for m, n, shift in ((200, 90, 0.3), (50, 50, 1.0), (33, 7, 0.0)):
        x, y = rng.normal(size=m), rng.normal(shift, size=n)
        expected = stats.ks_2samp(x, y, method="exact")
        distance, p = twosample.ks_exact(x, y)
        assert distance == pytest.approx(expected.statistic)
        assert p == pytest.approx(expected.pvalue, rel=1e-6)


def test_binned_kolmogorov_smirnov_approaches_scipy_on_the_same_edges():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=5000), rng.normal(0.05, size=1000)
    edges = np.quantile(x, np.arange(1, 256) / 256)
    cells = [np.bincount(np.searchsorted(edges, v), minlength=256) for v in (x, y)]
    distance, p = twosample.ks(*cells)
    expected = stats.ks_2samp(x, y)
    assert 0 <= expected.statistic - distance < 2 / 256  # cells hide, they never invent
    assert expected.pvalue <= p < expected.pvalue * 3


def test_contingency_is_that_of_two_samples():
    table = np.array([[300, 500, 200], [100, 230, 90]])
    _, p = twosample.chi2(*table)
    assert p == pytest.approx(stats.chi2_contingency(table).pvalue)


def test_one_sample_test_would_cry_wolf_where_ours_does_not():
    """2,000 rows against 1,000: against "expected" frequencies the statistic is three times too large."""
    rng = np.random.default_rng(2)
    reference = rng.multinomial(1000, np.full(30, 1 / 30), size=1000)
    window = rng.multinomial(2000, np.full(30, 1 / 30), size=1000)
    _, p = twosample.chi2(reference, window)
    assert 0.03 < (p < 0.05).mean() < 0.07
    expected = reference * 2.0
    naive = stats.chi2.sf(((window - expected) ** 2 / expected).sum(-1), 29)
    assert (naive < 0.05).mean() > 0.9


def test_rare_levels_are_pooled():
    rng = np.random.default_rng(3)
    shares = 1 / np.arange(1, 301) ** 1.5
    shares /= shares.sum()
    reference = rng.multinomial(10_000, shares, size=2000)
    window = rng.multinomial(2_000, shares, size=2000)
    effect, p = twosample.chi2(reference, window)
    assert 0.03 < (p < 0.05).mean() < 0.07
    assert np.quantile(effect, 0.5) < 0.02  # 300 levels, no difference, no effect


def test_effect_does_not_depend_on_sizes():
    a, b = np.array([6000, 4000]), np.array([5000, 5000])
    same, _ = twosample.chi2(a, b)
    uneven, _ = twosample.chi2(a * 20, b)
    assert float(same) == pytest.approx(0.1, abs=0.01)
    assert float(uneven) == pytest.approx(float(same), abs=0.01)


@pytest.mark.parametrize("share", [0.0005, 0.02, 0.5, 0.98])
def test_proportions_hold_their_level(share):
    rng = np.random.default_rng(4)
    a, b = rng.binomial(20_000, share, size=4000), rng.binomial(2_000, share, size=4000)
    _, p = twosample.proportions(a, 20_000, b, 2_000)
    assert (p < 0.05).mean() < 0.065
    assert twosample.proportions(400, 20_000, 100, 2_000)[1] < 1e-6  # 2 % to 5 %


def test_new_levels_are_expected_where_many_were_seen_once():
    assert twosample.unseen(0, 10_000, 40, 2_000)[1] < 1e-9
    assert twosample.unseen(200, 10_000, 40, 2_000)[1] > 0.5


def test_wasserstein_of_a_shift_is_the_shift():
    rng = np.random.default_rng(5)
    x = rng.normal(size=50_000)
    edges = np.quantile(x, np.arange(1, 256) / 256)
    cells = [np.bincount(np.searchsorted(edges, v), minlength=256) for v in (x, x + 0.3)]
    assert twosample.wasserstein(*cells, edges) == pytest.approx(0.3, rel=0.03)


def test_adjustments_agree_with_the_textbook():
    assert twosample.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    p = [0.01, 0.04, 0.03, 0.005]
    assert twosample.benjamini_hochberg(p) == pytest.approx(stats.false_discovery_control(p))


def test_smallest_visible_shift_is_the_reference_table():
    assert twosample.smallest_visible_shift(500, 10_000, 30, 0.01) == pytest.approx(0.24, abs=0.005)
    assert twosample.smallest_visible_shift(2_000, 10**9, 30, 0.01) == pytest.approx(0.12, abs=0.01)
