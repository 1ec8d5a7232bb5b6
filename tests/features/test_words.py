"""What features are, in words."""

import pytest

from everloop.core.clock import DAY, HOUR, MINUTE, SECOND
from everloop.features import definitions as el
from everloop.features.definitions.words import length, words_of
from everloop.features.expressions import author

COUNT = el.count(over="7d")
TEA = el.count(over="7d", where=("item", "==", "tea"))


@pytest.mark.parametrize(
    ("feature", "words"),
    [
        (COUNT, "count over 7 d"),
        (
            el.count(over="1h", where=[("a", "in", ["y", "x"]), ("b", ">", 5)]),
            "count over 1 h, where a in (x, y) and b > 5",
        ),
        (
            el.mean("a", over="90m", where=el.all_of(("b", "!=", "x"), el.any_of(("c", "<", 1), ("c", ">", 2)))),
            "mean of a over 90 min, where b != x and (c < 1 or c > 2)",
        ),
        (el.sum("a", over="24h", scale=2), "sum of a over 24 h, to 2 digits"),
        (el.max("a", over="48h", scale=0), "max of a over 2 d, in whole numbers"),
        (el.stddev("a", over="1w"), "standard deviation of a over 7 d"),
        (el.variance("a", over="1w", sample=False), "variance of a as a whole over 7 d"),
        (el.last("a"), "last of a"),
        (el.last("a", ttl="2h"), "last of a, at most 2 h old"),
        (el.first("a", over="30d"), "first of a over 30 d"),
        (el.last_k("a", 3, ttl="90s"), "newest 3 of a, at most 90 s old"),
        (el.top_k("a", 2, over="1h"), "2 most frequent of a over 1 h"),
        (el.distinct("a", over="1h"), "distinct values of a over 1 h"),
        (el.distinct("a", over="1h", sketch=64), "distinct values of a, estimated from 64 hashes over 1 h"),
        (el.histogram("a", [0.5, 10], over="1h"), "counts of a between 0.5, 10 over 1 h"),
        (el.quantile("a", 0.95, over="1h"), "quantile 0.95 of a over 1 h, within 0.39 %"),
        (el.ratio(TEA, COUNT), "(count over 7 d, where item == tea) / count over 7 d"),
        (
            el.sum(author.col("a") * 2, over="1h", name="double", where=author.col("b") > 1),
            "sum of (a * 2.0) over 1 h, where (b > 1.0)",
        ),
    ],
)
def test_a_feature_in_words(feature, words):
    assert words_of(feature) == words


@pytest.mark.parametrize(
    ("span", "words"),
    [(90 * SECOND, "90 s"), (90 * MINUTE, "90 min"), (DAY, "24 h"), (2 * DAY, "2 d"), (HOUR, "1 h"), (2500, "2.5 ms")],
)
def test_a_length_of_time_in_words(span, words):
    assert length(span) == words
