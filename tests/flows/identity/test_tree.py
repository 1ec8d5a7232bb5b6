import os
import subprocess
import time

import pytest

from everloop.core.errors import InvalidInput
from everloop.flows.identity import project_tree
from everloop.flows.identity.tree import TreeReader
from everloop.store import DirectoryStore


def git(folder, *arguments):
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", "-C", folder, *identity, *arguments], check=True, capture_output=True)


def aged(*files):
    for file in files:
        os.utime(file, (1_700_000_000, 1_700_000_000))


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
    aged(project / "flow.py", project / "deep" / "part.py")
    reader = TreeReader(store)
    first = reader.read(project)
    for identity in first.version.manifest["files"].values():
        store.path(identity).unlink()
    (project / "flow.py").write_text("x = 33\n")
    second = reader.read(project)
    assert store.has(second.version.manifest["files"]["flow.py"])
    assert not store.has(second.version.manifest["files"]["deep/part.py"])


def test_a_file_that_was_just_written_is_read_again_for_another_edit_may_get_the_same_time(project, store):
    (project / "data" / "big.csv").unlink()
    flow, soon = project / "flow.py", time.time_ns() + 60_000_000_000  # however slow the machine is, just now
    os.utime(flow, ns=(soon, soon))
    first = project_tree(project, store)
    flow.write_text("x = 9\n")
    os.utime(flow, ns=(soon, soon))  # as a coarse clock would have it
    second = project_tree(project, store)
    assert second.version.id != first.version.id


def test_what_one_store_was_given_is_not_taken_for_given_to_another(project, store, tmp_path):
    (project / "data" / "big.csv").unlink()
    aged(project / "flow.py", project / "deep" / "part.py")
    first = project_tree(project, store)
    other = DirectoryStore(tmp_path / "other")
    assert project_tree(project, other).version == first.version
    assert other.get(first.version.manifest["files"]["flow.py"]) == b"x = 1\n"


def test_a_repository_that_only_the_environment_names_is_asked(project, store, tmp_path, monkeypatch):
    git(project, "init", "-q", "--separate-git-dir", str(tmp_path / "elsewhere"))
    (project / ".git").unlink()
    (project / "data" / "big.csv").unlink()
    assert ".gitignore" not in project_tree(project, store).version.manifest["files"]
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("GIT_WORK_TREE", str(project))
    assert ".gitignore" in project_tree(project, store).version.manifest["files"]
