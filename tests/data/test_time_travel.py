"""Naming versions: by number, environment and time."""

import pytest

from everloop import data
from everloop.catalog import refs
from everloop.core.clock import DAY, ReplayClock, iso, parse_time
from everloop.core.errors import InvalidInput, NotFound
from everloop.data.definitions import Contract
from everloop.data.editing import edit
from everloop.data.heads import find_version

BEGIN = parse_time("2026-01-01T00:00:00Z")


@pytest.fixture
def travelled(context_of, sqlite_catalog):
    """Three versions, a day apart, in production; staging has the second."""
    import polars as pl

    clock = ReplayClock(BEGIN)
    ctx = context_of(sqlite_catalog, clock=clock)
    made = []
    for day in range(3):
        clock.advance(BEGIN + day * DAY)
        rows = pl.DataFrame({"id": [day], "x": [0.5]})
        made.append(edit(ctx, "rain", rows, "append", "production", contract=Contract.of("id")).id)
    with ctx.write() as tx:
        refs.move(tx, ctx.project, refs.head_ref("staging", "rain"), old=None, new=made[1], actor="ada", at=ctx.now())
    return ctx, made


def test_a_version_goes_by_many_names(travelled):
    ctx, (first, second, third) = travelled
    names = {
        first: [
            first,
            first[:14],
            "rain@1",
            "data/rain@1",
            "rain@v1",
            "rain@2026-01-01",
            f"data/rain@{iso(BEGIN + DAY - 1)}",
        ],
        second: ["rain@2", "rain@staging", "data/rain@staging", "rain@2026-01-02T12:00Z"],
        third: ["rain", "data/rain", "rain@production", "rain@2026-01-03", "rain@2027-01-01"],
    }
    for identity, specs in names.items():
        for spec in specs:
            assert find_version(ctx, spec).id == identity, spec
    assert find_version(ctx, "rain", "staging").id == second
    assert data.read(ctx, find_version(ctx, "rain@2026-01-02").id).collect().height == 2


def test_what_was_not_there_is_said(travelled):
    ctx, _ = travelled
    for spec in ("rain@2025-12-31", "rain@nowhere", "snow", "rain@99", "snow@production"):
        with pytest.raises(NotFound) as caught:
            find_version(ctx, spec)
        assert caught.value.hint
    with pytest.raises((NotFound, InvalidInput)):
        find_version(ctx, "model/rain@1x/..")
