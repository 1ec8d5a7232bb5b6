"""Folders that wandb wrote in offline mode, in a process of its own, without a network."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from everloop.core.errors import NotFound
from everloop.models.importing.copying import Plan
from everloop.models.importing.values import Selection

SCRIPT = """
import sys
import numpy as np
import wandb

with wandb.init(project="nets", entity="ada", name="first", group="g", notes="a note", tags=["fast", "small"],
                config={"lr": 0.1, "net": {"depth": 3}, "sizes": [1, 2]}) as run:
    for step in range(30):
        run.log({"loss": 1 / (step + 1), "inner": {"acc": float(step)}, "word": "text"})
    run.log({"odd": float("nan"), "bars": wandb.Histogram([1, 2, 3])})
    run.log({"picture": wandb.Image(np.zeros((4, 4, 3), dtype="uint8")),
             "rows": wandb.Table(columns=["a"], data=[[1]]), "blob": "x" * 100_000})
    run.config.update({"late": True})
    run.summary["best"] = 0.5
    print("a line of output")
wandb.init(project="other", entity="ada", name="failing").finish(exit_code=1)
"""
TAGS = {"wandb.group": "g", "mlflow.note.content": "a note", "wandb.tag.fast": "true", "wandb.project": "nets"}


@pytest.fixture(scope="module")
def offline(tmp_path_factory):
    """What wandb left: two runs of two projects."""
    folder = tmp_path_factory.mktemp("wandb")
    variables = {
        **os.environ,
        "WANDB_MODE": "offline",
        "WANDB_SILENT": "true",
        "WANDB_DIR": str(folder),
        "WANDB_DISABLE_GIT": "true",
        "WANDB_ERROR_REPORTING": "false",
        "WANDB__DISABLE_STATS": "true",
        "WANDB_CACHE_DIR": str(folder / "cache"),
        "WANDB_CONFIG_DIR": str(folder / "config"),
        "WANDB_DATA_DIR": str(folder / "data"),
    }
    subprocess.run(
        [sys.executable, "-c", SCRIPT], check=True, env=variables, cwd=folder, capture_output=True, timeout=120
    )
    return folder / "wandb"


@pytest.fixture
def copied(offline, tmp_path):
    """The same folder, to be damaged."""
    return shutil.copytree(offline, tmp_path / "wandb", symlinks=True)


def log_of(folder, project="nets"):
    """The log of the project's run."""
    found = [path for path in folder.glob("*/run-*.wandb") if project.encode() in path.read_bytes()]
    return min(found, key=lambda path: -path.stat().st_size) if project == "nets" else found[0]


def test_history_configuration_summary_and_files_come_over(house, offline, reasons):
    report = house.bring("wandb", offline)
    runs = house.runs()
    assert set(runs) == {"first", "failing"}
    first = runs["first"]
    assert first.params == {"lr": "0.1", "net.depth": "3", "sizes": "[1, 2]", "late": "true"}
    assert [step for step, _ in house.series(first, "loss")] == list(range(30))
    assert [value for _, value in house.series(first, "loss")] == [1 / (step + 1) for step in range(30)]
    assert house.series(first, "inner.acc") == [(step, float(step)) for step in range(30)]
    assert house.series(first, "odd") == [(30, "NaN")]
    assert house.series(first, "best") == [(0, 0.5)]
    assert first.tags.items() >= TAGS.items()
    assert (first.status, runs["failing"].status) == ("FINISHED", "FAILED")
    assert first.start < first.end
    files = house.files(first.id)
    assert b"a line of output" in files["output.log"]
    assert any(path.startswith("media/images/picture") for path in files)
    texts = [json.loads(line) for line in files["wandb/history/word.jsonl"].splitlines()]
    assert [one["step"] for one in texts] == list(range(30))
    assert json.loads(files["wandb/history/blob.jsonl"])["value"] == "x" * 100_000  # longer than the log's blocks
    assert json.loads(files["wandb/histograms/bars.jsonl"])["value"]["_type"] == "histogram"
    there = "its file is imported, its place in the history is not"
    assert reasons(report)["table-file", there] == reasons(report)["image-file", there] == 1


def test_again_adds_nothing_and_projects_are_chosen(house, offline):
    house.bring("wandb", offline, plan=Plan(Selection(experiments=("oth*",))))
    assert set(house.runs()) == {"failing"}
    house.bring("wandb", offline)
    before = house.everything()
    assert house.bring("wandb", offline)["imported"] == {"experiments": 2, "runs unchanged": 2}
    assert house.bring("wandb", offline, plan=Plan(again=True))["imported"]["runs completed"] == 2
    assert house.everything() == before


def test_a_run_that_was_killed_keeps_what_it_wrote(house, copied, reasons):
    log = log_of(copied)
    log.write_bytes(log.read_bytes()[:-200])
    report = house.bring("wandb", copied)
    first = house.runs()["first"]
    assert first.status == "KILLED"
    assert len(house.series(first, "loss")) == 30
    assert ("record", "the last record is cut short: its writer was killed, or is alive") in reasons(report)


def test_damage_in_the_middle_leaves_the_run_out_whole(house, copied):
    log = log_of(copied)
    content = bytearray(log.read_bytes())
    content[len(content) // 3] ^= 1
    log.write_bytes(content)
    report = house.bring("wandb", copied)
    assert set(house.runs()) == {"failing"}
    (told,) = (one for one in report["unmapped"] if one["kind"] == "run")
    assert "does not match its checksum; none of it is imported" in told["reason"]
    house.bring("wandb", copied, plan=Plan(Selection(damaged=True)))
    assert "byte" in house.runs()["first"].tags["import.damaged"]


def test_files_that_are_links_stay_where_they_are(house, copied, tmp_path, reasons):
    secret = tmp_path / "secret"
    secret.write_text("not yours")
    log = log_of(copied)
    (log.parent / "files" / "link.txt").symlink_to(secret)
    (log.parent / "files" / "folder").symlink_to(tmp_path)
    report = house.bring("wandb", copied)
    assert all(b"not yours" not in content for content in house.files(house.runs()["first"].id).values())
    assert reasons(report)["file", "a symbolic link; links are not followed"] == 2


def test_what_is_no_log_of_wandb_is_told(house, tmp_path):
    run = tmp_path / "wandb" / "offline-run-1"
    run.mkdir(parents=True)
    with pytest.raises(NotFound, match="no offline run"):
        house.bring("wandb", tmp_path)
    (run / "run-x.wandb").write_bytes(b"something else entirely")
    report = house.bring("wandb", tmp_path)
    assert "it is no W&B log" in report["unmapped"][0]["reason"]
    (run / "run-x.wandb").write_bytes(b"")
    assert "says nothing of a run" in house.bring("wandb", tmp_path)["unmapped"][0]["reason"]
