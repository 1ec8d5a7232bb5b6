"""Steps of graphs that are answered in one hop give what they give apart, and are counted as if they were apart."""

import graph_models
import numpy as np
import pytest
from serving_house import folder_of, logged
from test_graph import ONE, graphed, nodes, serve, told

from everloop.features.expressions import col
from everloop.features.transforms.definitions import transform_of
from everloop.serving.graph.fusing import running
from everloop.serving.graph.nodes import Model, Sequence, Splitter, Step, Switch, Transform, asked_of_caller, node_of
from everloop.serving.table import INLINE, Route


def tripled(raw):
    if (np.ma.filled(raw, 0) == 13).any():
        raise ValueError("thirteen")
    base = np.ma.filled(raw, 7) * 3.0
    return {"base": base, "x": base}


def doubled(raw):
    return {"x": raw * 2.0}


def added(base, shift):
    return {"x": base + shift}


TRIPLED = Transform(transform_of(tripled, {"raw": "int64"}, {"base": "float64", "x": "float64"}))
DOUBLED = Transform(transform_of(doubled, {"raw": "float64"}, {"x": "float64"}))
ADDED = Transform(transform_of(added, {"base": "float64", "shift": "float64"}, {"x": "float64"}))
PLUS = {"champion": graph_models.Plus(1), "far": graph_models.Plus(1000), "near": graph_models.Plus(10)}


def parts(place, graph, models=None):
    return list(running(graphed(place.home, graph, models or PLUS, number=9)))


def test_transforms_and_the_model_behind_them_are_one_part(place):
    assert parts(place, Sequence(TRIPLED, ADDED, "one")) == ["transform tripled, transform added, model champion"]


@pytest.mark.parametrize(
    "apart",
    [
        Sequence(Step(TRIPLED, timeout="1s"), "one"),
        Sequence(TRIPLED, Step("one", retries=1)),
        Sequence(TRIPLED, Step("one", soft=True), Model("near", "near")),
        Sequence(TRIPLED, "one", ADDED, Model("near", "near")),  # the last two read what the first makes
        Sequence(TRIPLED, Switch((col("x") > 3, Model("far", "far")), otherwise=Model("near", "near"))),
    ],
    ids=["limit", "retries", "soft", "read later", "decides"],
)
def test_what_has_a_policy_or_is_needed_elsewhere_stays_apart(place, apart):
    assert "transform tripled" in parts(place, apart)


def test_a_model_in_the_gateway_stays_there(place):
    whole = graphed(place.home, Sequence(TRIPLED, "one"), PLUS)
    inline = {name: type(part)(part.folder, INLINE, part.inputs, part.example) for name, part in whole.parts.items()}
    inside = type(whole)(**{name: getattr(whole, name) for name in whole.__struct_fields__} | {"parts": inline})
    assert list(running(inside)) == ["transform tripled", "model champion"]


def test_columns_that_two_steps_would_be_sent_in_two_types_keep_them_apart(place):
    models = {"champion": graph_models.Sum()}
    whole = graphed(place.home, Sequence(TRIPLED, "one"), models, inputs={"champion": [["x", "FP64"], ["raw", "FP64"]]})
    assert list(running(whole)) == ["transform tripled", "model champion"]


@pytest.mark.parametrize("apart", [False, True])
def test_fused_or_apart_the_answer_log_and_counters_are_the_same(place, apart):
    first = Step(TRIPLED, retries=1) if apart else TRIPLED
    gateway = serve(place, Sequence(first, ADDED if not apart else Step(ADDED, retries=1), "one"), PLUS)
    answers = [
        told(gateway, raw=[2, None], shift=[0.5, 1.0])["predictions"],
        told(gateway, raw=5, shift=1)["predictions"],
    ]
    assert answers == [[7.5, 23.0], [17.0]]
    assert gateway.predict({"raw": 13, "shift": 0}).status_code == 500
    assert "thirteen" in gateway.predict({"raw": 13, "shift": 0}).json()["message"]
    counted = nodes(place, lambda n: n["0"]["errors"] == 2)
    told_of = {number: (one["requests"], one["rows"], one["errors"]) for number, one in counted.items()}
    assert told_of == {"0": (4, 3, 2), "1": (4, 3, 2), "2": (2, 3, 0), "3": (2, 3, 0)}
    assert all(one["p50_micros"] > 0 for one in counted.values())
    entries = logged(place.home)
    assert [entry.columns().keys() for entry in entries] == [{"raw", "shift", "raw?null"}] * 2
    assert [entry.answers() for entry in entries] == [{"prediction": [7.5, 23.0]}, {"prediction": [17.0]}]


def test_a_model_that_fails_behind_its_transform_is_the_one_that_failed(place):
    gateway = serve(place, Sequence(DOUBLED, "one"), PLUS)
    assert gateway.predict({"raw": -0.5}).status_code == 500  # the model gets -1
    told(gateway, raw=1)
    counted = nodes(place, lambda n: n["2"]["requests"] == 2)
    assert [(one["requests"], one["errors"]) for one in counted.values()] == [(2, 1), (2, 0), (2, 1)]


def test_a_switch_behind_a_transform_is_decided_first_and_the_transform_counts_once(place):
    graph = Sequence(
        TRIPLED, Switch((col("far") > 0.5, Model("far", "far")), otherwise=Sequence(ADDED, Model("near", "near")))
    )
    assert parts(place, graph) == ["transform tripled, model far", "transform tripled, transform added, model near"]
    gateway = serve(place, graph, PLUS)
    answer = told(gateway, raw=[1, 2, 3], far=[0, 1, 0.0], shift=[100, 0, 200])
    assert answer["predictions"] == [113.0, 1006.0, 219.0]
    assert told(gateway, raw=1, far=0.75, shift=0)["predictions"] == [1003.0]
    assert told(gateway, raw=1, far=None, shift=0)["predictions"] == [13.0]  # a null holds nowhere
    counted = nodes(place, lambda n: n["0"]["requests"] == 3)
    assert [(one["requests"], one["rows"]) for one in counted.values()] == [
        (3, 5), (3, 5), (3, 5), (2, 2), (2, 3), (2, 3), (2, 3)
    ]  # fmt: skip


def test_a_retry_around_fused_steps_asks_them_all_again(place):
    gateway = serve(place, Step(Sequence(DOUBLED, "one"), retries=1, default={"prediction": -5.0}), PLUS)
    answer = told(gateway, raw=-0.5)
    assert (answer["predictions"], answer["path"]) == ([-5.0], {"sequence 0": "default"})
    counted = nodes(place, lambda n: n["0"]["retries"] == 1)
    assert [(one["requests"], one["errors"]) for one in counted.values()] == [(1, 1), (2, 0), (2, 2)]


def test_shares_and_fused_steps(place):
    graph = Splitter({"a": (50, Sequence(DOUBLED, Model("far", "far"))), "b": (50, Model("near", "near"))})
    assert parts(place, graph) == ["transform doubled, model far", "model near"]
    gateway = serve(place, graph, PLUS)
    answers = {told(gateway, raw=1.0, x=1.0)["predictions"][0] for _ in range(40)}
    assert answers == {1002.0, 11.0}


def test_upgrading_a_transform_keeps_the_other_branch(place):
    kept = folder_of(place.home, "kept", graph_models.Plus(10))

    def graph_with(step):
        return Switch((col("raw") > 3, Sequence(step, Model("far", "far"))), otherwise=Model("near", "near"))

    models = {**PLUS, "near": kept}
    place.serve(Route("shop", "delay", [graphed(place.home, graph_with(TRIPLED), models)]))
    gateway = place.gateway().ready()
    assert told(gateway, raw=4, x=0)["predictions"] == [1012.0]
    before = place.stats()["endpoints"]["shop.delay"][ONE]["workers"]
    place.serve(Route("shop", "delay", [graphed(place.home, graph_with(DOUBLED), models, number=2)]))
    gateway.ready()
    assert told(gateway, raw=4, x=0)["predictions"] == [1008.0]
    after = place.stats()["endpoints"]["shop.delay"][f"b3:{2:064x}"]["workers"]
    assert before["model near"]["pid"] == after["model near"]["pid"]


def test_a_text_where_a_switch_compares_numbers_is_the_callers_fault(place):
    gateway = serve(place, Sequence(TRIPLED, Switch((col("far") > 0.5, Model("far", "far")), otherwise="one")), PLUS)
    answer = gateway.predict({"raw": 1, "far": "away"})
    assert (answer.status_code, "far" in answer.json()["message"]) == (400, True)
    assert told(gateway, raw=1, far=0)["predictions"] == [4.0]
    assert nodes(place, lambda n: n["0"]["requests"] == 1)["2"]["errors"] == 0


def test_what_callers_send_is_read_off_a_graph():
    service = {"entities": ["place"], "request": ["x"], "views": {"flow": "b3:1"}}
    graph = Sequence(TRIPLED, Switch((col("flow__mean") > 0.5, Model("far", "far")), otherwise="one"))
    assert asked_of_caller(node_of(graph), service) == ["place", "raw"]
    assert asked_of_caller(node_of(Sequence("one")), service) == ["place", "x"]
