"""Traces told by the ordinary client: decorators, export in the background, searches, feedback, deletion."""

import pytest

from everloop.catalog import placements


@pytest.fixture
def me(mlflow):
    return mlflow.entities.AssessmentSource(source_type="HUMAN", source_id="ada")


def test_a_trace_of_a_run_comes_back_whole(mlflow, home, traced):
    with mlflow.start_run() as run:
        identity = traced("größe")
    trace = mlflow.get_trace(identity)
    assert [(span.name, span.span_type) for span in trace.data.spans] == [("answer", "CHAIN"), ("model", "CHAT_MODEL")]
    root, model = trace.data.spans
    assert (root.inputs, root.outputs, model.parent_id) == ({"question": "größe"}, {"answer": "GRÖSSE"}, root.span_id)
    assert (model.get_attribute("temperature"), model.get_attribute("tags")) == (0.5, ["a", "b"])
    assert model.events[0].name == "thought"
    info = trace.info
    assert (info.state, info.experiment_id, info.tags["mlflow.trace.spansLocation"]) == ("OK", home, "TRACKING_STORE")
    assert info.token_usage == {"input_tokens": 3, "output_tokens": 4, "total_tokens": 7}
    assert (info.request_preview, info.response_preview) == ('{"question": "größe"}', '{"answer": "GRÖSSE"}')
    by_run = mlflow.search_traces(run_id=run.info.run_id, return_type="list")
    assert [one.info.trace_id for one in by_run] == [identity]


def test_a_large_span_is_an_object_of_the_store(mlflow, home, traced, served):
    text = "lots of text " * 10_000
    identity = traced(text)
    with served.catalog.read() as tx:
        named = placements.of_rows(tx, "default")
    kept = {one for one, table in named.items() if table == "span_objects"}
    assert (len(kept), kept <= set(served.store.ids())) == (2, True)
    assert mlflow.get_trace(identity).data.spans[1].inputs == {"question": text}
    found = mlflow.search_traces(locations=[home], filter_string="trace.text LIKE '%lots of text%'", return_type="list")
    assert [one.info.trace_id for one in found] == [identity]


def test_an_error_is_the_state_of_its_trace(mlflow, home, ask):
    with pytest.raises(ValueError, match="no question"):
        ask("?")
    mlflow.flush_trace_async_logging()
    (trace,) = mlflow.search_traces(locations=[home], filter_string="trace.status = 'ERROR'", return_type="list")
    assert trace.data.spans[1].status.status_code == "ERROR"
    assert "no question" in trace.data.spans[1].events[-1].attributes["exception.message"]


def test_search_pages_to_the_end_and_deletion(mlflow, home, traced):
    identities = [traced(word) for word in ("a", "b", "c")]
    client = mlflow.MlflowClient()
    first = client.search_traces(locations=[home], max_results=2, order_by=["timestamp_ms ASC"], include_spans=False)
    rest = client.search_traces(
        locations=[home], max_results=2, order_by=["timestamp_ms ASC"], page_token=first.token, include_spans=False
    )
    assert [one.info.trace_id for one in (*first, *rest)] == identities
    assert rest.token is None
    assert client.delete_traces(home, trace_ids=identities[:1]) == 1
    assert client.delete_traces(home, max_timestamp_millis=4_000_000_000_000, max_traces=1) == 1
    assert [one.info.trace_id for one in client.search_traces(locations=[home])] == identities[2:]
    with pytest.raises(mlflow.exceptions.RestException) as told:
        client.get_trace(identities[0])
    assert told.value.error_code == "RESOURCE_DOES_NOT_EXIST"


def test_tags_feedback_and_expectations(mlflow, home, traced, me):
    identity = traced("x")
    mlflow.set_trace_tag(identity, "team", "blue")
    good = mlflow.log_feedback(trace_id=identity, name="good", value=True, rationale="so", source=me)
    mlflow.log_expectation(trace_id=identity, name="facts", value={"a": [1, None]}, source=me)
    changed = mlflow.update_assessment(
        identity, good.assessment_id, mlflow.entities.Feedback("good", value=0.25, metadata={"k": "v"})
    )
    assert (changed.value, changed.rationale, changed.metadata) == (0.25, "so", {"k": "v"})
    assert mlflow.get_assessment(identity, good.assessment_id).value == 0.25
    broken = mlflow.log_feedback(trace_id=identity, name="judge", error=RuntimeError("judge is out"), source=me)
    assert mlflow.get_assessment(identity, broken.assessment_id).error.error_message == "judge is out"
    instead = mlflow.override_feedback(trace_id=identity, assessment_id=good.assessment_id, value=1.0, source=me)
    info = mlflow.get_trace(identity).info
    assert {one.assessment_id: one.valid for one in info.assessments if one.name == "good"} == {
        good.assessment_id: False,
        instead.assessment_id: True,
    }
    assert next(one for one in info.assessments if one.name == "facts").value == {"a": [1, None]}
    found = mlflow.search_traces(
        locations=[home], filter_string="feedback.good > 0.5 AND tags.team = 'blue'", return_type="list"
    )
    assert [one.info.trace_id for one in found] == [identity]
    mlflow.delete_assessment(identity, instead.assessment_id)
    assert mlflow.get_assessment(identity, good.assessment_id).valid
    mlflow.delete_trace_tag(identity, "team")
    with pytest.raises(mlflow.exceptions.MlflowException, match="No trace tag with key 'team'"):
        mlflow.delete_trace_tag(identity, "team")
    with pytest.raises(mlflow.exceptions.MlflowException, match="not found"):
        mlflow.get_assessment(identity, "a-0")


def test_prompts_are_linked_and_hidden_from_models(mlflow, home):
    mlflow.genai.register_prompt("greet", template="Hello {{name}}", tags={"task": "greeting"})
    mlflow.genai.register_prompt("greet", template="Hi {{name}}")
    mlflow.genai.set_prompt_alias("greet", alias="live", version=1)
    assert mlflow.genai.load_prompt("prompts:/greet@live").format(name="Ada") == "Hello Ada"
    assert mlflow.genai.load_prompt("greet", version=2).template == "Hi {{name}}"
    assert [one.name for one in mlflow.genai.search_prompts()] == ["greet"]
    assert mlflow.search_registered_models(filter_string="name = 'greet'") == []

    @mlflow.trace
    def greeted():
        return mlflow.genai.load_prompt("prompts:/greet/2").format(name="Ada")

    greeted()
    mlflow.flush_trace_async_logging()
    identity = mlflow.get_last_active_trace_id()
    mlflow.MlflowClient().link_prompt_versions_to_trace([mlflow.genai.load_prompt("prompts:/greet/2")], identity)
    found = mlflow.search_traces(locations=[home], filter_string="prompt = 'greet/2'", return_type="list")
    assert [one.info.trace_id for one in found] == [identity]
    mlflow.genai.delete_prompt_alias("greet", alias="live")
    with pytest.raises(mlflow.exceptions.MlflowException, match="alias"):
        mlflow.genai.load_prompt("prompts:/greet@live", allow_missing=False)
