"""Tables that a program has in memory are captured in one call, as whoever works on the workspace."""

import getpass

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import everloop
from everloop.cli.main import main
from everloop.core.errors import DataError, InvalidInput, PolicyRefused


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A new workspace of this machine's user."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EVERLOOP_PROJECT", "shop")
    assert main(["init"]) == 0
    return tmp_path


def test_every_kind_of_table_is_the_same_version(here):
    columns = {"id": [1, 2, 3], "x": [0.5, 1.5, None]}
    datasets = pytest.importorskip("datasets")
    kinds = [
        pl.DataFrame(columns),
        pl.LazyFrame(columns),
        pd.DataFrame(columns),
        pa.table(columns),
        datasets.Dataset.from_dict(columns),
        iter(pa.table(columns).to_batches()),
    ]
    found = [everloop.capture(table, name="things", key="id") for table in kinds]
    assert {(one.id, one.number, one.rows) for one in found} == {(found[0].id, 1, 3)}
    assert [one.new for one in found] == [True, *[False] * 5]


def test_the_head_moves_when_the_expectations_hold(here, monkeypatch, capsys):
    table = pd.DataFrame({"id": np.arange(3), "x": [1.0, 2.0, 3.0]})
    told = {"name": "things", "key": "id", "environment": "production"}
    everloop.capture(table, expect=[everloop.expect.between("x", 0, 3)], **told)
    with pytest.raises(PolicyRefused, match="between"):
        everloop.capture(table.assign(x=9.0), expect=[everloop.expect.between("x", 0, 3)], **told)
    capsys.readouterr()
    assert main(["--json", "data", "show", "things"]) == 0
    out = capsys.readouterr().out
    assert '"number": 1' in out
    assert f'"actor": "{getpass.getuser()}"' in out


def test_what_is_wrong_is_said(here):
    with pytest.raises(DataError, match="is not a table"):
        everloop.capture({"a": 1}, name="things")
    with pytest.raises(DataError, match="no column 'b'"):
        everloop.capture(pl.DataFrame({"a": [1]}), name="things", key="b")
    with pytest.raises(DataError, match="key"):
        everloop.capture(pl.DataFrame({"a": [1, 1]}), name="things", key="a")
    with pytest.raises(InvalidInput, match="object store"):
        everloop.capture(pl.DataFrame({"a": [1]}), name="things", server="http://127.0.0.1:1")
