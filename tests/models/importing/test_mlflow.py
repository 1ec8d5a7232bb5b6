"""A real MLflow server: filled through its client, read over HTTP, then from its database and folder of artifacts."""

import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import warnings
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.request import urlopen

import pytest
from alembic import command
from alembic.script import ScriptDirectory
from mlflow import MlflowClient
from mlflow.data.http_dataset_source import HTTPDatasetSource
from mlflow.data.meta_dataset import MetaDataset
from mlflow.entities import DatasetInput, InputTag, LoggedModelOutput, Metric, Param
from mlflow.store.db.utils import _get_alembic_config
from mlflow.store.tracking.dbmodels.initial_models import Base as InitialBase
from sqlalchemy import create_engine

from everloop.catalog.tracking import experiments, logged, registered, runs
from everloop.core.errors import InvalidInput, NotFound
from everloop.models.importing.copying import Plan
from everloop.models.importing.values import Selection

POINTS = 300


@dataclass
class Theirs:
    """A server, what it keeps, and ids of what is in it."""

    url: str
    folder: Path
    database: str
    run: str
    child: str
    model: str


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    """MLflow's own server over SQLite with some of everything."""
    folder = tmp_path_factory.mktemp("mlflow")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    line = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    line += ["--backend-store-uri", "sqlite:///mlflow.db"]
    environ = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_TRACKING_URI": ""}
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(line, cwd=folder, env=environ, stdout=log, stderr=log, start_new_session=True)
    try:
        for _ in range(600):
            assert server.poll() is None, (folder / "log").read_text()
            with suppress(OSError), urlopen(f"{url}/health", timeout=1):
                break
            time.sleep(0.1)
        yield fill(url, folder)
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def fill(url, folder):
    client = MlflowClient(url)
    experiment = client.create_experiment("nets", tags={"team": "vision"})
    run = client.create_run(experiment, run_name="parent", tags={"colour": "blue", "everloop.step": "forged"})
    identity = run.info.run_id
    metrics = [Metric("loss", 1 / (step + 1), 1_700_000_000_000 + step, step) for step in range(POINTS)]
    metrics += [Metric("odd", float("nan"), 1_700_000_000_000, 0), Metric("odd", float("inf"), 1_700_000_000_001, 1)]
    client.log_batch(identity, metrics=metrics, params=[Param("lr", "0.1"), Param("long", "x" * 5000)])
    data = MetaDataset(HTTPDatasetSource("https://example.org/rows.csv"), name="rows", digest="abc")
    client.log_inputs(identity, [DatasetInput(data._to_mlflow_entity(), [InputTag("mlflow.data.context", "train")])])
    client.log_text(identity, "hello", "notes/a.txt")
    client.log_text(identity, "größe", "notes/ünï code.txt")
    child = client.create_run(experiment, run_name="child", tags={"mlflow.parentRunId": identity})
    client.log_metric(child.info.run_id, "acc", 0.5)
    client.set_terminated(child.info.run_id, "FAILED")
    gone = client.create_run(experiment, run_name="gone")
    client.delete_run(gone.info.run_id)
    model = client.create_logged_model(experiment, name="net", source_run_id=identity, params={"depth": "3"})
    (folder / "weights").mkdir()
    (folder / "weights" / "MLmodel").write_text("flavors: {}\n")
    (folder / "weights" / "big.bin").write_bytes(bytes(range(256)) * 8192)
    client.log_model_artifacts(model.model_id, str(folder / "weights"))
    client.log_outputs(identity, [LoggedModelOutput(model.model_id, 7)])
    client.log_metric(identity, "auc", 0.75, 1_700_000_000_500, 9, model_id=model.model_id)
    client.finalize_logged_model(model.model_id, "READY")
    client.set_terminated(identity)
    client.create_registered_model("classifier", tags={"owner": "ada"}, description="of nets")
    for number in (1, 2, 3):
        client.create_model_version(
            "classifier", f"models:/{model.model_id}", identity, tags={"n": str(number)}, model_id=model.model_id
        )
    client.delete_model_version("classifier", "2")
    client.set_registered_model_alias("classifier", "best", "3")
    client.set_registered_model_alias("classifier", "production", "1")
    client.register_prompt("greeting", "Hello {{name}}")
    client.create_registered_model("by-run")
    client.create_model_version("by-run", f"{run.info.artifact_uri}/notes", identity)
    with pytest.warns(FutureWarning, match="deprecated"):
        client.transition_model_version_stage("by-run", "1", "Archived")
    return Theirs(url, folder, f"sqlite:///{folder / 'mlflow.db'}", identity, child.info.run_id, model.model_id)


def check(house, theirs):
    """All of it is here."""
    found = house.runs()
    assert set(found) == {"parent", "child"}
    parent, child = found["parent"], found["child"]
    assert (parent.id, child.id) == (theirs.run, theirs.child)  # addresses `runs:/<id>` go on to hold
    assert house.series(parent, "loss") == [(step, 1 / (step + 1)) for step in range(POINTS)]
    assert house.series(parent, "odd") == [(0, "NaN"), (1, float("inf"))]
    assert parent.params == {"lr": "0.1", "long": "x" * 5000}
    assert (parent.status, child.status) == ("FINISHED", "FAILED")
    assert child.tags["mlflow.parentRunId"] == parent.id
    assert parent.tags["colour"] == "blue"
    assert "everloop.step" not in parent.tags
    (data,) = parent.datasets
    assert (data.name, data.digest, data.tags) == ("rows", "abc", {"mlflow.data.context": "train"})
    assert [(link.model, link.step) for link in parent.models_out] == [(theirs.model, 7)]
    assert house.files(parent.id) == {"notes/a.txt": b"hello", "notes/ünï code.txt": "größe".encode()}
    with house.ctx.read() as tx:
        home = experiments.by_name(tx, "default", "nets")
        model = logged.get(tx, "default", theirs.model)
        classifier = registered.get(tx, "default", "classifier")
        versions = registered.search_versions(tx, "default", filter_text="name = 'classifier'").rows
        third = registered.version(tx, "default", "classifier", 3)
        held = registered.files(tx, "default", third)
        by_run = registered.version(tx, "default", "by-run", 1)
        notes = registered.files(tx, "default", by_run)
        greeting = registered.version(tx, "default", "greeting", 1)
    assert (home.tags, parent.experiment) == ({"team": "vision"}, home.id)
    assert (model.name, model.run, model.status) == ("net", parent.id, "LOGGED_MODEL_READY")
    assert model.params == {"depth": "3"}
    assert [(one.key, one.value, one.step, one.run) for one in model.metrics] == [("auc", 0.75, 9, parent.id)]
    assert house.files(theirs.model)["big.bin"] == bytes(range(256)) * 8192
    assert (classifier.description, classifier.tags["owner"]) == ("of nets", "ada")
    assert sorted(one.number for one in versions) == [1, 3]
    assert classifier.aliases == {"best": 3, "production": 1}
    assert (third.tags["n"], third.run, third.source) == ("3", parent.id, f"models:/{theirs.model}")
    assert set(held) == {"MLmodel", "big.bin"}
    assert greeting.tags["mlflow.prompt.text"] == "Hello {{name}}"
    assert (by_run.stage, set(notes)) == ("Archived", {"a.txt", "ünï code.txt"})


def test_a_server_comes_over_whole_and_only_once(house, theirs, reasons):
    report = house.bring("mlflow", theirs.url)
    check(house, theirs)
    assert report["imported"]["points"] == POINTS + 4
    assert reasons(report) == {
        ("run", "it is deleted in the source"): 1,
        ("tag", "tags that begin with everloop. say what happened here"): 1,
    }
    before = house.everything()
    again = house.bring("mlflow", theirs.url)["imported"]
    assert again["runs unchanged"] == 2
    assert (again["versions there"], again["aliases there"], again["logged models unchanged"]) == (4, 2, 1)
    # the same by another way in: the database, read from a snapshot, with the folder of artifacts beside it
    database = house.bring("mlflow", theirs.database, plan=Plan(again=True))
    assert database["imported"]["runs completed"] == 2
    assert "files" not in database["imported"]
    assert house.everything() == before


def test_a_database_comes_over_without_its_server_and_is_not_touched(house, theirs):
    file = theirs.folder / "mlflow.db"
    before = (file.read_bytes(), file.stat().st_mtime_ns)
    house.bring("mlflow", theirs.database)
    check(house, theirs)
    assert (file.read_bytes(), file.stat().st_mtime_ns) == before
    tags = house.runs()["parent"].tags
    assert tags["everloop.import.source"] == theirs.database
    assert tags["everloop.import.id"] == theirs.run


def test_a_dry_run_writes_nothing(house, theirs):
    told = house.bring("mlflow", theirs.database, plan=Plan(dry_run=True))["imported"]
    assert not house.runs()
    assert (told["runs"], told["files"], told["versions"], told["aliases"]) == (2, 4, 4, 2)


def test_what_is_chosen_comes_alone(house, theirs):
    house.bring("mlflow", theirs.database, plan=Plan(Selection(experiments=("n*s",), runs=("chi*",)), files=False))
    assert set(house.runs()) == {"child"}
    with house.ctx.read() as tx, pytest.raises(NotFound):
        registered.get(tx, "default", "classifier")
    with house.ctx.read() as tx, pytest.raises(NotFound):
        logged.find(tx, "default", theirs.model)


def test_a_run_that_is_here_already_is_left_alone(house, theirs, reasons):
    with house.ctx.write() as tx:
        experiments.ensure_default(tx, "default", 1)
        runs.create(tx, "default", experiment="0", actor="eve", at=5, name="mine", identity=theirs.run)
    report = house.bring("mlflow", theirs.database)
    mine = house.runs()["mine"]
    assert (mine.params, mine.metrics, house.files(mine.id)) == ({}, (), {})
    taken = "a run with its identity is here that is no import of it, or is deleted"
    assert reasons(report)["run", taken] == 1


def test_artifacts_outside_of_the_named_roots_are_not_read(house, theirs, tmp_path, reasons):
    report = house.bring("mlflow", theirs.database, artifacts=(str(tmp_path),))
    assert house.files(theirs.run) == {}
    (outside,) = (one for one in report["unmapped"] if one["kind"] == "artifacts")
    assert "outside of the artifact roots" in outside["reason"]
    root = str(theirs.folder / "mlartifacts")
    house.bring("mlflow", theirs.database, artifacts=(root,), plan=Plan(again=True))
    assert set(house.files(theirs.run)) == {"notes/a.txt", "notes/ünï code.txt"}


def test_links_among_artifacts_are_not_followed(house, theirs, tmp_path, reasons):
    secret = tmp_path / "secret"
    secret.write_text("not yours")
    (place,) = (theirs.folder / "mlartifacts").glob(f"*/{theirs.run}/artifacts")
    (place / "link").symlink_to(secret)
    (place / "folder").symlink_to(tmp_path)
    try:
        report = house.bring("mlflow", theirs.database)
    finally:
        (place / "link").unlink()
        (place / "folder").unlink()
    assert set(house.files(theirs.run)) == {"notes/a.txt", "notes/ünï code.txt"}
    assert reasons(report)["file", "a symbolic link; links are not followed"] == 2


def test_a_source_that_is_none_is_told(house, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.db").write_text("no database")
    for place, error in {
        f"sqlite:///{tmp_path}/nothing.db": NotFound,
        f"sqlite:///{tmp_path}/text.db": InvalidInput,
        f"sqlite:///{tmp_path}/house/catalog.sqlite": InvalidInput,
        str(tmp_path / "nowhere"): NotFound,
        str(tmp_path / "empty"): InvalidInput,
        "ftp://example.org": InvalidInput,
    }.items():
        with pytest.raises(error):
            house.bring("mlflow", place)
    assert not list((tmp_path / "empty").iterdir())


def test_a_file_store_comes_over(house, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    client = MlflowClient((tmp_path / "mlruns").as_uri())
    experiment = client.create_experiment("old")
    run = client.create_run(experiment, run_name="of files")
    client.log_metric(run.info.run_id, "loss", 0.5, step=3)
    client.log_text(run.info.run_id, "hello", "a/b.txt")
    client.set_terminated(run.info.run_id)
    house.bring("mlflow", tmp_path / "mlruns")
    found = house.runs()["of files"]
    assert house.series(found, "loss") == [(3, 0.5)]
    assert house.files(found.id) == {"a/b.txt": b"hello"}


def test_an_older_schema_is_brought_up_to_date_in_the_copy(house, tmp_path):
    file = tmp_path / "old.db"
    config = _get_alembic_config(f"sqlite:///{file}")
    engine = create_engine(f"sqlite:///{file}")
    InitialBase.metadata.create_all(engine)
    engine.dispose()
    before = [one.revision for one in ScriptDirectory.from_config(config).walk_revisions()][10]
    with warnings.catch_warnings(action="ignore"):  # mlflow's migrations use names that SQLAlchemy will drop
        command.upgrade(config, before)
    with closing(sqlite3.connect(file)) as old, old:
        old.execute("INSERT INTO experiments (experiment_id, name, lifecycle_stage) VALUES (7, 'old', 'active')")
        old.execute(
            "INSERT INTO runs (run_uuid, name, user_id, status, start_time, end_time, lifecycle_stage, artifact_uri,"
            " experiment_id) VALUES (?, 'r', 'eve', 'FINISHED', 1000, 2000, 'active', 'mlflow-artifacts:/7', 7)",
            ("e" * 32,),
        )
        for table in ("metrics", "latest_metrics"):
            old.execute(
                f"INSERT INTO {table} (key, value, timestamp, step, is_nan, run_uuid)"
                f" VALUES ('loss', 0.5, 1500, 3, 0, '{'e' * 32}')"
            )
    content = file.read_bytes()
    house.bring("mlflow", f"sqlite:///{file}")
    (run,) = house.runs().values()
    assert (run.id, run.end) == ("e" * 32, 2_000_000)
    assert house.series(run, "loss") == [(3, 0.5)]
    assert file.read_bytes() == content
    with closing(sqlite3.connect(file)) as newer, newer:
        newer.execute("UPDATE alembic_version SET version_num = 'ffffffffffff'")
    with pytest.raises(InvalidInput, match="schema"):
        house.bring("mlflow", f"sqlite:///{file}")
