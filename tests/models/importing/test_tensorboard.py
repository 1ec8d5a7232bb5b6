"""Event files that tensorboardX wrote, whole and damaged, into a workspace."""

import json
import shutil
import struct

import numpy as np
import pytest
from tensorboardX import SummaryWriter
from tensorboardX.event_file_writer import EventFileWriter
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboardX.proto.tensor_pb2 import TensorProto
from tensorboardX.proto.tensor_shape_pb2 import TensorShapeProto

from everloop.core.errors import NotFound
from everloop.models.importing.copying import Plan
from everloop.models.importing.sources.records import crc32c, masked
from everloop.models.importing.values import Selection

TIME = 1_900_000_000.0
"""Later than now: the first record of a file bears the time at which it was made."""


@pytest.fixture(scope="module")
def logs(tmp_path_factory):
    """A folder of two runs, one nested in the other, and a trial of hyperparameters."""
    folder = tmp_path_factory.mktemp("boards") / "nets"
    with SummaryWriter(str(folder / "base")) as writer:
        for step in range(100):
            writer.add_scalar("loss/train", 1 / (step + 1), step, walltime=TIME + step)
        writer.add_scalar("odd", float("nan"), 1, walltime=TIME)
        writer.add_scalar("odd", float("-inf"), 2, walltime=TIME)
        writer.add_histogram("weights", np.arange(10.0), 3, walltime=TIME)
        writer.add_text("note", "hello **world**", 4, walltime=TIME)
        writer.add_image("picture", np.zeros((3, 4, 4), dtype=np.uint8), 5, walltime=TIME)
        writer.add_pr_curve("curve", np.array([0, 1, 1]), np.array([0.1, 0.9, 0.8]), 6, walltime=TIME)
        writer.add_hparams({"lr": 0.1, "depth": 3, "opt": "adam"}, {"best": 0.5}, name="trial")
    with SummaryWriter(str(folder / "base" / "fine")) as writer:
        writer.add_scalar("loss/train", 0.25, 7, walltime=TIME + 500)
    return folder


@pytest.fixture
def copied(logs, tmp_path):
    """The same folder, to be damaged."""
    return shutil.copytree(logs, tmp_path / "nets")


def event_file(folder, run="base"):
    (found,) = (folder / run).glob("*.tfevents.*")
    return found


def starts(content):
    """Byte at which each record of an event file begins."""
    offset = 0
    while offset < len(content):
        yield offset
        offset += 16 + struct.unpack("<Q", content[offset : offset + 8])[0]


def test_runs_metrics_parameters_and_files_come_over(house, logs, reasons):
    report = house.bring("tensorboard", logs)
    runs = house.runs()
    assert set(runs) == {"base", "base/fine", "base/trial"}
    base = runs["base"]
    losses = house.series(base, "loss/train")
    assert [step for step, _ in losses] == list(range(100))
    assert [value for _, value in losses] == pytest.approx([1 / (step + 1) for step in range(100)], rel=1e-6)
    assert house.series(base, "odd") == [(1, "NaN"), (2, float("-inf"))]
    assert (base.status, base.end) == ("FINISHED", round((TIME + 99) * 1e6))
    assert base.start < base.end
    assert runs["base/trial"].params == {"lr": "0.1", "depth": "3", "opt": "adam"}
    assert (
        house.series(runs["base/trial"], "best") == [(0, 0.5)] or house.series(runs["base/trial"], "best")[0][1] == 0.5
    )
    assert runs["base/fine"].tags["mlflow.parentRunId"] == base.id
    files = house.files(base.id)
    assert files["tensorboard/images/picture/5.png"].startswith(b"\x89PNG")
    assert json.loads(files["tensorboard/texts/note/text_summary.jsonl"])["text"] == "hello **world**"
    histogram = json.loads(files["tensorboard/histograms/weights.jsonl"])
    assert (histogram["step"], histogram["num"], histogram["max"]) == (3, 10.0, 9.0)
    assert json.loads(files["tensorboard/pr_curves/curve.jsonl"])["shape"] == [6, 127]
    assert report["imported"]["points"] == 104
    assert not reasons(report)


def test_a_run_says_where_it_came_from_and_the_import_is_told(house, logs):
    house.bring("tensorboard", logs)
    tags = house.runs()["base"].tags
    assert tags["everloop.import.kind"] == "tensorboard"
    assert tags["everloop.import.source"] == str(logs)
    assert tags["everloop.import.id"].startswith("base#events.out.tfevents.")
    assert tags["everloop.import.state"] == "complete"
    began, done = house.facts("import.began", "import.done")
    assert (began.actor, began.payload["source"]) == ("ada", str(logs))
    assert done.payload["imported"]["runs"] == 3
    allowed = [fact.payload["operation"] for fact in house.facts("audit.allowed")]
    assert allowed == ["imports.begin", "imports.experiment", "imports.done"]


def test_again_and_from_elsewhere_adds_nothing(house, logs, tmp_path):
    house.bring("tensorboard", logs)
    before = house.everything()
    assert house.bring("tensorboard", logs)["imported"] == {"experiments": 1, "runs unchanged": 3}
    moved = shutil.copytree(logs, tmp_path / "moved" / "nets")
    assert house.bring("tensorboard", moved)["imported"]["runs unchanged"] == 3
    again = house.bring("tensorboard", logs, plan=Plan(again=True))
    assert again["imported"]["runs completed"] == 3
    assert "files" not in again["imported"]
    assert house.everything() == before


def test_a_run_that_went_on_is_completed(house, copied):
    first = event_file(copied, "base/fine")  # tensorboardX names by the second alone, and would write over it
    first.rename(first.with_name("events.out.tfevents.1000000000.earlier"))
    house.bring("tensorboard", copied)
    with SummaryWriter(str(copied / "base" / "fine")) as writer:
        writer.add_scalar("loss/train", 0.125, 8, walltime=TIME + 600)
    report = house.bring("tensorboard", copied)
    assert report["imported"]["runs completed"] == 1
    assert house.series(house.runs()["base/fine"], "loss/train") == [(7, 0.25), (8, 0.125)]


def test_files_of_one_second_are_taken_in_the_order_of_their_count(house, copied):
    first = event_file(copied, "base/fine")
    stem, _, _ = first.name.rpartition(".")
    first.rename(first.with_name(f"{stem}.9"))
    house.bring("tensorboard", copied)
    shutil.copy(event_file(copied), copied / "base" / "fine" / f"{stem}.10")
    assert house.bring("tensorboard", copied)["imported"]["runs completed"] == 1
    assert set(house.runs()) == {"base", "base/fine", "base/trial"}


def test_a_dry_run_tells_the_same_and_writes_nothing(house, logs):
    told = house.bring("tensorboard", logs, plan=Plan(dry_run=True))
    assert not house.runs()
    assert not house.facts("import.began", "import.done", "audit.allowed")
    done = house.bring("tensorboard", logs)
    assert {**told, "dry_run": False} == done


def test_runs_are_chosen_by_name(house, logs):
    plan = Plan(Selection(runs=("base/*",)))
    house.bring("tensorboard", logs, plan=plan, name="chosen")
    assert set(house.runs()) == {"base/fine", "base/trial"}


def test_tensors_of_tensorflow_2_are_read(house, tmp_path):
    writer = EventFileWriter(str(tmp_path / "tf"))

    def write(tag, plugin, tensor, step=0):
        metadata = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name=plugin)) if plugin else None
        value = Summary.Value(tag=tag, metadata=metadata, tensor=tensor)
        writer.add_event(Event(wall_time=TIME, step=step, summary=Summary(value=[value])))

    scalar = TensorShapeProto()
    write("loss", "scalars", TensorProto(dtype=1, tensor_shape=scalar, float_val=[0.5]))
    packed = np.float64(0.25).tobytes()  # the plugin is named at the first value only
    write("loss", "", TensorProto(dtype=2, tensor_shape=scalar, tensor_content=packed), step=1)
    vector = TensorShapeProto(dim=[TensorShapeProto.Dim(size=3)])
    write("row", "", TensorProto(dtype=1, tensor_shape=vector, float_val=[2.0]))
    huge = TensorShapeProto(dim=[TensorShapeProto.Dim(size=2**40), TensorShapeProto.Dim(size=2**20)])
    write("bomb", "", TensorProto(dtype=1, tensor_shape=huge, float_val=[2.0]))
    negative = TensorShapeProto(dim=[TensorShapeProto.Dim(size=-1)])
    write("minus", "", TensorProto(dtype=1, tensor_shape=negative, float_val=[2.0]))
    write("short", "", TensorProto(dtype=1, tensor_shape=vector, tensor_content=b"1234"))
    writer.close()
    report = house.bring("tensorboard", tmp_path / "tf")
    (run,) = house.runs().values()
    assert house.series(run, "loss") == [(0, 0.5), (1, 0.25)]
    assert json.loads(house.files(run.id)["tensorboard/tensors/row.jsonl"])["values"] == [2.0, 2.0, 2.0]
    (lost,) = report["unmapped"]
    assert (lost["kind"], lost["count"]) == ("tensor", 3)


def test_a_record_cut_short_at_the_end_ends_the_run(house, copied, reasons):
    file = event_file(copied)
    whole = file.read_bytes()
    last = list(starts(whole))[-1]
    for cut in (last + 3, last + 14, len(whole) - 1):
        file.write_bytes(whole[:cut])
        report = house.bring("tensorboard", copied)
        assert reasons(report) == {
            ("record", "the last record is cut short: its writer was killed, or is alive"): 1,
        }
        assert len(house.series(house.runs()["base"], "loss/train")) == 100


@pytest.mark.parametrize("place", ["length", "content", "checksum"])
def test_damage_in_the_middle_leaves_the_run_out_whole(house, copied, place):
    file = event_file(copied)
    content = bytearray(file.read_bytes())
    record, following = list(starts(content))[50:52]
    content[{"length": record + 1, "content": record + 20, "checksum": following - 2}[place]] ^= 0x40
    file.write_bytes(content)
    report = house.bring("tensorboard", copied)
    assert set(house.runs()) == {"base/fine", "base/trial"}
    told = {one["kind"]: one for one in report["unmapped"]}
    assert told["run"]["names"] == ["base"]
    assert told["file"]["reason"].startswith(
        f"the {'length of the ' if place == 'length' else ''}record at byte {record}"
    )


def test_of_a_damaged_run_what_can_be_read_comes_when_asked(house, copied):
    file = event_file(copied)
    content = bytearray(file.read_bytes())
    record = list(starts(content))[51]
    content[record + 20] ^= 1
    file.write_bytes(content)
    house.bring("tensorboard", copied, plan=Plan(Selection(damaged=True)))
    base = house.runs()["base"]
    assert [step for step, _ in house.series(base, "loss/train")] == list(range(50))
    assert f"byte {record}" in base.tags["import.damaged"]


def test_a_record_that_claims_to_be_huge_is_not_believed(house, tmp_path):
    folder = tmp_path / "huge"
    folder.mkdir()
    length = struct.pack("<Q", 2**62)
    (folder / "events.out.tfevents.1.x").write_bytes(length + struct.pack("<I", masked(crc32c(length))) + b"x" * 64)
    report = house.bring("tensorboard", folder)
    assert not house.runs()
    assert report["unmapped"][0]["reason"] == "its event files hold no event"


def test_names_of_series_lead_nowhere(house, tmp_path):
    tags = ["../../etc/passwd", "/etc/shadow", "a/../b", "c:\\windows", "%2e%2e/x", "x" * 3000, "zero\x00byte", "."]
    with SummaryWriter(str(tmp_path / "evil")) as writer:
        for step, tag in enumerate(tags):
            event = Summary(value=[Summary.Value(tag=tag, simple_value=1.0)])
            writer.file_writer.add_summary(event, step, TIME)
            event = Summary(value=[Summary.Value(tag=tag, image=Summary.Image(encoded_image_string=b"\x89PNGx"))])
            writer.file_writer.add_summary(event, step, TIME)
    house.bring("tensorboard", tmp_path / "evil")
    (run,) = house.runs().values()
    paths = house.files(run.id)
    assert len(paths) == len(tags)
    assert all(path.startswith("tensorboard/images/") and ".." not in path.split("/") for path in paths)
    assert len(run.metrics) == len(tags)
    assert all(len(point.key) <= 250 and "\x00" not in point.key for point in run.metrics)


def test_links_are_not_followed(house, logs, tmp_path, reasons):
    folder = tmp_path / "linked"
    (folder / "own").mkdir(parents=True)
    (folder / "elsewhere").symlink_to(logs / "base")
    (folder / "own" / event_file(logs).name).symlink_to(event_file(logs))
    report = house.bring("tensorboard", folder)
    assert not house.runs()
    assert reasons(report) == {("file", "a symbolic link; links are not followed"): 2}


def test_a_folder_that_is_not_there_is_told(house, tmp_path):
    with pytest.raises(NotFound, match="there is no folder"):
        house.bring("tensorboard", tmp_path / "nowhere")
