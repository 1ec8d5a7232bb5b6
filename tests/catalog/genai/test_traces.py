"""Traces and spans on both databases: what arrives in which order, what finds them, what sums them."""

import json
from dataclasses import replace

import pytest

from everloop.catalog import placements
from everloop.catalog.genai import assessments, metrics, searching, spans, traces
from everloop.catalog.genai.rows import Assessment, Root, Span, Trace
from everloop.catalog.tracking import experiments, runs
from everloop.core.clock import SECOND
from everloop.core.errors import InvalidInput, NotFound

AT = 1_700_000_000 * SECOND
A, B, C = (f"tr-{letter * 32}" for letter in "abc")


def span(trace, identity, *, parent="", after=0, seconds=1, attributes=(), **more):
    start = (AT + after * SECOND) * 1000
    body = {
        "name": identity,
        "attributes": [{"key": key, "value": {"string_value": value}} for key, value in attributes],
    }
    given = {
        "name": identity,
        "type": "LLM",
        "status": "OK",
        "start": start,
        "end": start + seconds * 10**9,
        "body": json.dumps(body, ensure_ascii=False),
        "root": None if parent else Root('{"x": 1}', "2"),
    }
    return Span(trace=trace, id=identity.encode().hex().ljust(16, "0"), parent=parent, **given | more)


def identity_of(name):
    return name.encode().hex().ljust(16, "0")


@pytest.fixture
def tx(catalog):
    with catalog.write() as opened:
        experiments.ensure_default(opened, "flights", AT)
        experiments.create(opened, "flights", "other", at=AT)
        yield opened


def found(tx, text, **more):
    return [trace.id for trace in searching.search(tx, "flights", ["0"], filter_text=text, **more).rows]


def test_a_trace_grows_with_its_spans_and_ends_with_its_root(tx):
    child = span(A, "child", parent=identity_of("root"), usage={"input_tokens": 3, "total_tokens": 3})
    assert spans.record(tx, "flights", "0", [child]) == []
    begun = traces.get(tx, "flights", A)
    assert (begun.status, begun.spans, begun.name, begun.at) == ("IN_PROGRESS", 1, "", AT)
    assert spans.record(tx, "flights", "0", [span(A, "root", after=-1, seconds=5, status="ERROR")]) == [A]
    ended = traces.get(tx, "flights", A)
    assert (ended.status, ended.spans, ended.name) == ("ERROR", 2, "root")
    assert (ended.at, ended.duration, ended.request, ended.response) == (AT - SECOND, 5 * SECOND, '{"x": 1}', "2")
    assert json.loads(ended.metadata["mlflow.trace.tokenUsage"]) == {"input_tokens": 3, "total_tokens": 3}
    assert ended.tags["mlflow.artifactLocation"] == f"mlflow-artifacts:/0/traces/{A}/artifacts"
    assert spans.record(tx, "flights", "0", [child]) == [A]  # again: replaced, counted once
    assert [one.id for one in spans.below(tx, "flights", ended.number)] == [identity_of("root"), identity_of("child")]
    assert traces.get(tx, "flights", A).spans == 2


def test_what_a_client_states_of_a_trace_outlasts_its_spans(tx):
    stated = Trace(A, "0", AT, duration=7, status="OK", tags={"mlflow.traceName": "mine"}, metadata={"k": "v"})
    traces.state(tx, "flights", stated, at=AT)
    late = span(A, "root", status="ERROR", root=Root("in", "out", {"mlflow.traceName": "theirs", "new": "tag"}))
    spans.record(tx, "flights", "0", [late])
    kept = traces.get(tx, "flights", A)
    assert (kept.status, kept.duration, kept.name, kept.request) == ("OK", 7, "mine", None)
    assert (kept.tags["new"], kept.metadata, kept.spans) == ("tag", {"k": "v"}, 1)
    again = traces.state(tx, "flights", replace(stated, status="ERROR", metadata={"l": "w"}), at=AT)
    assert (again.status, again.metadata) == ("ERROR", {"k": "v", "l": "w"})


def test_a_trace_stays_in_its_experiment_and_project(tx):
    spans.record(tx, "flights", "0", [span(A, "root")])
    with pytest.raises(InvalidInput, match="belongs to experiment 0"):
        spans.record(tx, "flights", "1", [span(B, "root"), span(A, "root")])
    with pytest.raises(NotFound):
        traces.get(tx, "other", A)
    with pytest.raises(NotFound):
        spans.record(tx, "flights", "9", [span(C, "root")])
    with pytest.raises(InvalidInput):
        traces.set_tag(tx, "flights", A, "mlflow.artifactLocation", "file:///etc")


@pytest.fixture
def three(tx):
    """Three traces: what the filters below tell apart."""
    run = runs.create(tx, "flights", experiment="0", actor="ada", at=AT).id
    model = {"model": "m1", "provider": "p", "cost": {"total_cost": 0.5}, "usage": {"total_tokens": 10}}
    spans.record(
        tx,
        "flights",
        "0",
        [
            span(A, "alpha", seconds=1, attributes=[("model", "gpt"), ("näme", "größe 50%")], **model),
            span(B, "beta", after=10, seconds=2, status="ERROR", type="TOOL"),
            span(C, "gamma", after=20, seconds=4),
        ],
    )
    traces.set_tag(tx, "flights", A, "team", "blue")
    traces.put_metadata(tx, traces.number_of(tx, "flights", B), {"mlflow.trace.session": "s1"})
    traces.link_run(tx, "flights", [C], run)
    traces.link_prompts(tx, "flights", C, [("greet", "2")])
    number = traces.number_of(tx, "flights", A)
    assessments.create(tx, number, Assessment("good", "feedback", value=True), at=AT)
    assessments.create(tx, number, Assessment("grade", "feedback", value=4), at=AT)
    assessments.create(tx, number, Assessment("said", "expectation", value="yes"), at=AT)
    return run


FILTERS = [
    ("", [C, B, A]),
    ("trace.status = 'ERROR'", [B]),
    ("attributes.timestamp_ms > 1700000005000", [C, B]),
    ("execution_time_ms >= 2000", [C, B]),
    ("end_time_ms < 1700000002000", [A]),
    ("name LIKE 'alp%'", [A]),
    ("name IN ('beta', 'gamma')", [C, B]),
    ("tags.team = 'blue'", [A]),
    ("tag.team IS NULL", [C, B]),
    ("metadata.`mlflow.trace.session` = 's1'", [B]),
    ("run_id = '{run}'", [C]),
    ("prompt = 'greet/2'", [C]),
    ("span.type = 'TOOL'", [B]),
    ("span.name ILIKE 'GAM%' AND span.status = 'OK'", [C]),
    ("span.attributes.model = 'gpt'", [A]),
    ("span.attributes.näme LIKE '%50%'", [A]),
    ("span.content LIKE '%größe%'", [A]),
    ("trace.text ILIKE '%GPT%'", [A]),
    ("feedback.good = 'true'", [A]),
    ("feedback.grade > 3.5", [A]),
    ("feedback.grade < 3.5", []),
    ("expectation.said = 'yes' AND feedback.none IS NULL", [A]),
]


def test_filters(tx, three):
    assert [(text, found(tx, text.replace("{run}", three))) for text, _ in FILTERS] == FILTERS


def test_order_and_pages_to_the_end(tx, three):
    assert found(tx, "", order_by=["execution_time ASC"]) == [A, B, C]
    assert found(tx, "", order_by=["tags.team ASC", "name DESC"]) == [A, C, B]
    first = searching.search(tx, "flights", ["0"], order_by=["timestamp_ms ASC"], limit=2)
    rest = searching.search(tx, "flights", ["0"], order_by=["timestamp_ms ASC"], limit=2, token=first.token)
    assert ([one.id for one in (*first.rows, *rest.rows)], rest.token) == ([A, B, C], "")
    with pytest.raises(InvalidInput):
        searching.search(tx, "flights", ["0"], limit=2, token=first.token)


def test_a_filter_that_makes_no_sense_is_refused(tx, three):
    for text in (
        "metrics.x > 1",
        "span.colour = 'x'",
        "span.content = 'x'",
        "prompt = 'a'",
        "status > 3",
        "timestamp = 'x'",
    ):
        with pytest.raises(InvalidInput):
            found(tx, text)


SUMS = [
    ("TRACES", "trace_count", ["COUNT"], ("trace_status",), (), [("ERROR", 1.0), ("OK", 2.0)]),
    ("TRACES", "latency", ["AVG"], (), (), [(7000 / 3,)]),
    ("TRACES", "latency", ["PERCENTILE"], (), (), [(2000.0,)]),
    ("TRACES", "total_tokens", ["SUM", "MAX"], (), ("trace.status = 'OK'",), [(10.0, 10.0)]),
    ("TRACES", "session_count", ["COUNT"], (), (), [(1.0,)]),
    ("SPANS", "total_cost", ["SUM"], ("span_model_name",), (), [("m1", 0.5)]),
    ("SPANS", "span_count", ["COUNT"], ("span_type",), ("trace.tag.team = 'blue'",), [("LLM", 1.0)]),
    (
        "ASSESSMENTS",
        "assessment_value",
        ["AVG"],
        ("assessment_name",),
        (),
        [("good", 1.0), ("grade", 4.0), ("said", 1.0)],
    ),
]


def test_sums(tx, three):
    for view, metric, kinds, dimensions, filters, wanted in SUMS:
        aggregations = tuple(metrics.Aggregation(kind, 50.0) for kind in kinds)
        question = metrics.Question(view, metric, aggregations, dimensions, filters)
        points = metrics.ask(tx, "flights", ["0"], question)
        rows = [(*point.dimensions.values(), *point.values.values()) for point in points]
        assert rows == [tuple(pytest.approx(c) if isinstance(c, float) else c for c in row) for row in wanted], metric


def test_sums_in_pieces_of_time(tx, three):
    question = metrics.Question("TRACES", "trace_count", (metrics.Aggregation("COUNT"),), every=20)
    points = metrics.ask(tx, "flights", ["0"], question)
    assert [(point.dimensions["time_bucket"], point.values["COUNT"]) for point in points] == [
        ("2023-11-14T22:13:20Z", 2.0),
        ("2023-11-14T22:13:40Z", 1.0),
    ]


def test_what_is_deleted_takes_all_that_hangs_on_it(tx, three):
    large = replace(span(C, "large", parent=identity_of("gamma"), after=20), object="b3:" + "1" * 64)
    spans.record(tx, "flights", "0", [large])
    assert "b3:" + "1" * 64 in placements.reachable(tx, "flights")
    assert traces.delete_some(tx, "flights", "0", until=AT + 15 * SECOND, most=1) == 1
    assert found(tx, "") == [C, B]
    assert traces.delete_some(tx, "flights", "0", identities=[B, C, A]) == 2
    assert found(tx, "") == []
    assert "b3:" + "1" * 64 not in placements.reachable(tx, "flights")
    assert spans.record(tx, "flights", "0", [span(A, "alpha")]) == [A]  # as new


def test_an_overridden_assessment_counts_again_when_the_new_one_goes(tx, three):
    number = traces.number_of(tx, "flights", A)
    (old,) = (one for one in assessments.below(tx, [number])[number] if one.name == "good")
    new = assessments.create(tx, number, Assessment("good", "feedback", value=False, overrides=old.id), at=AT + 1)
    assert found(tx, "feedback.good = 'true'") == []
    assessments.remove(tx, number, new.id)
    assert found(tx, "feedback.good = 'true'") == [A]
    with pytest.raises(NotFound):
        assessments.create(tx, number, Assessment("good", "feedback", value=1, overrides="a-none"), at=AT)
    with pytest.raises(InvalidInput):
        assessments.change(tx, number, old, replace(old, kind="expectation"), at=AT)
