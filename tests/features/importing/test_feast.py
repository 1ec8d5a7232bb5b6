"""`feast_repo.json` holds what Feast 0.67 said and answered (its DuckDB store) of the repository that lies in it."""

import json
import os
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from everloop.cli.main import main
from everloop.cli.options import given
from everloop.core.errors import InvalidInput, NotFound
from everloop.features.batch.history import history
from everloop.features.importing.asking import described
from everloop.features.importing.feast import translated
from everloop.project.loading import load_project

KEPT = json.loads(Path(__file__).with_name("feast_repo.json").read_text())


@pytest.fixture
def project(tmp_path):
    (tmp_path / "brought.py").write_text(translated(KEPT["described"], "rides").text)
    yield load_project(tmp_path, "brought")
    sys.modules.pop("brought", None)


@pytest.fixture
def odd(tmp_path):
    (tmp_path / "brought.py").write_text(translated(KEPT["odd"]["described"], "rides", "../repo").text)
    yield load_project(tmp_path, "brought")
    sys.modules.pop("brought", None)


def test_the_file_is_a_project_with_what_could_be_mapped(project):
    [view] = project.views.values()
    assert [(f.function, f.name, f.window) for f in view.features] == [
        ("last", "conv_rate", 172_800_000_000),
        ("last", "trips", 172_800_000_000),
        ("last", "tier", 172_800_000_000),
    ]
    assert [f.kind for f in view.features] == ["number", "integer", "text"]
    assert view.entity == ("driver_id",)
    [service] = project.services.values()
    assert service.columns == ("distance", "stats__conv_rate", "stats__trips", "stats__tier", "effort")
    assert project.transforms["effort"].inputs == {"distance": "float64", "stats__conv_rate": "float64"}
    frame = pl.DataFrame({"distance": [2.0, 4.0], "stats__conv_rate": [0.5, None]})
    assert project.transforms["effort"].function(frame)["effort"].to_list() == [1.0, None]


def test_what_did_not_come_over_is_told():
    told = {missed.what: missed.why for missed in translated(KEPT["described"], "rides").missed}
    assert told["feature service ranking"].startswith("also has tier of stats")
    assert "breaks ties" in told["source stats_source"]
    assert "exactly the time" in told["point in time"]


def test_values_are_those_of_feasts_own_store(project, tmp_path):
    values = KEPT["values"]
    rows = pl.DataFrame(values["rows"]).with_columns(pl.col("event_timestamp").cast(pl.Datetime("us")))
    rows = rows.with_columns(pl.col("conv_rate").cast(pl.Float32), tier=pl.lit("a"))
    rows.write_parquet(tmp_path / "stats.parquet")
    [view] = project.views.values()
    service = project.services["ranking"]
    spine = pl.DataFrame(values["asked"]).with_columns(distance=1.0)
    found = history(service, spine, {view.source: tmp_path / "stats.parquet"}, at="event_timestamp")
    assert found["stats__conv_rate"].to_list() == values["answers"]["conv_rate"]
    assert found["stats__trips"].to_list() == values["answers"]["trips"]
    assert 0 < found["stats__trips"].null_count() < len(found)


def test_an_odd_repository_is_a_project_too(odd):
    """Names that clash, folders, field mappings, a function with an import, services of a transform alone."""
    assert set(odd.views) == {"stats", "driver_customer", "project_1", "pushed_view", "streamed"}
    assert {name: view.entity for name, view in odd.views.items()}["driver_customer"] == ("driver_id", "customer_id")
    assert odd.tables["folder"].origin.pattern == "../repo/data/trips/*.parquet"
    assert odd.tables["bucket"].origin.pattern == "s3://bucket/trips.parquet"
    renamed = odd.tables[odd.views["stats"].source]
    assert (renamed.key, renamed.event_time) == (("driver_id", "event_timestamp"), "event_timestamp")
    raw = pl.LazyFrame({"did": [1], "cr": [0.5], "event_timestamp": [0]})
    assert renamed.function(raw).collect().columns == ["driver_id", "conv_rate", "event_timestamp"]
    assert {name: [v.name for v in service.views] for name, service in odd.services.items()} == {
        "alias": ["stats"],
        "only": ["stats"],
        "ranking": ["stats"],
    }
    frame = pl.DataFrame({"distance": [np.e - 1, None], "stats__conv_rate": [0.5, 0.5], "city": ["Rome", None]})
    assert odd.transforms["effort"].function(frame)["effort"].to_list() == [0.5, None]
    frame = pl.DataFrame({"stats__conv_rate": [0.5], "driver_customer__fare": [2.0]})
    assert odd.transforms["fully"].function(frame)["whole"].to_list() == [2.5]
    frame = pl.DataFrame({"distance": [0.0, 0.0], "city": ["Rome", None]})
    assert odd.transforms["lowered"].function(frame)["low"].to_list() == ["rome", None]


def test_words_of_a_repository_are_words_of_the_project(odd):
    said = {key: (words.owner, words.description, tuple(words.labels)) for key, words in odd.described.items()}
    assert said["view/stats"] == ("ops", 'Says "how" it\nwent', ("team=rides", "tier=1"))
    assert said["service/ranking"] == ("ops", "for ranking", ("model=r1",))
    assert said["transform/effort"][:2] == ("eve", "An effort")
    assert said["dataset/stats_1"][:2] == ("lake@example.org", "from the lake")
    assert odd.described["source/folder"].columns == {"driver_id": "Who drives"}
    assert odd.views["stats"].features[0].description == "share of offers taken"


def test_of_an_odd_repository_everything_that_is_missing_is_told():
    missed = translated(KEPT["odd"]["described"], "rides").missed
    told = [f"{m.what}: {m.why}" for m in missed]
    for part in (
        "entity customer: its tags {'pii': 'yes'}",
        "feature view Driver-Customer: lives 1.5 s there and 2s here",
        "feature view batched: the function helper makes its rows",
        "feature view pushed_view: its PushSource",
        "feature view stats: the tags of trips",
        "feature view stats: vec (Array(Float32)), seen (UnixTimestamp)",
        "feature view streamed: its KafkaSource",
        "feature view streamed: its aggregations (sum of fare over 1:00:00)",
        "feature view streamed: its function helper on the stream",
        "feature view unsaid: has no schema",
        "feature view world: has no entity",
        "feature service alias: stats as other_stats, with {'driver_id': 'other_driver'}",
        "feature service nothing: nothing of it came over",
        "feature service only: also has conv_rate, ok, tier, trips of stats",
        "on-demand feature view doubled: fare is there twice",
        "on-demand feature view halved: uses HALF, helper of its file",
        "on-demand feature view inpython: mode python",
        "permission readers: no counterpart",
    ):
        assert [one for one in told if one.startswith(part)], (part, told)


def test_wrong_places_and_interpreters_are_said_so(tmp_path):
    with pytest.raises(NotFound, match="no Feast repository"):
        described(tmp_path, sys.executable)
    (tmp_path / "feature_store.yaml").touch()
    with pytest.raises(InvalidInput, match="does not run"):
        described(tmp_path, str(tmp_path / "python"))
    with pytest.raises(InvalidInput, match=r"Feast cannot read .*No module named 'feast'"):
        described(tmp_path, sys.executable)


@pytest.mark.slow
def test_feast_itself_says_what_the_fixture_says(tmp_path):
    """Where an interpreter with Feast is at hand: `EVERLOOP_TEST_FEAST=/path/to/python`."""
    python = os.environ.get("EVERLOOP_TEST_FEAST", "")
    if not python:
        pytest.skip("EVERLOOP_TEST_FEAST names no interpreter that has Feast")
    (tmp_path / "feature_store.yaml").write_text(KEPT["yaml"])
    for kept in (KEPT, KEPT["odd"]):
        (tmp_path / "rides.py").write_text(kept["code"])
        found = described(tmp_path, python)
        assert {**found, "feast": ""} == {**kept["described"], "feast": ""}
        into = tmp_path / "features.py"
        assert main(["import", "feast", str(tmp_path), "--python", python, "--into", str(into)]) == 0
        given.clear()
        assert "el.Files(" in into.read_text()
        into.unlink()
