"""OTLP over HTTP: what other tracers send, what is refused, and that no body makes the server fail."""

import gzip
import json
import zlib

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

TRACE, ROOT, CHILD = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", "00f067aa0ba902b7"
PROTOBUF = {"content-type": "application/x-protobuf", "x-mlflow-experiment-id": "0"}
JSON = PROTOBUF | {"content-type": "application/json"}
NANOS = 1_700_000_000_000_000_000


@pytest.fixture(scope="module")
def web(served):
    with httpx2.Client(base_url=served.url, timeout=20) as client:
        yield client


def span(identity=ROOT, trace=TRACE, **more):
    return {
        "traceId": trace,
        "spanId": identity,
        "name": "asked",
        "startTimeUnixNano": str(NANOS),
        "endTimeUnixNano": str(NANOS + 10**9),
        **more,
    }


def body(*spans):
    return {"resourceSpans": [{"resource": {}, "scopeSpans": [{"spans": list(spans)}]}]}


def attribute(key, value):
    return {"key": key, "value": value}


def read(web, trace):
    answer = web.get("/api/3.0/mlflow/traces/get", params={"trace_id": f"tr-{trace}", "allow_partial": "True"})
    assert answer.status_code == 200, answer.text
    return answer.json()["trace"]


def test_json_of_another_tracer_with_the_semantic_conventions(web):
    attributes = [
        attribute("gen_ai.operation.name", {"stringValue": "chat"}),
        attribute("gen_ai.request.model", {"stringValue": "m1"}),
        attribute("gen_ai.usage.input_tokens", {"intValue": "5"}),
        attribute("gen_ai.usage.output_tokens", {"intValue": 2}),
        attribute("gen_ai.conversation.id", {"stringValue": "s1"}),
        attribute("mlflow.traceTag.team", {"stringValue": "blue"}),
    ]
    answer = web.post(
        "/v1/traces", json=body(span(CHILD, parentSpanId=ROOT), span(attributes=attributes)), headers=JSON
    )
    assert (answer.status_code, answer.json()) == (200, {})
    trace = read(web, TRACE)
    info = trace["trace_info"]
    assert (info["state"], info["execution_duration"], info["request_time"]) == ("OK", "1s", "2023-11-14T22:13:20Z")
    assert json.loads(info["trace_metadata"]["mlflow.trace.tokenUsage"]) == {
        "input_tokens": 5,
        "output_tokens": 2,
        "total_tokens": 7,
    }
    assert (info["trace_metadata"]["mlflow.trace.session"], info["tags"]["team"]) == ("s1", "blue")
    assert info["tags"]["mlflow.traceName"] == "asked"
    assert {one["name"] for one in trace["spans"]} == {"asked"}
    file = web.get("/ajax-api/3.0/mlflow/get-trace-artifact", params={"request_id": f"tr-{TRACE}"})
    assert file.headers["content-disposition"].startswith("attachment")
    assert {one["status"]["code"] for one in file.json()["spans"]} == {"STATUS_CODE_UNSET"}


@pytest.mark.parametrize(
    ("encoding", "pack"),
    [
        ("gzip", gzip.compress),
        ("deflate", zlib.compress),
        ("deflate", lambda text: zlib.compress(text, wbits=-15)),
        ("identity", bytes),
    ],
)
def test_protobuf_packed_in_each_way(web, encoding, pack):
    request = ExportTraceServiceRequest()
    one = request.resource_spans.add().scope_spans.add().spans.add()
    one.trace_id, one.span_id, one.name = bytes.fromhex(TRACE), bytes.fromhex(CHILD), "nul \x00 here"
    one.start_time_unix_nano = NANOS
    value = one.attributes.add(key="b").value
    value.bytes_value = b"\x00\xff"
    one.attributes.add(key="nan").value.double_value = float("nan")
    packed = pack(request.SerializeToString())
    answer = web.post("/v1/traces", content=packed, headers=PROTOBUF | {"content-encoding": encoding})
    assert (answer.status_code, answer.content, answer.headers["content-type"]) == (200, b"", "application/x-protobuf")


@pytest.mark.parametrize(
    ("headers", "content", "status", "code"),
    [
        ({"content-type": "text/plain"}, b"", 400, "INVALID_PARAMETER_VALUE"),
        ({"content-type": "application/x-protobuf"}, b"x", 400, "INVALID_PARAMETER_VALUE"),
        (PROTOBUF, b"", 400, "INVALID_PARAMETER_VALUE"),
        (PROTOBUF, b"\xff" * 20, 400, "INVALID_PARAMETER_VALUE"),
        (JSON, b"{", 400, "INVALID_PARAMETER_VALUE"),
        (JSON, b"[]", 400, "INVALID_PARAMETER_VALUE"),
        (JSON, json.dumps(body(span(trace="zz"))).encode(), 400, "INVALID_PARAMETER_VALUE"),
        (JSON, json.dumps(body(span(trace="0" * 32))).encode(), 400, "INVALID_PARAMETER_VALUE"),
        (JSON, json.dumps(body(span(startTimeUnixNano=str(2**63)))).encode(), 400, "INVALID_PARAMETER_VALUE"),
        (JSON | {"content-encoding": "br"}, b"x", 400, "INVALID_PARAMETER_VALUE"),
        (JSON | {"content-encoding": "gzip"}, b"x", 400, "INVALID_PARAMETER_VALUE"),
        (JSON | {"x-mlflow-experiment-id": "999"}, json.dumps(body(span())).encode(), 404, "RESOURCE_DOES_NOT_EXIST"),
        (JSON | {"x-mlflow-run-id": "0" * 32}, json.dumps(body(span())).encode(), 404, "RESOURCE_DOES_NOT_EXIST"),
    ],
)
def test_what_is_wrong_is_said_and_never_asked_again(web, headers, content, status, code):
    answer = web.post("/v1/traces", content=content, headers=headers)
    assert (answer.status_code, answer.json()["error_code"]) == (status, code)


def test_a_body_that_grows_without_end_is_refused_before_it_is_held(web):
    bomb = gzip.compress(b"\x00" * (80 << 20))
    answer = web.post("/v1/traces", content=bomb, headers=PROTOBUF | {"content-encoding": "gzip"})
    assert (answer.status_code, len(bomb) < 100_000) == (400, True)


def test_a_batch_is_stored_whole_or_not_at_all(web):
    fresh = "1" * 32
    answer = web.post("/v1/traces", json=body(span(trace=fresh), span(identity="beef")), headers=JSON)
    assert answer.status_code == 400
    assert web.get(f"/api/3.0/mlflow/traces/tr-{fresh}").status_code == 404


def test_another_projects_trace_is_not_there(web):
    assert web.post("/v1/traces", json=body(span(trace="2" * 32)), headers=JSON).status_code == 200
    other = {"x-mlflow-workspace": "other"}
    assert web.get(f"/api/3.0/mlflow/traces/tr-{'2' * 32}").status_code == 200
    for method, path in (("GET", ""), ("PATCH", "/tags"), ("DELETE", "/tags"), ("POST", "/assessments")):
        whole = {"key": "k", "assessment": {"assessment_name": "n", "feedback": {"value": 1}}}
        given = {} if method == "GET" else {"json": whole}
        answer = web.request(method, f"/api/3.0/mlflow/traces/tr-{'2' * 32}{path}", headers=other, **given)
        assert (answer.status_code, answer.json()["error_code"]) == (404, "RESOURCE_DOES_NOT_EXIST")
    batch = web.get("/api/3.0/mlflow/traces/batchGet", params={"trace_ids": f"tr-{'2' * 32}"}, headers=other)
    assert batch.json() == {"traces": []}
    assert web.post("/v1/traces", json=body(span(trace="2" * 32)), headers=JSON | other).status_code == 200
    assert len(read(web, "2" * 32)["spans"]) == 1  # their trace of the same id is another trace


def test_the_former_version_of_the_protocol(web):
    tags = [{"key": "mlflow.traceName", "value": "old"}]
    old = "/api/2.0/mlflow/traces"
    begun = web.post(old, json={"experiment_id": "0", "timestamp_ms": 1000, "request_metadata": [], "tags": tags})
    info = begun.json()["trace_info"]
    assert (info["status"], info["timestamp_ms"], "execution_time_ms" in info) == ("IN_PROGRESS", 1000, False)
    ended = {"timestamp_ms": 1500, "status": "OK", "request_metadata": [{"key": "k", "value": "v"}], "tags": []}
    assert web.patch(f"{old}/{info['request_id']}", json=ended).json()["trace_info"]["execution_time_ms"] == 500
    known = web.get(f"{old}/{info['request_id']}/info").json()["trace_info"]
    assert (known["status"], known["request_metadata"]) == ("OK", [{"key": "k", "value": "v"}])
    found = web.get(old, params={"experiment_ids": ["0"], "filter": "name = 'old'"}).json()["traces"]
    assert [one["request_id"] for one in found] == [info["request_id"]]
    place = next(tag["value"] for tag in known["tags"] if tag["key"] == "mlflow.artifactLocation")
    proxy = place.replace("mlflow-artifacts:/", "/api/2.0/mlflow-artifacts/artifacts/") + "/traces.json"
    assert web.put(proxy, content=b'{"spans": []}').status_code == 200
    shown = web.get("/ajax-api/3.0/mlflow/get-trace-artifact", params={"request_id": info["request_id"]})
    assert (shown.status_code, shown.json()) == (200, {"spans": []})


def test_sums_and_correlations(web):
    asked = {"experiment_ids": ["0"], "view_type": "TRACES", "metric_name": "trace_count"}
    count = web.post("/api/3.0/mlflow/traces/metrics", json=asked | {"aggregations": [{"aggregation_type": "COUNT"}]})
    assert count.json()["data_points"][0]["values"]["COUNT"] >= 1
    for wrong in ({"aggregations": []}, {"aggregations": [{"aggregation_type": "AVG"}]}, {"metric_name": "x"}):
        answer = web.post(
            "/api/3.0/mlflow/traces/metrics", json=asked | {"aggregations": [{"aggregation_type": 1}]} | wrong
        )
        assert answer.status_code == 400
    filters = {"filter_string1": "status = 'OK'", "filter_string2": "status = 'OK'", "experiment_ids": ["0"]}
    together = web.post("/api/3.0/mlflow/traces/calculate-filter-correlation", json=filters).json()
    assert together["npmi"] == 1.0
    assert together["joint_count"] == together["filter1_count"]


TEXT = st.text(max_size=20)
VALUES = st.recursive(
    st.one_of(
        st.fixed_dictionaries(
            {}, optional={"stringValue": TEXT, "intValue": st.integers(), "boolValue": st.booleans()}
        ),
        st.fixed_dictionaries({"doubleValue": st.floats() | st.just("NaN")}),
        st.fixed_dictionaries({"bytesValue": TEXT}),
    ),
    lambda inner: st.one_of(
        st.fixed_dictionaries({"arrayValue": st.fixed_dictionaries({"values": st.lists(inner, max_size=3)})}),
        st.fixed_dictionaries(
            {
                "kvlistValue": st.fixed_dictionaries(
                    {"values": st.lists(st.fixed_dictionaries({"key": TEXT, "value": inner}), max_size=3)}
                )
            }
        ),
    ),
    max_leaves=6,
)
KEYS = TEXT | st.sampled_from(
    ["mlflow.spanInputs", "mlflow.chat.tokenUsage", "mlflow.llm.cost", "session.id", "mlflow.traceTag.x", "user.id"]
)
ATTRIBUTES = st.lists(st.fixed_dictionaries({"key": KEYS, "value": VALUES}), max_size=4)
TIMES = st.integers(-1, 2**64) | st.integers(-1, 2**64).map(str) | TEXT
IDS = st.sampled_from([ROOT, CHILD, "", "0" * 16, "zz"]) | TEXT
SPANS = st.fixed_dictionaries(
    {"traceId": st.sampled_from([TRACE, "3" * 32, "4" * 32]), "spanId": st.sampled_from([ROOT, CHILD])},
    optional={
        "parentSpanId": IDS,
        "name": TEXT | st.none() | st.integers(),
        "startTimeUnixNano": TIMES,
        "endTimeUnixNano": TIMES,
        "kind": st.integers(-1, 9),
        "status": st.fixed_dictionaries({}, optional={"code": st.integers(-1, 4), "message": TEXT}),
        "attributes": ATTRIBUTES,
        "events": st.lists(
            st.fixed_dictionaries({"name": TEXT, "timeUnixNano": TIMES, "attributes": ATTRIBUTES}), max_size=2
        ),
        "links": st.lists(st.fixed_dictionaries({"traceId": IDS, "spanId": IDS}), max_size=2),
    },
)


@given(spans=st.lists(SPANS, max_size=3))
def test_no_json_body_makes_the_server_fail(web, spans):
    content = json.dumps(body(*spans), allow_nan=True).encode()
    answer = web.post("/v1/traces", content=content, headers=JSON)
    assert answer.status_code in {200, 400}, answer.text
    for trace in {one["traceId"] for one in spans} if answer.status_code == 200 else ():
        assert read(web, trace)["spans"]


@given(content=st.binary(max_size=200), media=st.sampled_from([PROTOBUF, JSON]), encoding=st.sampled_from(["", "gzip"]))
def test_no_bytes_make_the_server_fail(web, content, media, encoding):
    answer = web.post("/v1/traces", content=content, headers=media | {"content-encoding": encoding})
    assert answer.status_code in {200, 400}, answer.text
