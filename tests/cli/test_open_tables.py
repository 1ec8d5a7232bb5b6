"""Tables of other formats on the command line: opened, listed, closed."""

import json

import polars as pl
import pytest
from open_tables import delta_rows, iceberg

from everloop.cli.main import main
from everloop.cli.options import given


@pytest.fixture
def everloop(tmp_path, monkeypatch, capsys):
    """The command line in a project with one dataset of two versions."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EVERLOOP_PROJECT", "shop")
    (tmp_path / "project.py").write_text("import everloop as el\n\nproject = el.Project('shop')\n")

    def run(*words):
        given.clear()
        capsys.readouterr()
        code = main(["--json", *words])
        out = capsys.readouterr()
        return code, json.loads(out.out) if out.out.strip() else out.err

    assert main(["init"]) == 0
    pl.DataFrame({"id": [1, 2, 3]}).write_parquet("rows.parquet")
    pl.DataFrame({"id": [2]}).write_parquet("gone.parquet")
    assert run("data", "append", "items", "rows.parquet", "--key", "id")[0] == 0
    assert run("data", "delete", "items", "gone.parquet")[0] == 0
    yield run
    given.clear()


def test_open_list_close(everloop, tmp_path):
    code, found = everloop("data", "open", "items", "--as", "iceberg", "--to", "my lake/ice", "--history", "5")
    assert (code, found["versions"], found["rows"]) == (0, [1, 2], 2)
    table = iceberg(tmp_path / "my lake/ice")
    assert sorted(table.scan().to_arrow()["id"].to_pylist()) == [1, 3]
    assert table.snapshot_by_name("production").snapshot_id == 2
    assert everloop("data", "open", "items@1", "--as", "delta", "--to", "d")[1]["versions"] == [1]
    assert sorted(delta_rows(tmp_path / "d")["id"].to_list()) == [1, 2, 3]
    _, listed = everloop("data", "opened")
    assert {one["format"] for one in listed} == {"iceberg", "delta"}
    assert everloop("data", "close", "my lake/ice")[0] == 0
    assert not any((tmp_path / "my lake" / "ice").iterdir())
    assert len(everloop("data", "opened")[1]) == 1
    code, _ = everloop("data", "close", "my lake/ice")
    assert code != 0
