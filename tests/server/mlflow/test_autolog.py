"""Autologging of each library by the ordinary client, in a plain script and inside a model function."""

import os
import textwrap
import time
import warnings
from dataclasses import dataclass, field

import numpy as np
import polars as pl
import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what these libraries say about their own dependencies while they are imported
    import lightgbm
    import lightning
    import mlflow
    import mlflow.lightgbm
    import mlflow.pytorch
    import mlflow.sklearn
    import mlflow.xgboost
    import torch
    import xgboost
    from mlflow.utils.autologging_utils import AUTOLOGGING_INTEGRATIONS
    from sklearn.linear_model import LogisticRegression

from everloop.models.training import train

pytestmark = pytest.mark.filterwarnings("ignore")  # the libraries' own warnings are not ours to mend


class Net(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(3, 1)

    def forward(self, rows):
        return torch.sigmoid(self.layer(rows))

    def training_step(self, batch, _index):
        rows, label = batch
        loss = torch.nn.functional.binary_cross_entropy(self(rows)[:, 0], label)
        self.log("loss", loss, on_epoch=True, on_step=False)
        return loss

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


RANDOM = np.random.default_rng(7)
ROWS = RANDOM.random((60, 3))
LABEL = (ROWS[:, 0] > 0.5).astype(int)


def fit_sklearn():
    return LogisticRegression(C=0.5).fit(ROWS, LABEL)


def fit_xgboost():
    return xgboost.XGBClassifier(n_estimators=3, max_depth=2).fit(ROWS, LABEL, eval_set=[(ROWS, LABEL)], verbose=False)


def fit_lightgbm():
    model = lightgbm.LGBMClassifier(n_estimators=3, num_leaves=4, verbose=-1)
    return model.fit(ROWS, LABEL, eval_set=[(ROWS[:20], LABEL[:20])])


def fit_pytorch():
    data = torch.utils.data.TensorDataset(torch.as_tensor(ROWS).float(), torch.as_tensor(LABEL).float())
    quiet = {"enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = lightning.Trainer(max_epochs=3, logger=False, accelerator="cpu", **quiet)
    model = Net()
    trainer.fit(model, torch.utils.data.DataLoader(data, batch_size=30))
    return model


@dataclass(frozen=True)
class Library:
    flavour: object
    fit: object
    param: tuple
    """A parameter that autologging writes, and its value."""
    metric: str
    history: int
    """How many points of the metric there are."""
    dataset: bool = True
    """Whether the client describes what the model was trained on."""
    files: frozenset = field(default_factory=frozenset)
    """Artifacts beside the model."""


LIBRARIES = {
    "sklearn": Library(mlflow.sklearn, fit_sklearn, ("C", "0.5"), "training_score", 1),
    "xgboost": Library(mlflow.xgboost, fit_xgboost, ("max_depth", "2"), "validation_0-logloss", 3),
    "lightgbm": Library(mlflow.lightgbm, fit_lightgbm, ("num_leaves", "4"), "valid_0-binary_logloss", 3),
    "pytorch": Library(mlflow.pytorch, fit_pytorch, ("epochs", "3"), "loss", 3, dataset=False),
}


@pytest.fixture(scope="module")
def connected(served):
    settings = {
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
        "MLFLOW_TRACKING_URI": served.url,
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        "MLFLOW_REQUIREMENTS_INFERENCE_RAISE_ERRORS": "false",
    }
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    mlflow.set_tracking_uri(served.url)
    yield mlflow.MlflowClient()
    mlflow.set_tracking_uri(None)
    for name, value in before.items():
        os.environ.pop(name, None) if value is None else os.environ.update({name: value})


@pytest.fixture(params=LIBRARIES)
def library(request, connected):
    chosen = LIBRARIES[request.param]
    mlflow.set_experiment(f"autolog {request.param} {request.node.originalname}")
    yield chosen
    mlflow.end_run()
    chosen.flavour.autolog(disable=True, silent=True)
    # as in a fresh process: a flavour that was ever set by itself is left out of `mlflow.autolog()`
    AUTOLOGGING_INTEGRATIONS.pop(request.param)


def answers(model):
    """What a fitted or loaded model says of a few rows."""
    if isinstance(model, torch.nn.Module):
        with torch.inference_mode():
            return model(torch.as_tensor(ROWS[:9]).float()).numpy()[:, 0]
    return np.asarray(model.predict(ROWS[:9]))


def test_a_plain_script_logs_parameters_histories_and_datasets(library, connected):
    library.flavour.autolog(log_models=False, silent=True)
    with mlflow.start_run() as run:
        library.fit()
    found = connected.get_run(run.info.run_id)
    key, value = library.param
    assert found.data.params[key] == value
    history = connected.get_metric_history(run.info.run_id, library.metric)
    assert len(history) == library.history
    assert [point.step for point in history] == list(range(library.history))
    assert found.data.metrics[library.metric] == history[-1].value
    if library.dataset:
        (used,) = [one.dataset for one in found.inputs.dataset_inputs][:1]
        assert used.digest
        assert used.name == "dataset"
    if library.metric == "valid_0-binary_logloss":
        assert any("feature_importance" in item.path for item in connected.list_artifacts(run.info.run_id))


def test_models_are_logged_registered_and_loaded(library, connected):
    model = library.fit()
    forms = {"sklearn": "cloudpickle", "lightgbm": "cloudpickle", "pytorch": "pickle"}
    flavour = library.flavour.__name__.rpartition(".")[2]
    form = {"serialization_format": forms[flavour]} if flavour in forms else {}
    requirements = [flavour]  # none are inferred: that takes another process
    with mlflow.start_run() as run:
        info = library.flavour.log_model(model, name="model", pip_requirements=requirements, **form)
    found = connected.get_run(run.info.run_id)
    assert [output.model_id for output in found.outputs.model_outputs] == [info.model_id]
    name = f"registered {library.flavour.__name__}"
    made = mlflow.register_model(info.model_uri, name)
    connected.set_registered_model_alias(name, "best", made.version)
    for address in (info.model_uri, f"runs:/{run.info.run_id}/model", f"models:/{name}@best"):
        loaded = library.flavour.load_model(address)
        assert type(loaded).__name__ == type(model).__name__
        assert answers(loaded) == pytest.approx(answers(model))


def test_autologging_saves_the_model_too_where_it_is_asked_to(connected):
    mlflow.set_experiment("autolog with models")
    mlflow.lightgbm.autolog(silent=True)
    try:
        with pytest.MonkeyPatch.context() as patch, mlflow.start_run() as run:
            patch.setattr(mlflow.models, "infer_pip_requirements", lambda *_args, **_more: ["lightgbm"])
            model = fit_lightgbm()
    finally:
        mlflow.lightgbm.autolog(disable=True, silent=True)
        AUTOLOGGING_INTEGRATIONS.pop("lightgbm")
    found = connected.get_run(run.info.run_id)
    (made,) = found.outputs.model_outputs
    loaded = mlflow.lightgbm.load_model(f"models:/{made.model_id}")
    assert answers(loaded) == pytest.approx(answers(model))
    logged = connected.get_logged_model(made.model_id)
    assert logged.source_run_id == run.info.run_id


@dataclass
class Asked:
    function: object
    facts: dict = field(default_factory=lambda: {"columns": ["x"], "label": "y"})


@pytest.mark.parametrize("switch", ["mlflow.autolog()", "mlflow.{name}.autolog()"])
def test_inside_a_model_function_the_returned_object_is_the_model(library, connected, switch, monkeypatch):
    name = library.flavour.__name__.rpartition(".")[2]
    space = {"mlflow": mlflow, "fit": library.fit}
    exec(textwrap.dedent(f"def model(frame):\n    {switch.format(name=name)}\n    return fit()"), space)
    run = connected.create_run(connected.create_experiment(f"step {name} {switch}"))
    monkeypatch.setenv("MLFLOW_RUN_ID", run.info.run_id)
    monkeypatch.setattr(mlflow.tracking.fluent, "_active_experiment_id", None)  # as in a fresh process
    frame = pl.DataFrame({"x": [0.0, 1.0], "y": [0, 1]})
    fitted = train(Asked(space["model"]), {"frame": frame}, {}, {})
    assert type(fitted.estimator).__name__ in {"LogisticRegression", "XGBClassifier", "LGBMClassifier", "Net"}
    found = connected.get_run(run.info.run_id)
    key, value = library.param
    assert found.data.params[key] == value
    assert len(connected.get_metric_history(run.info.run_id, library.metric)) == library.history
    assert found.outputs is None or not found.outputs.model_outputs
    assert mlflow.active_run() is None


def test_a_scripts_system_metrics_are_series_of_its_run(connected):
    mlflow.set_experiment("system metrics")
    mlflow.set_system_metrics_sampling_interval(0.05)
    mlflow.enable_system_metrics_logging()
    try:
        with mlflow.start_run() as run:
            until = time.monotonic() + 30
            while time.monotonic() < until:
                seen = connected.get_metric_history(run.info.run_id, "system/cpu_utilization_percentage")
                if len(seen) > 2:
                    break
    finally:
        mlflow.disable_system_metrics_logging()
        mlflow.set_system_metrics_sampling_interval(None)
    assert [point.step for point in seen] == list(range(len(seen)))
    newest = connected.get_run(run.info.run_id).data.metrics
    assert {"system/system_memory_usage_megabytes", "system/network_receive_megabytes"} <= set(newest)
