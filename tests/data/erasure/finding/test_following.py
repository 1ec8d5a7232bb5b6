"""A subject under another name: copies are found, what nobody declared is searched, and what is left is told."""

import datetime as dt
import json
import uuid

import polars as pl
import pyarrow as pa
import pytest

from everloop import data
from everloop.catalog import versions
from everloop.catalog.placements import put as place
from everloop.core.version import Version
from everloop.data.codec import DataCodec
from everloop.data.definitions import Contract
from everloop.data.editing import edit
from everloop.data.erasure import committing, erasing, proofs
from everloop.data.erasure.finding import following

KEY = "customer-0004711-x"
HERE = "sandbox/ada/x"
ORDERS = pl.DataFrame({"customer": [KEY, "customer-0004712-x"] * 50, "n": range(100), "note": ["fine"] * 100})


def made(ctx, name, frame, inputs, **contract):
    saved = DataCodec(Contract.of("n", **contract)).save(frame, name, ctx.store, {"inputs": inputs})
    with ctx.write() as tx:
        numbered = versions.put(tx, ctx.project, saved.version, actor="ada", at=1)
        place(tx, ctx.project, saved.placements)
    return numbered.id


@pytest.fixture
def orders(context):
    contract = Contract.of("n", tags={"customer": "subject", "note": "mentions"})
    return edit(context, "orders", ORDERS, "append", HERE, contract=contract).id


def anywhere(root, key=KEY):
    """Files whose rows, or bytes, hold the key; a short number stands by chance in times and digests too."""
    found = []
    for path in root.rglob("*"):
        content = path.read_bytes() if path.is_file() else b""
        told = json.dumps(pl.read_parquet(content).to_dicts(), default=str) if content[:4] == b"PAR1" else ""
        found += [path] if key in told or (len(key) > 6 and key.encode() in content) else []
    return found


def test_a_copy_under_another_name_is_followed_over_several_tables(context, orders, tmp_path):
    renamed = ORDERS.rename({"customer": "client", "note": "said"}).with_columns(
        said=pl.when(pl.col("n") == 1).then(pl.lit(f"as {KEY} wrote")).otherwise("said")
    )
    origins = {"client": ["orders.customer"], "n": ["orders.n"], "said": ["orders.note"]}
    first = made(context, "first", renamed, {"orders": orders}, columns=origins)
    again = renamed.rename({"client": "buyer"}).drop("said")
    second = made(context, "second", again, {"first": first}, columns={"buyer": ["first.client"], "n": ["first.n"]})
    assert following.subject_columns(context) == ("buyer", "client", "customer")
    receipt = erasing.erase(context, KEY)
    assert {orders, first, second} <= set(receipt.figures["versions"])
    assert data.read(context, first).collect().height == 49  # the one who was spoken of by the other too
    assert data.read(context, second).collect()["buyer"].to_list() == ["customer-0004712-x"] * 50
    assert anywhere(tmp_path) == []


def test_what_nobody_declared_is_searched_as_free_text(context, orders, tmp_path):
    silent = ORDERS.select(buyer="customer", n="n", words=pl.lit("text of nobody"))
    version = made(context, "silent", silent, {"orders": orders})
    hashed = ORDERS.select(n="n", who=pl.col("customer").hash().cast(pl.String))
    kept = made(context, "hashed", hashed, {"orders": orders}, columns={"who": ["hash(orders.customer)"], "n": []})
    receipt = erasing.erase(context, KEY)
    assert version in receipt.figures["versions"]
    assert kept not in receipt.figures["versions"]
    assert data.read(context, version).collect().height == 50
    assert receipt.figures["left"] == []
    assert anywhere(tmp_path) == []


def test_numbers_of_which_nobody_says_what_they_are_stay_and_are_told(context):
    people = pl.DataFrame({"customer": [4711, 4712], "n": [1, 2]})
    contract = Contract.of("n", tags={"customer": "subject"})
    first = edit(context, "people", people, "append", HERE, contract=contract).id
    counted = pl.DataFrame({"n": [1, 2, 3], "amount": [4711, 4711, 5], "buyer": [4711, 4712, 4713]})
    version = made(context, "counted", counted, {"people": first})
    left = erasing.erase(context, "4711").figures["left"]
    told = [line for line in left if "data/counted" in line]
    assert [line.split(" of ")[0] + line.split("'")[1] for line in told] == ["2 rowsamount", "1 rowsbuyer"]
    assert "4711" not in json.dumps(left)
    assert data.read(context, version).collect().equals(counted)
    erasing.erase(context, "4711", columns=["buyer"])
    assert data.read(context, version).collect()["buyer"].to_list() == [4712, 4713]


U = uuid.UUID("6f9619ff-8b86-d011-b42d-00c04fc964ff")


@pytest.mark.parametrize(
    ("key", "type_", "values"),
    [
        (KEY, pa.list_(pa.string()), [["a", KEY], ["b"], None]),
        (KEY, pa.list_(pa.struct([("id", pa.string())])), [[{"id": KEY}], [{"id": "b"}], []]),
        (KEY, pa.struct([("id", pa.string()), ("n", pa.int64())]), [{"id": KEY, "n": 1}, {"id": "b", "n": 1}, None]),
        (KEY, pa.map_(pa.string(), pa.int64()), [[(KEY, 1)], [("b", 1)], None]),
        (KEY, pa.binary(), [KEY.encode(), b"\xff", None]),
        (KEY, pa.dictionary(pa.int32(), pa.string()), [KEY, "b", None]),
        ("4711", pa.float64(), [4711.0, 4712.0, None]),
        ("4711", pa.list_(pa.int64(), 2), [[1, 4711], [1, 2], [3, 4]]),
        ("2014-05-06", pa.date32(), [dt.date(2014, 5, 6), dt.date(2014, 5, 7), None]),
        (str(U), pa.binary(16), [U.bytes, bytes(16), None]),
        (U.hex, pa.binary(16), [U.bytes, bytes(16), None]),
    ],
)
def test_a_key_is_found_whatever_holds_it(context, tmp_path, key, type_, values):
    table = pa.table({"n": [1, 2, 3], "who": pa.array(values, type_)})
    contract = Contract.of("n", tags={"who": "subject"})
    version = edit(context, "people", table, "append", HERE, contract=contract).id
    assert erasing.erase(context, key).figures["rows"] == 1
    assert data.read(context, version).collect()["n"].to_list() == [2, 3]
    assert anywhere(tmp_path, key) == []


def test_a_proof_says_of_which_columns_it_proves_nothing(context, orders):
    frame = made(context, "frame", ORDERS.select("customer", "n", buyer="customer"), {"orders": orders})
    model = Version("model", "churn", {"flavor": "x", "frame": frame}, (("frame", frame),))
    with context.write() as tx:
        versions.put(tx, context.project, model, actor="ada", at=1)
    found = proofs.check(committing.proof(context, model.id, KEY), KEY, context.key.public)
    assert (found.read, found.unsure) == (True, ("buyer", "n"))
