"""What a step may trace with the token of its own run, and what not."""

import httpx2
import pytest

from everloop.catalog.governance import access
from everloop.core.clock import DAY, SystemClock

API = "/api/3.0/mlflow/traces"
NOW = SystemClock().wall()


def web(running, secret):
    return httpx2.Client(base_url=running.url, headers={"Authorization": f"Bearer {secret}"}, timeout=20)


def stated(letter, run="", experiment="0"):
    info = {
        "trace_id": f"tr-{letter * 32}",
        "trace_location": {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": experiment}},
        "request_time": "2025-01-01T00:00:00Z",
        "state": "OK",
        "trace_metadata": {"mlflow.sourceRun": run} if run else {},
    }
    return {"trace": {"trace_info": info}}


def sent(letter, run=""):
    span = {"traceId": letter * 32, "spanId": "1" * 16, "name": "n", "startTimeUnixNano": "1"}
    return {
        "json": {"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]},
        "headers": {"x-mlflow-experiment-id": "0"} | ({"x-mlflow-run-id": run} if run else {}),
    }


@pytest.fixture(scope="module")
def runs(guarded):
    """A step's own run and another, and a client of each kind."""
    with guarded.catalog.write() as tx:
        whole = access.issue_token(tx, "carl", at=NOW, expires=NOW + DAY)[1]
    with web(guarded, whole) as person:
        own, other = (
            person.post("/api/2.0/mlflow/runs/create", json={"experiment_id": "0"}).json()["run"]["info"]["run_id"]
            for _ in range(2)
        )
        elsewhere = person.post("/api/2.0/mlflow/experiments/create", json={"name": "elsewhere"}).json()
        with guarded.catalog.write() as tx:
            secret = access.issue_task_token(tx, "default", own, name="carl", at=NOW, expires=NOW + DAY)[1]
        with web(guarded, secret) as step:
            yield person, step, own, other, elsewhere["experiment_id"]


def test_a_step_traces_into_its_own_run(runs):
    _, step, own, _, _ = runs
    assert step.post(API, json=stated("a", own)).status_code == 200
    assert step.post(API, json=stated("a", own)).status_code == 200
    file = f"/api/2.0/mlflow-artifacts/artifacts/0/traces/tr-{'a' * 32}/artifacts/traces.json"
    assert step.put(file, content=b"{}").status_code == 200
    assert step.patch(f"{API}/tr-{'a' * 32}/tags", json={"key": "k", "value": "v"}).status_code == 200
    judged = {"assessment": {"assessment_name": "n", "feedback": {"value": 1}}}
    assert step.post(f"{API}/tr-{'a' * 32}/assessments", json=judged).status_code == 200
    assert step.post("/v1/traces", **sent("a", own)).status_code == 200
    assert step.post("/v1/traces", **sent("b", own)).status_code == 200
    assert step.post(API, json=stated("b", own)).status_code == 200


def test_a_step_touches_nobody_elses_traces(runs):
    person, step, own, other, elsewhere = runs
    for letter, run in (("c", other), ("d", "")):
        assert person.post(API, json=stated(letter, run)).status_code == 200
    judged = {"assessment": {"assessment_name": "n", "feedback": {"value": 1}}}
    refused = [
        step.post(API, json=stated("e")),
        step.post(API, json=stated("e", other)),
        step.post(API, json=stated("e", own, elsewhere)),
        step.post(API, json=stated("c", own)),
        step.post(API, json=stated("d", own)),
        step.post("/v1/traces", **sent("e")),
        step.post("/v1/traces", **sent("e", other)),
        step.post("/v1/traces", **sent("c", own)),
        step.post("/v1/traces", **sent("d", own)),
        step.patch(f"{API}/tr-{'c' * 32}/tags", json={"key": "k", "value": "v"}),
        step.post(f"{API}/tr-{'d' * 32}/assessments", json=judged),
        step.post(f"{API}/delete-traces", json={"experiment_id": "0", "request_ids": [f"tr-{'d' * 32}"]}),
        step.put(f"/api/2.0/mlflow-artifacts/artifacts/0/traces/tr-{'d' * 32}/artifacts/x", content=b""),
        step.post("/api/3.0/mlflow/datasets/create", json={"name": "mine"}),
        step.post("/api/3.0/mlflow/scorers/register", json={"experiment_id": "0", "name": "n"}),
        step.get("/api/2.0/mlflow/webhooks"),
    ]
    assert {answer.status_code for answer in refused} == {403}
    kept = person.get(f"{API}/tr-{'d' * 32}").json()["trace"]["trace_info"]
    assert (kept["assessments"], "k" in kept["tags"], kept["trace_metadata"]) == ([], False, {})
    assert person.get(f"{API}/tr-{'e' * 32}").status_code == 404
