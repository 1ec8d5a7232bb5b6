import numpy as np
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
