"""Profiles by part: a version costs its new parts only; what columns say together; times and lengths."""

import datetime as dt

import numpy as np
import polars as pl
import pytest

from everloop import data
from everloop.catalog import placements
from everloop.data import Files, SourceDef
from everloop.data.codec import manifest_of
from everloop.data.contracts.associations import cramers_v, pearson
from everloop.data.profiles import part_profile_id, profile, profile_id, profile_of_parts


def piece(folder, number, rows=200):
    start = number * rows
    when = [dt.datetime(2026, 1, 1, tzinfo=dt.UTC) + dt.timedelta(hours=h) for h in range(start, start + rows)]
    frame = pl.DataFrame(
        {
            "x": [float(i) for i in range(start, start + rows)],
            "y": [2.0 * i for i in range(start, start + rows)],
            "kind": ["a", "b"] * (rows // 2),
            "same": ["c", "d"] * (rows // 2),
            "who": [f"person {i}" for i in range(start, start + rows)],
            "at": pl.Series(when, dtype=pl.Datetime("us", "UTC")),
        }
    )
    frame.write_parquet(folder / f"{number}.parquet")
    return frame


@pytest.fixture
def captured(context_of, sqlite_catalog, tmp_path):
    ctx = context_of(sqlite_catalog)
    source = SourceDef("rain", Files("*.parquet"), tags={"who": "personal"})

    def take(*numbers):
        frames = [piece(tmp_path, number) for number in numbers]
        return data.capture(ctx, source, root=tmp_path).id, frames

    return ctx, take


def placed(ctx, version):
    manifest = manifest_of(ctx, version)
    ids = [part_profile_id(part["logical"], manifest["tags"]) for part in manifest["parts"]]
    with ctx.read() as tx:
        found = placements.resolve(tx, ctx.project, [*ids, profile_id(version)])
    return [found.get(identity) for identity in ids]


def test_a_version_profiles_its_new_parts_only_and_the_merge_tells_of_all_rows(captured):
    ctx, take = captured
    first, frames = take(0, 1)
    data.profile_of(ctx, first)
    before = placed(ctx, first)
    second, more = take(2)
    assert placed(ctx, second) == [*before, None]
    merged = data.profile_of(ctx, second)
    assert placed(ctx, second)[:2] == before
    whole = profile(pl.concat([*frames, *more]), tags={"who": "personal"})
    for name, column in whole.columns.items():
        found = merged.columns[name]
        assert (found.rows, found.nulls, found.low, found.high) == (600, 0, column.low, column.high)
        assert (found.shortest, found.longest, found.characters) == (column.shortest, column.longest, column.characters)
    assert merged.columns["x"].mean == pytest.approx(299.5)
    assert merged.columns["kind"].top == {"a": 300, "b": 300}
    assert data.profile_of(ctx, second).json() == merged.json()


def test_a_window_is_merged_from_its_parts_and_changes_nothing(captured):
    ctx, take = captured
    version, _ = take(0, 1, 2)
    whole = data.profile_of(ctx, version).json()
    manifest = manifest_of(ctx, version)
    window = profile_of_parts(ctx, {**manifest, "parts": manifest["parts"][1:]})
    assert (window.rows, window.columns["x"].low) == (400, 200.0)
    assert data.profile_of(ctx, version).json() == whole


def test_times_are_covered_and_tagged_columns_tell_no_value(captured):
    ctx, take = captured
    version, _ = take(0, 1)
    told = data.profile_of(ctx, version).json()
    edges = told["columns"]["at"]["coverage"]
    assert edges == sorted(edges)
    assert dt.datetime.fromtimestamp(edges[0] / 1e6, dt.UTC) == dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    assert edges[-1] - edges[0] == 399 * 3600 * 1_000_000
    assert told["columns"]["kind"]["length"] == 1.0
    assert not {"min", "top", "length", "quantiles"} & told["columns"]["who"].keys()
    together = told["associations"]
    assert together["rows"] == 400
    assert together["numbers"] == {"columns": ["x", "y"], "pairs": [["x", "y", 1.0]]}
    assert together["values"] == {"columns": ["kind", "same"], "pairs": [["kind", "same", 1.0]]}


def test_pearson_and_cramers_v_by_other_means():
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=500), rng.normal(size=500)
    b[:20] = np.nan
    assert pearson(a, b) == pytest.approx(float(np.corrcoef(a[20:], b[20:])[0, 1]))
    assert pearson(a, np.ones(500)) is None
    apart = cramers_v(pl.Series(["a", "b"] * 250), pl.Series(["x", "x", "y", "y"] * 125))
    assert apart == 0.0
    assert cramers_v(pl.Series(["a"] * 9), pl.Series(["x", "y", "z"] * 3)) is None
