"""`feast_repo.json` holds what Feast 0.67 said and answered (its DuckDB store) of the repository that lies in it."""

import json
import os
import sys
from pathlib import Path

import polars as pl
import pytest

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


def test_the_file_is_a_project_with_what_could_be_mapped(project):
    [view] = project.views.values()
    assert [(f.function, f.name, f.window) for f in view.features] == [
        ("last", "conv_rate", 172_800_000_000),
        ("last", "trips", 172_800_000_000),
    ]
    assert view.entity == ("driver_id",)
    [service] = project.services.values()
    assert service.columns == ("distance", "stats__conv_rate", "stats__trips", "effort")
    assert project.transforms["effort"].inputs == {"distance": "float64", "stats__conv_rate": "float64"}
    frame = pl.DataFrame({"distance": [2.0, 4.0], "stats__conv_rate": [0.5, None]})
    assert project.transforms["effort"].function(frame)["effort"].to_list() == [1.0, None]


def test_what_did_not_come_over_is_told():
    told = {missed.what: missed.why for missed in translated(KEPT["described"], "rides").missed}
    assert told["feature view stats"].startswith("tier")
    assert "decides between" in told["source stats_source"] or "breaks ties" in told["source stats_source"]
    assert "exactly the time" in told["point in time"]


def test_values_are_those_of_feasts_own_store(project, tmp_path):
    values = KEPT["values"]
    rows = pl.DataFrame(values["rows"]).with_columns(pl.col("event_timestamp").cast(pl.Datetime("us")))
    rows.with_columns(pl.col("conv_rate").cast(pl.Float32)).write_parquet(tmp_path / "stats.parquet")
    [view] = project.views.values()
    service = project.services["ranking"]
    spine = pl.DataFrame(values["asked"]).with_columns(distance=1.0)
    found = history(service, spine, {view.source: tmp_path / "stats.parquet"}, at="event_timestamp")
    assert found["stats__conv_rate"].to_list() == values["answers"]["conv_rate"]
    assert found["stats__trips"].to_list() == values["answers"]["trips"]
    assert 0 < found["stats__trips"].null_count() < len(found)


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
    (tmp_path / "rides.py").write_text(KEPT["code"])
    found = described(tmp_path, python)
    assert {**found, "feast": ""} == {**KEPT["described"], "feast": ""}
