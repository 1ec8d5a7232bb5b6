"""scikit-learn's histogram gradient boosting as ONNX, in double precision.

It bins values by thresholds that are doubles. The usual conversion rounds thresholds and inputs to single precision, so
that a value near a threshold goes the other way and the answer is another leaf's. `TreeEnsemble` (ai.onnx.ml, version
5) compares doubles.
"""

from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from everloop.core.errors import InvalidInput

_OPSETS = (("", 17), ("ai.onnx.ml", 5))
_LINKS = {"squared_error": (), "absolute_error": (), "quantile": (), "gamma": ("Exp",), "poisson": ("Exp",)}


def converted(estimator: Any) -> bytes:
    """The model; its input is the matrix `rows` of doubles, its last output what the estimator answers.

    Raises `InvalidInput` for what it does not hold: categorical splits, unknown losses.
    """
    categorical = getattr(estimator, "is_categorical_", None)
    if categorical is not None and np.any(categorical):
        raise InvalidInput("categorical splits of histogram gradient boosting are not converted")
    classifies = hasattr(estimator, "classes_")
    if not classifies and estimator.loss not in _LINKS:
        raise InvalidInput(f"the loss {estimator.loss} is not converted")
    baseline = np.asarray(estimator._baseline_prediction, np.float64).reshape(-1)  # noqa: SLF001 - no public name has it
    nodes = [
        helper.make_node("TreeEnsemble", ["rows"], ["sums"], domain="ai.onnx.ml", **_trees(estimator, len(baseline))),
        helper.make_node("Add", ["sums", "baseline"], ["raw"]),
    ]
    if not classifies:
        links = _LINKS[estimator.loss]
        nodes.append(helper.make_node(links[0] if links else "Identity", ["raw"], ["answer"]))
    elif len(baseline) == 1:
        nodes += [
            helper.make_node("Sigmoid", ["raw"], ["second"]),
            helper.make_node("Sub", ["one", "second"], ["first"]),
            helper.make_node("Concat", ["first", "second"], ["answer"], axis=1),
        ]
    else:
        nodes.append(helper.make_node("Softmax", ["raw"], ["answer"], axis=1))
    width = len(estimator.classes_) if classifies else 1
    graph = helper.make_graph(
        nodes,
        "model",
        [helper.make_tensor_value_info("rows", TensorProto.DOUBLE, [None, estimator.n_features_in_])],
        [helper.make_tensor_value_info("answer", TensorProto.DOUBLE, [None, width])],
        [numpy_helper.from_array(baseline[None, :], "baseline"), numpy_helper.from_array(np.array([[1.0]]), "one")],
    )
    opsets = [helper.make_opsetid(domain, version) for domain, version in _OPSETS]
    content: bytes = helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString(deterministic=True)
    return content


def _trees(estimator: Any, targets: int) -> dict[str, Any]:
    """The attributes of the ensemble: inner nodes and leaves each in one list, one tree after the other."""
    lists: dict[str, list[Any]] = {name: [] for name in _INNER}
    roots, targets_of, weights = [], list[int](), list[float]()
    for stage in estimator._predictors:  # noqa: SLF001 - no public name has the trees
        for target, tree in enumerate(stage):
            nodes = tree.nodes
            leaf = nodes["is_leaf"].astype(bool)
            first_inner, first_leaf = len(lists["nodes_featureids"]), len(weights)
            roots.append(first_inner)
            weights += nodes["value"][leaf].tolist()
            targets_of += [target] * int(leaf.sum())
            if leaf[0]:  # a tree of one leaf: both ways of one node lead to it
                _append(lists, (0, 0.0, first_leaf, 1, first_leaf, 1, 0))
                continue
            place = np.where(leaf, first_leaf + np.cumsum(leaf) - 1, first_inner + np.cumsum(~leaf) - 1)
            for node in nodes[~leaf]:
                left, right = int(node["left"]), int(node["right"])
                ways = (int(place[left]), int(leaf[left]), int(place[right]), int(leaf[right]))
                row = (int(node["feature_idx"]), float(node["num_threshold"]), *ways, int(node["missing_go_to_left"]))
                _append(lists, row)
    count = len(lists["nodes_featureids"])
    splits = np.array(lists.pop("nodes_splits"), np.float64)
    return {
        **lists,
        "nodes_splits": numpy_helper.from_array(splits, "splits"),
        "nodes_modes": numpy_helper.from_array(np.zeros(count, np.uint8), "modes"),  # 0: to the left if <=
        "leaf_targetids": targets_of,
        "leaf_weights": numpy_helper.from_array(np.array(weights, np.float64), "weights"),
        "tree_roots": roots,
        "n_targets": targets,
        "aggregate_function": 1,
    }


_INNER = (
    "nodes_featureids",
    "nodes_splits",
    "nodes_truenodeids",
    "nodes_trueleafs",
    "nodes_falsenodeids",
    "nodes_falseleafs",
    "nodes_missing_value_tracks_true",
)


def _append(lists: dict[str, list[Any]], row: tuple[Any, ...]) -> None:
    for name, value in zip(_INNER, row, strict=True):
        lists[name].append(value)
