import numpy as np
import onnx
import pytest
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.ensemble import GradientBoostingRegressor, HistGradientBoostingRegressor, RandomForestRegressor
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from everloop.models.canonical import canonical_digest

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(120, 4))
Y = (X[:, 0] > 0).astype(int)

MAKERS = {
    "forest": lambda seed: RandomForestRegressor(5, random_state=seed),
    "gbm": lambda seed: GradientBoostingRegressor(n_estimators=5, random_state=seed, subsample=0.5),
    "hgb": lambda seed: HistGradientBoostingRegressor(max_iter=5, random_state=0, learning_rate=0.1 + seed / 100),
    "logistic": lambda seed: LogisticRegression(C=1 + seed),
    "ridge": lambda seed: Ridge(alpha=1 + seed),
    "kmeans": lambda seed: KMeans(3, random_state=seed, n_init=1),
    "mlp": lambda seed: MLPClassifier((4,), random_state=seed, max_iter=1000, tol=0.1),
    "svc": lambda seed: SVC(C=1 + seed),
    "pipe": lambda seed: make_pipeline(StandardScaler(), PCA(2), LogisticRegression(C=1 + seed)),
}


@pytest.mark.parametrize("name", MAKERS)
def test_equal_trainings_are_equal_and_others_are_not(name):
    one, same, other = (MAKERS[name](seed).fit(X, Y) for seed in (1, 1, 2))
    assert canonical_digest(one) == canonical_digest(same)
    assert canonical_digest(one) != canonical_digest(other)


def test_threads_and_verbosity_do_not_count():
    one = RandomForestRegressor(5, random_state=0, n_jobs=1).fit(X, Y)
    two = RandomForestRegressor(5, random_state=0, n_jobs=2).fit(X, Y)
    assert canonical_digest(one) == canonical_digest(two)


def test_layout_sharing_and_order_do_not_count_and_values_do():
    shared = np.arange(3)
    assert canonical_digest({"a": np.asfortranarray(X), "b": 1}) == canonical_digest({"b": 1, "a": X.copy()})
    assert canonical_digest({1, "x", 2}) == canonical_digest({2, 1, "x"})
    assert canonical_digest([0.1]) != canonical_digest([0.1 + 1e-17 + 1e-16])
    assert canonical_digest(np.zeros(2)) != canonical_digest(np.zeros(2, np.float32))
    assert canonical_digest([shared, shared]) == canonical_digest([shared, shared.copy()])


def test_padding_between_the_fields_of_a_record_does_not_count():
    kind = np.dtype([("a", "i1"), ("b", "f8")], align=True)
    first, bytes_of_second = np.zeros(2, kind), np.full(2 * kind.itemsize, 255, np.uint8)
    second = bytes_of_second.view(kind)
    second["a"], second["b"] = 0, 0
    assert bytes_of_second.any()
    assert canonical_digest(first) == canonical_digest(second)


def graph(opsets, **said):
    helper = onnx.helper
    node = helper.make_node("Gemm", ["x", "w"], ["y"], doc_string=said.get("note", ""))
    weights = helper.make_tensor("w", onnx.TensorProto.FLOAT, [2, 1], [1.0, said.get("weight", 2.0)])
    values = [
        helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, s) for n, s in (("x", [None, 2]), ("y", [None, 1]))
    ]
    made = helper.make_graph([node], "g", values[:1], values[1:], [weights])
    listed = [helper.make_operatorsetid(domain, version) for domain, version in opsets]
    return helper.make_model(made, opset_imports=listed, producer_version=said.get("version", "1"))


def test_onnx_is_known_by_its_graph():
    opsets = [("", 17), ("ai.onnx.ml", 3)]
    plain = graph(opsets)
    again = graph(opsets[::-1], version="2", note="said by somebody")
    assert plain.SerializeToString() != again.SerializeToString()
    assert canonical_digest(plain) == canonical_digest(again)
    assert canonical_digest(plain) != canonical_digest(graph(opsets, weight=2.5))
    assert plain.producer_version == "1"  # looked at, not changed
