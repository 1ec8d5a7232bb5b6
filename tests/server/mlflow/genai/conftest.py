"""The real client, set to the server, and a small program that it traces."""

import os
import warnings

import pytest


@pytest.fixture(scope="module")
def mlflow(served):
    """The client; it never asks twice, so that a deterministic 5xx shows at once."""
    settings = {
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
        "MLFLOW_TRACKING_URI": served.url,
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_GENAI_EVAL_SKIP_TRACE_VALIDATION": "true",
    }
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the client's own imports
        import mlflow as client
        import mlflow.genai
        import mlflow.pyfunc
    client.set_tracking_uri(served.url)
    yield client
    client.flush_trace_async_logging()
    client.tracing.reset()
    client.set_tracking_uri(None)
    for name, value in before.items():
        os.environ.pop(name, None) if value is None else os.environ.update({name: value})


@pytest.fixture
def home(mlflow, request):
    """An experiment of this test's own."""
    yield mlflow.set_experiment(request.node.name).experiment_id
    mlflow.flush_trace_async_logging()


@pytest.fixture
def ask(mlflow):
    """A traced program of two spans."""

    @mlflow.trace(span_type="CHAIN")
    def answer(question):
        return {"answer": model(question)}

    @mlflow.trace(span_type="CHAT_MODEL", attributes={"temperature": 0.5, "tags": ["a", "b"]})
    def model(question):
        span = mlflow.get_current_active_span()
        span.set_attribute("mlflow.chat.tokenUsage", {"input_tokens": 3, "output_tokens": 4, "total_tokens": 7})
        span.add_event(mlflow.entities.SpanEvent("thought", attributes={"of": "it"}))
        if question == "?":
            raise ValueError("no question")
        return question.upper()

    return answer


@pytest.fixture
def traced(mlflow, ask):
    """Ask, and get the id of the trace when it has arrived."""

    def run(question):
        ask(question)
        mlflow.flush_trace_async_logging()
        return mlflow.get_last_active_trace_id()

    return run
