"""Every route, asked for anything: whatever comes back, it is an answer and never a failure of ours.

The arguments are drawn from words that the routes know (so that calls get deep), from values that are wrong in every
way that JSON and HTTP allow, and from what earlier calls made.
"""

import http.client
import json
from urllib.parse import quote, urlencode

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.routing import Route

from everloop.server.mlflow.routes import mlflow_routes

API = "/api/2.0/mlflow"
ROUTES = tuple(
    (method, route.path)
    for route in mlflow_routes(lambda _request: pytest.fail("nobody asks here"))
    if isinstance(route, Route)
    for method in sorted(route.methods - {"HEAD"})
)
"""All that the server offers of the protocol."""
KNOWN_WORDS = """
experiment_id experiment_ids name new_name run_id run_ids run_uuid key value timestamp step metrics params
tags filter order_by max_results page_token view_type run_view_type status end_time start_time run_name
user_id path model_id version source alias stage stages archive_existing_versions description metric_key
start_step end_step datasets models dataset_name dataset_digest experiment_name artifact_location model_json
source_run_id model_type field_name ascending upload_id parts num_parts expiration artifact_directory_path
artifact_file_path filter_string locations trace_ids trace_id request_id assessment dataset_id records scorer
url events secret digest dataset source_type schema profile context aliases trace spans
"""
NAMES = KNOWN_WORDS.split()
FILTERS = (
    "metrics.m > 1",
    "params.p = '1' AND tags.`a b` LIKE '%'",
    "name ILIKE '%_[*'",
    "attributes.start_time <= 99999999999999999999",
    "metrics.`x` != -1e308",
    "dataset.name IN ('a','b')",
    "tags.k IS NULL",
    "version_number = 1",
    "run_id IN ()",
    "name = 'a' OR",
    "((((",
    "metrics. > 1",
    "'",
    "\u202e = 1",
)
WORDS = st.sampled_from(
    (
        "0",
        "1",
        "-1",
        "9" * 18,
        "9" * 40,
        "x",
        "",
        "None",
        "NaN",
        "Infinity",
        "m",
        "k",
        "Default",
        "prompt",
        "latest",
        "v1",
        "best",
        "Production",
        "FINISHED",
        "ALL",
        "mlflow-artifacts:/0/x",
        "runs:/x/y",
        "models:/m/1",
        "e30=",
        "W10=",
    )
)
TEXTS = (
    WORDS | st.sampled_from(FILTERS) | st.text(max_size=12) | st.sampled_from(("a" * 300, "ü" * 7000, "\x00", "\ud800"))
)
NUMBERS = (
    st.integers() | st.floats() | st.sampled_from((0, 1, -1, 2**31, 2**63 - 1, 2**63, -(2**63), 10**30, 1.5, 1e308))
)
SCALARS = TEXTS | NUMBERS | st.booleans() | st.none()
KEYS = st.sampled_from(NAMES) | st.text(max_size=5)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=5),
    max_leaves=12,
)
BODIES = st.dictionaries(KEYS, VALUES, max_size=10)
RAW = st.binary(max_size=60) | st.sampled_from(
    (b"[", b"[]", b"null", b'"x"', b"{" * 5000, b'{"a":1e999}', b"\xff\xfe{}")
)
HEADERS = st.dictionaries(
    st.sampled_from(
        (
            "X-MLFLOW-WORKSPACE",
            "X-MLflow-Client-Version",
            "Content-Type",
            "Content-Encoding",
            "Range",
            "Idempotency-Key",
            "x-mlflow-experiment-id",
            "x-mlflow-run-id",
            "Accept",
            "If-None-Match",
        )
    ),
    st.sampled_from(
        ("", "default", "x", "../y", "0", "bytes=0-", "bytes=9-1", "gzip", "deflate", "application/json", "é")
    )
    | st.sampled_from(("application/x-protobuf", "2.22.0", "multipart/form-data; boundary=x")),
    max_size=3,
)


@pytest.fixture(scope="module")
def known(served):
    """Arguments that name things which are there, so that calls get past the first look."""
    connection = http.client.HTTPConnection(served.url.removeprefix("http://"), timeout=20)

    def made(path, body):
        connection.request("POST", f"{API}/{path}", json.dumps(body))
        return json.loads(connection.getresponse().read())

    run = made("runs/create", {"experiment_id": "0"})["run"]["info"]["run_id"]
    made("runs/log-metric", {"run_id": run, "key": "m", "value": 1, "timestamp": 1})
    model = made("logged-models", {"experiment_id": "0", "source_run_id": run})["model"]["info"]["model_id"]
    made("registered-models/create", {"name": "fuzzed"})
    made("model-versions/create", {"name": "fuzzed", "source": f"models:/{model}"})
    connection.close()
    return {
        "run_id": run,
        "run_uuid": run,
        "model_id": model,
        "name": "fuzzed",
        "version": "1",
        "experiment_id": "0",
        "experiment_ids": ["0"],
        "key": "m",
        "metric_key": "m",
        "value": "1",
        "timestamp": 1,
        "path": "a/b",
    }


def ask(served, known, drawn):
    (method, path), body, raw, headers, fill, keep = drawn
    if isinstance(body, dict) and keep:
        body = {**{name: known[name] for name in sorted(known)[:: keep % 3 + 1]}, **body}
    while "{" in path:
        name = path[path.index("{") + 1 : path.index("}")]
        given = known.get(name.partition(":")[0], fill) if keep else fill
        path = path.replace("{" + name + "}", quote(str(given).encode("utf-8", "replace"), safe=""))
    content = raw if raw is not None else json.dumps(body).encode("utf-8", "replace")
    if method == "GET":
        pairs = {key.encode("utf-8", "replace"): str(value).encode("utf-8", "replace") for key, value in body.items()}
        path, content = f"{path}?{urlencode(pairs)}", None
    connection = http.client.HTTPConnection(served.url.removeprefix("http://"), timeout=30)
    try:
        connection.request(method, path, content, {name: value.encode() for name, value in headers.items()})
        answer = connection.getresponse()
        told = answer.read()
    finally:
        connection.close()
    assert answer.status < 500 or answer.status == 501, (method, path, content, headers, told[:500])
    if answer.status >= 400 and answer.headers.get_content_type() == "application/json":
        assert json.loads(told)["error_code"], (method, path, told[:200])


DRAWN = st.tuples(
    st.sampled_from(ROUTES),
    BODIES,
    st.none() | st.none() | st.none() | RAW,
    HEADERS,
    TEXTS,
    st.integers(min_value=0, max_value=3),
)
CHECKS = (HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large)


@settings(max_examples=300, deadline=None, suppress_health_check=CHECKS)
@given(drawn=DRAWN)
def test_no_question_is_a_failure(served, known, drawn):
    ask(served, known, drawn)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@settings(max_examples=10_000, deadline=None, suppress_health_check=CHECKS)
@given(drawn=DRAWN)
def test_no_question_is_a_failure_at_length(served, known, drawn):
    ask(served, known, drawn)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@settings(max_examples=4000, deadline=None, suppress_health_check=CHECKS)
@given(drawn=DRAWN)
def test_no_question_is_a_failure_on_postgresql(served_by_postgresql, drawn):
    ask(served_by_postgresql, {}, drawn)


def test_every_route_is_in_the_list():
    wanted = {
        (method, f"{prefix}/3.0/mlflow/workspaces/{{name}}")
        for method in ("GET", "PATCH", "DELETE")
        for prefix in ("/api", "/ajax-api")
    }
    assert wanted | {("POST", "/v1/traces"), ("GET", "/ajax-api/3.0/mlflow/get-trace-artifact")} < set(ROUTES)
    twins = {(method, path.removeprefix("/ajax-api")) for method, path in ROUTES if path.startswith("/ajax-api/")}
    assert twins == {(method, path.removeprefix("/api")) for method, path in ROUTES if path.startswith("/api/")}


@pytest.mark.parametrize(
    "route",
    [route for route in ROUTES if not route[1].startswith("/ajax-api/")],  # they are twins of those of /api/
    ids=lambda route: f"{route[0]} {route[1]}",
)
def test_every_route_knows_what_to_do_with_nothing_and_with_too_much(served, known, route):
    deep = {"a": 1}
    for _ in range(300):
        deep = {"tags": [deep]}
    everything = dict.fromkeys(NAMES, "x")
    for body, raw in (({}, None), (deep, None), (everything, None), ({}, b"{"), ({}, b"\xff" * 100)):
        ask(served, known, (route, body, raw, {}, "1", 1))
