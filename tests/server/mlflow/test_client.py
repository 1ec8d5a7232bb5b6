"""Stories told with the real mlflow client over real HTTP."""

import math
import os
import threading

import pytest

from everloop.catalog.governance import access
from everloop.catalog.tracking import experiments, runs
from everloop.core.clock import DAY, SystemClock


@pytest.fixture(scope="module")
def mlflow(served):
    """The client, set to the server; it never asks twice, so that a deterministic 5xx shows at once."""
    settings = {
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
        "MLFLOW_TRACKING_URI": served.url,
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    import mlflow as client

    client.set_tracking_uri(served.url)
    yield client
    client.set_tracking_uri(None)
    for name, value in before.items():
        os.environ.pop(name, None) if value is None else os.environ.update({name: value})


@pytest.fixture
def client(mlflow):
    return mlflow.MlflowClient()


@pytest.fixture
def experiment(mlflow, request):
    return mlflow.set_experiment(request.node.name).experiment_id


def test_a_run_from_start_to_end(mlflow, client, experiment, tmp_path):
    with mlflow.start_run(run_name="größer", tags={"team": "ops"}, description="what for") as run:
        mlflow.log_params({"depth": 3, "long": "x" * 6000, "weiß": "ß 漢字 🛫"})
        for step in range(30):
            mlflow.log_metric("loss", 1 / (step + 1), step=step)
        mlflow.log_metrics({"nan": math.nan, "up": math.inf, "down": -math.inf}, step=2)
        mlflow.set_tag("note", "déjà vu")
        (tmp_path / "model card.txt").write_text("hello")
        (tmp_path / "deep" / "er").mkdir(parents=True)
        (tmp_path / "deep" / "er" / "ü.bin").write_bytes(bytes(range(256)) * 9000)
        mlflow.log_artifact(tmp_path / "model card.txt")
        mlflow.log_artifacts(tmp_path / "deep", "deep")
        mlflow.log_dict({"a": [1, 2]}, "notes/a.json")
    found = client.get_run(run.info.run_id)
    assert (found.info.status, found.info.run_name, found.info.experiment_id) == ("FINISHED", "größer", experiment)
    assert found.info.end_time >= found.info.start_time
    assert found.data.params == {"depth": "3", "long": "x" * 6000, "weiß": "ß 漢字 🛫"}
    assert found.data.metrics["loss"] == 1 / 30
    assert math.isnan(found.data.metrics["nan"])
    assert (found.data.metrics["up"], found.data.metrics["down"]) == (math.inf, -math.inf)
    assert found.data.tags["note"] == "déjà vu"
    assert found.data.tags["mlflow.note.content"] == "what for"
    assert [point.step for point in client.get_metric_history(run.info.run_id, "loss")] == list(range(30))
    assert [(f.path, f.is_dir, f.file_size) for f in client.list_artifacts(run.info.run_id)] == [
        ("deep", True, None),
        ("model card.txt", False, 5),
        ("notes", True, None),
    ]
    there = client.download_artifacts(run.info.run_id, "", str(tmp_path))
    assert (tmp_path / "deep/er/ü.bin").read_bytes() == bytes(range(256)) * 9000
    assert mlflow.artifacts.load_dict(f"runs:/{run.info.run_id}/notes/a.json") == {"a": [1, 2]}
    assert there


def test_what_does_not_exist_is_said_clearly(mlflow, client, experiment):
    from mlflow.exceptions import MlflowException, RestException

    with pytest.raises(RestException, match="Run with id=" + "0" * 32 + " not found"):
        client.get_run("0" * 32)
    with pytest.raises(RestException, match="No Experiment with id=12345 exists"):
        client.get_experiment("12345")
    assert client.get_experiment_by_name("never") is None
    with pytest.raises(RestException, match=r"Experiment\(name=.* already exists"):
        client.create_experiment("test_what_does_not_exist_is_said_clearly")
    with mlflow.start_run():
        mlflow.log_param("p", 1)
        mlflow.log_param("p", 1)
        with pytest.raises(MlflowException, match="Changing param values is not allowed"):
            mlflow.log_param("p", 2)
        with pytest.raises(MlflowException, match="Names may"):
            client.log_metric(mlflow.active_run().info.run_id, "../up", 1.0)
    with pytest.raises(RestException):
        client.search_runs([experiment], "metrics.x = 'text'")


def test_batches_of_a_thousand_and_pages_to_the_end(mlflow, client, experiment):
    from mlflow.entities import Metric, Param, RunTag

    run = client.create_run(experiment)
    metrics = [Metric(f"m{i % 10}", float(i), i, i) for i in range(1000)]
    client.log_batch(run.info.run_id, metrics=metrics)
    client.log_batch(run.info.run_id, metrics=metrics[:5])  # again: passed over
    client.log_batch(
        run.info.run_id,
        params=[Param(f"p{i}", str(i)) for i in range(100)],
        tags=[RunTag(f"t{i}", str(i)) for i in range(100)],
    )
    found = client.get_run(run.info.run_id)
    assert (len(found.data.metrics), len(found.data.params)) == (10, 100)
    assert found.data.metrics["m9"] == 999.0
    assert len(client.get_metric_history(run.info.run_id, "m3")) == 100

    others = [client.create_run(experiment, tags={"n": str(i)}).info.run_id for i in range(12)]
    seen, token = [], None
    while True:
        page = client.search_runs(
            [experiment], "tags.n LIKE '%'", order_by=["tags.n DESC"], max_results=5, page_token=token
        )
        seen += [one.info.run_id for one in page]
        token = page.token
        if not token:
            break
    assert sorted(seen) == sorted(others)
    frame = mlflow.search_runs([experiment], "params.p7 = '7'")
    assert list(frame["metrics.m9"]) == [999.0]


def test_finished_runs_are_resumed_deleted_and_restored(mlflow, client, experiment):
    from mlflow.entities import ViewType

    with mlflow.start_run() as run:
        pass
    identity = run.info.run_id
    client.set_tag(identity, "later", "yes")
    with mlflow.start_run(run_id=identity):
        mlflow.log_metric("more", 1)
    client.update_run(identity, name="renamed")
    found = client.get_run(identity)
    assert (found.data.metrics, found.data.tags["later"]) == ({"more": 1.0}, "yes")
    assert found.info.run_name == found.data.tags["mlflow.runName"] == "renamed"
    client.delete_run(identity)
    assert client.search_runs([experiment]) == []
    assert len(client.search_runs([experiment], run_view_type=ViewType.DELETED_ONLY)) == 1
    client.restore_run(identity)
    client.delete_tag(identity, "later")
    assert "later" not in client.get_run(identity).data.tags
    client.delete_experiment(experiment)
    assert client.get_experiment(experiment).lifecycle_stage == "deleted"
    client.restore_experiment(experiment)
    client.rename_experiment(experiment, "another name")
    client.set_experiment_tag(experiment, "a", "b")
    assert client.get_experiment_by_name("another name").tags["a"] == "b"


@pytest.mark.filterwarnings("ignore")  # the client's own warnings about its libraries are not ours to mend
def test_autolog_then_registry_then_load(mlflow, client, experiment):
    numpy = pytest.importorskip("numpy")
    pytest.importorskip("sklearn")
    from sklearn.linear_model import LogisticRegression

    rows = numpy.random.default_rng(7).random((60, 3))
    label = (rows[:, 0] > 0.5).astype(int)
    mlflow.sklearn.autolog(log_models=False, silent=True)
    try:
        with mlflow.start_run() as run:
            fitted = LogisticRegression().fit(rows, label)
            info = mlflow.sklearn.log_model(
                fitted, name="model", serialization_format="cloudpickle", pip_requirements=["scikit-learn"]
            )
    finally:
        mlflow.sklearn.autolog(disable=True, silent=True)
    found = client.get_run(run.info.run_id)
    assert found.data.params["C"] == "1.0"
    assert "training_score" in found.data.metrics
    assert found.inputs.dataset_inputs[0].dataset.digest
    assert [output.model_id for output in found.outputs.model_outputs] == [info.model_id]
    logged = client.get_logged_model(info.model_id)
    assert (logged.status.value, logged.source_run_id) == ("READY", run.info.run_id)
    assert [m.model_id for m in mlflow.search_logged_models([experiment], output_format="list")] == [info.model_id]

    name = "späte Flüge"
    for number in (1, 2):
        made = mlflow.register_model(info.model_uri, name, tags={"n": str(number)})
        assert (int(made.version), made.run_id) == (number, run.info.run_id)
    client.set_registered_model_alias(name, "best", 2)
    loaded = mlflow.sklearn.load_model(f"models:/{name}@best")
    assert (loaded.predict(rows) == fitted.predict(rows)).all()
    assert mlflow.pyfunc.load_model(f"models:/{name}/1").predict(rows).shape == (60,)
    client.update_model_version(name, "2", description="better")
    client.set_model_version_tag(name, "2", "checked", "yes")
    version = client.get_model_version_by_alias(name, "best")
    assert (version.description, version.tags["checked"], version.aliases) == ("better", "yes", ["best"])
    assert [v.version for v in client.search_model_versions(f"name = '{name}'")] == ["2", "1"]
    assert [m.name for m in client.search_registered_models(f"name = '{name}'")] == [name]
    assert client.get_registered_model(name).aliases == {"best": "2"}
    client.delete_registered_model_alias(name, "best")
    client.delete_model_version(name, "1")
    assert [v.version for v in client.search_model_versions(f"name = '{name}'")] == ["2"]


def test_projects_do_not_see_each_other(mlflow, client, experiment, tmp_path, monkeypatch):
    from mlflow.exceptions import RestException

    (tmp_path / "secret.txt").write_text("secret")
    with mlflow.start_run() as run:
        mlflow.log_artifact(tmp_path / "secret.txt")
    client.create_registered_model("mine")
    monkeypatch.setenv("MLFLOW_WORKSPACE", "elsewhere")
    with pytest.raises(RestException, match="not found"):
        client.get_run(run.info.run_id)
    with pytest.raises(RestException):
        client.download_artifacts(run.info.run_id, "secret.txt", str(tmp_path))
    with pytest.raises(RestException):
        client.get_registered_model("mine")
    assert [one.name for one in client.search_experiments()] == ["Default"]
    other = client.create_run("0")
    assert other.info.experiment_id == "0"
    monkeypatch.delenv("MLFLOW_WORKSPACE")
    with pytest.raises(RestException, match="not found"):
        client.get_run(other.info.run_id)


def test_many_threads_log_at_once(mlflow, client, experiment):
    run = client.create_run(experiment)

    def log(offset):
        for step in range(15):
            client.log_metric(run.info.run_id, "shared", offset, step=step * 4 + offset)

    threads = [threading.Thread(target=log, args=(offset,)) for offset in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(client.get_metric_history(run.info.run_id, "shared")) == 60


@pytest.mark.filterwarnings("ignore")  # the client's own warnings about its libraries are not ours to mend
def test_a_step_uses_the_client_as_it_is(mlflow, guarded, tmp_path, monkeypatch):
    """What a worker gives a step: an address, a token for one run, and that run's id."""
    from mlflow.exceptions import RestException
    from sklearn.linear_model import LinearRegression

    now = SystemClock().wall()
    with guarded.catalog.write() as tx:
        experiments.ensure_default(tx, "flights", now)
        home = experiments.create(tx, "flights", "delay", at=now)
        run = runs.create(tx, "flights", experiment=home, actor="carl", at=now)
        other = runs.create(tx, "flights", experiment=home, actor="carl", at=now)
        secret = access.issue_task_token(tx, "flights", run.id, name="carl", at=now, expires=now + DAY)[1]
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", secret)
    monkeypatch.setenv("MLFLOW_WORKSPACE", "flights")
    monkeypatch.setenv("MLFLOW_RUN_ID", run.id)
    monkeypatch.setattr(mlflow.tracking.fluent, "_active_experiment_id", None)  # as in a fresh process
    mlflow.set_tracking_uri(guarded.url)
    mlflow.start_run()
    (tmp_path / "notes.txt").write_text("hello")
    mlflow.sklearn.autolog(log_models=False, silent=True)
    try:
        fitted = LinearRegression().fit([[0.0], [1.0]], [0.0, 2.0])
        mlflow.log_metric("own", 1.0)
        mlflow.log_param("depth", 3)
        mlflow.log_artifact(tmp_path / "notes.txt")
        info = mlflow.sklearn.log_model(
            fitted, name="extra", serialization_format="cloudpickle", pip_requirements=["scikit-learn"]
        )
        with pytest.raises(RestException, match=r"may not run\.write"):
            mlflow.MlflowClient().log_metric(other.id, "foreign", 1.0)
        assert mlflow.sklearn.load_model(info.model_uri).predict([[2.0]])[0] == pytest.approx(4.0)
    finally:
        mlflow.end_run()
        mlflow.sklearn.autolog(disable=True, silent=True)
        mlflow.set_tracking_uri(os.environ["MLFLOW_TRACKING_URI"])
    with guarded.catalog.read() as tx:
        found = runs.get(tx, "flights", run.id)
        left = runs.get(tx, "flights", other.id)
    assert {"own", "training_score"} <= {point.key for point in found.metrics}
    assert found.params["depth"] == "3"
    assert [link.model for link in found.models_out] == [info.model_id]
    assert left.metrics == ()
