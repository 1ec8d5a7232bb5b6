"""Real gateways and workers over HTTP."""

import asyncio
import contextlib
import json
import subprocess
import sys
import time
from collections import Counter

import numpy as np
import psutil
import pytest
import serving_models
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from serving_house import Caller, bound, folder_of, logged, one_row, revision
from sklearn.ensemble import HistGradientBoostingClassifier
from threadpoolctl import threadpool_limits

from everloop.core.signing import SigningKey
from everloop.serving import table as tables
from everloop.serving.table import Route

FIRST, SECOND = f"b3:{1:064x}", f"b3:{2:064x}"


def route(*revisions, **more):
    return Route("shop", "delay", list(revisions), **more)


@pytest.fixture(scope="module")
def moody(tmp_path_factory):
    """One gateway for the tests that leave it as it was."""
    from serving_house import Place

    place = Place(tmp_path_factory.mktemp("moody"))
    place.serve(route(revision(folder_of(place.home, "m1", serving_models.Moody()), 1), deadline_micros=5_000_000))
    yield place.gateway().ready()
    place.close()


def infer(gateway, body, path="/v2/models/shop.delay/infer", **headers):
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return gateway.client.post(path, content=content, headers=headers)


def tensors(distances=(1.5,), **more):
    n = len(distances)
    return {
        "inputs": [
            {"name": "distance", "shape": [n], "datatype": "FP64", "data": list(distances)},
            {"name": "hour", "shape": [n, 1], "datatype": "INT64", "data": [[1]] * n},
            {"name": "carrier", "shape": [n], "datatype": "BYTES", "data": ["AA"] * n},
        ],
        **more,
    }


def test_open_inference_protocol_in_json(moody):
    answer = infer(moody, tensors((1.5, 2.5), id="mine"))
    body = answer.json()
    assert answer.status_code == 200
    assert body["id"] == "mine"
    assert body["model_name"] == "shop.delay"
    assert body["model_version"] == "1"
    assert body["outputs"][0] == {"name": "echo", "shape": [2], "datatype": "FP64", "data": [1.5, 2.5]}
    assert body["parameters"]["revision"] == FIRST == answer.headers["everloop-revision"]
    assert body["parameters"]["prediction_id"] == answer.headers["everloop-prediction-id"]


def test_open_inference_protocol_in_binary(moody):
    text = b"".join(len(t).to_bytes(4, "little") + t for t in (b"AA", b"UA"))
    parts = [np.array([1.5, 2.5]).tobytes(), np.array([1, 2], np.int64).tobytes(), text]
    head = {
        "parameters": {"binary_data_output": True},
        "inputs": [
            {"name": n, "shape": [2], "datatype": d, "parameters": {"binary_data_size": len(p)}}
            for n, d, p in zip(("distance", "hour", "carrier"), ("FP64", "INT64", "BYTES"), parts, strict=True)
        ],
        "outputs": [{"name": "carrier", "parameters": {"binary_data": False}}, {"name": "echo"}],
    }
    encoded = json.dumps(head).encode()
    length = {"inference-header-content-length": str(len(encoded))}
    answer = infer(moody, encoded + b"".join(parts), **length)
    assert answer.status_code == 200, answer.text
    size = int(answer.headers["inference-header-content-length"])
    said = json.loads(answer.content[:size])
    assert said["outputs"][0]["data"] == ["AA", "UA"]
    assert said["outputs"][1]["parameters"] == {"binary_data_size": 16}
    assert np.frombuffer(answer.content[size:]).tolist() == [1.5, 2.5]


def test_metadata_health_and_versions(moody):
    get = moody.client.get
    assert get("/v2/health/live").json() == {"live": True}
    assert get("/v2/health/ready").json() == {"live": True, "ready": True}
    assert get("/v2").json()["extensions"] == ["binary_tensor_data", "model_repository"]
    assert get("/v2/").json() == get("/v2").json()
    said = get("/v2/models/shop.delay").json()
    assert [i["name"] for i in said["inputs"]] == ["distance", "hour", "carrier"]
    assert [o["name"] for o in said["outputs"]] == ["echo", "carrier"]
    assert get("/v2/models/shop.delay/versions/1/ready").json() == {"name": "shop.delay", "ready": True}
    assert infer(moody, tensors(), "/v2/models/shop.delay/versions/1/infer").status_code == 200


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/v2/models/shop.delay/infer", b"{", 400),
        ("/v2/models/shop.delay/infer", b"[]", 400),
        ("/v2/models/shop.delay/infer", {"inputs": []}, 400),
        ("/v2/models/shop.delay/infer", {"inputs": [{"name": "distance"}]}, 400),
        ("/v2/models/shop.delay/infer", tensors(outputs=[{"name": "nothing"}]), 400),
        ("/v2/models/shop.delay/infer", {"inputs": tensors()["inputs"][:2]}, 400),
        (
            "/v2/models/shop.delay/infer",
            {"inputs": [*tensors()["inputs"][:2], {**tensors()["inputs"][2], "shape": [9]}]},
            400,
        ),
        ("/v2/models/shop.delay/infer", {"inputs": [{**tensors()["inputs"][0], "datatype": "FP99"}]}, 400),
        ("/v2/models/shop.delay/versions/7/infer", tensors(), 404),
        ("/v2/models/nobody.here/infer", tensors(), 404),
        ("/v2/no/such/path", None, 404),
    ],
)
def test_every_error_of_the_protocol_has_its_one_form(moody, path, body, status):
    answer = moody.client.get(path) if body is None else infer(moody, body, path)
    assert answer.status_code == status
    assert list(answer.json()) == ["error"]


def test_wrong_methods(moody):
    assert moody.client.get("/v2/models/shop.delay/infer").status_code == 405
    assert moody.client.post("/v2/health/live").status_code == 405
    unknown = moody.client.post("/v2/models/shop.delay/nothing")
    assert (unknown.status_code, list(unknown.json())) == (404, ["error"])


ROWS = [[100.0, 3, "AA"], [200.0, 4, "UA"]]
NAMES = ["distance", "hour", "carrier"]


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ({"dataframe_split": {"columns": NAMES, "data": ROWS}}, "application/json"),
        (
            {"dataframe_records": [dict(zip(NAMES, row, strict=True)) for row in ROWS]},
            "application/json; charset=utf-8",
        ),
        ({"instances": [dict(zip(NAMES, row, strict=True), extra=1) for row in ROWS]}, "application/json"),
        ({"inputs": {name: [row[i] for row in ROWS] for i, name in enumerate(NAMES)}}, "application/json"),
        ({"inputs": ROWS}, "application/json"),
        (b"carrier,distance,hour\nAA,100,3\nUA,200,4\n", "text/csv"),
    ],
)
def test_invocations(moody, body, kind):
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    path = "/endpoints/shop/delay/invocations"
    answer = moody.client.post(path, content=content, headers={"content-type": kind})
    assert answer.status_code == 200, answer.text
    assert answer.json()["predictions"] == [{"echo": 100.0, "carrier": "AA"}, {"echo": 200.0, "carrier": "UA"}]


@pytest.mark.parametrize(
    ("content", "kind", "status"),
    [
        (b"{}", "application/json", 400),
        (b'{"inputs": [], "instances": []}', "application/json", 400),
        (b'{"dataframe_split": {"columns": ["distance"], "data": [[1]]}}', "application/json", 400),
        (b'{"inputs": {"distance": ["far"], "hour": [1], "carrier": ["AA"]}}', "application/json", 400),
        (b'{"inputs": {"distance": [1], "hour": [1.5], "carrier": ["AA"]}}', "application/json", 400),
        (b"{}", "application/json; charset=latin-1", 415),
        (b"x", "application/x-who-knows", 415),
        (b"distance\nfar\n", "text/csv", 400),
    ],
)
def test_errors_of_invocations_have_mlflows_form(moody, content, kind, status):
    path = "/endpoints/shop/delay/invocations"
    answer = moody.client.post(path, content=content, headers={"content-type": kind})
    assert answer.status_code == status
    assert set(answer.json()) == {"error_code", "message"}


def test_a_path_that_no_endpoint_has_is_answered_in_the_same_form(moody):
    for path in ("/endpoints/shop/delay/predictions", "/endpoints/shop/delay", "/endpoints/shop/delay/a/b"):
        answer = moody.client.post(path, json=one_row())
        assert (answer.status_code, answer.json()["error_code"]) == (404, "RESOURCE_DOES_NOT_EXIST")
    wrong = moody.client.post("/endpoints/shop/delay/predict?explain=perhaps", json=one_row())
    assert (wrong.status_code, wrong.json()["error_code"]) == (400, "BAD_REQUEST")


def test_probes_of_the_scoring_protocol(moody):
    for leaf in ("ping", "health"):
        assert moody.client.get(f"/endpoints/shop/delay/{leaf}").text == "\n"
    assert moody.client.get("/endpoints/shop/delay/version").text.count(".") == 2


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from([*NAMES, "x"]), inner, max_size=4),
    max_leaves=12,
)
tensor = st.fixed_dictionaries(
    {"name": st.sampled_from([*NAMES, "x"]) | json_values},
    optional={
        "shape": st.lists(st.integers(-1, 3), max_size=3) | json_values,
        "datatype": st.sampled_from(["FP64", "INT8", "BYTES", "BOOL", "FP16", "UINT64"]) | json_values,
        "data": json_values,
        "parameters": st.dictionaries(st.just("binary_data_size"), st.integers(-1, 9)) | json_values,
    },
)
oip_bodies = st.fixed_dictionaries({"inputs": st.lists(tensor, max_size=4) | json_values})
scoring_bodies = st.dictionaries(
    st.sampled_from(["dataframe_split", "dataframe_records", "instances", "inputs"]),
    json_values | st.fixed_dictionaries({"columns": st.lists(st.sampled_from(NAMES)), "data": json_values}),
    max_size=2,
)


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=oip_bodies | scoring_bodies | json_values, tail=st.binary(max_size=20), cut=st.integers(0, 40) | st.none())
def test_no_body_makes_the_gateway_fail(moody, body, tail, cut):
    content = json.dumps(body).encode() + (tail if cut is not None else b"")
    length = {} if cut is None else {"inference-header-content-length": str(len(content) - len(tail) + (cut > 38))}
    for path in ("/v2/models/shop.delay/infer", "/endpoints/shop/delay/predict", "/endpoints/shop/delay/invocations"):
        answer = moody.client.post(path, content=content, headers={**length, "content-type": "application/json"})
        assert answer.status_code in (200, 400, 415), answer.text
        if answer.status_code != 200:
            assert list(answer.json()) in (["error"], ["error_code", "message"])


def test_what_a_model_raises_is_one_clear_error(moody):
    answer = moody.predict(one_row(-1))
    assert answer.status_code == 500
    assert "no negative distances" in answer.json()["message"]


def test_one_poisoned_request_fails_alone_in_its_batch(moody):
    async def together():
        loop = asyncio.get_running_loop()
        rows = [-4.0] + [float(n) for n in range(10)] + [-1.0]
        return await asyncio.gather(*(loop.run_in_executor(None, moody.predict, one_row(row)) for row in rows))

    statuses = [answer.status_code for answer in asyncio.run(together())]
    assert statuses == [200] * 11 + [500]


def test_a_worker_that_dies_or_hangs_is_replaced(moody):
    assert moody.predict(one_row(-2)).status_code == 503
    assert moody.predict(one_row(1)).status_code == 200
    assert moody.predict(one_row(-3)).status_code == 503
    assert moody.predict(one_row(2)).status_code == 200


def test_event_time_is_refused_outside_a_replay(moody):
    answer = moody.predict(one_row(), **{"everloop-time": "2013-05-01T12:00:00Z"})
    assert answer.status_code == 400
    assert "replay" in answer.json()["message"]


def test_other_names_and_other_sites_are_refused_on_loopback(moody):
    assert moody.predict(one_row(), host="evil.example").status_code == 403
    assert moody.predict(one_row(), origin="https://evil.example").status_code == 403
    assert infer(moody, tensors(), host="evil.example").json()["error"]


def test_a_replay_takes_event_time_from_the_request(place):
    place.serve(route(revision(folder_of(place.home, "m1", serving_models.Constant(1.0)), 1)), replay=True)
    gateway = place.gateway().ready()
    identity = gateway.predict(one_row(), **{"everloop-time": "2013-05-01T12:00:00Z"}).json()["prediction_id"]
    (entry,) = logged(place.home)
    assert (entry.id, entry.at) == (identity, 1_367_409_600_000_000)
    assert gateway.predict(one_row(), **{"everloop-time": "soon"}).status_code == 400


def test_addresses_beyond_loopback_need_a_token(place):
    import hashlib

    tokens = {hashlib.sha256(b"good").hexdigest(): ["shop"], hashlib.sha256(b"other").hexdigest(): ["else"]}
    place.serve(route(revision(folder_of(place.home, "m1", serving_models.Constant(1.0)), 1)), tokens=tokens)
    gateway = place.gateway(listener=bound("0.0.0.0"))
    place.until(lambda s: s["sequence"] == 1)
    statuses = [
        gateway.predict(one_row(), **h).status_code
        for h in (
            {},
            {"authorization": "Bearer bad"},
            {"authorization": "Bearer other"},
            {"authorization": "Bearer good"},
        )
    ]
    assert statuses == [401, 401, 403, 200]


def test_tables_that_are_unsigned_or_foreign_are_refused_and_the_old_one_serves_on(place):
    table = place.serve(route(revision(folder_of(place.home, "m1", serving_models.Constant(1.0)), 1)))
    gateway = place.gateway().ready()
    tables.write(place.home / "serving" / "routes.json", table, SigningKey.generate())
    place.until(lambda s: "signature" in s["problems"].get("table", ""))
    assert gateway.predict(one_row()).json()["predictions"] == [1.0]
    (place.home / "serving" / "routes.json").write_text(json.dumps({"sequence": 9}))
    place.until(lambda s: "envelope" in s["problems"].get("table", ""))
    assert gateway.predict(one_row()).status_code == 200


def test_canary_share_stickiness_and_override(place):
    one = folder_of(place.home, "m1", serving_models.Constant(1.0))
    two = folder_of(place.home, "m2", serving_models.Constant(2.0))
    place.serve(route(revision(two, 2, weight=20), revision(one, 1, weight=80)))
    gateway = place.gateway().ready()

    def asked(**headers):
        return gateway.predict(one_row(), **headers).json()["predictions"][0]

    share = Counter(asked() for _ in range(600))
    assert 70 <= share[2.0] <= 180  # 120 expected; five standard deviations
    keyed = {f"user-{n}": asked(**{"everloop-sticky": f"user-{n}"}) for n in range(60)}
    assert keyed == {key: asked(**{"everloop-sticky": key}) for key in keyed}
    assert asked(**{"everloop-revision": "2"}) == 2.0
    assert asked(**{"everloop-revision": FIRST}) == 1.0
    assert gateway.predict(one_row(), **{"everloop-revision": "9"}).status_code == 404
    place.serve(route(revision(two, 2, weight=60), revision(one, 1, weight=40)))
    gateway.ready()
    grown = {key: asked(**{"everloop-sticky": key}) for key in keyed}
    assert all(grown[key] == 2.0 for key, value in keyed.items() if value == 2.0)  # nobody goes back


def test_the_previous_revision_answers_when_the_chosen_one_fails(place):
    good = folder_of(place.home, "m1", serving_models.Constant(1.0))
    bad = folder_of(place.home, "m2", serving_models.BrokenLater())
    place.serve(route(revision(bad, 2, weight=100), revision(good, 1, weight=0)))
    gateway = place.gateway().ready()
    answer = gateway.predict(one_row(5.0))
    assert answer.json()["predictions"] == [1.0]
    assert answer.json()["fallback"] is True
    assert answer.headers["everloop-fallback"] == "true"
    assert logged(place.home)[-1].fallback == SECOND
    counted = place.until(lambda s: s["endpoints"]["shop.delay"][SECOND]["fallbacks"])["endpoints"]["shop.delay"]
    assert (counted[SECOND]["fallbacks"], counted[FIRST]["requests"]) == (1, 1)


def test_a_revision_that_cannot_load_leaves_the_endpoint_as_it_was(place):
    good = folder_of(place.home, "m1", serving_models.Constant(1.0))
    place.serve(route(revision(good, 1)))
    gateway = place.gateway().ready()
    bad = folder_of(place.home, "m2", serving_models.Broken())
    place.serve(route(revision(bad, 2, weight=100), revision(good, 1, weight=0)))
    told = place.until(lambda s: SECOND in s["problems"])
    assert "another planet" in told["problems"][SECOND]
    assert gateway.predict(one_row()).json()["predictions"] == [1.0]


def test_no_request_is_dropped_while_revisions_change(place):
    folders = [folder_of(place.home, f"m{n}", serving_models.Constant(float(n))) for n in range(1, 5)]
    place.serve(route(revision(folders[0], 1)))
    gateway = place.gateway().ready()

    async def story():
        caller, done = Caller(gateway.port, 6), asyncio.Event()
        load = asyncio.create_task(caller.run(done))
        for number in (2, 3, 4):
            await asyncio.sleep(0.3)
            place.serve(
                route(revision(folders[number - 1], number), revision(folders[number - 2], number - 1, weight=0))
            )
            await asyncio.to_thread(gateway.ready)
        await asyncio.sleep(0.3)
        done.set()
        await load
        return caller

    caller = asyncio.run(story())
    assert set(caller.statuses) == {200}
    assert caller.lost == 0
    assert len(caller.ids) > 100
    assert len(set(caller.revisions)) == 4
    assert {entry.id for entry in logged(place.home)} >= set(caller.ids)


def test_kill_9_of_gateway_and_worker_loses_no_acknowledged_prediction(place):
    place.serve(route(revision(folder_of(place.home, "m1", serving_models.Constant(1.0)), 1)))
    gateway = place.gateway().ready()

    async def story():
        caller, done = Caller(gateway.port, 6), asyncio.Event()
        load = asyncio.create_task(caller.run(done))
        for _ in range(3):
            await asyncio.sleep(0.4)
            with contextlib.suppress(psutil.NoSuchProcess, KeyError):  # counters of the gateway before, or none yet
                psutil.Process(place.stats()["endpoints"]["shop.delay"][FIRST]["pid"]).kill()
            await asyncio.sleep(0.6)
            await asyncio.to_thread(gateway.kill)
            gateway.restart()
            await asyncio.sleep(1.2)
        done.set()
        await load
        return caller

    caller = asyncio.run(story())
    ids = [entry.id for entry in logged(place.home)]
    assert len(caller.ids) > 60
    assert set(caller.ids) <= set(ids)
    assert len(ids) == len(set(ids))
    assert set(caller.statuses) <= {200, 503}


def test_a_gateway_is_small_and_loads_no_heavy_library(place):
    rng = np.random.default_rng(7)
    table = rng.normal(size=(300, 2))
    with threadpool_limits(1):
        fitted = HistGradientBoostingClassifier(max_iter=20).fit(table, table[:, 0] > 0)
    folder = folder_of(place.home, "m1", serving_models.Estimator(fitted, ("distance", "hour")))
    place.serve(route(revision(folder, 1)))
    gateway = place.gateway().ready()
    assert gateway.predict(one_row()).status_code == 200
    processes = [psutil.Process(gateway.process.pid), *psutil.Process(gateway.process.pid).children()]
    assert len(processes) == 2
    assert sum(process.memory_full_info().pss for process in processes) <= 220e6
    script = "import sys, everloop.serving.gateway.process; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    heavy = {
        "sqlalchemy",
        "polars",
        "mlflow",
        "duckdb",
        "pyarrow",
        "scipy",
        "sklearn",
        "pandas",
        "pydantic",
        "starlette",
    }
    assert not heavy & set(loaded)


def test_orphaned_workers_end_with_their_gateway(place):
    place.serve(route(revision(folder_of(place.home, "m1", serving_models.Moody()), 1)))
    gateway = place.gateway().ready()
    (worker,) = psutil.Process(gateway.process.pid).children()
    gateway.kill()
    end = time.monotonic() + 5
    while worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE and time.monotonic() < end:
        time.sleep(0.05)
    assert not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE
