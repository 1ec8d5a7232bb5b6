"""One definition, three ways to the answer: the oracle, DuckDB with intervals, packed states in a folder and in Redis.

Equal to the last bit.
"""

import random
import struct
from dataclasses import replace

import polars as pl
import pytest
from feature_cases import SCHEMA, Case, cases
from feature_oracle import answer
from hypothesis import given, settings

from everloop.core.errors import InvalidInput
from everloop.features.batch.filling import materialize
from everloop.features.batch.history import history
from everloop.features.definitions import FeatureServiceDef
from everloop.features.online import OnlineService, OnlineView, find_columns, lookup, push
from everloop.features.states.keys import entity_key
from everloop.features.states.points import only_newest
from everloop.features.states.several import FEW, FEW_NEWEST

CASES, MANY = 300, 10_000


def bits(values):
    """Values such that only equal bits compare equal."""
    return [bits(v) if isinstance(v, list) else struct.pack("<d", v) if isinstance(v, float) else v for v in values]


def oracle(case: Case):
    empty = [f.empty for f in case.view.features]
    return [
        bits(empty if place is None else answer(case.view, case.rows, (place,), at).values())
        for place, at in case.questions
    ]


def batch(case: Case, path, **options):
    pl.DataFrame(case.rows, schema=SCHEMA).with_columns(pl.col("event", "known").cast(pl.Datetime("us"))).write_parquet(
        path
    )
    frame = history(case.service, case.spine, {"facts": path}, at="asked", **options)
    assert frame.select("place", "asked").equals(case.spine)
    return [bits(row) for row in frame.select(case.view.outputs).iter_rows()]


def check_online(case: Case, store, expected):
    """Whatever the order, batches and redeliveries: equal answers once all is there that a question needs."""
    view = OnlineView.of("p", "incremental", case.view)
    service = OnlineService.of("p", case.service, {"v": "incremental"})
    store.drop(view.space)
    delivered, answered = [], 0
    for rows in case.batches:
        push(store, view, rows)
        delivered += rows
        missing = [r for r in case.rows if r not in delivered]
        for (place, at), right in zip(case.questions, expected, strict=True):
            if any(r["known"] is not None and r["known"] < at for r in missing):
                continue
            known = [
                r["known"]
                for r in delivered
                if r["place"] == place and r["known"] is not None and r["event"] is not None
            ]
            if place is not None and known and at < max(known) - case.view.slack:
                with pytest.raises(InvalidInput):
                    lookup(store, service, [{"place": place}], at)
                continue
            [found] = lookup(store, service, [{"place": place}], at)
            assert list(found) == list(case.view.outputs)
            assert bits(found.values()) == right
            answered += 1
    return view, answered


def check_many_at_once(case: Case, store, view):
    """Many entities are read by arrays, few one after the other: the same values, or the same refusal."""
    service = OnlineService.of("p", case.service, {"v": "incremental"})
    twin = FeatureServiceDef("s", [case.view, replace(case.view, name="twin")])
    twins = OnlineService.of("p", twin, {"v": "incremental", "twin": "incremental"})
    few = FEW_NEWEST if only_newest(view.layout) else FEW
    for at in {at for _, at in case.questions}:
        alone = {}
        for place in ("a", "b", "c", None):
            try:
                [found] = lookup(store, service, [{"place": place}], at)
                alone[place] = bits(found.values())
            except InvalidInput:
                continue
        asked = [place for place in alone for _ in range(few)]
        assert [bits(row.values()) for row in lookup(store, service, [{"place": p} for p in asked], at)] == [
            alone[p] for p in asked
        ]
        # by column too, and where two views that compute the same are read together
        columns = find_columns(store, twins, {"place": asked}, at).columns
        for name in ("v", "twin"):
            mine = [columns[f"{name}__{f.name}"] for f in case.view.features]
            assert [bits(row) for row in zip(*mine, strict=True)] == [alone[p] for p in asked]
        if len(alone) < 4:
            with pytest.raises(InvalidInput, match="feature view v cannot answer"):
                lookup(store, service, [{"place": p} for p in [*asked, "a", "b"]], at)


def check_bytes(case: Case, store, path, view):
    """Pushed piece by piece, at once, or materialised from a file: the same bytes."""
    keys = [kind + entity_key([place]) for kind in (b"s", b"i") for place in "abc"]
    states = store.read([(view.space, keys)])[0]
    other = OnlineView.of("p", "at once", case.view)
    store.drop(other.space)
    push(store, other, case.rows)
    assert store.read([(other.space, keys)])[0] == states
    push(store, other, list(reversed(case.rows)))
    assert store.read([(other.space, keys)])[0] == states
    store.drop(other.space)
    materialize(store, other, path, 2**60, threads=1)
    assert store.read([(other.space, keys)])[0] == states
    return states


def check(case: Case, stores, path):
    expected = oracle(case)
    assert batch(case, path, threads=1) == expected
    states = []
    for store in stores:
        view, _ = check_online(case, store, expected)
        check_many_at_once(case, store, view)
        states.append(check_bytes(case, store, path, view))
    assert all(state == states[0] for state in states)


@pytest.mark.timeout(1200)
@settings(max_examples=CASES)
@given(case=cases())
def test_oracle_batch_and_online_are_equal(case, stores, tmp_path_factory):
    check(case, stores, tmp_path_factory.getbasetemp() / "parity.parquet")


@pytest.mark.slow
@pytest.mark.timeout(3 * 60 * 60)
@settings(max_examples=MANY)
@given(case=cases())
def test_oracle_batch_and_online_are_equal_many_times(case, stores, tmp_path_factory):
    check(case, stores, tmp_path_factory.getbasetemp() / "parity.parquet")


@settings(max_examples=40)
@given(case=cases())
def test_threads_and_row_order_change_nothing(case, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "threads.parquet"
    once = batch(case, path, threads=1)
    shuffled = Case(case.view, random.Random(7).sample(case.rows, len(case.rows)), case.questions, case.batches)
    assert batch(shuffled, path, threads=2) == once
