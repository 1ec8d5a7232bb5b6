import subprocess

import pytest

from everloop.core.errors import InvalidInput
from everloop.flows.identity import project_tree
from everloop.flows.identity.tree import TreeReader


def git(folder, *arguments):
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", "-C", folder, *identity, *arguments], check=True, capture_output=True)


@pytest.fixture
def project(tmp_path):
    folder = tmp_path / "project"
    (folder / "deep").mkdir(parents=True)
    (folder / "flow.py").write_text("x = 1\n")
    (folder / "deep" / "part.py").write_text("y = 1\n")
    (folder / ".gitignore").write_text("data/\n")
    (folder / "data").mkdir()
    (folder / "data" / "big.csv").write_bytes(b"0" * 6_000_000)
    return folder


def test_uncommitted_and_untracked_files_count_and_ignored_ones_do_not(project, store):
    git(project, "init", "-q")
    first = project_tree(project, store)
    assert first.version.manifest["files"].keys() == {".gitignore", "flow.py", "deep/part.py"}
    assert (first.commit, first.diff) == ("", "")
    git(project, "add", "-A")
    git(project, "commit", "-qm", "one")
    committed = project_tree(project, store)
    assert committed.version.id == first.version.id
    assert len(committed.commit) == 40
    (project / "flow.py").write_text("x = 2\n")
    (project / "new file ü.py").write_text("z = 1\n")
    edited = project_tree(project, store)
    assert edited.version.id != first.version.id
    assert "new file ü.py" in edited.version.manifest["files"]
    assert "+x = 2" in edited.diff
    assert store.get(edited.version.manifest["files"]["flow.py"]) == b"x = 2\n"
    (project / "flow.py").unlink()
    assert "flow.py" not in project_tree(project, store).version.manifest["files"]


def test_a_project_in_a_folder_of_a_repository_is_that_folder(project, store):
    git(project, "init", "-q")
    assert project_tree(project / "deep", store).version.manifest["files"].keys() == {"part.py"}


def test_without_git_hidden_files_and_caches_are_left_out(project, store):
    (project / ".venv").mkdir()
    (project / ".venv" / "x.py").write_text("")
    (project / "own").mkdir()
    (project / "own" / "pyvenv.cfg").write_text("")
    (project / "deep" / "__pycache__").mkdir()
    (project / "deep" / "__pycache__" / "part.pyc").write_text("")
    (project / "data" / "big.csv").unlink()
    found = project_tree(project, store)
    assert found.version.manifest["files"].keys() == {"flow.py", "deep/part.py"}
    assert found.commit == ""


def test_a_large_file_is_refused_loudly(project, store):
    with pytest.raises(InvalidInput, match=r"big.csv has 6.0 MB") as caught:
        project_tree(project, store)
    assert "gitignore" in caught.value.hint


def test_a_reader_puts_only_what_changed(project, store):
    (project / "data" / "big.csv").unlink()
    reader = TreeReader(store)
    first = reader.read(project)
    for identity in first.version.manifest["files"].values():
        store.path(identity).unlink()
    (project / "flow.py").write_text("x = 33\n")
    second = reader.read(project)
    assert store.has(second.version.manifest["files"]["flow.py"])
    assert not store.has(second.version.manifest["files"]["deep/part.py"])
