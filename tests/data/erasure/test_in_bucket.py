"""Erasing where objects lie in a bucket (a real S3 server over HTTP): from the bucket and from this machine's cache."""

import json
from dataclasses import replace

import polars as pl
import pytest
import s3_server

from everloop import data
from everloop.data.definitions import Contract
from everloop.data.editing import edit
from everloop.data.erasure import erasing
from everloop.store.bucket import BucketStore

KEY = "customer-0004711-x"


@pytest.fixture
def served(context, tmp_path):
    with s3_server.serving() as server, pytest.MonkeyPatch.context() as patch:
        for name, value in server.environ.items():
            patch.setenv(name, value)
        yield replace(context, store=BucketStore("s3://loop/erased", cache=tmp_path / "cache"))


def speaks(content):
    told = json.dumps(pl.read_parquet(content).to_dicts()) if content[:4] == b"PAR1" else ""
    return KEY in told or KEY.encode() in content


def objects_about(store):
    return [identity for identity in store.ids() if speaks(store.get(identity))]


def test_a_subject_goes_from_the_bucket_and_from_this_machine(served, tmp_path):
    frame = pl.DataFrame({"customer": [KEY, "customer-0004712-x"] * 50, "n": range(100)})
    contract = Contract.of("n", tags={"customer": "subject"})
    version = edit(served, "orders", frame, "append", "sandbox/ada/x", contract=contract).id
    assert data.read(served, version).collect().height == 100
    assert objects_about(BucketStore(served.store.url, cache=tmp_path / "another"))
    figures = erasing.erase(served, KEY).figures
    assert figures["rows"] == 50
    assert any("other machines" in line for line in figures["not_covered"])
    assert objects_about(BucketStore(served.store.url, cache=tmp_path / "fresh")) == []
    assert [path for path in (tmp_path / "cache").rglob("*") if path.is_file() and speaks(path.read_bytes())] == []
    assert data.read(served, version).collect().height == 50
