import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from everloop.features.batch.intervals import (
    NOTHING,
    Questions,
    by_entity_and_time,
    cover_count,
    cover_distinct,
    cover_max,
    cover_sum,
    cover_top,
    pairs,
)
from everloop.features.states.finalise import lanes

COUNT = 13
ranges = st.tuples(
    st.integers(0, COUNT - 1), st.integers(1, COUNT), st.integers(-(2**63) + 1, 2**63 - 1) | st.integers(-5, 5)
)


@settings(max_examples=200)
@given(given_ranges=st.lists(ranges, max_size=12))
def test_covers_equal_a_loop(given_ranges):
    kept = [(a, b, v) for a, b, v in given_ranges if a < b]
    first, end, values = (np.array([r[i] for r in kept], np.int64) for i in range(3))
    high, low = cover_sum(COUNT, first, end, lanes(values))
    different = cover_distinct(COUNT, first, end, values)
    rows = np.arange(len(kept))
    three = cover_top(COUNT, first, end, rows, 3)
    listed = [
        (q, w) for *_, question, which in pairs(COUNT, first, end, 5) for q, w in zip(question, which, strict=True)
    ]
    for q in range(COUNT):
        inside = [v for a, b, v in kept if a <= q < b]
        assert cover_count(COUNT, first, end)[q] == len(inside)
        assert (int(high[q]) << 32) + int(low[q]) == sum(inside)
        assert cover_max(COUNT, first, end, values)[q] == max(inside, default=NOTHING)
        assert different[q] == len(set(inside))
        mine = [i for i, (a, b, _) in enumerate(kept) if a <= q < b]
        assert [i for i in three[q] if i != NOTHING] == mine[:-4:-1]
        assert sorted(w for asked, w in listed if asked == q) == mine


@given(
    asked=st.lists(st.tuples(st.integers(0, 2), st.integers(-3, 3)), min_size=1, max_size=8),
    code=st.integers(0, 2),
    time=st.integers(-4, 4),
)
def test_questions_are_found_by_entity_and_time(asked, code, time):
    codes, times = (np.array([pair[i] for pair in asked]) for i in range(2))
    order = by_entity_and_time(codes, times)
    questions = Questions(codes[order], times[order])
    ranked = sorted(asked)
    assert [asked[i] for i in order] == ranked
    one = (np.array([code]), np.array([time]))
    assert questions.after(*one)[0] == sum(q <= (code, time) for q in ranked)
    assert questions.since(*one)[0] == sum(q < (code, time) for q in ranked)


@given(
    rows=st.lists(st.tuples(st.integers(0, 2), st.sampled_from([-3, 0, 1, 2**61])), max_size=12),
    codes=st.sampled_from([1, 2**20]),
)
def test_order_by_entity_and_time(rows, codes):
    code, time = (np.array([row[i] for row in rows], np.int64) for i in range(2))
    order = by_entity_and_time(code * codes, time)
    assert [rows[i] for i in order] == sorted(rows)
