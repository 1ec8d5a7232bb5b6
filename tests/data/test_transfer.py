"""Versions between workspaces: only what is missing travels, and what arrives is read before it is believed."""

import json
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from everloop import data
from everloop.catalog.context import Context
from everloop.catalog.engine import Catalog
from everloop.catalog.operation import invoke
from everloop.catalog.verify import verify
from everloop.core.clock import SystemClock
from everloop.core.errors import CorruptObject, DataError, InvalidInput, NotFound
from everloop.data.definitions import Contract
from everloop.data.editing import edit
from everloop.data.transferring.bills import Bill, opened
from everloop.data.transferring.operations import Bill as BillOf
from everloop.data.transferring.operations import Receive
from everloop.store import DirectoryStore
from everloop.store.transfer import transfer

HERE = "sandbox/ada/x"


def table(count=30_000):
    chance = np.random.default_rng(0)
    return pl.DataFrame({"id": np.arange(count), "x": chance.normal(0, 1, count)})


@pytest.fixture
def sent(context, tmp_path):
    """Two versions, the second one layers on the first, and a store to send them to."""
    edit(context, "t", table(), "append", HERE, contract=Contract.of("id"))
    edit(context, "t", table().gather_every(300).with_columns(x=pl.lit(0.5)), "upsert", HERE)
    return context, DirectoryStore(tmp_path / "shelf")


@pytest.fixture
def elsewhere(tmp_path, context):
    home = tmp_path / "elsewhere"
    catalog = Catalog.open(f"sqlite:///{tmp_path}/elsewhere.db")
    actor = replace(context.actor, name="bo")
    yield Context(actor, "p", SystemClock(), catalog, DirectoryStore(home / "objects"), home=home)
    catalog.close()


def push(context, shelf, version):
    found = invoke(context, "data.bill", BillOf(version=version))
    return found, transfer(context.store, shelf, [*found.objects, found.bill])


def pull(context, shelf, bill):
    listed = opened(shelf, bill)
    got = transfer(shelf, context.store, [bill, *listed.objects])
    return got, invoke(context, "data.receive", Receive(name=listed.name, bill=bill))


def test_a_version_is_sent_and_only_what_is_missing(sent, elsewhere):
    context, shelf = sent
    first, all_ = push(context, shelf, "t@1")
    second, some = push(context, shelf, "t@2")
    assert some.present  # the bases
    assert some.bytes < all_.bytes / 5
    assert push(context, shelf, "t@2")[1].copied == ()
    _, made = pull(elsewhere, shelf, second.bill)  # the later one first: its bases come with it
    assert (made.id, made.number, made.new) == (second.id, 1, True)
    assert data.read(elsewhere, second.id).collect().equals(data.read(context, second.id).collect())
    got, _ = pull(elsewhere, shelf, first.bill)
    assert got.copied == (first.bill,)
    assert not pull(elsewhere, shelf, first.bill)[1].new
    assert verify(elsewhere.catalog, elsewhere.store) == []


def test_a_transfer_that_broke_off_goes_on(sent, elsewhere):
    context, shelf = sent
    found, _ = push(context, shelf, "t@2")
    transfer(shelf, elsewhere.store, [found.bill, *found.objects[:2]])
    with pytest.raises(NotFound, match="is not here"):
        invoke(elsewhere, "data.receive", Receive(name="t", bill=found.bill))
    got, made = pull(elsewhere, shelf, found.bill)
    assert got.present == 3
    assert made.new


def test_what_is_not_what_the_version_says_is_refused(sent, elsewhere):
    context, shelf = sent
    first, _ = push(context, shelf, "t@1")
    true = opened(shelf, first.bill)
    logicals = list(true.placed)
    swapped = {**true.placed, logicals[0]: true.placed[logicals[-1]], logicals[-1]: true.placed[logicals[0]]}
    lie = elsewhere.store.put(Bill(true.name, true.version, true.manifest, swapped, {}).encode())
    transfer(shelf, elsewhere.store, true.objects)
    with pytest.raises(CorruptObject, match="does not hold part"):
        invoke(elsewhere, "data.receive", Receive(name="t", bill=lie))
    with pytest.raises(NotFound):
        data.read(elsewhere, first.id)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": "b3:" + "0" * 64}, "not that of its version"),
        ({"placed": {}}, "where each part lies"),
        ({"bill": 99}, "form 99"),
        ({"placed": {"x": "y"}}, "no bill"),
        ({"manifest": []}, "no bill"),
    ],
)
def test_a_bill_that_contradicts_itself_is_refused(sent, elsewhere, change, message):
    context, shelf = sent
    found, _ = push(context, shelf, "t@1")
    text = json.dumps({**json.loads(shelf.get(found.bill)), **change}).encode()
    with pytest.raises(DataError, match=message):
        invoke(elsewhere, "data.receive", Receive(name="t", bill=elsewhere.store.put(text)))


def test_a_bill_of_another_dataset_is_refused(sent, elsewhere):
    context, shelf = sent
    found, _ = push(context, shelf, "t@1")
    transfer(shelf, elsewhere.store, [found.bill, *found.objects])
    with pytest.raises(InvalidInput, match="bill of data/t"):
        invoke(elsewhere, "data.receive", Receive(name="other", bill=found.bill))
