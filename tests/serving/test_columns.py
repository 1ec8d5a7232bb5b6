"""Columns on the wire: what is packed comes back, alone and in batches; what does not fit is named."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from everloop.core.errors import CorruptObject, InvalidInput, NotFound
from everloop.core.signing import SigningKey
from everloop.serving import table as tables
from everloop.serving import wire
from everloop.serving.columns import Layout, describe, pack_answer, unpack_answer
from everloop.serving.table import Revision, Route, Table

LAYOUT = Layout.from_pairs(
    [["a", "FP64"], ["who", "BYTES"], ["n", "INT64"], ["b", "FP64"], ["yes", "BOOL"], ["f", "FP32"]]
)
row = st.fixed_dictionaries(
    {
        "a": st.none() | st.floats(allow_nan=False),
        "who": st.none() | st.text(max_size=5),
        "n": st.integers(-(2**53), 2**53),
        "b": st.integers(-1000, 1000) | st.floats(-1e9, 1e9),
        "yes": st.booleans(),
        "f": st.floats(width=32, allow_nan=False),
    }
)


def columns(rows):
    return {name: [r[name] for r in rows] for name in LAYOUT.names}


@given(st.lists(st.lists(row, min_size=1, max_size=4), min_size=1, max_size=4))
def test_a_batch_is_its_requests_one_after_the_other(requests):
    packed = [(LAYOUT.pack(columns(rows), len(rows)), len(rows)) for rows in requests]
    together = LAYOUT.unpack_batch(packed)
    rows = [r for rows in requests for r in rows]
    for name in ("n", "yes", "f", "b"):
        assert together[name].tolist() == [r[name] for r in rows]
    assert together["who"] == [r["who"] for r in rows]
    assert [None if np.isnan(v) else v for v in together["a"].tolist()] == [r["a"] for r in rows]
    alone = LAYOUT.unpack(*packed[0])
    assert alone["who"] == [r["who"] for r in requests[0]]


@pytest.mark.parametrize(
    ("name", "value"),
    [("a", "far"), ("a", [1]), ("n", 1.5), ("n", None), ("n", 2**70), ("who", 7), ("yes", 2), ("a", 10**400)],
)
def test_a_value_of_a_wrong_type_is_named(name, value):
    good = {"a": [1.0], "who": ["x"], "n": [1], "b": [1], "yes": [True], "f": [1.0]}
    with pytest.raises(InvalidInput, match=f"'{name}'"):
        LAYOUT.pack({**good, name: [value]}, 1)
    with pytest.raises(InvalidInput, match="missing"):
        LAYOUT.pack({k: v for k, v in good.items() if k != name}, 1)


def test_answers_of_every_shape_come_back():
    answer = {
        "p": np.arange(3.0),
        "all": np.arange(6, dtype=np.float32).reshape(3, 2),
        "label": np.array(["a", None, "ü"], object),
        "n": np.arange(3)[::-1],
    }
    outputs = describe(answer)
    back = unpack_answer(outputs, pack_answer(outputs, answer), 3)
    assert list(back) == list(answer)
    assert all(back[name].tolist() == answer[name].tolist() for name in answer)


@given(st.lists(st.tuples(st.integers(1, 5), st.integers(0, 2**64 - 1), st.binary(max_size=50))), st.integers(1, 40))
def test_frames_are_cut_from_any_stream(frames, size):
    stream = b"".join(wire.encode(kind, identity, 1, payload) for kind, identity, payload in frames)
    reader = wire.Reader()
    pieces = [stream[start : start + size] for start in range(0, len(stream), size)]
    found = [frame for piece in pieces for frame in reader.feed(piece)]
    assert [(f.kind, f.id, f.payload) for f in found] == frames


def table(sequence=1, weight=100):
    made = Revision("b3:1", 1, weight, "b3:2", "/m", [["x", "FP64"]], [["x", "FP64"]], {"x": [1.5]})
    return Table(sequence, "production", [Route("shop", "delay", [made])])


def test_a_table_is_signed_and_refused_when_it_is_not(tmp_path):
    key, path = SigningKey.generate(), tmp_path / "routes.json"
    with pytest.raises(NotFound):
        tables.load(path, key.public)
    tables.write(path, table(3), key)
    assert tables.load(path, key.public) == table(3)
    with pytest.raises(CorruptObject, match="older"):
        tables.load(path, key.public, after=4)
    with pytest.raises(CorruptObject, match="signature"):
        tables.load(path, SigningKey.generate().public)
    for wrong in (b"{", b"[]", b"{}", path.read_bytes().replace(b'"payload": "e', b'"payload": "f')):
        path.write_bytes(wrong)
        with pytest.raises(CorruptObject):
            tables.load(path, key.public)
    with pytest.raises(InvalidInput, match="100"):
        tables.write(path, table(weight=40), key)
