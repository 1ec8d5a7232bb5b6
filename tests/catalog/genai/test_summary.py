"""The rule by which amounts of spans add up: a parent's include those below it."""

from hypothesis import given
from hypothesis import strategies as st

from everloop.catalog.genai.summary import Node, state, total


def test_the_outermost_amounts_count_once():
    nodes = [
        Node("root", "", {}),
        Node("agent", "root", {"t": 10}),
        Node("step", "agent", {}),
        Node("model", "step", {"t": 7}),
        Node("other", "root", {"t": 1, "u": 2}),
        Node("orphan", "gone", {"t": 100}),
    ]
    assert total(nodes) == {"t": 111, "u": 2}


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9), st.booleans()), max_size=30))
def test_any_graph_of_parents_ends_and_a_covered_span_counts_nothing(edges):
    nodes = [Node(str(one), str(other), {"t": 1} if stated else {}) for one, other, stated in edges]
    known = {node.id: node for node in nodes}

    def covered(node):
        seen, above = set(), known.get(node.parent)
        while above is not None and above.id not in seen:
            if above.amounts:
                return True
            seen.add(above.id)
            above = known.get(above.parent)
        return False

    assert total(nodes).get("t", 0) == sum(1 for node in nodes if node.amounts and not covered(node))


def test_a_chain_of_many_spans_is_walked_once():
    nodes = [Node(str(number), str(number - 1), {"t": 1} if number in {0, 49_999} else {}) for number in range(50_000)]
    assert total(nodes) == {"t": 1}


def test_an_error_of_a_root_is_the_traces():
    assert (state([]), state(["UNSET", "OK"]), state(["OK", "ERROR"])) == (None, "OK", "ERROR")
