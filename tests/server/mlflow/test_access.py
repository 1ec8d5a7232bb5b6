"""Who may do what through the MLflow protocol: nobody, strangers, every role, and a step with its own token."""

import re

import httpx2

from everloop.catalog import facts
from everloop.catalog.chain import seal
from everloop.catalog.governance import access
from everloop.core.clock import DAY, SystemClock
from everloop.server.mlflow.routes import ENDPOINTS

API = "/api/2.0/mlflow"
OTLP = {"content-type": "application/x-protobuf", "x-mlflow-experiment-id": "0"}
NOW = SystemClock().wall()


def token_of(running, name, **more):
    with running.catalog.write() as tx:
        return access.issue_token(tx, name, at=NOW, expires=NOW + DAY, **more)[1]


def web(running, secret=None, **headers):
    if secret is not None:
        headers["Authorization"] = f"Bearer {secret}"
    return httpx2.Client(base_url=running.url, headers=headers, timeout=20)


def calls(client):
    """Every endpoint, asked with arguments that are complete enough to reach the permission check."""
    body = {"name": "n", "run_id": "0" * 32, "version": "1", "experiment_id": "0", "key": "k", "model_id": "m-1"}
    location = {"mlflow_experiment": {"experiment_id": "0"}}
    whole = body | {
        "trace_id": "tr-1",
        "request_id": "tr-1",
        "trace": {"trace_info": {"trace_id": "tr-1", "trace_location": location}},
        "trace_ids": ["tr-1"],
        "locations": [location],
    }
    for endpoint in ENDPOINTS:
        path = re.sub(r"\{(\w+)\}", lambda name: str(whole.get(name[1], "1")), endpoint.path)
        address = f"/api/{endpoint.api}/mlflow/{path}"
        if endpoint.method == "GET":
            yield endpoint, client.get(address, params=body | {"trace_id": "tr-1"})
        else:
            yield endpoint, client.request(endpoint.method, address, json=whole)
    yield None, client.post("/v1/traces", content=b"", headers=OTLP)
    for method in ("GET", "PUT", "DELETE"):
        yield None, client.request(method, "/api/2.0/mlflow-artifacts/artifacts/0/x", content=b"")


def test_without_a_token_nothing_answers(guarded):
    with web(guarded) as client:
        assert {answer.status_code for _, answer in calls(client)} == {401}
        assert client.get("/health").status_code == client.get("/api/3.0/mlflow/server-info").status_code == 200


def test_a_wrong_token_is_worse_than_none(guarded):
    with web(guarded, "el_wrong") as client:
        assert {answer.status_code for _, answer in calls(client)} == {401}
    with web(guarded, Authorization="Digest x") as client:
        assert client.get(f"{API}/experiments/get", params={"experiment_id": "0"}).status_code == 401


def test_the_lowest_roles_write_nothing(guarded):
    earlier = _denied(guarded)  # by tests of other files: one server serves them all
    with web(guarded, token_of(guarded, "nobody")) as client:
        assert all(answer.status_code in {403, 404} for _, answer in calls(client))
    with web(guarded, token_of(guarded, "vera")) as client:
        for endpoint, answer in calls(client):
            if endpoint is not None and (not endpoint.reads or endpoint.needs):
                assert answer.status_code in {403, 404}, endpoint
            elif endpoint is not None:
                assert answer.status_code not in {401, 403}, endpoint
        assert client.put("/api/2.0/mlflow-artifacts/artifacts/0/x", content=b"").status_code == 403
        assert client.post(f"{API}/experiments/create", json={"name": "x"}).json()["error_code"] == "PERMISSION_DENIED"
    assert {actor for position, actor in _denied(guarded) - earlier} == {"vera", "nobody"}


def _denied(guarded):
    seal(guarded.catalog, SystemClock())
    with guarded.catalog.read() as tx:
        found = facts.tail(tx, "default", kinds=["audit.denied"], limit=1000)
    return {(fact.position, fact.actor) for fact in found}


def test_basic_authentication_takes_the_token_as_password(guarded):
    with httpx2.Client(base_url=guarded.url, auth=("carl", token_of(guarded, "carl"))) as client:
        assert client.post(f"{API}/runs/create", json={"experiment_id": "0"}).status_code == 200


def test_a_token_of_another_project_opens_nothing_here(guarded):
    secret = token_of(guarded, "carl", project="mine")
    with web(guarded, secret) as client:
        assert client.get(f"{API}/experiments/search").status_code == 401
        mine = client.get(f"{API}/experiments/search", headers={"X-MLFLOW-WORKSPACE": "mine"})
        assert [one["workspace"] for one in mine.json()["experiments"]] == ["mine"]


def test_a_step_writes_its_own_run_and_nothing_else(guarded):
    with web(guarded, token_of(guarded, "carl")) as client:
        own, other = (
            client.post(f"{API}/runs/create", json={"experiment_id": "0"}).json()["run"]["info"] for _ in range(2)
        )
        foreign = {"experiment_id": "0", "source_run_id": other["run_id"]}
        foreign_model = client.post(f"{API}/logged-models", json=foreign).json()["model"]["info"]["model_id"]
    with guarded.catalog.write() as tx:
        secret = access.issue_task_token(tx, "default", own["run_id"], name="carl", at=NOW, expires=NOW + DAY)[1]

    def artifact(run, name="a"):
        return f"/api/2.0/mlflow-artifacts/artifacts/0/{run['run_id']}/artifacts/{name}"

    with web(guarded, secret) as step:
        point = {"key": "m", "value": 1, "timestamp": 1}
        assert step.post(f"{API}/runs/log-metric", json={"run_id": own["run_id"], **point}).status_code == 200
        assert step.get(f"{API}/runs/get", params={"run_id": own["run_id"]}).status_code == 200
        assert step.put(artifact(own), content=b"x").status_code == 200
        assert step.delete(artifact(own)).status_code == 200
        assert step.post(f"{API}/runs/update", json={"run_id": own["run_id"], "status": "FINISHED"}).status_code == 200
        made = step.post(f"{API}/logged-models", json={"experiment_id": "0", "source_run_id": own["run_id"]})
        model = made.json()["model"]["info"]["model_id"]
        path = f"/api/2.0/mlflow-artifacts/artifacts/0/models/{model}/artifacts/MLmodel"
        assert step.put(path, content=b"x").status_code == 200
        assert step.patch(f"{API}/logged-models/{model}", json={"status": "LOGGED_MODEL_READY"}).status_code == 200

        refused = [
            step.post(f"{API}/runs/log-metric", json={"run_id": other["run_id"], **point}),
            step.post(f"{API}/runs/log-batch", json={"run_id": other["run_id"]}),
            step.post(f"{API}/runs/set-tag", json={"run_id": other["run_id"], "key": "a", "value": "b"}),
            step.post(f"{API}/runs/delete", json={"run_id": other["run_id"]}),
            step.post(f"{API}/runs/create", json={"experiment_id": "0"}),
            step.post(f"{API}/experiments/create", json={"name": "mine"}),
            step.post(f"{API}/logged-models", json={"experiment_id": "0", "source_run_id": other["run_id"]}),
            step.post(f"{API}/logged-models", json={"experiment_id": "0"}),
            step.patch(f"{API}/logged-models/{foreign_model}", json={"status": "LOGGED_MODEL_READY"}),
            step.post(f"{API}/registered-models/create", json={"name": "mine"}),
            step.put(artifact(other), content=b"x"),
            step.delete(artifact(other)),
            step.put(f"/api/2.0/mlflow-artifacts/artifacts/0/models/{foreign_model}/artifacts/x", content=b"x"),
            step.put("/api/2.0/mlflow-artifacts/artifacts/0/x", content=b"x"),
            # the old spelling of the run's name must not get past the check
            step.post(f"{API}/runs/set-tag", json={"run_uuid": other["run_id"], "key": "a", "value": "b"}),
        ]
        assert [answer.status_code for answer in refused] == [403] * len(refused)
        elsewhere = step.get(f"{API}/experiments/search", headers={"X-MLFLOW-WORKSPACE": "elsewhere"})
        assert elsewhere.status_code == 401
        measured = {"run_id": own["run_id"], "model_id": foreign_model, **point, "key": "sneaked"}
        assert step.post(f"{API}/runs/log-metric", json=measured).status_code == 200
        kept = step.get(f"{API}/logged-models/{foreign_model}").json()["model"]["data"]["metrics"]
        assert kept == []
    with web(guarded, token_of(guarded, "carl")) as client:
        untouched = client.get(f"{API}/runs/get", params={"run_id": other["run_id"]}).json()["run"]
        assert untouched["data"]["metrics"] == []


def test_two_names_for_a_run_cannot_disagree(guarded):
    """`run_id` decides both who may and what is done."""
    with web(guarded, token_of(guarded, "carl")) as client:
        own, other = (
            client.post(f"{API}/runs/create", json={"experiment_id": "0"}).json()["run"]["info"]["run_id"]
            for _ in range(2)
        )
    with guarded.catalog.write() as tx:
        secret = access.issue_task_token(tx, "default", own, name="carl", at=NOW, expires=NOW + DAY)[1]
    with web(guarded, secret) as step:
        for names in ({"run_id": own, "run_uuid": other}, {"run_id": other, "run_uuid": own}):
            step.post(f"{API}/runs/set-tag", json={**names, "key": "touched", "value": "yes"})
        tags = step.get(f"{API}/runs/get", params={"run_id": other}).json()["run"]["data"]["tags"]
    assert "touched" not in {tag["key"] for tag in tags}


def test_on_loopback_a_guest_writes_runs_and_nothing_more(served):
    with web(served) as client:
        assert client.post(f"{API}/runs/create", json={"experiment_id": "0"}).status_code == 200
        assert (
            client.post(f"{API}/runs/create", json={"experiment_id": "0"}, headers={"Host": "evil.example"}).status_code
            == 400
        )
        assert client.get(f"{API}/experiments/search", headers={"Origin": "https://evil.example"}).status_code == 403
        far = client.get(f"{API}/experiments/search", headers={"X-Forwarded-For": "203.0.113.9"})
        assert far.status_code == 401
        assert client.get(f"{API}/experiments/search", headers={"Authorization": "Bearer wrong"}).status_code == 401
