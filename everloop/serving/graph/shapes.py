"""What a graph answers, as far as its workers have said it: names, datatypes and shapes of the outputs."""

from collections.abc import Callable, Mapping
from typing import Any

from everloop.core.coherence import below
from everloop.core.errors import InvalidInput
from everloop.serving.columns import Output, Outputs
from everloop.serving.graph.planning import key_of

ShownBy = Callable[[str], Outputs]
"""The outputs of a worker by its part, or of an endpoint by its name; empty while they are not known."""


def outputs_of(node: Mapping[str, Any], worker: ShownBy, endpoint: ShownBy) -> Outputs:
    """The outputs of a node; empty while a part of it has not said its own.

    Raises `InvalidInput` when branches that stand for each other differ.
    """
    kind = node["node"]
    inner = [outputs_of(one, worker, endpoint) for one in below(node)]
    if not inner:
        return _of_leaf(node, worker, endpoint)
    if kind == "sequence":
        return next((outputs for outputs in reversed(inner) if outputs), ())
    if not all(inner):
        return ()
    if kind == "ensemble":
        return _of_ensemble(node, inner)
    for outputs in inner[1:]:
        if [(o.name, o.tail) for o in outputs] != [(o.name, o.tail) for o in inner[0]]:
            raise InvalidInput(
                f"the branches of a {kind} answer {_said(inner[0])} and {_said(outputs)}", hint="they must answer alike"
            )
    return inner[0]


def _of_leaf(node: Mapping[str, Any], worker: ShownBy, endpoint: ShownBy) -> Outputs:
    if node["node"] == "lookup":
        return ()
    return endpoint(node["endpoint"]) if node["node"] == "call" else worker(key_of(node))


def _of_ensemble(node: Mapping[str, Any], inner: list[Outputs]) -> Outputs:
    names = [member["name"] for member in node["members"]]
    if node["combine"] == "all":
        pairs = [(name, output) for name, outputs in zip(names, inner, strict=True) for output in outputs]
        return tuple(Output(f"{name}.{output.name}", output.datatype, output.tail) for name, output in pairs)
    shared = [o for o in inner[0] if all(o.name in {other.name for other in outputs} for outputs in inner)]
    if not shared:
        raise InvalidInput("the members of an ensemble have no output in common", hint=_said(inner[0]))
    mean = node["combine"] == "mean"
    return tuple(Output(o.name, "FP64" if mean and o.datatype != "FP32" else o.datatype, o.tail) for o in shared)


def _said(outputs: Outputs) -> str:
    return ", ".join(output.name for output in outputs)
