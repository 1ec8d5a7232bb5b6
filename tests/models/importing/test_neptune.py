"""Files in the schema of the public neptune-exporter, written with PyArrow: the exporter itself is in no registry.

Columns, types and folders are those of its documentation (`project_id`, `run_id`, `attribute_path`, …).
"""

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from everloop.core.errors import NotFound
from everloop.models.importing.copying import Plan
from everloop.models.importing.values import Selection

MOMENT = pa.timestamp("ms", tz="UTC")
SCHEMA = pa.schema(
    [
        ("project_id", pa.string()),
        ("run_id", pa.string()),
        ("attribute_path", pa.string()),
        ("attribute_type", pa.string()),
        ("step", pa.decimal128(18, 6)),
        ("timestamp", MOMENT),
        ("int_value", pa.int64()),
        ("float_value", pa.float64()),
        ("string_value", pa.string()),
        ("bool_value", pa.bool_()),
        ("datetime_value", MOMENT),
        ("string_set_value", pa.list_(pa.string())),
        ("file_value", pa.struct([("path", pa.string())])),
        (
            "histogram_value",
            pa.struct([("type", pa.string()), ("edges", pa.list_(pa.float64())), ("values", pa.list_(pa.float64()))]),
        ),
    ]
)
START = datetime(2025, 3, 1, 12, tzinfo=UTC)
SERIES = {
    "float_series": "float_value",
    "string_series": "string_value",
    "histogram_series": "histogram_value",
    "file_series": "file_value",
}


def row(run, path, kind, value, *where):
    """One attribute, or one point of a series at a step and time."""
    column = SERIES.get(kind, "file_value" if kind in {"file", "file_set"} else f"{kind}_value")
    empty = dict.fromkeys(SCHEMA.names)
    step, at = where or (None, None)
    return {
        **empty,
        "project_id": "team/nets",
        "run_id": run,
        "attribute_path": path,
        "attribute_type": kind,
        "step": None if step is None else Decimal(step),
        "timestamp": at,
        column: value,
    }


def described(run):
    """What Neptune says of a run itself, and its configuration."""
    return [
        row(run, "sys/name", "string", f"net {run}"),
        row(run, "sys/owner", "string", "ada"),
        row(run, "sys/creation_time", "datetime", START),
        row(run, "sys/modification_time", "datetime", START + timedelta(hours=1)),
        row(run, "sys/tags", "string_set", ["fast", "small"]),
        row(run, "sys/failed", "bool", run == "RUN-2"),
        row(run, "config/lr", "float", 0.1),
        row(run, "config/depth", "int", 3),
        row(run, "config/opt", "string", "adam"),
        row(run, "config/layers", "string_set", ["b", "a"]),
    ]


def write(folder, run, rows, part=0):
    """One part of a run, where the exporter puts it."""
    project = folder / "data" / "team_nets-0123456789abcdef"
    project.mkdir(parents=True, exist_ok=True)
    path = project / f"{run}-0123456789abcdef_part_{part}.parquet"
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), path, compression="snappy")
    return path


@pytest.fixture
def export(tmp_path):
    """Two runs, the second forked from the first, with files."""
    folder = tmp_path / "exports"
    files = folder / "files" / "team_nets-0123456789abcdef"
    (files / "RUN-1" / "set").mkdir(parents=True)
    (files / "RUN-1" / "model.bin").write_bytes(b"weights")
    (files / "RUN-1" / "set" / "inner.txt").write_text("inner")
    (files / "RUN-1" / "epoch_1.png").write_bytes(b"png")
    below = "team_nets-0123456789abcdef/RUN-1"
    points = [
        row("RUN-1", "metrics/loss", "float_series", 1 / (step + 1), step, START + timedelta(seconds=step))
        for step in range(50)
    ]
    write(folder, "RUN-1", [*described("RUN-1"), *points[:20]])
    bars = {"type": "COUNTING", "edges": [0.0, 1.0], "values": [5.0]}
    more = [
        *points[20:],
        row("RUN-1", "metrics/fine", "float_series", float("nan"), "0.5", START),
        row("RUN-1", "logs/out", "string_series", "one", 1, START),
        row("RUN-1", "logs/out", "string_series", "two", 2, START),
        row("RUN-1", "grads", "histogram_series", bars, 1, START),
        row("RUN-1", "model", "file", {"path": f"{below}/model.bin"}),
        row("RUN-1", "data", "file_set", {"path": f"{below}/set"}),
        row("RUN-1", "plots", "file_series", {"path": f"{below}/epoch_1.png"}, 1, START),
        row("RUN-1", "missing", "file", None),
    ]
    write(folder, "RUN-1", more, part=1)
    write(folder, "RUN-2", [*described("RUN-2"), row("RUN-2", "sys/forking/parent", "string", "RUN-1")])
    return folder


def test_attributes_series_and_files_come_over(house, export, reasons):
    report = house.bring("neptune", export)
    runs = house.runs()
    assert set(runs) == {"net RUN-1", "net RUN-2"}
    first, second = runs["net RUN-1"], runs["net RUN-2"]
    assert first.params == {
        "config/lr": "0.1",
        "config/depth": "3",
        "config/opt": "adam",
        "config/layers": '["a", "b"]',
    }
    assert house.series(first, "metrics/loss") == [(step, 1 / (step + 1)) for step in range(50)]
    assert (first.status, second.status) == ("FINISHED", "FAILED")
    assert (first.start, first.end) == (round(START.timestamp() * 1e6), round(START.timestamp() * 1e6) + 3_600_000_000)
    assert second.tags["mlflow.parentRunId"] == first.id
    assert first.tags.items() >= {"mlflow.user": "ada", "neptune.tag.fast": "true"}.items()
    files = house.files(first.id)
    assert files["model.bin"] == b"weights"
    assert files["data/inner.txt"] == b"inner"
    assert files["plots/1.png"] == b"png"
    assert [json.loads(line)["value"] for line in files["neptune/texts/logs/out.jsonl"].splitlines()] == ["one", "two"]
    assert json.loads(files["neptune/histograms/grads.jsonl"])["value"]["values"] == [5.0]
    assert reasons(report) == {
        ("point", "its step is no whole number: --step-scale 1000 keeps three decimals"): 1,
        ("file", "the exporter did not download it"): 1,
    }


def test_decimal_steps_are_scaled(house, export, reasons):
    report = house.bring("neptune", export, scale=10)
    first = house.runs()["net RUN-1"]
    assert house.series(first, "metrics/fine") == [(5, "NaN")]
    assert [step for step, _ in house.series(first, "metrics/loss")] == list(range(0, 500, 10))
    assert not any(kind == "point" for kind, _ in reasons(report))


def test_again_adds_nothing_and_runs_are_chosen(house, export):
    house.bring("neptune", export, plan=Plan(Selection(runs=("RUN-2",))))
    assert set(house.runs()) == {"net RUN-2"}
    house.bring("neptune", export)
    before = house.everything()
    assert house.bring("neptune", export)["imported"] == {"experiments": 1, "runs unchanged": 2}
    assert house.bring("neptune", export, plan=Plan(again=True))["imported"]["runs completed"] == 2
    assert house.everything() == before


@pytest.mark.parametrize("harm", ["cut", "pages", "other"])
def test_a_damaged_part_leaves_the_run_out_whole(house, export, harm):
    (path,) = (export / "data").glob("*/RUN-1*_part_1.parquet")
    content = bytearray(path.read_bytes())
    if harm == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif harm == "pages":
        content[4:400] = b"\xff" * 396
        path.write_bytes(content)
    else:
        pq.write_table(pa.table({"project_id": [1], "run_id": ["RUN-1"]}), path)
    report = house.bring("neptune", export)
    assert set(house.runs()) == {"net RUN-2"}
    (told,) = report["unmapped"]
    assert "none of it is imported" in told["reason"]
    assert "_part_1.parquet" in told["reason"]


def test_files_lead_nowhere_else(house, tmp_path, reasons):
    secret = tmp_path / "secret"
    secret.write_text("not yours")
    folder = tmp_path / "exports"
    (folder / "files").mkdir(parents=True)
    (folder / "files" / "link").symlink_to(secret)
    (folder / "files" / "parent").symlink_to(tmp_path)
    wanted = ["../secret", str(secret), "link", "parent/secret", "a/../../secret", "zero\x00"]
    rows = [row("RUN-1", f"file/{place}", "file", {"path": path}) for place, path in enumerate(wanted)]
    evil = [row("RUN-1", path, "string_series", "x", 1, START) for path in ("../up", "/root", "a\\b", "%2e%2e")]
    write(folder, "RUN-1", [*described("RUN-1"), *rows, *evil])
    report = house.bring("neptune", folder)
    files = house.files(house.runs()["net RUN-1"].id)
    assert len(files) == len(evil)
    assert all(path.startswith("neptune/texts/") and ".." not in path for path in files)
    assert sum(count for (kind, _), count in reasons(report).items() if kind == "file") == len(wanted)


def test_a_run_without_its_first_part_is_not_complete(house, export):
    (path,) = (export / "data").glob("*/RUN-1*_part_0.parquet")
    path.unlink()
    house.bring("neptune", export)
    assert set(house.runs()) == {"net RUN-2"}
    with pytest.raises(NotFound, match="no export"):
        house.bring("neptune", export / "files")
