"""Explanations beside answers: who may ask, what the log keeps, what happens when there is no time."""

import json
import time

import grpc
import numpy as np
import polars as pl
import pytest
from serving_house import logged, revision
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from everloop.core.errors import DefinitionError, PermissionDenied
from everloop.models.codec import codec
from everloop.models.predictor import materialize
from everloop.models.training import Fitted
from everloop.serving.definitions import EndpointDef, Explain
from everloop.serving.erasure.segments import blanked
from everloop.serving.explaining.loader import LOADER as EXPLAINING
from everloop.serving.gateway.access import Door
from everloop.serving.graph.nodes import Ensemble
from everloop.serving.protocol.rpc.messages import SERVICE, message
from everloop.serving.table import LOADER, Explainer, Part, Route, Table
from everloop.store import open_store

NAMES = ["a", "b", "c"]
COLUMNS = [[name, "FP64"] for name in NAMES]
ROW = {"a": 0.5, "b": -1.0, "c": 2.0}


def served(place, model, budget_micros=5_000_000, rows=4):
    store = open_store(place.home / "store")
    table = np.random.default_rng(1).normal(size=(300, 3))
    label = (table[:, 0] > 0).astype(int)
    frame = pl.DataFrame({**{n: table[:, i] for i, n in enumerate(NAMES)}, "late": label})
    fitted = Fitted(model.fit(table, label), frame, frame, chosen=NAMES)
    saved = codec.save(fitted, "m", store, {"label": "late", "output": "probability"})
    folder = str(materialize(saved.version.manifest, store, place.home / "model"))
    example = {n: [0.5] for n in NAMES}
    part = Part(folder, EXPLAINING, COLUMNS, example, budget_micros=budget_micros)
    more = {"inputs": COLUMNS, "caller": COLUMNS, "example": example, "loader": LOADER}
    place.serve(
        Route("shop", "delay", [revision(folder, 1, explainer=Explainer(part, NAMES, rows), **more)]),
        Route("shop", "plain", [revision(folder, 2, **more)]),
    )
    return place.gateway().ready()


def asked(gateway, row, address="/endpoints/shop/delay/predict?explain=true"):
    return gateway.client.post(address, json=row)


def explained(gateway, row, address="/endpoints/shop/delay/predict?explain=true"):
    """Ask until the explainer has started."""
    end = time.monotonic() + 30
    while time.monotonic() < end:
        answer = asked(gateway, row, address).json()
        said = answer.get("explanation") or answer["parameters"]["explanation"]
        if isinstance(said, list):
            return answer, said
    raise AssertionError(answer)


def test_an_answer_comes_with_its_explanation_and_the_log_keeps_it(place):
    gateway = served(place, LogisticRegression())
    assert place.stats()["endpoints"]["shop.delay"][f"b3:{1:064x}"]["explainer"]["state"] == "asleep"
    answer, (told,) = explained(gateway, ROW)
    assert told["method"] == "linear, log-odds"
    margin = told["base"] + sum(told["values"].values())
    assert 1 / (1 + np.exp(-margin)) == pytest.approx(answer["predictions"][0])
    assert told["output"] == pytest.approx(margin)
    kept = next(entry for entry in logged(place.home) if entry.id == answer["prediction_id"])
    assert kept.explanation() == [told]
    plain = gateway.predict(ROW).json()
    assert "explanation" not in plain
    assert next(entry for entry in logged(place.home) if entry.id == plain["prediction_id"]).explained is None
    body = {"inputs": [{"name": n, "shape": [2], "datatype": "FP64", "data": [v, v]} for n, v in ROW.items()]}
    body["parameters"] = {"explain": True}
    _, both = explained(gateway, body, "/v2/models/shop.delay/infer")
    assert both == [told, told]
    request = message("ModelInferRequest")(model_name="shop.delay")
    for name, value in ROW.items():
        request.inputs.add(name=name, datatype="FP64", shape=[1]).contents.fp64_contents.append(value)
    request.parameters["explain"].bool_param = True
    with grpc.insecure_channel(f"127.0.0.1:{gateway.port}") as channel:
        call = channel.unary_unary(f"/{SERVICE}/ModelInfer", None, message("ModelInferResponse").FromString)
        over_grpc = call(request.SerializeToString(), timeout=20).parameters["explanation"].string_param
    assert json.loads(over_grpc) == [told]
    erased = blanked(kept, [0])
    assert set(erased.explanation()[0]["values"].values()) == {0.0}
    assert erased.explanation()[0]["base"] == 0.0


def test_what_takes_longer_than_its_budget_is_left_out_and_said(place):
    gateway = served(place, make_pipeline(StandardScaler(), LogisticRegression()), budget_micros=20)
    end = time.monotonic() + 20  # first it starts, then the way to a worker alone takes too long
    said = asked(gateway, ROW).json()["explanation"]
    while time.monotonic() < end and "starting" in said["left_out"]:
        time.sleep(0.1)
        said = asked(gateway, ROW).json()["explanation"]
    assert said == {"left_out": "it took longer than its budget"}
    assert len(asked(gateway, ROW).json()["predictions"]) == 1
    many = asked(gateway, {n: [v] * 5 for n, v in ROW.items()}).json()
    assert "more than the 4" in many["explanation"]["left_out"]
    assert len(many["predictions"]) == 5


def test_an_endpoint_that_does_not_explain_says_so(place):
    gateway = served(place, LogisticRegression())
    refused = asked(gateway, ROW, "/endpoints/shop/plain/predict?explain=true")
    assert refused.status_code == 400
    assert "el.Explain()" in refused.json()["message"]


def test_beyond_loopback_a_token_must_allow_it():
    digest = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"  # of "test"
    door, headers = Door("10.0.0.1"), {b"authorization": b"Bearer test"}
    table = Table(1, "production", [], tokens={digest: ["*"]})
    with pytest.raises(PermissionDenied, match=r"endpoint\.explain"):
        door.check_explaining(headers, table)
    door.check_explaining(headers, Table(1, "production", [], tokens={digest: ["*"]}, explaining=[digest]))
    Door("127.0.0.1").check_explaining({}, table)


def test_an_author_says_how_long_and_how_many():
    said = EndpointDef("delay", graph="delay", explain=Explain(budget="50ms", rows=8)).manifest()["explain"]
    assert said == {"budget_micros": 50_000, "rows": 8}
    assert "explain" not in EndpointDef("delay", graph="delay").manifest()
    with pytest.raises(DefinitionError, match="more than a look-up and a model"):
        EndpointDef("delay", graph=Ensemble("mean", a="x", b="y"), explain=Explain())
    with pytest.raises(DefinitionError):
        Explain(rows=0)
