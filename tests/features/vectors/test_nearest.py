import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from everloop.core.errors import DataError, InvalidInput
from everloop.features.vectors.definitions import dimensions, grouped, vector
from everloop.features.vectors.encoding import checked
from everloop.features.vectors.nearest import METRICS, Index


def brute(vectors, question, k, metric):
    """Every row scored in Python's own arithmetic, ties by row."""
    scored = []
    for row, one in enumerate(vectors.astype(float).tolist()):
        pairs = list(zip(one, question.astype(float).tolist(), strict=True))
        dot = sum(a * b for a, b in pairs)
        if metric == "euclidean":
            scored.append((sum((a - b) ** 2 for a, b in pairs) ** 0.5, row))
        elif metric == "dot":
            scored.append((-dot, row))
        else:
            size = sum(a * a for a, _ in pairs) ** 0.5 * sum(b * b for _, b in pairs) ** 0.5
            scored.append((-(dot / size) if size else 0.0, row))
    return [(row, abs(score) if metric == "euclidean" else -score) for score, row in sorted(scored)[:k]]


whole = st.integers(-4, 4).map(np.float32)


@given(
    vectors=arrays(np.float32, st.tuples(st.integers(1, 60), st.just(5)), elements=whole),
    question=arrays(np.float32, 5, elements=whole),
    k=st.integers(1, 8),
    metric=st.sampled_from(METRICS),
)
def test_exact_and_ordered_as_brute_force_says(vectors, question, k, metric):
    rows, scores = Index.of(vectors).nearest(question, k, metric)
    expected = brute(vectors, question, k, metric)
    assert [round(s, 9) for s in scores[0].tolist()] == [round(s, 9) for _, s in expected]
    if metric == "dot":  # whole numbers: no score is rounded, so that ties are ties
        assert rows[0].tolist() == [row for row, _ in expected]


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("shape", ["equal", "few", "zeros", "far", "tiny", "huge"])
def test_ties_and_numbers_that_single_precision_cannot_tell_apart_are_exact(shape, metric):
    rng = np.random.default_rng(2)
    made = {
        "equal": np.ones((500, 4)),
        "few": rng.choice([0.0, 1.0], (1500, 4)),
        "zeros": rng.normal(size=(300, 4)) * 0.1 * (np.arange(300) % 5 > 0)[:, None],
        "far": 1e4 + rng.normal(size=(1000, 4)),
        "tiny": rng.normal(size=(300, 4)) * 1e-40,
        "huge": rng.normal(size=(300, 4)) * 1e25,
    }
    vectors = made[shape].astype(np.float32)
    rows, scores = Index.of(vectors).nearest(vectors[:3], 7, metric)
    wide, every = vectors.astype(float), np.arange(len(vectors))
    for asked, found, scored in zip(wide, rows, scores, strict=False):
        if metric == "euclidean":
            truth = np.sqrt(((wide - asked) ** 2).sum(axis=1))
        else:
            sizes = np.sqrt((asked**2).sum()) * np.sqrt((wide**2).sum(axis=1)) if metric == "cosine" else 1.0
            truth = np.divide((wide * asked).sum(axis=1), sizes, out=np.zeros(len(wide)), where=np.asarray(sizes) > 0)
        order = np.lexsort((every, truth if metric == "euclidean" else -truth))[:7]
        assert found.tolist() == order.tolist()
        assert scored.tolist() == truth[order].tolist()


def test_the_answer_does_not_depend_on_who_else_asks():
    rng = np.random.default_rng(1)
    index = Index.of(rng.normal(size=(3000, 32)))
    asked = rng.normal(size=(40, 32))
    together = index.nearest(asked, 7)
    alone = [index.nearest(one, 7) for one in asked]
    assert np.array_equal(together[0], np.vstack([rows for rows, _ in alone]))
    assert np.array_equal(together[1], np.vstack([scores for _, scores in alone]))


@pytest.mark.parametrize(
    ("question", "k", "metric", "said"),
    [
        ([1.0, 2.0], 1, "cosine", "shape"),
        ([1.0, 2.0, float("nan")], 1, "cosine", "not finite"),
        ([1.0, 2.0, 3.0], 0, "cosine", "0 neighbours"),
        ([1.0, 2.0, 3.0], 1, "manhattan", "no metric"),
        (["a", "b", "c"], 1, "dot", "no vector"),
    ],
)
def test_wrong_questions(question, k, metric, said):
    with pytest.raises(InvalidInput, match=said):
        Index.of(np.ones((4, 3), np.float32)).nearest(question, k, metric)


def test_a_vector_is_a_feature_for_each_dimension():
    made = vector("embedding", 3, ttl="2d")
    assert [f.name for f in made] == list(dimensions("embedding", 3))
    assert {f.function for f in made} == {"last"}
    assert grouped(["x", "e_000", "e_001", "y_001", "z_000"]) == {"e": ["e_000", "e_001"]}


@pytest.mark.parametrize(
    ("answer", "said"),
    [(np.ones((1, 3)), "shape"), ([["a", "b"], ["c", "d"]], "gave <U1"), ([[1, 2], [3, np.nan]], "not finite")],
)
def test_what_is_no_vector_is_refused(answer, said):
    with pytest.raises(DataError, match=said):
        checked(answer, ["one", "two"], 2)
