"""Graphs through real gateways and workers: each node, each policy, and parts that are upgraded alone."""

import json
from pathlib import Path
from typing import Any

import graph_models
import numpy as np
import pytest
from serving_house import folder_of, logged, revision

from everloop.features.expressions import col
from everloop.features.transforms.definitions import transform_of
from everloop.serving.definitions import EndpointDef
from everloop.serving.graph.nodes import (
    CallEndpoint,
    Ensemble,
    Model,
    Sequence,
    Splitter,
    Step,
    Switch,
    Transform,
    node_of,
)
from everloop.serving.graph.planning import Plan, visit, without_code
from everloop.serving.table import Part, Route

ONE = f"b3:{1:064x}"


def graphed(home: Path, graph: Any, models: dict[str, Any], number: int = 1, name: str = "delay", **more: Any) -> Any:
    """A revision of a graph over models by role, planned as the controller does it."""
    inputs = more.pop("inputs", {})

    def part_of(role: str) -> Part:
        folder = models[role] if isinstance(models[role], str) else folder_of(home, f"m{number}-{role}", models[role])
        columns = inputs.get(role, [["x", "FP64"]])
        return Part(folder, "serving_models:load", columns, {name: [1.0] for name, _ in columns})

    EndpointDef(name, graph)  # refuses what cannot serve
    manifest = node_of(graph)
    plan = Plan(part_of, home / "transforms", None)
    visit(plan, manifest, set(), set())
    pairs, nullable = plan.logged()
    return revision(
        next(iter(plan.parts.values())).folder,
        number,
        inputs=pairs,
        caller=[[name, datatype] for name, datatype in plan.asked.items()],
        example={},
        nullable=nullable,
        graph=without_code(json.loads(json.dumps(manifest))),
        parts=plan.parts,
        **more,
    )


def serve(place, graph, models, **more):
    route = {name: more.pop(name) for name in ("deadline_micros",) if name in more}
    place.serve(Route("shop", "delay", [graphed(place.home, graph, models, **more)], **route))
    return place.gateway().ready()


def told(gateway, **row):
    answer = gateway.predict(row)
    assert answer.status_code == 200, answer.text
    return answer.json()


def nodes(place, condition):
    stats = place.until(lambda s: condition(s["endpoints"]["shop.delay"][ONE]["nodes"]))
    return stats["endpoints"]["shop.delay"][ONE]["nodes"]


def test_a_switch_answers_row_by_row(place):
    graph = Switch(
        (col("x") > 100, Model("far", "far")), (col("kind") == "b", Model("b", "b")), otherwise=Model("near", "near")
    )
    models = {"far": graph_models.Plus(1000), "b": graph_models.Plus(10), "near": graph_models.Plus(1)}
    gateway = serve(place, graph, models)
    answer = told(gateway, x=[1, 200, 2, 3], kind=["a", "b", "b", None])
    assert answer["predictions"] == [2.0, 1200.0, 12.0, 4.0]
    assert told(gateway, x=7, kind="a")["predictions"] == [8.0]
    counted = nodes(place, lambda n: n["3"]["rows"] == 3)
    assert [counted[str(number)]["rows"] for number in range(4)] == [5, 1, 1, 3]
    entry = logged(place.home)[0]
    assert entry.columns()["x"].tolist() == [1, 200, 2, 3]
    assert entry.columns()["kind"] == ["a", "b", "b", None]
    assert entry.answers() == {"prediction": [2.0, 1200.0, 12.0, 4.0]}
    said = gateway.client.get("/v2/models/shop.delay").json()
    assert [(i["name"], i["datatype"]) for i in said["inputs"]] == [("x", "FP64"), ("kind", "BYTES")]
    assert said["outputs"] == [{"name": "prediction", "datatype": "FP64", "shape": [-1]}]


def test_rows_that_no_case_is_for_are_the_callers_fault(place):
    gateway = serve(place, Switch((col("x") > 0, "one")), {"champion": graph_models.Plus(1)})
    assert gateway.predict({"x": -3}).status_code == 400
    assert "otherwise" in gateway.predict({"x": -3}).json()["message"]


@pytest.mark.parametrize(
    ("combine", "expected"),
    [("mean", [6.5]), ("max", [11.0]), ("min", [2.0]), ("all", [{"a.prediction": 2.0, "b.prediction": 11.0}])],
)
def test_an_ensemble_of_numbers(place, combine, expected):
    gateway = serve(place, Ensemble(combine, a="a", b="b"), {"a": graph_models.Plus(1), "b": graph_models.Plus(10)})
    assert told(gateway, x=1)["predictions"] == expected


def test_an_ensemble_votes_without_the_member_that_failed(place):
    graph = Ensemble("vote", a="a", b="b", c="c", d=Step(Sequence(Model("d", "d"), Model("e", "e")), soft=True))
    models = {"a": graph_models.Label("no"), "b": graph_models.Label("yes"), "c": graph_models.Label("yes")}
    models |= {"d": graph_models.Plus(1, "number"), "e": graph_models.Label("no")}
    gateway = serve(place, graph, models)
    answer = told(gateway, x=1)
    assert (answer["predictions"], "path" in answer) == (["no"], False)  # two against two: the first
    answer = told(gateway, x=-1)
    assert (answer["predictions"], answer["path"]) == (["yes"], {"sequence 4": "left out"})
    assert logged(place.home)[-1].path == {"sequence 4": "left out"}


def test_a_splitter_keeps_its_callers_and_says_which_share_answered(place):
    graph = Splitter({"old": (70, "one"), "new": (30, "other")})
    gateway = serve(place, graph, {"old": graph_models.Plus(0), "new": graph_models.Plus(100)})

    def asked(**headers):
        answer = gateway.predict({"x": 1}, **headers).json()
        assert answer["path"] == {"splitter 0": "old" if answer["predictions"] == [1.0] else "new"}
        return answer["predictions"][0]

    share = sum(asked() > 50 for _ in range(300))
    assert 50 <= share <= 130  # 90 expected; five standard deviations
    keyed = {key: asked(**{"everloop-sticky": key}) for key in map(str, range(30))}
    assert keyed == {key: asked(**{"everloop-sticky": key}) for key in keyed}
    assert len(set(keyed.values())) == 2


def test_models_in_a_row_see_what_came_before(place):
    graph = Sequence(Model("first", "first"), Model("last", "last"))
    gateway = serve(
        place,
        graph,
        {"first": graph_models.Plus(10), "last": graph_models.Sum()},
        inputs={"last": [["x", "FP64"], ["first.prediction", "FP64"], ["y", "FP64"]]},
    )
    assert told(gateway, x=1, y=100)["predictions"] == [112.0]
    entry = logged(place.home)[0]
    assert sorted(entry.columns()) == ["x", "y"]  # what nodes made is no input


def test_a_transform_is_the_projects_own_function_in_a_worker(place):
    def doubled(raw, flag):
        return {"x": np.ma.filled(raw, 7) * 2.0 * np.where(np.ma.filled(flag, False), 1, -1)}

    transform = transform_of(doubled, {"raw": "int64", "flag": "bool"}, {"x": "float64"})
    gateway = serve(place, Sequence(Transform(transform), "one"), {"champion": graph_models.Plus(1)})
    answer = told(gateway, raw=[3, None, 4], flag=[True, True, None])
    assert answer["predictions"] == [7.0, 15.0, -7.0]
    names = sorted(logged(place.home)[0].columns())
    assert names == ["flag", "flag?null", "raw", "raw?null"]


def test_time_limits_retries_and_defaults(place):
    step = Step("slow", timeout="300ms", default={"prediction": -1.0})
    graph = Ensemble("all", a=step, b=Step("other", retries=2))
    gateway = serve(place, graph, {"a": graph_models.Plus(1), "b": graph_models.Tardy(2)})
    answer = told(gateway, x=1)
    assert (answer["predictions"], "path" in answer) == ([{"a.prediction": 2.0, "b.prediction": 3.0}], False)
    failed = gateway.predict({"x": -1})  # `b` has no default; when it is given up, `a` has failed or is late
    assert failed.status_code == 500
    assert "minus one" in failed.json()["message"]
    counted = nodes(place, lambda n: n["2"]["retries"] == 2)
    assert (counted["2"]["errors"], counted["1"]["defaults"]) == (1, 1)


def test_what_is_late_is_left_to_its_default(place):
    step = Step("slow", timeout="300ms", default={"prediction": "unknown"})
    gateway = serve(place, Sequence(step), {"champion": graph_models.Plus(1)})
    answer = told(gateway, x=-5)
    assert (answer["predictions"], answer["path"]) == (["unknown"], {"model slow": "default"})


def test_a_worker_that_dies_is_started_again_within_the_step(place):
    graph = Ensemble("all", a=Step("a", default={"prediction": 0.0}), b="b")
    models = {"a": graph_models.Plus(1), "b": graph_models.Sum()}
    gateway = serve(place, graph, models)
    answer = told(gateway, x=-9)
    assert (answer["predictions"], answer["path"]) == (
        [{"a.prediction": 0.0, "b.prediction": -9.0}],
        {"model a": "default"},
    )
    place.until(lambda s: s["endpoints"]["shop.delay"][ONE]["workers"]["model a"]["restarts"] == 1)
    place.until(lambda s: s["endpoints"]["shop.delay"][ONE]["state"] == "ready")
    assert told(gateway, x=1)["predictions"] == [{"a.prediction": 2.0, "b.prediction": 1.0}]


def test_another_endpoint_is_called_and_logs_its_own_prediction(place):
    inner = revision(folder_of(place.home, "inner", graph_models.Plus(5)), 7, inputs=[["x", "FP64"]])
    inner = type(inner)(**{**{f: getattr(inner, f) for f in inner.__struct_fields__}, "caller": [["x", "FP64"]]})
    inner = type(inner)(**{**{f: getattr(inner, f) for f in inner.__struct_fields__}, "example": {"x": [1.0]}})
    graph = Sequence(CallEndpoint("base", {"x": "float64"}), Model("top", "top"))
    outer = graphed(
        place.home, graph, {"top": graph_models.Sum()}, inputs={"top": [["prediction", "FP64"], ["y", "FP64"]]}
    )
    place.serve(Route("shop", "base", [inner]), Route("shop", "delay", [outer]))
    gateway = place.gateway().ready()
    assert told(gateway, x=1, y=10)["predictions"] == [16.0]
    assert [(e.endpoint, e.route) for e in logged(place.home)] == [("base", "call"), ("delay", "predict")]


def test_endpoints_that_call_each_other_end(place):
    def calling(own, other, number):
        graph = Sequence(CallEndpoint(other, {"x": "float64"}), Model("m", "m"))
        return graphed(place.home, graph, {"m": graph_models.Plus(1)}, number=number, name=own)

    routes = [("delay", "other"), ("other", "delay")]
    place.serve(*(Route("shop", own, [calling(own, other, n)]) for n, (own, other) in enumerate(routes, 1)))
    answer = place.gateway().ready().predict({"x": 1})
    assert answer.status_code == 500
    assert "without end" in answer.json()["message"]


def test_upgrading_one_part_starts_that_part_only(place):
    kept = folder_of(place.home, "kept", graph_models.Plus(1))
    graph = Ensemble("all", a="a", b="b")
    place.serve(Route("shop", "delay", [graphed(place.home, graph, {"a": kept, "b": graph_models.Plus(2)})]))
    gateway = place.gateway().ready()
    before = place.stats()["endpoints"]["shop.delay"][ONE]["workers"]
    newer = graphed(place.home, graph, {"a": kept, "b": graph_models.Plus(20)}, number=2)
    place.serve(Route("shop", "delay", [newer]))
    gateway.ready()
    assert told(gateway, x=1)["predictions"] == [{"a.prediction": 2.0, "b.prediction": 21.0}]
    after = place.stats()["endpoints"]["shop.delay"][f"b3:{2:064x}"]["workers"]
    assert before["model a"]["pid"] == after["model a"]["pid"]
    assert before["model b"]["pid"] != after["model b"]["pid"]


def test_branches_that_answer_differently_are_refused_before_they_serve(place):
    serve(place, Ensemble("all", a="a", b="b"), {"a": graph_models.Plus(1), "b": graph_models.Plus(2)})
    models = {"champion": graph_models.Plus(1, "one"), "other": graph_models.Plus(1, "two")}
    wrong = graphed(place.home, Switch((col("x") > 0, "a"), otherwise=Model("b", "other")), models, number=2)
    place.serve(Route("shop", "delay", [wrong]))
    problem = place.until(lambda s: f"b3:{2:064x}" in s["problems"])["problems"][f"b3:{2:064x}"]
    assert "branches of a switch answer one and two" in problem
