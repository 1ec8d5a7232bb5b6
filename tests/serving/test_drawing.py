"""A graph as boxes and arrows."""

from everloop.features.expressions import col
from everloop.serving.graph.drawing import flow_of
from everloop.serving.graph.nodes import Ensemble, Lookup, Sequence, Splitter, Switch, node_of, numbered


def drawn(graph):
    flow = flow_of(numbered(node_of(graph)))
    return {i: box.label for i, box in flow.boxes.items()}, flow.arrows


def test_a_sequence_is_a_line():
    boxes, arrows = drawn(Sequence(Lookup("inputs"), "delay"))
    assert boxes == {"1": "inputs", "2": "delay"}
    assert flow_of(numbered(node_of(Sequence(Lookup("inputs"), "delay")))).boxes["2"].role == "champion"
    assert list(arrows) == [("question", "1"), ("1", "2"), ("2", "answer")]


def test_ways_part_at_a_switch_and_join_behind_an_ensemble():
    graph = Switch(
        (col("x") > 5, Ensemble("mean", a="one", b="two")),
        otherwise=Splitter({"old": (90, "three"), "new": (10, "four")}),
    )
    boxes, arrows = drawn(graph)
    assert boxes == {
        "0": "switch",
        "2": "one",
        "3": "two",
        "1 end": "mean of all",
        "4": "splitter",
        "5": "three",
        "6": "four",
    }
    assert arrows["0", "2"].endswith(", a")
    assert "x" in arrows["0", "3"]
    assert arrows["0", "4"] == "otherwise"
    assert arrows["4", "6"] == "new: 10 %"
    assert {start for start, end in arrows if end == "answer"} == {"1 end", "5", "6"}
