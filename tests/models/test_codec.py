"""Packaging: one format that mlflow's own client loads, equal bytes for equal models, honest refusals."""

import json
import subprocess
import sys
import textwrap
import warnings

import numpy as np
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from everloop.core.errors import CorruptObject, InvalidInput, NotFound
from everloop.models.codec import codec, probe
from everloop.models.predictor import load, materialize
from everloop.models.training import Fitted


def arrays(frame):
    return frame.drop("late").to_numpy(), frame["late"].to_numpy()


def fitted(estimator, training, holdout=None):
    return Fitted(estimator.fit(*arrays(training)), training, holdout)


def logistic():
    return make_pipeline(SimpleImputer(), StandardScaler(), LogisticRegression())


ESTIMATORS = {
    "forest": lambda: RandomForestClassifier(20, random_state=0),
    "boosting": lambda: HistGradientBoostingClassifier(max_iter=20, random_state=0),
    "pipeline": logistic,
}


@pytest.mark.parametrize("make", ESTIMATORS.values(), ids=ESTIMATORS)
def test_a_model_is_saved_and_loaded_and_measured(make, frames, facts, store, tmp_path):
    training, holdout = frames
    value = fitted(make(), training, holdout)
    saved = codec.save(value, "delay", store, facts)
    manifest = saved.version.manifest
    assert 0.6 < float(manifest["metrics"]["roc_auc"]) < 0.95
    assert manifest["metrics"].keys() == {"roc_auc", "pr_auc", "log_loss", "brier", "ece", "accuracy"}
    assert manifest["signature"]["inputs"][2] == {"name": "flow__count_1h", "type": "long"}
    assert (manifest["frame"], manifest["holdout"]) == (facts["inputs"]["frame"], facts["inputs"]["holdout"])
    predictor = load(materialize(manifest, store, tmp_path / "model"))
    rows = {name: holdout[name].to_list() for name in holdout.columns}
    expected = value.estimator.predict_proba(arrays(holdout)[0])[:, 1]
    again = predictor.predict(rows)["prediction"]
    np.testing.assert_allclose(again, expected, rtol=1e-12)  # BLAS adds up a row-major matrix in another order
    assert np.array_equal(predictor.scores(holdout), again)
    assert np.array_equal(codec.load(manifest, store, {}).scores(holdout), again)
    assert len(next(iter(probe(manifest, store).values()))) == 64


TRAIN_AGAIN = """
import sys
sys.path.insert(0, {here!r})
from conftest import table, COLUMNS
from test_codec import ESTIMATORS, fitted
from everloop.models.codec import codec
from everloop.store import DirectoryStore
from pathlib import Path
store = DirectoryStore(Path({store!r}))
facts = {{"columns": COLUMNS, "label": "late"}}
for make in ESTIMATORS.values():
    print(codec.save(fitted(make(), table(600, 1), table(300, 2)), "delay", store, facts).version.id)
"""


def test_the_same_training_in_fresh_processes_gives_the_same_id(training, holdout, store, tmp_path):
    from pathlib import Path

    script = textwrap.dedent(TRAIN_AGAIN.format(here=str(Path(__file__).parent), store=str(tmp_path / "other")))
    answers = [
        subprocess.run(
            [sys.executable, "-c", script],
            env={"PYTHONHASHSEED": seed, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()
        for seed in ("0", "17")
    ]
    assert len(answers[0]) == len(ESTIMATORS)
    assert answers[0] == answers[1]


def test_threads_change_the_bytes_but_not_the_digest(training, holdout, facts, store):
    one, two = (
        codec.save(fitted(RandomForestClassifier(20, random_state=0, n_jobs=n), training), "delay", store, facts)
        for n in (1, 2)
    )
    assert one.version.id != two.version.id
    assert one.version.manifest["digest"] == two.version.manifest["digest"]


def test_the_plain_mlflow_client_loads_it(training, holdout, facts, store, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what mlflow says about itself while it is imported
        import mlflow.pyfunc
        import mlflow.sklearn

    value = fitted(HistGradientBoostingClassifier(max_iter=10, random_state=0), training, holdout)
    saved = codec.save(value, "delay", store, facts)
    folder = materialize(saved.version.manifest, store, tmp_path / "model")
    data = holdout.drop("late").to_pandas()
    expected = value.estimator.predict_proba(data.to_numpy())
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="X has feature names")
        model = mlflow.pyfunc.load_model(str(folder))
        assert np.array_equal(model.predict(data), expected)
        assert np.array_equal(mlflow.sklearn.load_model(str(folder)).predict_proba(data.to_numpy()), expected)
    info = mlflow.models.Model.load(str(folder))
    assert [c.name for c in info.signature.inputs.inputs] == facts["columns"]
    assert info.load_input_example(str(folder)).shape == (5, 4)
    assert "scikit-learn==" in (folder / "requirements.txt").read_text()
    with pytest.raises(Exception, match="missing inputs"):
        model.predict(data.drop(columns="hour"))


def test_a_serving_process_loads_neither_mlflow_nor_polars(training, holdout, facts, store, tmp_path):
    frame = training.to_pandas()
    estimator = RandomForestClassifier(5, random_state=0).fit(frame[facts["columns"]].fillna(0.0), frame["late"])
    saved = codec.save(Fitted(estimator, training.fill_null(0.0)), "delay", store, facts)
    folder = materialize(saved.version.manifest, store, tmp_path / "model")
    script = f"""
import sys, warnings
warnings.simplefilter("error")
from everloop.models.predictor import load
p = load({str(folder)!r})
print(p.predict({{"distance": [100], "hour": [8.5], "flow__count_1h": [3], "flow__mean_delay": [2.0]}}))
assert p.frame == ""
heavy = {{"mlflow", "polars", "sqlalchemy", "duckdb"}} & set(sys.modules)  # scikit-learn itself imports pandas
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", script], check=True)


def test_a_model_that_selects_by_name_gets_a_frame(training, holdout, facts, store, tmp_path):
    frame = training.to_pandas()
    chosen = ColumnTransformer([("n", SimpleImputer(), ["hour", "flow__mean_delay"])])
    estimator = make_pipeline(chosen, LogisticRegression()).fit(frame[facts["columns"]], frame["late"])
    saved = codec.save(Fitted(estimator, training, holdout), "delay", store, facts)
    predictor = load(materialize(saved.version.manifest, store, tmp_path / "model"))
    assert predictor.frame == "pandas"
    expected = estimator.predict_proba(holdout.to_pandas()[facts["columns"]])[:, 1]
    assert np.array_equal(predictor.scores(holdout), expected)


def test_a_lambda_inside_needs_cloudpickle_and_says_so(training, facts, store):
    doubled = make_pipeline(FunctionTransformer(lambda x: np.nan_to_num(x) * 2), LogisticRegression(max_iter=5000))
    manifest = codec.save(fitted(doubled, training), "delay", store, facts).version.manifest
    assert manifest["format"] == "cloudpickle"
    assert b"cloudpickle==" in store.get(manifest["files"]["requirements.txt"])


def test_a_class_of_the_project_travels_with_the_model(training, facts, store, tmp_path):
    source = """
        import numpy as np
        from sklearn.base import BaseEstimator, ClassifierMixin
        from own_constants_ab import CHANCE
        class Constant(ClassifierMixin, BaseEstimator):
            def fit(self, X, y):
                self.classes_ = np.array([0, 1]); self.n_features_in_ = X.shape[1]; return self
            def predict_proba(self, X):
                return np.tile([1 - CHANCE, CHANCE], (len(X), 1))
            def predict(self, X):
                return np.zeros(len(X))
    """
    (tmp_path / "own_model_ab.py").write_text(textwrap.dedent(source))
    (tmp_path / "own_constants_ab.py").write_text("CHANCE = 0.25\n")
    sys.path.insert(0, str(tmp_path))
    try:
        import own_model_ab

        manifest = codec.save(fitted(own_model_ab.Constant(), training), "delay", store, facts).version.manifest
    finally:
        sys.path.remove(str(tmp_path))
    assert {"code/own_model_ab.py", "code/own_constants_ab.py"} <= manifest["files"].keys()
    folder = materialize(manifest, store, tmp_path / "model")
    script = f"""
from everloop.models.predictor import load
rows = {{"distance": [1.0], "hour": [1.0], "flow__count_1h": [1], "flow__mean_delay": [0.0]}}
assert load({str(folder)!r}).scores(rows)[0] == 0.25
import mlflow.pyfunc
mlflow.pyfunc.load_model({str(folder)!r})
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", script], check=True, cwd="/")


def test_declared_outputs(training, holdout, facts, store):
    linear = make_pipeline(SimpleImputer(), LinearRegression())
    saved = codec.save(fitted(linear, training, holdout), "delay", store, {**facts, "output": "value"})
    assert saved.metrics.keys() == {"rmse", "mae"}
    for output, shape in (("probabilities", (300, 2)), ("class", (300,))):
        saved = codec.save(fitted(logistic(), training, holdout), "delay", store, {**facts, "output": output})
        assert codec.load(saved.version.manifest, store, {}).scores(holdout).shape == shape
        assert "accuracy" in saved.metrics


@pytest.mark.parametrize(
    "case",
    [
        ("a text", "has no predict", "return the fitted estimator"),
        (LinearRegression, "has no predict_proba", 'output="value"'),
        (lambda: HistGradientBoostingClassifier(max_iter=2), "fitted on 3 columns", "frame.drop"),
    ],
)
def test_what_is_no_model_is_refused_with_a_hint(case, training, facts, store):
    value, message, hint = case
    x, y = arrays(training.fill_null(0.0))
    if callable(value):
        value = value().fit(x[:, :3], y) if "3" in message else value().fit(x, y)
    with pytest.raises(InvalidInput, match=message) as caught:
        codec.save(Fitted(value, training), "delay", store, facts)
    assert hint in caught.value.hint


def test_one_class_and_strange_columns_are_refused(training, facts, store):
    x, y = arrays(training.fill_null(0.0))
    three = LogisticRegression(max_iter=5000).fit(x / 1000, np.arange(len(y)) % 3)
    with pytest.raises(InvalidInput, match="knows 3 classes"):
        codec.save(Fitted(three, training), "delay", store, facts)
    frame = training.fill_null(0.0).to_pandas()
    frame["secret"] = frame["late"]
    leaky = HistGradientBoostingClassifier(max_iter=2).fit(frame[["hour", "secret"]], frame["late"])
    with pytest.raises(InvalidInput, match="'secret', which its feature service does not give"):
        codec.save(Fitted(leaky, training), "delay", store, facts)


def test_a_subset_of_named_columns_is_the_signature(training, facts, store):
    frame = training.to_pandas()
    few = HistGradientBoostingClassifier(max_iter=2).fit(frame[["hour", "distance"]], frame["late"])
    saved = codec.save(Fitted(few, training, training), "delay", store, facts)
    assert [f["name"] for f in saved.version.manifest["signature"]["inputs"]] == ["hour", "distance"]


def test_a_folder_is_written_whole_or_not_at_all(training, facts, store, tmp_path):
    manifest = codec.save(fitted(logistic(), training), "delay", store, facts).version.manifest
    broken = {**manifest, "files": {**manifest["files"], "zz": "b3:" + "0" * 64}}
    with pytest.raises(NotFound):
        materialize(broken, store, tmp_path / "model")
    assert list(tmp_path.glob("*model*")) == []
    with pytest.raises(CorruptObject, match="outside its folder"):
        materialize({**manifest, "files": {"../x": manifest["files"]["MLmodel"]}}, store, tmp_path / "model")
    folder = materialize(manifest, store, tmp_path / "model")
    assert materialize(manifest, store, folder) == folder
    assert json.loads((folder / "everloop.json").read_text())["inputs"] == manifest["signature"]["inputs"]
    (folder / "model.pkl").write_bytes(b"junk")
    with pytest.raises(CorruptObject, match="does not load"):
        load(folder)
    with pytest.raises(NotFound):
        load(tmp_path / "nothing")
