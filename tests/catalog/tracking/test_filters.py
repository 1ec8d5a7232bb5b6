"""The filter language: what it reads, what it refuses."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everloop.catalog.tracking.filters import Condition, Field, Ordering, parse_filter, parse_order
from everloop.core.errors import InvalidInput

READ = {
    "metrics.auc > 0.5": ("metric", "auc", ">", 0.5),
    "metric.`my metric` <= -1e3": ("metric", "my metric", "<=", -1000.0),
    'params."learning rate" = "0.1"': ("param", "learning rate", "=", "0.1"),
    "tags.mlflow.user LIKE 'a%'": ("tag", "mlflow.user", "LIKE", "a%"),
    "tags.a ilike 'B'": ("tag", "a", "ILIKE", "B"),
    "attributes.start_time >= 1664067852747": ("attribute", "start_time", ">=", 1664067852747),
    "status != 'FAILED'": ("attribute", "status", "!=", "FAILED"),
    "run_id IN ('a', 'b')": ("attribute", "run_id", "IN", ("a", "b")),
    "run_id not in ('a')": ("attribute", "run_id", "NOT IN", ("a",)),
    "params.x IS NULL": ("param", "x", "IS NULL", None),
    "params.x is not null": ("param", "x", "IS NOT NULL", None),
    "dataset.name = 'iris'": ("dataset", "name", "=", "iris"),
    "`Run name` = 'it''s'": ("attribute", "Run name", "=", "it's"),
    "metrics.a/b-c:d=1": ("metric", "a/b-c:d", "=", 1),
    "tags.`it is AND so` = ' AND '": ("tag", "it is AND so", "=", " AND "),
    "tags.größe = 'ü'": ("tag", "größe", "=", "ü"),
}


@pytest.mark.parametrize("text", READ)
def test_reads_one_condition(text):
    entity, key, operator, value = READ[text]
    assert parse_filter(text) == (Condition(Field(entity, key), operator, value),)


def test_reads_several_conditions_and_none():
    found = parse_filter("metrics.a > 1 and params.b = 'x' AND tags.c like '%'")
    assert [one.field.entity for one in found] == ["metric", "param", "tag"]
    assert parse_filter("  ") == ()


@pytest.mark.parametrize(
    "text",
    [
        "metrics.a",
        "metrics.a >",
        "metrics.a > 1 AND",
        "metrics.a > 1 OR metrics.b > 1",
        "metrics.a > 1 metrics.b > 1",
        "metrics.a ! 1",
        "foo.bar = 'x'",
        "params.a = b",
        "params.a = 'open",
        "run_id IN 'a'",
        "run_id IN ('a'",
        "run_id IN ('a' 'b')",
        "run_id IN ()",
        "params.a IS",
        "params.a IS NOT 1",
        "params.a NOT LIKE 'x'",
        "= 1",
        "(metrics.a > 1)",
        "metrics.a > 1; DROP TABLE runs",
        " AND ".join(["metrics.a > 1"] * 101),
        "run_id IN (" + ", ".join(["'a'"] * 5001) + ")",
    ],
)
def test_refuses_what_it_does_not_understand(text):
    with pytest.raises(InvalidInput) as refusal:
        parse_filter(text)
    assert refusal.value.hint


def test_reads_orders():
    assert parse_order(["metrics.`a b` DESC", "start_time", "tags.x asc"]) == (
        Ordering(Field("metric", "a b"), True),
        Ordering(Field("attribute", "start_time"), False),
        Ordering(Field("tag", "x"), False),
    )
    for wrong in ("metrics.a DOWN", "metrics.a DESC DESC", "", "1 DESC"):
        with pytest.raises(InvalidInput):
            parse_order([wrong])


@given(st.text(alphabet="abm.`'\"=<>!(),1 -ANDLIKEtrics\n\x00é", max_size=40))
def test_never_fails_otherwise(text):
    with suppress(InvalidInput):
        parse_filter(text)


@given(st.text(st.characters(codec="utf-8", exclude_characters="'"), max_size=30))
def test_quoted_texts_come_back(value):
    (found,) = parse_filter(f"tags.a = '{value}'")
    assert found.value == value
