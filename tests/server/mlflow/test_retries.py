"""A bad line between client and server: answers lost, connections dropped, 408, 429 and 5xx; nothing is doubled."""

import http.client
import math
import threading
import tomllib
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module
from pathlib import Path

import pytest

from everloop.models.tracking.plugin import CallKey

FAULTS = {
    "dropped before": (False, None),
    "dropped after": (True, None),
    **{f"{status} before": (False, status) for status in (408, 429, 500, 502, 503, 504)},
    "503 after": (True, 503),
    "504 after": (True, 504),
}
"""Whether the server hears of the request, and what the client is told: a status, or nothing at all."""


class BadLine(BaseHTTPRequestHandler):
    """A proxy that fails each request once, in turn by every fault, and passes it on when it comes again."""

    protocol_version = "HTTP/1.1"

    def answer(self):
        length = int(self.headers.get("Content-Length", "0"))
        body = self.rfile.read(length)
        fault = self.server.fault_of((self.command, self.path, body))
        if fault is None:
            return self.send(*self.pass_on(body))
        passed, status = FAULTS[fault]
        if passed:
            self.pass_on(body)
        if status is None:
            self.close_connection = True
            self.connection.close()
            return None
        return self.send(status, [("Retry-After", "0")] if status == 429 else [], b"<html>busy</html>")

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = answer  # noqa: N815 - the base class's names

    def pass_on(self, body):
        connection = http.client.HTTPConnection(self.server.behind, timeout=20)
        headers = {name: value for name, value in self.headers.items() if name.lower() != "connection"}
        connection.request(self.command, self.path, body=body, headers={**headers, "Host": self.server.behind})
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        return answer.status, [("Content-Type", answer.headers.get("Content-Type", ""))], content

    def send(self, status, headers, content):
        self.send_response(status)
        for name, value in [*headers, ("Content-Length", str(len(content)))]:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_args):
        """Say nothing."""


class Line(ThreadingHTTPServer):
    """The proxy's server: which requests failed already, and which fault is next."""

    daemon_threads = True

    def __init__(self, behind):
        super().__init__(("127.0.0.1", 0), BadLine)
        self.behind = behind.removeprefix("http://")
        self.seen, self.met, self.lock = set(), [], threading.Lock()

    def fault_of(self, request):
        with self.lock:
            if request in self.seen:
                return None
            self.seen.add(request)
            self.met.append(list(FAULTS)[len(self.met) % len(FAULTS)])
            return self.met[-1]

    def handle_error(self, request, client_address):
        """A connection that this proxy closed itself is no error."""


@contextmanager
def bad_line(url):
    line = Line(url)
    thread = threading.Thread(target=line.serve_forever, daemon=True)
    thread.start()
    try:
        yield line, f"http://127.0.0.1:{line.server_address[1]}"
    finally:
        line.shutdown()
        line.server_close()
        thread.join()


@pytest.fixture
def patient(served, monkeypatch):
    """The real client behind the bad line, asking again at once; and the line."""
    with monkeypatch.context() as patched:
        patched.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "4")
        patched.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "0")
        patched.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_JITTER", "0")
        patched.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        import mlflow
        from mlflow.tracking.request_header import registry

        keyed = [*registry._request_header_provider_registry._registry, CallKey()]
        patched.setattr(registry._request_header_provider_registry, "_registry", keyed)
        with bad_line(served.url) as (line, url):
            yield mlflow.MlflowClient(tracking_uri=url, registry_uri=url), line


def test_nothing_is_doubled_on_a_bad_line(served, patient, tmp_path):
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Param, RunTag

    client, line = patient
    straight = MlflowClient(tracking_uri=served.url, registry_uri=served.url)
    home = straight.create_experiment("a bad line")
    made = [client.create_run(home, run_name=f"run {number}").info.run_id for number in range(len(FAULTS))]
    assert len(set(made)) == len(FAULTS)
    run = made[0]
    for step in range(len(FAULTS)):
        client.log_metric(run, "loss", 1 / (step + 1), step=step, timestamp=1000 + step)
        client.log_param(run, f"p{step}", str(step))
        client.set_tag(run, f"t{step}", str(step))
        points = [Metric("batch", float(i), i, i) for i in range(step * 100, step * 100 + 100)]
        client.log_batch(run, points, [Param(f"b{step}", "x" * 500)], [RunTag("batch", str(step))])
    client.log_batch(
        run, [Metric("nan", math.nan, 1, 0), Metric("up", math.inf, 1, 0), Metric("down", -math.inf, 1, 0)]
    )
    (tmp_path / "f.bin").write_bytes(b"x" * 100_000)
    for place in range(4):
        client.log_artifact(run, str(tmp_path / "f.bin"), f"d{place}")
    client.set_terminated(run)

    straight.create_registered_model("on a bad line")
    versions = [
        client.create_model_version("on a bad line", f"runs:/{run}/d{number % 4}", run).version
        for number in range(len(FAULTS))
    ]
    client.set_registered_model_alias("on a bad line", "best", versions[-1])

    assert set(line.met) == set(FAULTS)
    found = straight.search_runs([home])
    assert len(found) == len(made)
    whole = straight.get_run(run)
    assert whole.info.status == "FINISHED"
    assert [one.step for one in straight.get_metric_history(run, "loss")] == list(range(len(FAULTS)))
    assert [one.step for one in straight.get_metric_history(run, "batch")] == list(range(100 * len(FAULTS)))
    assert math.isnan(whole.data.metrics["nan"])
    assert (whole.data.metrics["up"], whole.data.metrics["down"]) == (math.inf, -math.inf)
    assert {key: whole.data.params[key] for key in ("p3", "b3")} == {"p3": "3", "b3": "x" * 500}
    assert len(whole.data.params) == 2 * len(FAULTS)
    assert [one.path for one in straight.list_artifacts(run)] == ["d0", "d1", "d2", "d3"]
    assert [int(number) for number in versions] == list(range(1, len(FAULTS) + 1))
    held = straight.search_model_versions("name = 'on a bad line'")
    assert len(held) == len(FAULTS)
    assert straight.get_model_version_by_alias("on a bad line", "best").version == versions[-1]


def test_the_client_finds_the_plugin():
    """As the package declares it, whether or not it is installed with its metadata here."""
    declared = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]["entry-points"]
    module, _, name = declared["mlflow.request_header_provider"]["everloop"].partition(":")
    provider = getattr(import_module(module), name)()
    assert provider.in_context()
    assert provider.request_headers() != provider.request_headers()


def test_a_call_key_belongs_to_its_caller_and_project(served):
    """The same key from elsewhere names another call; without one, equal calls are two."""
    import httpx2

    with httpx2.Client(base_url=served.url, timeout=20) as web:

        def made(**headers):
            body = {"experiment_id": "0", "start_time": 5}
            return web.post("/api/2.0/mlflow/runs/create", json=body, headers=headers).json()["run"]["info"]["run_id"]

        one = made(**{"Idempotency-Key": "k1"})
        assert made(**{"Idempotency-Key": "k1"}) == one
        assert made(**{"Idempotency-Key": "k2"}) != one
        assert made(**{"Idempotency-Key": "k1", "X-MLFLOW-WORKSPACE": "elsewhere"}) != one
        assert made() != made()
        body = {"experiment_id": "0", "name": "m"}
        logged = [
            web.post("/api/2.0/mlflow/logged-models", json=body, headers={"Idempotency-Key": key}).json()["model"][
                "info"
            ]
            for key in ("k1", "k1", "k2")
        ]
        assert logged[0]["model_id"] == logged[1]["model_id"] != logged[2]["model_id"]
