"""Drawing graphs: layers, places that do not collide, escaped text."""

from itertools import pairwise
from xml.etree import ElementTree as ET

from hypothesis import given
from hypothesis import strategies as st

from everloop.server.web.dag import NODE_HEIGHT, NODE_WIDTH, Node, layers_of, place, svg

NAMES = "abcdefgh"
EDGES = st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from(NAMES)), max_size=20)


def test_a_layer_is_the_longest_path_from_a_source():
    layers = layers_of("abcd", [("a", "b"), ("b", "c"), ("a", "c"), ("c", "d")])
    assert layers == {"a": 0, "b": 1, "c": 2, "d": 3}


def test_a_cycle_and_a_node_on_its_own_are_drawn_too():
    layers = layers_of("abc", [("a", "b"), ("b", "a")])
    assert layers["c"] == 0
    assert {layers["a"], layers["b"]} == {0, 1}


@given(EDGES)
def test_edges_of_an_acyclic_graph_go_right_and_boxes_do_not_overlap(edges):
    forward = [(a, b) for a, b in edges if a < b]
    placed, bends, down = place(NAMES, forward)
    assert not down
    for start, end in set(forward):
        stops = [placed[start], *bends[start, end], placed[end]]
        assert all(left.x < right.x for left, right in pairwise(stops))
    columns = {}
    for spot in placed.values():
        columns.setdefault(spot.x, []).append(spot.y)
    for tops in columns.values():
        assert all(below - above >= NODE_HEIGHT for above, below in pairwise(sorted(tops)))


@given(EDGES)
def test_what_has_many_layers_goes_down_instead(edges):
    forward = [(a, b) for a, b in edges if a < b]
    placed, bends, down = place(NAMES, forward, most=3)
    assert down == (max(layers_of(NAMES, forward).values()) >= 3)
    for start, end in set(forward) if down else ():
        stops = [placed[start], *bends[start, end], placed[end]]
        assert all(above.y + NODE_HEIGHT < below.y for above, below in pairwise(stops))
    rows = {}
    for spot in placed.values():
        rows.setdefault(spot.y, []).append(spot.x)
    for lefts in rows.values() if down else ():
        assert all(right - left >= NODE_WIDTH for left, right in pairwise(sorted(lefts)))


@given(EDGES, st.sampled_from([0, 3]))
def test_any_graph_is_drawn_within_its_frame(edges, most):
    root = ET.fromstring(svg([Node(name, name) for name in NAMES], edges, most=most))
    width, height = int(root.get("width")), int(root.get("height"))
    for group in root.iter("g"):
        x, y = map(int, group.get("transform").removeprefix("translate(").rstrip(")").split())
        assert x + NODE_WIDTH <= width
        assert y + NODE_HEIGHT <= height
    for path in root.iter("path"):
        numbers = [int(n) for n in path.get("d").replace("M", " ").replace("C", " ").split()]
        assert max(numbers[1::2], default=0) <= height
        assert max(numbers[::2], default=0) <= width


def test_text_of_a_graph_is_escaped():
    attack = '"><script>alert(1)</script>'
    drawn = svg([Node("a", attack, attack, "/x?a=1&b=2", "model"), Node("b", "b")], {("a", "b"): attack})
    root = ET.fromstring(drawn)
    assert "<script" not in drawn
    assert root.find(".//a").get("href") == "/x?a=1&b=2"
    assert next(title.text for title in root.iter("title")) == attack


def test_no_node_is_an_empty_drawing():
    assert ET.fromstring(svg([], [])).get("aria-label") == "graph of 0 nodes"
