"""Traces of answered questions: W3C headers in and out, a span for each node, in our store and at an OTLP address."""

import http.server
import threading
import time

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from serving_house import folder_of, revision
from serving_models import Constant

from everloop.catalog.genai import traces
from everloop.core.errors import StepFailed
from everloop.features.expressions import col
from everloop.server.mlflow.genai import spooled
from everloop.serving.definitions import EndpointDef
from everloop.serving.graph.nodes import Ensemble, Switch, node_of
from everloop.serving.table import Part, Route
from everloop.serving.tracing.exporting import Exporter, encoded
from everloop.serving.tracing.recording import Trace, Tracer, parsed

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
GIVEN = f"00-{TRACE}-{SPAN}-01"
X = [["x", "FP64"]]


@pytest.fixture
def collector():
    """An OTLP address: what was posted to it."""
    got = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["content-length"]))
            got.append((self.path, dict(self.headers), ExportTraceServiceRequest.FromString(body)))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_arguments):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", got
    server.shutdown()
    thread.join()
    server.server_close()


def graph_route(place, **route):
    parts = {}
    for role, value in (("one", 1.0), ("two", 3.0)):
        folder = folder_of(place.home, role, Constant(value))
        parts[f"model {role}"] = Part(folder, "serving_models:load", X, {"x": [1.0]})
    graph = node_of(Switch((col("x") > 0, Ensemble("mean", one="one", two="two")), otherwise="one"))
    graph["otherwise"]["role"] = "one"
    more = {"inputs": X, "caller": X, "example": {"x": [1.0]}, "graph": graph, "parts": parts}
    place.serve(Route("shop", "delay", [revision(parts["model one"].folder, 1, **more)], **route))


def spans_of(got):
    return [s for _, _, request in got for r in request.resource_spans for scope in r.scope_spans for s in scope.spans]


def attributes(span):
    return {one.key: one.value.int_value or one.value.string_value for one in span.attributes}


def test_each_node_of_a_graph_is_a_span_below_the_callers(place, collector, monkeypatch):
    address, got = collector
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", address)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-team=flights")
    graph_route(place, traced_ppm=1)
    gateway = place.gateway().ready()
    answer = gateway.predict({"x": 2.0}, traceparent=GIVEN)
    assert answer.json()["predictions"] == [2.0]
    trace, root, sampled = parsed(answer.headers["traceparent"].encode())
    assert (trace, sampled) == (TRACE, True)
    end = time.monotonic() + 10
    while time.monotonic() < end and not got:
        time.sleep(0.05)
    path, headers, _ = got[0]
    assert (path, headers["x-team"]) == ("/v1/traces", "flights")
    spans = {span.name: span for span in spans_of(got)}
    assert spans["endpoint delay"].parent_span_id.hex() == SPAN
    assert spans["endpoint delay"].span_id.hex() == root
    assert attributes(spans["endpoint delay"])["everloop.prediction"] == answer.json()["prediction_id"]
    assert spans["switch 0"].parent_span_id.hex() == root
    above = {name: span.parent_span_id for name, span in spans.items()}
    ensemble = next(span for name, span in spans.items() if name.startswith("ensemble"))
    assert above["model one"] == above["model two"] == ensemble.span_id
    assert ensemble.parent_span_id == spans["switch 0"].span_id
    for span in spans.values():
        assert span.start_time_unix_nano <= span.end_time_unix_nano
        assert attributes(span)["everloop.revision"] == f"b3:{1:064x}"
    unsampled = gateway.predict({"x": 2.0}, traceparent=GIVEN[:-1] + "0")
    assert "traceparent" not in unsampled.headers
    wrong = gateway.predict({"x": 2.0}, traceparent="nonsense")
    assert wrong.status_code == 200


def test_our_own_store_gets_them_and_a_killed_reader_reads_again(place, context):
    graph_route(place, traced_ppm=1_000_000)
    gateway = place.gateway().ready()
    gateway.predict({"x": 2.0})
    end = time.monotonic() + 10
    while time.monotonic() < end and not list((place.home / "serving" / "traces").glob("*/*/*.otlp")):
        time.sleep(0.05)
    (path,) = (place.home / "serving" / "traces").glob("*/shop/*.otlp")
    kept = path.read_bytes()
    assert spooled.ingest(context.catalog, context.store, place.home, 1) == 5
    assert not path.exists()
    path.write_bytes(kept)
    path.with_name("1.otlp").write_bytes(b"torn")
    spooled.ingest(context.catalog, context.store, place.home, 1)
    request = ExportTraceServiceRequest.FromString(kept)
    identity = "tr-" + request.resource_spans[0].scope_spans[0].spans[0].trace_id.hex()
    with context.read() as tx:
        (trace,) = traces.several(tx, "shop", [identity])
    assert trace.id == identity
    assert not list(path.parent.iterdir())


def test_an_endpoint_that_traces_nothing_looks_at_nothing(place):
    graph_route(place)
    gateway = place.gateway().ready()
    assert "traceparent" not in gateway.predict({"x": 2.0}, traceparent=GIVEN).headers
    assert not (place.home / "serving" / "traces").exists()


@pytest.mark.parametrize(
    "header",
    [
        "",
        "00",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE[1:]}-{SPAN}-01",
    ],
)
def test_a_wrong_header_is_as_if_it_were_not_there(header):
    assert parsed(header.encode()) is None


def test_a_later_version_of_the_header_is_read():
    assert parsed(f"01-{TRACE}-{SPAN}-01-more".encode()) == (TRACE, SPAN, True)


def test_too_many_spans_are_dropped_and_counted():
    tracer = Tracer()
    for _ in range(5000):
        trace = Trace("shop", TRACE, "")
        trace.add("model", time.monotonic(), {})
        tracer.ended(trace)
    assert tracer.dropped == 5000 - 4096
    assert len(tracer.take()["shop"]) == 4096
    assert tracer.take() == {}


def test_what_fails_inside_is_said_by_its_span():
    trace = Trace("shop", TRACE, SPAN)
    with pytest.raises(StepFailed), trace.inside("model one", {}):
        raise StepFailed("no wind")
    (span,) = ExportTraceServiceRequest.FromString(encoded("shop", trace.spans)).resource_spans[0].scope_spans[0].spans
    assert (span.status.code, span.status.message, span.parent_span_id.hex()) == (2, "no wind", trace.root)


def test_an_address_that_does_not_answer_is_counted(tmp_path):
    tracer = Tracer()
    exporter = Exporter(tracer, tmp_path, {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"})
    exporter._tell({"shop": _one()})
    assert exporter.failed == 1
    assert len(list(tmp_path.glob("shop/*.otlp"))) == 1


def _one():
    trace = Trace("shop", TRACE, "")
    trace.end("endpoint delay", time.monotonic(), {})
    return trace.spans


def test_an_author_says_how_many():
    assert EndpointDef("delay", graph="delay", traced="1%").manifest()["traced_ppm"] == 10_000
    assert "traced_ppm" not in EndpointDef("delay", graph="delay").manifest()
