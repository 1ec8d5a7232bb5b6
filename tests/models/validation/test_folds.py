"""No split leaks: over rows drawn at random, with ties, late labels and uneven groups."""

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from everloop.core.errors import DataError, DefinitionError
from everloop.models.validation import folds, leaks

rows = st.integers(12, 120)


@st.composite
def asked(draw):
    """Times with many ties, when each label was known, a group a row, and another order of the rows."""
    count = draw(rows)
    seed = draw(st.integers(0, 2**31))
    rng = np.random.default_rng(seed)
    time = rng.integers(0, draw(st.integers(8, 200)), count)
    known = time + rng.integers(0, draw(st.integers(1, 12)), count)
    groups = rng.integers(0, draw(st.integers(6, 20)), count)
    return time, known, groups, rng.permutation(count)


def made(how, **columns):
    try:
        return how.split(**columns)
    except DataError:
        return []  # too few rows, times or groups: said, not split


def told(found, order=None):
    """Folds as sets of the rows' own numbers."""
    names = np.arange(10**4) if order is None else order
    return [(set(names[one.train].tolist()), set(names[one.valid].tolist())) for one in found]


@given(asked(), st.integers(2, 5), st.integers(0, 5), st.one_of(st.none(), st.integers(1, 60)))
def test_a_time_series_split_never_sees_the_future(drawn, n, gap, window):
    time, known, _, order = drawn
    how = folds.time_series(n, gap=gap, window=window)
    found = made(how, time=time, known=known)
    for one in found:
        start = time[one.valid].min()
        assert time[one.train].max() < start  # equal times are never cut apart
        assert known[one.train].max() < start
        assert known[one.train].max() <= start - gap
        assert window is None or time[one.train].min() >= start - window
        assert not set(time[one.valid].tolist()) & set(time[one.train].tolist())
    starts = [time[one.valid].min() for one in found]
    assert starts == sorted(set(starts))
    assert told(found) == told(made(how, time=time[order], known=known[order]), order)


@given(asked(), st.integers(2, 4))
def test_with_groups_a_time_series_split_keeps_them_on_one_side_too(drawn, n):
    time, _, groups, _ = drawn
    for one in made(folds.time_series(n, by="who"), time=time, groups=groups):
        assert not set(groups[one.train].tolist()) & set(groups[one.valid].tolist())
        assert time[one.train].max() < time[one.valid].min()


@given(asked(), st.integers(2, 5), st.integers(0, 5))
def test_a_purged_split_trains_on_nothing_that_overlaps(drawn, n, embargo):
    time, known, _, order = drawn
    how = folds.purged(n, embargo=embargo)
    found = made(how, time=time, known=known)
    for one in found:
        first, last = time[one.valid].min(), known[one.valid].max()
        assert all(known[row] < first or time[row] > last + embargo for row in one.train)
    assert not found or sorted(np.concatenate([one.valid for one in found]).tolist()) == list(range(len(time)))
    assert told(found) == told(made(how, time=time[order], known=known[order]), order)


@given(asked(), st.integers(2, 5))
def test_a_grouped_split_keeps_groups_together_whatever_the_order(drawn, n):
    _, _, groups, order = drawn
    how = folds.grouped("who", n)
    found = made(how, groups=groups)
    for one in found:
        assert not set(groups[one.train].tolist()) & set(groups[one.valid].tolist())
        assert len(one.train) + len(one.valid) == len(groups)
    assert not found or sorted(np.concatenate([one.valid for one in found]).tolist()) == list(range(len(groups)))
    assert told(found) == told(made(how, groups=groups[order]), order)


@given(st.lists(st.sampled_from("abc"), min_size=12, max_size=80), st.integers(2, 4), st.integers(0, 5))
def test_a_stratified_split_has_each_class_in_every_fold(labels, n, seed):
    label = np.array(labels)
    found = made(folds.stratified(n, seed=seed), label=label)
    for one in found:
        for kind in set(labels):
            whole, mine = (label == kind).sum(), (label[one.valid] == kind).sum()
            assert whole // n <= mine <= -(-whole // n)
    assert not found or sorted(np.concatenate([one.valid for one in found]).tolist()) == list(range(len(label)))
    assert told(found) == told(made(folds.stratified(n, seed=seed), label=label))


def test_folds_of_time_hold_about_the_same_number_of_rows():
    time = np.sort(np.random.default_rng(1).integers(0, 10_000, 6_000))
    sizes = [len(one.valid) for one in folds.time_series(5).split(time=time)]
    assert len(sizes) == 5
    assert max(sizes) - min(sizes) < 20


def test_dates_are_times_and_gaps_are_durations():
    start = datetime(2026, 1, 1, tzinfo=UTC)
    frame = pl.DataFrame({"at": [start + timedelta(hours=n) for n in range(240)]})
    one = folds.time_series(3, gap="1d").split(time=frame["at"])[0]
    assert frame["at"][one.valid.tolist()].min() - frame["at"][one.train.tolist()].max() == timedelta(days=1)


def test_numbers_are_cut_at_their_deciles():
    label = np.arange(100) ** 2.0
    for one in folds.stratified(5).split(label=label):
        assert [int(np.isin(one.valid, np.arange(low, low + 10)).sum()) for low in range(0, 100, 10)] == [2] * 10


@pytest.mark.parametrize(
    ("sides", "more", "said"),
    [
        (([0, 1], [1, 2]), {}, "rows that it trains on"),
        (([], [1]), {}, "no rows to train on"),
        (([0, 1], [2, 3]), {"groups": np.array(["a", "b", "b", "c"])}, "group b is on both sides"),
        (([0, 1], [2, 3]), {"time": np.array([1, 5, 5, 6])}, "validation begins at 5"),
        (([0, 3], [1, 2]), {"time": np.array([1, 2, 3, 4])}, "validation begins at 2"),
        (([0, 1], [2, 3]), {"time": np.array([1, 2, 3, 4]), "known": np.array([1, 3, 4, 5])}, "was known at 3"),
    ],
)
def test_somebodys_own_split_that_leaks_is_refused(sides, more, said):
    with pytest.raises(DataError, match=said):
        leaks.refuse_leaks([tuple(np.array(side, dtype=int) for side in sides)], **more)


def test_a_split_of_ones_own_that_does_not_leak_passes():
    time = np.array([1, 2, 3, 4])
    leaks.refuse_leaks([(np.array([0, 1]), np.array([2, 3]))], time=time, groups=np.array(["a", "b", "c", "d"]))


@pytest.mark.parametrize(
    ("how", "columns", "said"),
    [
        (folds.time_series(5), {}, "need the time"),
        (folds.grouped("who"), {}, "need the groups"),
        (folds.time_series(5), {"time": np.array([1, 1, 2])}, "2 different times"),
        (folds.grouped("who", 5), {"groups": np.array(["a", "b"])}, "2 groups of who"),
        (folds.grouped("who", 2), {"groups": np.array(["a", None, "b"], dtype=object)}, "has no group"),
        (folds.stratified(3), {"label": np.array([0, 0, 0, 1])}, "too few for 3 folds"),
        (folds.time_series(2), {"time": np.array([3, 4, 5]), "known": np.array([1, 5, 6])}, "known before"),
        (folds.time_series(2), {"time": np.array(["NaT", "2026-01-01"], dtype="datetime64[us]")}, "no time"),
        (folds.time_series(2), {"time": np.array(["a", "b"])}, "is no time"),
    ],
)
def test_rows_that_cannot_be_split_are_refused(how, columns, said):
    with pytest.raises(DataError, match=said):
        how.split(**columns)


WRONG = [lambda: folds.time_series(1), lambda: folds.grouped(""), lambda: folds.purged(3, embargo="soon")]


@pytest.mark.parametrize("wrong", WRONG)
def test_folds_that_cannot_be_are_refused(wrong):
    with pytest.raises(DefinitionError):
        wrong()


@pytest.mark.parametrize(
    "how",
    [
        folds.time_series(4, gap="2d", window="30d", by="x"),
        folds.purged(3, embargo="1h"),
        folds.grouped("x", 7),
        folds.stratified(3, seed=4),
    ],
)
def test_folds_come_back_from_their_manifest(how):
    assert folds.from_manifest(how.manifest()) == how
