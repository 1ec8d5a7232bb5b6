"""The protocol, byte by byte, where the client would hide it."""

import http.client
import json
import math

import httpx2
import pytest

from everloop.catalog import facts
from everloop.catalog.chain import seal
from everloop.core.clock import SystemClock
from everloop.server.mlflow.routes import ENDPOINTS

API = "/api/2.0/mlflow"


@pytest.fixture
def web(served):
    with httpx2.Client(base_url=served.url, timeout=20) as client:
        yield client


@pytest.fixture
def run(web):
    return web.post(f"{API}/runs/create", json={"experiment_id": "0"}).json()["run"]["info"]


def proxy(run, path):
    return f"/api/2.0/mlflow-artifacts/artifacts/{run['experiment_id']}/{run['run_id']}/artifacts/{path}"


def test_probes(web):
    assert web.get("/version").text == "3.17.2"
    assert web.get("/health").text == "OK"
    assert web.get("/api/3.0/mlflow/server-info").json()["store_type"] == "SqlStore"


def test_a_workspace_has_a_name_that_a_project_can_have(web):
    for name in ("a/b", "..", "x" * 200, "ü", "a b"):
        answer = web.get(f"{API}/experiments/search", headers={"X-MLFLOW-WORKSPACE": name.encode()})
        assert answer.status_code == 400, name
    listed = web.get("/api/3.0/mlflow/workspaces", headers={"X-MLFLOW-WORKSPACE": "named"}).json()
    assert {"name": "named"} in listed["workspaces"]


def test_both_prefixes_serve_the_same(web):
    for prefix in ("/api", "/ajax-api"):
        found = web.get(f"{prefix}/2.0/mlflow/experiments/get", params={"experiment_id": "0"}).json()["experiment"]
        assert (found["experiment_id"], found["name"], found["artifact_location"]) == (
            "0",
            "Default",
            "mlflow-artifacts:/0",
        )
        assert found["workspace"] == "default"
        assert isinstance(found["creation_time"], int)


def test_the_path_without_its_slash_is_served_too(web):
    body = {"experiment_ids": ["0"]}
    wanted = web.post(f"{API}/experiments/search-datasets", json=body)
    assert wanted.status_code == 200
    for prefix in ("/api", "/ajax-api"):
        assert web.post(f"{prefix}/2.0mlflow/experiments/search-datasets", json=body).json() == wanted.json()


def test_who_may_not_is_told_who_may_and_how(web):
    refused = web.post(f"{API}/webhooks", json={"name": "hook", "url": "https://example.com"})
    assert refused.status_code == 403
    assert "role admin: `everloop access create-token`" in refused.json()["message"]
    assert "MLFLOW_TRACKING_TOKEN" in refused.json()["message"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/2.0/mlflow/nothing"),
        ("POST", "/api/3.0/mlflow/gateway/secrets/create"),
        ("POST", "/api/3.0/mlflow/prompt-optimization/jobs"),
        ("POST", "/graphql"),
        ("GET", "/api/2.0/mlflow/runs/create"),
        ("PUT", "/api/4.0"),
        ("DELETE", "/ajax-api/2.0/mlflow/runs/delete"),
    ],
)
def test_what_is_not_offered_is_no_endpoint(web, method, path):
    answer = web.request(method, path)
    assert (answer.status_code, answer.json()["error_code"]) == (404, "ENDPOINT_NOT_FOUND")


def test_doubles_that_json_lacks_are_texts(web, run):
    body = {"run_id": run["run_id"], "key": "m", "value": "NaN", "timestamp": "5", "step": "1"}
    assert web.post(f"{API}/runs/log-metric", json=body).json() == {}
    bare = f'{{"run_id": "{run["run_id"]}", "key": "n", "value": -Infinity, "timestamp": 5}}'
    assert web.post(f"{API}/runs/log-metric", content=bare).json() == {}
    data = web.get(f"{API}/runs/get", params={"run_id": run["run_id"], "run_uuid": run["run_id"]}).json()["run"]["data"]
    assert [(one["key"], one["value"], one["timestamp"], one["step"]) for one in data["metrics"]] == [
        ("m", "NaN", 5, 1),
        ("n", "-Infinity", 5, 0),
    ]
    assert math.isnan(float(data["metrics"][0]["value"]))


BAD = [
    ("experiments/create", {"name": 123}, "Invalid value 123 for parameter 'name' supplied"),
    ("experiments/create", {}, "Missing value for required parameter 'name'. See the API docs"),
    ("experiments/create", {"name": ""}, "Missing value for required parameter 'name'"),
    ("experiments/create", {"name": "x" * 501}, "exceeds the maximum length"),
    ("experiments/create", {"name": "x", "artifact_location": "file:///etc"}, "artifact_location"),
    ("experiments/create", {"name": "nul\x00"}, "NUL"),
    ("experiments/create", '{"name": "\\ud800"}', ""),
    ("experiments/create", "[]", "not a JSON object"),
    ("experiments/create", "{", "not JSON"),
    ("experiments/create", "[" * 100_000, "not JSON"),
    ("experiments/search", {"max_results": 0}, "max_results"),
    ("experiments/search", {"max_results": 10**30}, "max_results"),
    ("experiments/search", {"view_type": "SOME"}, "view_type"),
    ("experiments/search", {"page_token": "x"}, "page token"),
    ("runs/search", {"experiment_ids": "0"}, "experiment_ids"),
    ("runs/search", {"experiment_ids": ["0"], "filter": "metrics.a >"}, "filter"),
    ("runs/log-metric", {"run_id": "$", "key": "a", "value": "much", "timestamp": 1}, "value"),
    ("runs/log-metric", {"run_id": "$", "key": "a", "value": 1}, "timestamp"),
    ("runs/log-metric", {"run_id": "$", "key": "a", "value": 1, "timestamp": 2**63}, "timestamp"),
    ("runs/log-metric", {"run_id": "$", "key": "a", "value": 1, "timestamp": 1, "step": 1.5}, "step"),
    ("runs/log-metric", {"run_id": "$", "key": "a?", "value": 1, "timestamp": 1}, "Names may only contain"),
    ("runs/log-metric", {"run_id": "$", "key": "k" * 251, "value": 1, "timestamp": 1}, "exceeds the maximum length"),
    ("runs/log-parameter", {"run_id": "$", "key": "/a", "value": 1}, "key"),
    ("runs/update", {"run_id": "$", "status": "DONE"}, "status"),
    ("runs/log-batch", {"run_id": "$", "params": [{"key": "a"}] * 101}, "at most 100 params"),
    ("runs/log-batch", {"run_id": "$", "metrics": [{}] * 1001}, "at most 1000 metrics"),
    ("runs/log-batch", {"run_id": "$", "tags": [{"key": "a", "value": "x" * 1_000_001}]}, "at most 1000000 bytes"),
    ("runs/log-batch", {"run_id": "$", "metrics": {}}, "metrics"),
    ("runs/log-batch", {}, "Missing value for required parameter 'run_id'"),
    ("runs/log-batch", {"run_id": "$", "params": [{"key": "p", "value": "1"}] * 2}, "Duplicate parameter keys"),
    ("runs/log-metric", {"run_id": "$", "key": "a", "value": 1, "timestamp": -1}, "nonnegative"),
    ("runs/log-model", {"run_id": "$", "model_json": "x"}, "not a valid JSON"),
    ("runs/log-model", {"run_id": "$", "model_json": "[" * 5000}, "not a valid JSON"),
    ("runs/log-model", {"run_id": "$", "model_json": "[" * 500 + "]" * 500}, "missing mandatory fields"),
    ("runs/search", {"experiment_ids": ["x"]}, "Experiment ID must be a valid integer"),
    ("runs/search", {"experiment_ids": ["0"], "filter": "foo.bar = 1"}, "Invalid entity type 'foo'"),
    ("runs/search", {"experiment_ids": ["0"], "filter": "metrics.a > 1 OR metrics.b > 1"}, "Invalid clause(s)"),
    ("runs/search", {"experiment_ids": ["0"], "order_by": ["metrics.a DESK"]}, "Invalid order_by clause"),
    ("experiments/search-datasets", {"experiment_ids": []}, "at least one experiment_id"),
    ("experiments/search-datasets", {"experiment_ids": ["0"] * 21}, "more than 20 experiment_ids"),
    ("experiments/update", {"experiment_id": "0"}, "Missing value for required parameter 'new_name'"),
    ("logged-models", {"experiment_id": "0", "name": "a/b"}, "Invalid model name ('a/b')"),
    ("registered-models/create", {"name": "deep", "tags": json.loads("[" * 100 + "]" * 100)}, "nested deeper"),
    ("registered-models/create", {"name": "a/b"}, "model name"),
    ("model-versions/create", {"name": "nothing", "source": "/etc/passwd"}, ""),
]


@pytest.mark.parametrize(("path", "body", "text"), BAD)
def test_bad_input_is_a_400_with_a_reason(web, run, path, body, text):
    if isinstance(body, str):
        answer = web.post(f"{API}/{path}", content=body)
    else:
        answer = web.post(f"{API}/{path}", json={k: run["run_id"] if v == "$" else v for k, v in body.items()})
    assert answer.status_code in {400, 404}
    assert set(answer.json()) == {"error_code", "message"}
    assert text in answer.json()["message"]


def test_a_logged_model_is_deleted_once_or_twice(web, run):
    body = {"experiment_id": "0", "source_run_id": run["run_id"]}
    model = web.post(f"{API}/logged-models", json=body).json()["model"]["info"]["model_id"]
    for _ in range(2):
        assert web.delete(f"{API}/logged-models/{model}").json() == {}
    assert web.get(f"{API}/logged-models/{model}").status_code == 404
    assert web.patch(f"{API}/logged-models/{model}/tags", json={"tags": []}).status_code == 404
    assert web.delete(f"{API}/logged-models/m-{'0' * 32}").status_code == 404


def test_a_tag_that_people_wrote_does_not_break_log_model(web, run):
    """Old clients' models hang on a tag, which anybody may set to anything."""
    described = json.dumps({"artifact_path": "m", "flavors": {}, "utc_time_created": "x", "run_id": run["run_id"]})
    body = {"run_id": run["run_id"], "model_json": described}
    assert web.post(f"{API}/runs/log-model", json=body).json() == {}
    for value in ("not JSON", "5", "[" * 3000):
        tag = {"run_id": run["run_id"], "key": "mlflow.log-model.history", "value": value}
        assert web.post(f"{API}/runs/set-tag", json=tag).json() == {}
        assert web.post(f"{API}/runs/log-model", json=body).status_code == 400


def test_a_batch_is_written_whole_or_not_at_all(web, run):
    web.post(f"{API}/runs/log-parameter", json={"run_id": run["run_id"], "key": "p", "value": "1"})
    body = {
        "run_id": run["run_id"],
        "params": [{"key": "new", "value": "1"}, {"key": "p", "value": "2"}],
        "metrics": [{"key": "m", "value": 1, "timestamp": 1}],
    }
    assert web.post(f"{API}/runs/log-batch", json=body).status_code == 400
    data = web.get(f"{API}/runs/get", params={"run_id": run["run_id"]}).json()["run"]["data"]
    assert (data["metrics"], data["params"]) == ([], [{"key": "p", "value": "1"}])


def test_long_values_are_cut_as_mlflow_does(web, run):
    body = {"run_id": run["run_id"], "key": "p", "value": "x" * 7000}
    assert web.post(f"{API}/runs/log-parameter", json=body).status_code == 200
    data = web.get(f"{API}/runs/get", params={"run_id": run["run_id"]}).json()["run"]["data"]
    assert len(data["params"][0]["value"]) == 6000


def test_histories_in_pages_and_samples(web, run):
    rows = [{"key": "m", "value": i, "timestamp": i, "step": i} for i in range(1000)]
    web.post(f"{API}/runs/log-batch", json={"run_id": run["run_id"], "metrics": rows})
    asked = {"run_id": run["run_id"], "metric_key": "m"}
    assert len(web.get(f"{API}/metrics/get-history", params=asked).json()["metrics"]) == 1000
    first = web.get(f"{API}/metrics/get-history", params={**asked, "max_results": "600"}).json()
    rest = {**asked, "max_results": "600", "page_token": first["next_page_token"]}
    second = web.get(f"{API}/metrics/get-history", params=rest).json()
    assert (len(first["metrics"]), len(second["metrics"])) == (600, 400)
    assert "next_page_token" not in second
    sample = web.get(
        f"{API}/metrics/get-history-bulk-interval",
        params={"run_ids": [run["run_id"]], "metric_key": "m", "max_results": "10"},
    ).json()["metrics"]
    assert (sample[0]["step"], sample[-1]["step"], len(sample)) == (0, 999, 10)
    bulk = web.get("/ajax-api/2.0/mlflow/metrics/get-history-bulk", params=asked).json()["metrics"]
    assert {one["run_id"] for one in bulk} == {run["run_id"]}


def test_artifacts_stream_as_attachments(web, run, served):
    page = b"<script>alert(1)</script>" * 100_000
    assert web.put(proxy(run, "a/page.html"), content=page).json() == {}
    answer = web.get(proxy(run, "a/page.html"))
    assert answer.content == page
    assert answer.headers["content-disposition"].startswith("attachment")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-security-policy"] == "sandbox"
    assert web.get("/get-artifact", params={"run_id": run["run_id"], "path": "a/page.html"}).content == page
    root = f"{run['experiment_id']}/{run['run_id']}/artifacts"
    listed = web.get("/api/2.0/mlflow-artifacts/artifacts", params={"path": f"{root}/a"}).json()
    assert listed == {"files": [{"path": "page.html", "is_dir": False, "file_size": len(page)}]}
    assert list((served.home / "tmp").glob("upload-*")) == []
    assert web.delete(proxy(run, "a")).json() == {}
    assert web.get(proxy(run, "a/page.html")).status_code == 404


@pytest.mark.parametrize(
    "path",
    [
        "../../../etc/passwd",
        "..%2f..%2f..%2fetc%2fpasswd",
        "%2e%2e/%2e%2e/x",
        "%252e%252e%252fetc%252fpasswd",
        "a/..%5c..%5cx",
        "a%00b",
        "/etc/passwd",
        "a//b",
        "a/./b",
        "",
    ],
)
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_no_artifact_path_leads_out(served, run, method, path):
    connection = http.client.HTTPConnection(served.url.removeprefix("http://"))  # sends a path as it is
    connection.request(method, proxy(run, path), body=b"x" if method == "PUT" else None)
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    assert answer.status in {400, 404}
    assert b"root:" not in content


def test_lists_refuse_to_climb(web, run):
    for path in ("..", "a/../..", "/etc", "%2e%2e"):
        answer = web.get(f"{API}/artifacts/list", params={"run_id": run["run_id"], "path": path})
        assert answer.json()["error_code"] == "INVALID_PARAMETER_VALUE"
    for path in ("../..", "0/../..", "", "x"):
        answer = web.get("/api/2.0/mlflow-artifacts/artifacts", params={"path": path})
        assert answer.status_code in {400, 404}


def test_the_files_of_a_version_never_change(web, run):
    web.put(proxy(run, "model/MLmodel"), content=b"first")
    web.post(f"{API}/registered-models/create", json={"name": "pinned"})
    source = f"runs:/{run['run_id']}/model"
    web.post(f"{API}/model-versions/create", json={"name": "pinned", "source": source, "run_id": run["run_id"]})
    web.put(proxy(run, "model/MLmodel"), content=b"second")
    asked = {"name": "pinned", "version": "1"}
    place = web.get(f"{API}/model-versions/get-download-uri", params=asked).json()["artifact_uri"]
    path = "/api/2.0/mlflow-artifacts/artifacts/" + place.removeprefix("mlflow-artifacts:/")
    assert web.get(path + "/MLmodel").content == b"first"
    assert web.get("/model-versions/get-artifact", params={**asked, "path": "MLmodel"}).content == b"first"
    assert web.put(path + "/MLmodel", content=b"third").status_code == 400


def test_what_changes_the_registry_is_on_record(web, served):
    web.post(f"{API}/registered-models/create", json={"name": "recorded"})
    seal(served.catalog, SystemClock())
    with served.catalog.read() as tx:
        (fact, *_) = facts.tail(tx, "default", kinds=["audit.allowed"], subject="model/recorded")
    assert fact.payload["operation"] == "mlflow.registered-models.create"


def refused_or_answered(web):
    """Ask every endpoint for nonsense; whatever it answers, the client must not ask again."""
    strange = {"name": "n\u00ff", "run_id": "x" * 3000, "version": "2147483647", "experiment_id": "9" * 18, "key": "k"}
    more = {"max_results": "1", "filter": "name LIKE '%[%'", "order_by": ["name DESC"], "page_token": "e30="}
    for endpoint in ENDPOINTS:
        path = endpoint.path.replace("{model_id}", "m-nothing").replace("{tag_key}", "k")
        for body in ({}, strange, {**strange, **more}, {"run_id": "0" * 32, "metric_key": "m", "path": "x"}):
            if endpoint.method == "GET":
                answer = web.get(f"{API}/{path}", params=body)
            else:
                answer = web.request(endpoint.method, f"{API}/{path}", json=body)
            assert answer.status_code < 500, (endpoint.path, answer.text)


def test_nonsense_is_never_a_failure(web):
    refused_or_answered(web)


def test_nonsense_is_never_a_failure_on_postgresql(served_by_postgresql):
    with httpx2.Client(base_url=served_by_postgresql.url, timeout=20) as web:
        refused_or_answered(web)
        run = web.post(f"{API}/runs/create", json={"experiment_id": "0"}).json()["run"]["info"]
        for path, body, _ in BAD:
            if isinstance(body, str):
                answer = web.post(f"{API}/{path}", content=body)
            else:
                answer = web.post(f"{API}/{path}", json={k: run["run_id"] if v == "$" else v for k, v in body.items()})
            assert answer.status_code in {400, 404}, (path, answer.text)
        points = [{"key": "m", "value": i, "timestamp": i, "step": i} for i in range(1000)]
        web.post(f"{API}/runs/log-batch", json={"run_id": run["run_id"], "metrics": points})
        asked = {"run_id": run["run_id"], "metric_key": "m"}
        assert len(web.get(f"{API}/metrics/get-history", params=asked).json()["metrics"]) == 1000
        assert web.put(proxy(run, "model/MLmodel"), content=b"x").status_code == 200
        web.post(f"{API}/registered-models/create", json={"name": "pinned"})
        made = {"name": "pinned", "source": f"runs:/{run['run_id']}/model"}
        assert web.post(f"{API}/model-versions/create", json=made).json()["model_version"]["version"] == "1"
        assert len(web.get(f"{API}/registered-models/search").json()["registered_models"]) == 1
