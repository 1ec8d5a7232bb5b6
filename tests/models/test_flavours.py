"""Models of XGBoost, LightGBM and torch as what a model function returns: packaged, digested, asked, loaded."""

import importlib
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what these libraries say about their own dependencies while they are imported
    import lightgbm
    import mlflow.lightgbm
    import mlflow.pyfunc
    import mlflow.pytorch
    import mlflow.xgboost
    import torch
    import xgboost

from everloop.core.errors import InvalidInput
from everloop.models.codec import codec, largest_difference
from everloop.models.predictor import load, materialize
from everloop.models.training import Fitted

NET = """
import lightning
import torch


class Net(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Dropout(0.5), torch.nn.Linear(3, 1))

    def forward(self, rows):
        return torch.sigmoid(self.layers(rows / 100))
"""


@pytest.fixture(autouse=True)
def quiet():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"mlflow|lightning|torch")
        yield


@pytest.fixture(scope="module")
def net(tmp_path_factory):
    """A Lightning module of a project's own file."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "nets.py").write_text(NET)
    before = list(sys.path)
    sys.path.insert(0, str(folder))
    yield importlib.import_module("nets").Net
    sys.path[:] = before
    del sys.modules["nets"]


def arrays(frame):
    return frame.drop("late").fill_null(0.0).to_numpy(), frame["late"].to_numpy()


def xgb(rows, label, **more):
    return xgboost.XGBClassifier(n_estimators=4, max_depth=2, random_state=0, **more).fit(rows, label)


def xgb_booster(rows, label):
    settings = {"objective": "binary:logistic", "max_depth": 2, "seed": 0}
    return xgboost.train(settings, xgboost.DMatrix(rows, label), num_boost_round=4)


def lgb(rows, label, **more):
    return lightgbm.LGBMClassifier(n_estimators=4, num_leaves=4, random_state=0, verbose=-1, **more).fit(rows, label)


def lgb_booster(rows, label):
    settings = {"objective": "binary", "num_leaves": 4, "verbose": -1, "seed": 0}
    return lightgbm.train(settings, lightgbm.Dataset(rows, label), num_boost_round=4)


def sequential(_rows, _label):
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Dropout(0.5), torch.nn.Linear(3, 1), torch.nn.Sigmoid())


MAKERS = {"xgb": xgb, "xgb_booster": xgb_booster, "lgb": lgb, "lgb_booster": lgb_booster, "torch": sequential}
FLAVOUR = {"xgb": "xgboost", "lgb": "lightgbm", "torch": "pytorch"}


def direct(model, rows):
    """What the library itself answers."""
    if isinstance(model, torch.nn.Module):
        with torch.inference_mode():
            return model.eval()(torch.as_tensor(rows, dtype=torch.float32)).numpy()[:, 0]
    if isinstance(model, xgboost.Booster):
        return model.predict(xgboost.DMatrix(rows))
    return model.predict_proba(rows)[:, 1] if hasattr(model, "predict_proba") else model.predict(rows)


@pytest.mark.parametrize("name", MAKERS)
def test_a_model_is_saved_and_answers_as_its_library_does(name, frames, facts, store, tmp_path):
    training, holdout = (frame.fill_null(0.0) for frame in frames)
    model = MAKERS[name](*arrays(training))
    expected = direct(model, arrays(holdout)[0])
    saved = codec.save(Fitted(model, training, holdout), "delay", store, facts)
    manifest = saved.version.manifest
    assert manifest["flavor"] == FLAVOUR[name.partition("_")[0]]
    assert 0 <= saved.metrics["roc_auc"] <= 1
    folder = materialize(manifest, store, tmp_path / "model")
    predictor = load(folder)
    assert predictor.scores(holdout) == pytest.approx(expected, abs=1e-6)
    assert len(predictor.predict({n: [1.0] for n in facts["columns"]})["prediction"]) == 1
    again = codec.save(Fitted(MAKERS[name](*arrays(training)), training, holdout), "delay", store, facts)
    assert again.version.id == saved.version.id
    assert largest_difference(manifest, again.version.manifest, store) == 0.0


@pytest.mark.parametrize("name", MAKERS)
def test_the_plain_client_loads_it_by_its_own_flavour(name, frames, facts, store, tmp_path):
    training, holdout = (frame.fill_null(0.0) for frame in frames)
    model = MAKERS[name](*arrays(training))
    rows = arrays(holdout)[0]
    saved = codec.save(Fitted(model, training), "delay", store, facts)
    folder = str(materialize(saved.version.manifest, store, tmp_path / "model"))
    flavour = getattr(mlflow, FLAVOUR[name.partition("_")[0]])
    assert direct(flavour.load_model(folder), rows) == pytest.approx(direct(model, rows), abs=1e-6)
    answer = np.asarray(mlflow.pyfunc.load_model(folder).predict(holdout.drop("late").to_pandas()))
    assert (answer if answer.ndim == 1 else answer[:, -1]) == pytest.approx(direct(model, rows), abs=1e-6)
    library = {"xgb": "xgboost", "lgb": "lightgbm", "torch": "torch"}[name.partition("_")[0]]
    assert f"\n{library}" in "\n" + (tmp_path / "model" / "requirements.txt").read_text()


@pytest.mark.parametrize("make", [xgb, lgb])
def test_threads_do_not_count_in_the_digest_and_seeds_do(make, training, facts, store):
    training = training.fill_null(0.0)
    rows, label = arrays(training)
    one, two = (codec.save(Fitted(make(rows, label, n_jobs=n), training), "d", store, facts) for n in (1, 2))
    other = codec.save(Fitted(make(rows, 1 - label), training), "d", store, facts)
    digests = [saved.version.manifest["digest"] for saved in (one, two, other)]
    assert digests[0] == digests[1] != digests[2]


def test_what_the_sum_of_trees_starts_from_counts_in_the_digest(training, facts, store):
    training = training.fill_null(0.0)
    rows, label = arrays(training)
    flat = {"min_child_weight": 1e9}  # no split is worth it: the trees say nothing
    low, high = (
        codec.save(Fitted(xgb(rows, label, base_score=score, **flat), training), "d", store, facts)
        for score in (0.2, 0.6)
    )
    assert low.version.manifest["digest"] != high.version.manifest["digest"]


def test_names_of_columns_are_kept_where_there_are_some(training, facts, store):
    training = training.fill_null(0.0)
    few = training.select("hour", "distance").to_pandas()
    for make in (xgb, lgb):
        saved = codec.save(Fitted(make(few, training["late"].to_numpy()), training), "d", store, facts)
        assert [field["name"] for field in saved.version.manifest["signature"]["inputs"]] == ["hour", "distance"]


def test_a_lightning_module_of_the_project_travels_with_its_code(net, frames, facts, store, tmp_path):
    training, model = frames[0].fill_null(0.0), net()
    saved = codec.save(Fitted(model, training), "delay", store, facts)
    folder = materialize(saved.version.manifest, store, tmp_path / "model")
    assert (folder / "code" / "nets.py").read_text() == NET
    rows = training.drop("late").head(5)
    expected = direct(model, rows.to_numpy())
    del sys.modules["nets"]  # as in a process that has only the model's folder
    sys.path[:] = [place for place in sys.path if not (Path(place) / "nets.py").exists()]
    assert load(folder).scores(rows) == pytest.approx(expected, abs=1e-6)
    assert sys.modules["nets"].__file__ == str(folder / "code" / "nets.py")


def test_outputs_of_networks(training, facts, store, tmp_path):
    training = training.fill_null(0.0)
    plain = torch.nn.Linear(4, 1)
    with pytest.raises(InvalidInput, match="no probability") as refusal:
        codec.save(Fitted(plain, training), "d", store, facts)
    assert "sigmoid" in refusal.value.hint
    many = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Softmax(dim=1))
    for output, module, shape in (("value", plain, (600,)), ("probabilities", many, (600, 3)), ("class", many, (600,))):
        saved = codec.save(Fitted(module, training), "d", store, {**facts, "output": output})
        folder = materialize(saved.version.manifest, store, tmp_path / output)
        assert load(folder).scores(training.drop("late")).shape == shape
