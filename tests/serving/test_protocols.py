"""What a gateway speaks beside JSON: Arrow, Parquet, compressed answers, descriptions, the repository, gRPC."""

import gzip
import hashlib
import io
import json
import zlib

import grpc
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import serving_models
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families
from serving_house import bound, folder_of, one_row, revision

from everloop.serving.protocol.rpc.messages import SERVICE, message
from everloop.serving.table import Route

TABLE = pa.table({"distance": [1.5, 2.5], "hour": [1, 2], "carrier": ["AA", "UA"], "more": [0, 0]})
ANSWERS = [{"echo": 1.5, "carrier": "AA"}, {"echo": 2.5, "carrier": "UA"}]


@pytest.fixture(scope="module")
def echo(tmp_path_factory):
    """One gateway for the tests that leave it as it was."""
    from serving_house import Place

    place = Place(tmp_path_factory.mktemp("echo"))
    model = folder_of(place.home, "m1", serving_models.Moody())
    place.serve(Route("shop", "delay", [revision(model, 1)]))
    yield place.gateway().ready()
    place.close()


def stream_of(table):
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def file_of(table):
    sink = io.BytesIO()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def parquet_of(table):
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


def post(gateway, content, leaf="predict", **headers):
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return gateway.client.post(f"/endpoints/shop/delay/{leaf}", content=content, headers=named)


@pytest.mark.parametrize("encode", [stream_of, file_of])
def test_a_table_in_arrow(echo, encode):
    assert post(echo, encode(TABLE)).json()["predictions"] == ANSWERS  # known by its bytes, without a content type
    dictionary = TABLE.set_column(2, "carrier", TABLE["carrier"].dictionary_encode())
    answer = post(echo, encode(dictionary), accept="application/vnd.apache.arrow.stream")
    assert answer.headers["content-type"] == "application/vnd.apache.arrow.stream"
    told = pa.ipc.open_stream(answer.content).read_all()
    assert told.to_pylist() == ANSWERS
    assert json.loads(told.schema.metadata[b"everloop"])["prediction_id"] == answer.headers["everloop-prediction-id"]


def test_a_table_in_parquet(echo):
    kind = {"content_type": "application/vnd.apache.parquet"}
    assert post(echo, parquet_of(TABLE), "invocations", **kind).json()["predictions"] == ANSWERS
    refused = post(echo, b"PAR1 and so on", "invocations", **kind)
    assert refused.status_code == 400
    assert refused.json()["error_code"] == "BAD_REQUEST"


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(0, 2000), byte=st.integers(0, 255), cut=st.integers(0, 2000))
def test_no_damaged_table_makes_the_gateway_fail(echo, place, byte, cut):
    for leaf, content in (("predict", stream_of(TABLE)), ("invocations", parquet_of(TABLE))):
        damaged = bytearray(content)
        damaged[place % len(content)] = byte
        answer = post(
            echo, bytes(damaged[: len(content) - cut % 40]), leaf, content_type="application/vnd.apache.parquet"
        )
        assert answer.status_code in (200, 400), answer.text


@pytest.mark.parametrize(("coding", "undo"), [("gzip", gzip.decompress), ("deflate", zlib.decompress)])
def test_large_answers_are_compressed_for_who_asks(echo, coding, undo):
    many = {name: values * 400 for name, values in {"distance": [1.5], "hour": [1], "carrier": ["AA"]}.items()}
    content = json.dumps(many).encode()
    for wanted, said in ((f"br, {coding}", coding), (f"{coding};q=0", None), ("identity", None)):
        with echo.client.stream(
            "POST", "/endpoints/shop/delay/predict", content=content, headers={"accept-encoding": wanted}
        ) as answer:
            body = b"".join(answer.iter_raw())
        assert answer.headers.get("content-encoding") == said
        assert len(json.loads(undo(body) if said else body)["predictions"]) == 400
    small = post(echo, json.dumps(one_row()).encode(), accept_encoding=coding)
    assert "content-encoding" not in small.headers


def test_an_endpoint_describes_itself(echo):
    told = echo.client.get("/endpoints/shop/delay/openapi.json").json()
    path = told["paths"]["/endpoints/shop/delay/invocations"]["post"]
    for form, example in path["requestBody"]["content"]["application/json"]["examples"].items():
        answer = post(echo, json.dumps(example["value"]).encode(), "invocations", content_type="application/json")
        assert answer.status_code == 200, (form, answer.text)
    plain = told["paths"]["/endpoints/shop/delay/predict"]["post"]
    row = plain["requestBody"]["content"]["application/json"]["examples"]["row"]["value"]
    assert row == {"distance": 100.0, "hour": 3, "carrier": "AA"}  # the model's own example
    good = plain["responses"]["200"]["content"]["application/json"]["schema"]["properties"]["predictions"]["items"]
    assert good["properties"]["echo"] == {"type": ["number", "null"]}


def test_what_is_unloaded_frees_its_memory_and_wakes_with_the_next_question(place):
    place.serve(Route("shop", "delay", [revision(folder_of(place.home, "m1", serving_models.Moody()), 1)]))
    gateway = place.gateway().ready()
    pid = place.stats()["endpoints"]["shop.delay"][f"b3:{1:064x}"]["pid"]
    assert gateway.client.post("/v2/repository/models/shop.delay/unload").status_code == 200
    (entry,) = gateway.client.post("/v2/repository/index").json()
    assert (entry["state"], "wakes" in entry["reason"]) == ("UNAVAILABLE", True)
    assert gateway.client.post("/v2/repository/index", json={"ready": True}).json() == []
    assert gateway.client.get("/v2/models/shop.delay/ready").status_code == 503
    assert gateway.client.get("/v2/health/ready").status_code == 200
    assert gateway.predict(one_row(7.0)).json()["predictions"][0]["echo"] == 7.0
    told = place.until(lambda s: s["endpoints"]["shop.delay"][f"b3:{1:064x}"]["pid"] != pid)
    assert told["endpoints"]["shop.delay"][f"b3:{1:064x}"]["restarts"] == 0
    assert gateway.client.post("/v2/repository/models/shop.none/load").json()["error"]
    assert gateway.client.post("/v2/repository/index", json=[]).status_code == 400


def test_unloading_leaves_what_another_endpoint_asks_too(place):
    same = revision(folder_of(place.home, "m1", serving_models.Moody()), 1)
    place.serve(Route("shop", "delay", [same]), Route("shop", "other", [same]))
    gateway = place.gateway().ready()
    assert gateway.client.post("/v2/repository/models/shop.delay/unload").status_code == 200
    states = {entry["name"]: entry["state"] for entry in gateway.client.post("/v2/repository/index").json()}
    assert states == {"shop.delay": "READY", "shop.other": "READY"}


def test_prometheus_reads_what_a_gateway_counts(place):
    place.serve(Route("shop", "delay", [revision(folder_of(place.home, "m1", serving_models.Moody()), 1)]))
    gateway = place.gateway().ready()
    for value in (1.0, 2.0, -1.0):
        gateway.predict(one_row(value))
    gateway.predict({"distance": "far"})
    answer = gateway.client.get("/metrics")
    families = {family.name: family for family in text_string_to_metric_families(answer.text)}
    values = {name: sum(s.value for s in family.samples) for name, family in families.items()}
    assert (values["everloop_requests"], values["everloop_errors"]) == (3, 1)
    labels = families["everloop_requests"].samples[0].labels
    assert labels == {"endpoint": "shop.delay", "revision": "1"}
    told = {s.name.rpartition("_")[2]: s.value for s in families["everloop_latency_seconds"].samples}
    assert told["count"] == told["bucket"] == 2  # the last bucket is the infinite one
    assert told["sum"] > 0
    edges = [float(s.labels["le"]) for s in families["everloop_latency_seconds"].samples if "le" in s.labels]
    assert edges == sorted(edges)
    assert values["everloop_processes"] == 1


def called(port, method, request, answer, **metadata):
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = channel.unary_unary(
            f"/{SERVICE}/{method}",
            request_serializer=lambda value: value if isinstance(value, bytes) else value.SerializeToString(),
            response_deserializer=message(answer).FromString,
        )
        return call(request, metadata=list(metadata.items()), timeout=20)


def asked(**more):
    request = message("ModelInferRequest")(model_name="shop.delay", **more)
    request.inputs.add(name="distance", datatype="FP64", shape=[1]).contents.fp64_contents.append(1.5)
    request.inputs.add(name="hour", datatype="INT64", shape=[1, 1]).contents.int64_contents.append(2)
    request.inputs.add(name="carrier", datatype="BYTES", shape=[1]).contents.bytes_contents.append(b"AA")
    return request


def refused(*call, **metadata):
    with pytest.raises(grpc.RpcError) as caught:
        called(*call, **metadata)
    return caught.value.code()


def test_grpc_and_http_share_a_port(echo):
    answer = called(echo.port, "ModelInfer", asked(id="mine"), "ModelInferResponse", **{"everloop-revision": "1"})
    assert answer.id == "mine"
    assert list(answer.outputs[0].contents.fp64_contents) == [1.5]
    assert list(answer.outputs[1].contents.bytes_contents) == [b"AA"]
    assert answer.parameters["revision"].string_param == f"b3:{1:064x}"
    explained = asked()
    explained.parameters["explain"].bool_param = True
    assert refused(echo.port, "ModelInfer", explained, "ModelInferResponse") == grpc.StatusCode.INVALID_ARGUMENT
    assert echo.predict(one_row()).status_code == 200
    wrong = asked()
    wrong.inputs[0].shape[0] = 2
    invalid = grpc.StatusCode.INVALID_ARGUMENT
    assert refused(echo.port, "ModelInfer", wrong, "ModelInferResponse") == invalid
    stamped = {"everloop-time": "2013-05-01T12:00:00Z"}
    assert refused(echo.port, "ModelInfer", asked(), "ModelInferResponse", **stamped) == invalid
    assert refused(echo.port, "ModelInfer", asked(model_version="9"), "ModelInferResponse") == grpc.StatusCode.NOT_FOUND


tensor = st.fixed_dictionaries(
    {"name": st.sampled_from(["distance", "hour", "carrier", "x"])},
    optional={
        "datatype": st.sampled_from(["FP64", "INT64", "BYTES", "FP16", "UINT8", "x"]),
        "shape": st.lists(st.integers(-1, 3) | st.just(2**62), max_size=3),
    },
)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    tensors=st.lists(tensor, max_size=4), raw=st.lists(st.binary(max_size=24), max_size=4), noise=st.binary(max_size=30)
)
def test_no_message_makes_the_gateway_fail(echo, tensors, raw, noise):
    request = message("ModelInferRequest")(model_name="shop.delay", inputs=tensors, raw_input_contents=raw)
    with grpc.insecure_channel(f"127.0.0.1:{echo.port}") as channel:
        for content in (request.SerializeToString(), request.SerializeToString() + noise):
            code = channel.unary_unary(f"/{SERVICE}/ModelInfer").future(content, timeout=20).code()
            assert code in (grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND)


def test_grpc_needs_a_token_beyond_loopback(place):
    tokens = {hashlib.sha256(b"good").hexdigest(): ["shop"], hashlib.sha256(b"other").hexdigest(): ["else"]}
    place.serve(
        Route("shop", "delay", [revision(folder_of(place.home, "m1", serving_models.Moody()), 1)]), tokens=tokens
    )
    gateway = place.gateway(listener=bound("0.0.0.0"))
    place.until(lambda s: s["sequence"] == 1)
    call = (gateway.port, "ModelInfer", asked(), "ModelInferResponse")
    assert refused(*call) == grpc.StatusCode.UNAUTHENTICATED
    assert refused(*call, authorization="Bearer bad") == grpc.StatusCode.UNAUTHENTICATED
    assert refused(*call, authorization="Bearer other") == grpc.StatusCode.PERMISSION_DENIED
    assert list(called(*call, authorization="Bearer good").outputs[0].contents.fp64_contents) == [1.5]
    index = (gateway.port, "RepositoryIndex", message("RepositoryIndexRequest")(), "RepositoryIndexResponse")
    assert refused(*index) == grpc.StatusCode.UNAUTHENTICATED
    assert [m.name for m in called(*index, authorization="Bearer good").models] == ["shop.delay"]
    assert list(called(*index, authorization="Bearer other").models) == []
