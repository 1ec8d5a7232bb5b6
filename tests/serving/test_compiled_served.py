"""A compiled model behind an endpoint: in a worker, inside the gateway, and where the gateway must not."""

import numpy as np
import polars as pl
import pytest
from serving_house import logged, revision
from sklearn.ensemble import GradientBoostingRegressor, HistGradientBoostingClassifier

from everloop.core.errors import DefinitionError
from everloop.models.codec import codec
from everloop.models.predictor import materialize
from everloop.models.training import Fitted
from everloop.serving.definitions import EndpointDef, Workers
from everloop.serving.table import INLINE, LOADER, Route
from everloop.store import open_store

NAMES = ["a", "b", "c"]
COLUMNS = [[name, "FP64"] for name in NAMES]
ONE = f"b3:{1:064x}"


def served(place, model, output, loader, **route):
    store = open_store(place.home / "store")
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(300, 3))
    label = (rows[:, 0] > 0).astype(int)
    frame = pl.DataFrame({**{n: rows[:, i] for i, n in enumerate(NAMES)}, "late": label})
    fitted = Fitted(model.fit(rows, label), frame, frame, chosen=NAMES)
    facts = {"label": "late", "output": output, "compile": {"format": "onnx", "tolerance": "1e-05"}}
    folder = materialize(codec.save(fitted, "m", store, facts).version.manifest, store, place.home / "model")
    more = {"inputs": COLUMNS, "caller": COLUMNS, "example": {n: [0.5] for n in NAMES}, "loader": loader}
    place.serve(Route("shop", "delay", [revision(str(folder), 1, **more)], **route))
    return place.gateway().ready(), rows, fitted.estimator


def its(place):
    return place.stats()["endpoints"]["shop.delay"][ONE]


@pytest.mark.parametrize("loader", [LOADER, INLINE])
def test_it_answers_as_the_fitted_model_and_says_by_what(place, loader):
    gateway, rows, model = served(place, HistGradientBoostingClassifier(max_iter=9), "probability", loader)
    expected = model.predict_proba(rows)[:, 1]
    one = gateway.predict(dict(zip(NAMES, rows[0].tolist(), strict=True)))
    assert one.json()["predictions"] == pytest.approx(expected[:1])
    many = gateway.predict({n: rows[:, i].tolist() for i, n in enumerate(NAMES)})  # more than are answered on the loop
    assert many.json()["predictions"] == pytest.approx(expected)
    inline = loader == INLINE
    told = place.until(lambda s: s["endpoints"]["shop.delay"][ONE]["requests"] == 2)["endpoints"]["shop.delay"][ONE]
    assert told["workers"][""]["engine"] == ("onnx, in the gateway" if inline else "onnx")
    assert told["workers"][""]["processes"] == (0 if inline else 1)
    assert [entry.id for entry in logged(place.home)] == [one.json()["prediction_id"], many.json()["prediction_id"]]
    assert gateway.predict({"a": 1.0}).status_code == 400
    assert its(place)["errors"] == 0


def test_a_gateway_never_loads_what_is_not_compiled(place):
    """The table says that it may; the folder holds no verified form: a pickle must not run in the gateway."""
    store = open_store(place.home / "store")
    rows = np.random.default_rng(1).normal(size=(300, 3))
    label = (rows[:, 0] + rows[:, 1] > 0).astype(int)
    frame = pl.DataFrame({**{n: rows[:, i] for i, n in enumerate(NAMES)}, "late": label})
    facts = {"label": "late", "output": "value", "compile": {"format": "onnx", "tolerance": "0.0"}}
    forest = GradientBoostingRegressor(n_estimators=9).fit(rows, label)
    manifest = codec.save(Fitted(forest, frame, frame, chosen=NAMES), "m", store, facts).version.manifest
    assert not manifest["compiled"]["verified"]
    folder = materialize(manifest, store, place.home / "model")
    more = {"inputs": COLUMNS, "caller": COLUMNS, "example": {n: [0.5] for n in NAMES}, "loader": INLINE}
    place.serve(Route("shop", "delay", [revision(str(folder), 1, **more)]))
    gateway = place.gateway()
    told = place.until(lambda s: s["endpoints"].get("shop.delay", {}).get(ONE, {}).get("state") == "failed")
    assert "no compiled model" in told["endpoints"]["shop.delay"][ONE]["problem"]
    assert gateway.predict({"a": 1.0, "b": 1.0, "c": 1.0}).status_code == 503


def test_an_author_says_that_models_may_answer_inside():
    assert "inline" not in EndpointDef("delay", graph="delay", workers=Workers(most=2)).manifest()["workers"]
    assert EndpointDef("delay", graph="delay", workers=Workers(inline=True)).manifest()["workers"]["inline"] is True
    with pytest.raises(DefinitionError):
        Workers(least=-1, inline=True)
