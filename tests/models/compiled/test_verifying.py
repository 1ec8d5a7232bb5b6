"""Models compiled to ONNX: their answers, the verdict, and who serves when the two differ."""

import json
import warnings

import numpy as np
import polars as pl
import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import lightgbm
    import torch
    import xgboost

from sklearn.compose import ColumnTransformer
from sklearn.ensemble import (
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
)
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

from everloop.core.errors import DefinitionError, InvalidInput
from everloop.models.codec import codec
from everloop.models.compiled import verifying
from everloop.models.compiled.definitions import Onnx
from everloop.models.compiled.loader import load
from everloop.models.predictor import load as load_native
from everloop.models.predictor import materialize
from everloop.models.training import Fitted
from everloop.store import open_store

NAMES = [f"f{n}" for n in range(5)]


@pytest.fixture(autouse=True)
def quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what converters and torch say about their own dependencies
        yield


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(3)
    rows = rng.normal(size=(600, 5))
    label = (rows[:, 0] + 0.5 * rng.normal(size=600) > 0).astype(int)
    return rows, label, pl.DataFrame({**{n: rows[:, i] for i, n in enumerate(NAMES)}, "late": label})


def net():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(5, 3), torch.nn.ReLU(), torch.nn.Linear(3, 1), torch.nn.Sigmoid())


def three(rows, label):
    return label + (rows[:, 1] > 0.5)


MADE = {
    "histogram": ("probability", lambda x, y: HistGradientBoostingClassifier(max_iter=20).fit(x, y)),
    "histogram of three": (
        "probabilities",
        lambda x, y: HistGradientBoostingClassifier(max_iter=9).fit(x, three(x, y)),
    ),
    "histogram classes": ("class", lambda x, y: HistGradientBoostingClassifier(max_iter=9).fit(x, three(x, y))),
    "histogram numbers": ("value", lambda x, y: HistGradientBoostingRegressor(max_iter=20).fit(x, x[:, 1])),
    "histogram counts": ("value", lambda x, y: HistGradientBoostingRegressor(loss="poisson", max_iter=9).fit(x, y)),
    "boosting": ("probability", lambda x, y: GradientBoostingClassifier(n_estimators=9).fit(x, y)),
    "pipeline": ("probability", lambda x, y: make_pipeline(StandardScaler(), LogisticRegression()).fit(x, y)),
    "ridge": ("value", lambda x, y: Ridge().fit(x, y)),
    "xgboost": ("probability", lambda x, y: xgboost.XGBClassifier(n_estimators=9).fit(x, y)),
    "booster": ("probability", lambda x, y: xgboost.train({"objective": "binary:logistic"}, xgboost.DMatrix(x, y), 9)),
    "lightgbm": ("probability", lambda x, y: lightgbm.LGBMClassifier(n_estimators=9, verbose=-1).fit(x, y)),
    "lightgbm texts": ("class", lambda x, y: lightgbm.LGBMClassifier(n_estimators=9, verbose=-1).fit(x, TEXTS[y])),
    "torch": ("probability", lambda _x, _y: net()),
}
TEXTS = np.array(["on time", "late"])


def saved(model, frame, store, output="probability", tolerance="1e-05", **more):
    facts = {"label": "late", "output": output, "compile": {"format": "onnx", "tolerance": tolerance}, **more}
    return codec.save(Fitted(model, frame.head(200), frame.tail(400), chosen=NAMES), "m", store, facts).version.manifest


@pytest.mark.parametrize("name", MADE)
def test_a_compiled_model_answers_as_the_fitted_one_and_is_what_a_worker_loads(name, data, tmp_path):
    rows, label, frame = data
    output, make = MADE[name]
    store = open_store(tmp_path / "store")
    manifest = saved(make(rows, label), frame, store, output)
    said = manifest["compiled"]
    assert said["verified"], said
    assert (said["rows"], said["of"], said["reason"]) == (400, "holdout", "")
    folder = materialize(manifest, store, tmp_path / "model")
    compiled, native = load(folder), load_native(folder)
    assert (compiled.engine, native.engine) == ("onnx", "native")
    columns = {n: frame[n].to_list() for n in NAMES}
    ours, theirs = compiled.scores(columns), native.scores(columns)
    assert ours.shape == theirs.shape
    if output == "class":
        assert ours.tolist() == theirs.tolist()
    else:
        assert ours.dtype == theirs.dtype
        assert ours == pytest.approx(theirs, abs=1e-5)
    assert float(said["difference"]) <= 1e-5


def test_values_beside_a_threshold_go_the_same_way(tmp_path):
    """In single precision they would not: neighbours of a threshold are one number there."""
    rng = np.random.default_rng(0)
    rows = rng.integers(0, 40, size=(2000, 1)) / 3.0
    label = np.sin(rows[:, 0] * 40) * 100
    model = HistGradientBoostingRegressor(max_iter=50, max_leaf_nodes=63, min_samples_leaf=1).fit(rows, label)
    cuts = np.unique([n["num_threshold"] for (t,) in model._predictors for n in t.nodes if not n["is_leaf"]])
    near = np.concatenate([cuts, np.nextafter(cuts, -np.inf), np.nextafter(cuts, np.inf)])
    frame = pl.DataFrame({"f0": near, "late": np.zeros(len(near))})
    facts = {"label": "late", "output": "value", "compile": {"format": "onnx", "tolerance": "1e-9"}, "columns": ["f0"]}
    store = open_store(tmp_path / "store")
    manifest = codec.save(Fitted(model, frame, frame, chosen=["f0"]), "m", store, facts).version.manifest
    assert manifest["compiled"]["verified"], manifest["compiled"]
    answer = load(materialize(manifest, store, tmp_path / "model")).scores({"f0": near})
    assert answer == pytest.approx(model.predict(near[:, None]), abs=1e-9)


def test_a_pipeline_that_selects_by_name_gets_its_columns(data, tmp_path):
    rows, label, frame = data
    texts = pl.Series("f4", np.array(["a", "b", "c"])[(rows[:, 4] * 10).astype(int) % 3])
    frame = frame.with_columns(texts)
    steps = ColumnTransformer(
        [("n", StandardScaler(), NAMES[:4]), ("c", OneHotEncoder(handle_unknown="ignore"), ["f4"])]
    )
    model = make_pipeline(steps, LogisticRegression()).fit(frame.drop("late").to_pandas(), label)
    store = open_store(tmp_path / "store")
    manifest = saved(model, frame, store)
    assert manifest["compiled"]["verified"], manifest["compiled"]
    folder = materialize(manifest, store, tmp_path / "model")
    columns = {n: frame[n].to_list() for n in NAMES} | {"f4": ["unheard of", *frame["f4"].to_list()[1:]]}
    assert load(folder).scores(columns) == pytest.approx(load_native(folder).scores(columns), abs=1e-9)


def test_missing_values_are_taken_where_the_model_takes_them_and_refused_where_it_does(data, tmp_path):
    rows, label, frame = data
    store = open_store(tmp_path / "store")
    holed = {n: [None if n == "f2" else 0.3] for n in NAMES}
    taken = materialize(
        saved(HistGradientBoostingClassifier(max_iter=9).fit(rows, label), frame, store), store, tmp_path / "a"
    )
    assert load(taken).scores(holed) == pytest.approx(load_native(taken).scores(holed))
    manifest = saved(LogisticRegression().fit(rows, label), frame, store)
    assert manifest["compiled"]["missing"] == "refused"
    with pytest.raises(InvalidInput, match="missing"):
        load(materialize(manifest, store, tmp_path / "b")).scores(holed)


def test_a_model_that_differs_is_served_as_it_was_fitted(data, tmp_path):
    rows, label, frame = data
    store = open_store(tmp_path / "store")
    manifest = saved(
        lightgbm.LGBMClassifier(n_estimators=9, verbose=-1).fit(rows, label), frame, store, tolerance="0.0"
    )
    said = manifest["compiled"]
    assert not said["verified"]
    assert "more than 0" in said["reason"]
    assert "model.onnx" not in manifest["files"]
    assert load(materialize(manifest, store, tmp_path / "m")).engine == f"native ({said['reason']})"


def test_classes_must_be_the_same_whatever_the_tolerance():
    assert verifying._differ(np.array(["a", "b"]), np.array(["a", "c"]), 1.0) == "1 of 2 rows have another class"
    assert verifying._differ(np.array([1, 2]), np.array([1, 2]), 0.0) == ""
    assert "off by inf" in verifying._differ(np.array([1.0, 2.0]), np.array([1.0, np.nan]), 0.5)
    assert "answers" in verifying._differ(np.ones((2, 2)), np.ones(2), 0.5)


def test_a_model_that_no_converter_knows_is_no_error(data, tmp_path):
    rows, label, frame = data
    store = open_store(tmp_path / "store")
    model = make_pipeline(FunctionTransformer(np.abs), LogisticRegression()).fit(rows, label)
    manifest = saved(model, frame, store)
    assert not manifest["compiled"]["verified"]
    assert "converted" in manifest["compiled"]["reason"]
    assert load(materialize(manifest, store, tmp_path / "m")).engine.startswith("native (it cannot be converted")


def test_the_same_training_gives_the_same_version(data, tmp_path):
    rows, label, frame = data
    store = open_store(tmp_path / "store")
    once, again = (
        saved(HistGradientBoostingClassifier(max_iter=5, random_state=0).fit(rows, label), frame, store)
        for _ in range(2)
    )
    assert once == again
    card = json.loads((materialize(once, store, tmp_path / "m") / "everloop.json").read_bytes())
    assert card["compiled"] == once["compiled"]


def test_a_tolerance_is_a_small_number():
    assert Onnx().manifest() == {"format": "onnx", "tolerance": "1e-05"}
    for wrong in (-1.0, 2.0, float("nan")):
        with pytest.raises(DefinitionError):
            Onnx(wrong)
