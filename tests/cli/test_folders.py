"""A folder on the command line: captured, listed, checked out, compared."""

import json
import subprocess
import sys

import pytest

from everloop.cli.main import main
from everloop.cli.options import given

PROJECT = """
import everloop as el

project = el.Project("shop")
images = project.source("images", el.Folder("images/**"))
"""
LIGHT = """
import sys
from everloop.cli.main import main
code = main(["data", "status", "out"])
print(code, sorted({"pyarrow", "polars", "duckdb", "sqlalchemy"} & set(sys.modules)))
"""


@pytest.fixture
def everloop(tmp_path, monkeypatch, capsys):
    """The command line in a project with a folder of three files."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EVERLOOP_PROJECT", "shop")
    (tmp_path / "project.py").write_text(PROJECT)
    for name in ("a/1.txt", "a/2.txt", "b/3.txt"):
        (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "images" / name).write_text(name)

    def run(*words):
        given.clear()
        capsys.readouterr()
        code = main(["--json", *words])
        out = capsys.readouterr().out
        return code, json.loads(out) if out.strip() else None

    assert main(["init"]) == 0
    assert main(["run", "images"]) == 0
    yield run
    given.clear()


def test_a_folder_goes_out_and_its_changes_show(everloop, tmp_path):
    code, found = everloop("data", "files", "images@1", "--prefix", "a/")
    assert code == 0
    assert "a/1.txt" in json.dumps(found)
    assert "b/3.txt" not in json.dumps(found)
    code, done = everloop("data", "checkout", "images@1", "out")
    assert (code, done["written"], done["number"]) == (0, 3, 1)
    assert (tmp_path / "out/b/3.txt").read_text() == "b/3.txt"
    code, told = everloop("data", "status", "out")
    assert (code, told["clean"]) == (0, True)
    (tmp_path / "out/a/1.txt").write_text("mine")
    code, told = everloop("data", "status", "out")
    assert (code, told["modified"]) == (1, ["a/1.txt"])
    (tmp_path / "images/a/1.txt").write_text("newer")
    assert everloop("run", "images")[0] == 0
    assert everloop("data", "checkout", "images@2", "out")[0] == 5  # refused: what was changed would be lost
    assert everloop("data", "checkout", "images@2", "out", "--force")[0] == 0
    assert (tmp_path / "out/a/1.txt").read_text() == "newer"


def test_the_status_loads_no_engine_and_no_catalog(everloop, tmp_path):
    assert everloop("data", "checkout", "images@1", "out")[0] == 0
    told = subprocess.run([sys.executable, "-c", LIGHT], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert told.stdout.splitlines()[-1] == "0 []"


def test_a_folder_that_was_not_checked_out_is_said(everloop):
    assert everloop("data", "status", "images")[0] == 2
