"""Time: exact microseconds, injected."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everloop.core.clock import DAY, HOUR, SECOND, ReplayClock, SystemClock, iso, micros, parse_duration, parse_time


@given(st.integers(-(10**15), 4 * 10**15))
def test_the_text_of_a_time_reads_back_exactly(at):
    assert parse_time(iso(at)) == at


@given(st.datetimes(timezones=st.just(UTC)))
def test_a_datetime_is_exact(moment):
    assert datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=micros(moment)) == moment


def test_zones_are_minded():
    east = datetime(2013, 1, 1, 1, tzinfo=timezone(timedelta(hours=1)))
    assert micros(east) == parse_time("2013-01-01") == parse_time("2013-01-01T01:00:00+01:00")
    assert iso(parse_time("2013-01-01")) == "2013-01-01T00:00:00Z"
    with pytest.raises(ValueError, match="zone"):
        micros(datetime(2013, 1, 1))  # noqa: DTZ001
    with pytest.raises(ValueError, match="x"):
        parse_time("x")


def test_durations():
    assert [parse_duration(text) for text in ("250ms", "90s", "10m", "3h", "7d", "2w")] == [
        250_000, 90 * SECOND, 600 * SECOND, 3 * HOUR, 7 * DAY, 14 * DAY,
    ]  # fmt: skip
    for wrong in ("", "h", "0s", "-3h", "3", "1.5h", "3 h", "3y", "²h"):
        with pytest.raises(ValueError, match="duration"):
            parse_duration(wrong)


def test_a_replay_only_moves_forward_and_wall_time_is_real():
    clock = ReplayClock(100)
    clock.advance(50)
    assert clock.now() == 100
    clock.advance(150)
    assert clock.now() == 150
    assert abs(clock.wall() - SystemClock().wall()) < 60 * SECOND
    assert abs(SystemClock().now() - SystemClock().wall()) < 60 * SECOND
