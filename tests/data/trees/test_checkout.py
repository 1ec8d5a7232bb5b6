"""Checking a version out, and what differs from it afterwards."""

import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest

from everloop.catalog import versions
from everloop.catalog.trees import packs
from everloop.core.errors import Conflict, CorruptObject, DataError, InvalidInput, NotFound, StorageFull
from everloop.data import editing, trees
from everloop.data.trees.checkout import checkout, ignores_case
from everloop.data.trees.source import BIG
from everloop.data.trees.status import NOTE, status
from tests.data.trees.conftest import noise


def content_of(folder):
    """Every file below a folder but the note, by path."""
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file.name != NOTE
    }


def visible(world):
    found = content_of(world.folder)
    found.pop(".hidden")
    return found


def now():
    return time.time_ns()


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


def test_a_checkout_gives_the_files_back(world, out):
    world.write("big.bin", noise(3 * BIG))
    made = world.capture()
    done = checkout(world.ctx, made.id, out)
    assert content_of(out) == visible(world)
    assert (done.written, done.kept, done.removed, done.number) == (43, 0, 0, 1)
    found = status(out, now=now())
    assert found.clean
    assert (found.unchanged, found.name, found.version) == (43, "files", made.id)


def test_files_are_copies_and_never_links_into_the_store(world, out):
    made = world.capture()
    checkout(world.ctx, made.id, out)
    (out / "notes/a.txt").write_bytes(b"spoiled")
    assert trees.open_tree(world.ctx, made.id).read("notes/a.txt") == b"hello"
    assert all(file.stat().st_nlink == 1 for file in out.rglob("*") if file.is_file())


def test_only_what_differs_is_written_on_the_way_to_another_version_and_back(world, out):
    first = world.capture()
    checkout(world.ctx, first.id, out)
    before = visible(world)
    world.write("notes/a.txt", b"other")
    world.write("new/deep/x", b"x")
    shutil.rmtree(world.folder / "d3")
    second = world.capture()
    stayed = (out / "d0/f00.png").stat()
    done = checkout(world.ctx, second.id, out)
    assert (done.written, done.removed) == (2, 10)
    assert content_of(out) == visible(world)
    assert not (out / "d3").exists()
    assert (out / "d0/f00.png").stat().st_ino == stayed.st_ino
    checkout(world.ctx, first.id, out)
    assert content_of(out) == before
    assert not (out / "new").exists()


def test_the_status_tells_what_differs(world, out):
    made = world.capture()
    checkout(world.ctx, made.id, out)
    (out / "notes/a.txt").write_bytes(b"HELLO")
    (out / "d0/f00.png").unlink()
    (out / "mine").write_bytes(b"1")
    (out / ".DS_Store").write_bytes(b"1")
    (out / "d1/f01.png").unlink()
    (out / "d1/f01.png").symlink_to("/etc/hostname")
    found = status(out, now=now())
    assert (found.added, found.modified, found.removed) == (["mine"], ["d1/f01.png", "notes/a.txt"], ["d0/f00.png"])
    assert not found.clean


def test_a_touched_file_is_read_once_and_is_no_change(world, out):
    made = world.capture()
    checkout(world.ctx, made.id, out)
    os.utime(out / "notes/a.txt", ns=(1, 10**18))
    note = (out / NOTE).stat().st_ino
    assert status(out, now=now()).clean
    assert (out / NOTE).stat().st_ino != note  # the new stamp was noted
    note = (out / NOTE).stat().st_ino
    assert status(out, now=now()).clean
    assert (out / NOTE).stat().st_ino == note


def test_a_write_right_after_the_checkout_shows(world, out):
    """Written files carry an earlier time, so that no write can leave the same stamp."""
    made = world.capture()
    checkout(world.ctx, made.id, out)
    with (out / "notes/a.txt").open("r+b") as stream:
        stream.write(b"HELLO")
    assert status(out, now=now()).modified == ["notes/a.txt"]


@pytest.mark.parametrize("change", ["modified", "in the way", "a link"])
def test_what_people_changed_is_not_lost(world, out, change):
    first = world.capture()
    world.write("notes/a.txt", b"other")
    world.write("new", b"new")
    second = world.capture()
    checkout(world.ctx, first.id, out)
    mine = out / ("new" if change == "in the way" else "notes/a.txt")
    if change == "a link":
        mine.unlink()
        (out.parent / "target").write_bytes(b"target")
        mine.symlink_to(out.parent / "target")
    else:
        mine.write_bytes(b"my own work")
    before = content_of(out)
    with pytest.raises(Conflict, match="would be lost") as caught:
        checkout(world.ctx, second.id, out)
    assert "--force" in caught.value.hint
    assert content_of(out) == before
    checkout(world.ctx, second.id, out, force=True)
    assert content_of(out) == visible(world)
    if change == "a link":
        assert (out.parent / "target").read_bytes() == b"target"  # the link went, not what it led to
        assert not mine.is_symlink()


def test_changed_files_that_the_other_version_lacks_are_not_lost_either(world, out):
    first = world.capture()
    checkout(world.ctx, first.id, out)
    (world.folder / "notes/a.txt").unlink()
    second = world.capture()
    (out / "notes/a.txt").write_bytes(b"my own work")
    with pytest.raises(Conflict, match="would be lost"):
        checkout(world.ctx, second.id, out)
    checkout(world.ctx, second.id, out, force=True)
    assert not (out / "notes").exists()


def test_other_files_stay(world, out):
    made = world.capture()
    (out / "mine").mkdir(parents=True)
    (out / "mine/x").write_bytes(b"x")
    (out / "notes").mkdir()
    (out / "notes/a.txt").write_bytes(b"hello")  # the same as in the version: taken over
    done = checkout(world.ctx, made.id, out)
    assert (done.kept, done.written) == (1, 41)
    assert (out / "mine/x").read_bytes() == b"x"
    assert status(out, now=now()).added == ["mine/x"]


def test_nothing_is_written_through_a_link_to_another_folder(world, out, tmp_path):
    made = world.capture()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    out.mkdir()
    (out / "notes").symlink_to(elsewhere)
    with pytest.raises(Conflict, match="a file or a link"):
        checkout(world.ctx, made.id, out)
    assert list(elsewhere.iterdir()) == []


@pytest.mark.parametrize(
    "path", ["../outside", "/tmp/everloop-outside", "a/../../outside", "notes/a.txt/below"], ids=str
)
def test_a_table_with_a_path_that_leads_out_is_not_checked_out(world, out, path):
    made = world.capture()
    rows = pl.DataFrame(
        {"path": [path], "size": [5], "media_type": ["text/plain"], "digest": [next(iter(digests(world, made)))]}
    )
    editing.edit(world.ctx, "files", rows.to_arrow(), "append", "production")
    bad = trees_of(world)
    with pytest.raises(DataError):
        checkout(world.ctx, bad, out)
    assert not out.exists()
    assert not Path("/tmp/everloop-outside").exists()


def digests(world, made):
    return [file.digest for file in trees.open_tree(world.ctx, made.id)]


def trees_of(world):
    with world.ctx.read() as tx:
        return versions.find(tx, world.ctx.project, "data/files").id


def test_a_digest_that_is_none_or_lies_nowhere_is_said(world, out):
    world.capture()
    rows = pl.DataFrame({"path": ["x"], "size": [5], "media_type": ["text/plain"], "digest": ["b3:" + "0" * 64]})
    editing.edit(world.ctx, "files", rows.to_arrow(), "append", "production")
    with pytest.raises(NotFound, match="x are not here"):
        checkout(world.ctx, trees_of(world), out)
    editing.edit(world.ctx, "files", rows.with_columns(digest=pl.lit("md5:1")).to_arrow(), "upsert", "production")
    with pytest.raises(DataError, match="has no digest"):
        checkout(world.ctx, trees_of(world), out)


def test_damaged_bytes_are_never_written(world, out):
    made = world.capture()
    with world.ctx.read() as tx:
        (pack,) = packs.of(tx, world.ctx.project)
    file = world.ctx.store.path(pack.object)
    file.chmod(0o644)
    content = bytearray(file.read_bytes())
    content[100] ^= 1
    file.write_bytes(content)
    with pytest.raises(CorruptObject):
        checkout(world.ctx, made.id, out)
    good = visible(world)
    assert all(good[path] == found for path, found in content_of(out).items())
    assert status(out, now=now()).unfinished
    content[100] ^= 1
    file.write_bytes(content)
    checkout(world.ctx, made.id, out)
    assert status(out, now=now()).clean


KILLED = """
import os, sys, time
from pathlib import Path
from everloop.catalog.context import Actor, Context
from everloop.catalog.engine import Catalog
from everloop.core.clock import SystemClock
from everloop.data.trees import checkout as module
from everloop.store import open_store
database, store, home, version, out = sys.argv[1:]
writes, write = [0], module._write
def dying(*arguments):
    writes[0] += 1
    if writes[0] == 20:
        os.kill(os.getpid(), 9)
    return write(*arguments)
module._write = dying
ctx = Context(Actor.of("ada"), "flights", SystemClock(), Catalog.open(database), open_store(store), home=Path(home))
module.checkout(ctx, version, Path(out))
"""


def test_a_checkout_that_was_killed_is_completed_by_doing_it_again(world, out, tmp_path):
    first = world.capture()
    checkout(world.ctx, first.id, out)
    for i in range(40):
        world.write(f"d{i % 4}/f{i:02}.png", noise(300 + i, 100 + i))
    second = world.capture()
    script = KILLED.replace("from everloop.data.trees import checkout as module", "import everloop.data.trees.checkout")
    script = script.replace("module", "sys.modules['everloop.data.trees.checkout']")
    told = [world.ctx.catalog.url, world.ctx.store.url, str(tmp_path), second.id, str(out)]
    ended = subprocess.run([sys.executable, "-c", script, *told], check=False)
    assert ended.returncode == -signal.SIGKILL
    found = status(out, now=now())
    assert found.unfinished
    done = checkout(world.ctx, second.id, out)  # what it wrote is no work of people's
    assert done.written + done.kept == 42
    assert {path: found for path, found in content_of(out).items() if "checkout" not in path} == visible(world)


def test_a_folder_that_was_not_checked_out_has_no_status(tmp_path):
    with pytest.raises(InvalidInput, match="was not checked out"):
        status(tmp_path, now=now())
    (tmp_path / NOTE).write_bytes(b'{"form": "everloop stamps 1"}\nx')
    with pytest.raises(InvalidInput, match="was not checked out"):
        status(tmp_path, now=now())


def test_this_disk_tells_case_apart(tmp_path):
    assert ignores_case(tmp_path) is False
    assert list(tmp_path.iterdir()) == []


def test_paths_that_differ_in_case_are_two_files_here(world, out):
    world.write("Cat", b"1")
    world.write("cat", b"2")
    made = world.capture()
    checkout(world.ctx, made.id, out)
    assert ((out / "Cat").read_bytes(), (out / "cat").read_bytes()) == (b"1", b"2")


def test_a_full_disk_leaves_nothing_half_written_and_can_be_gone_on_with(world, out):
    """No file may grow beyond a limit: `write` meets there what it meets on a full disk."""
    world.write("large", noise(BIG - 1))
    made = world.capture()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (BIG // 2, hard))
    try:
        with pytest.raises(StorageFull, match="no space is left"):
            checkout(world.ctx, made.id, out)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    whole = visible(world)
    assert all(whole[path] == found for path, found in content_of(out).items())
    checkout(world.ctx, made.id, out)
    assert content_of(out) == whole


def test_another_kind_of_table_is_no_folder(world, out):
    rows = pl.DataFrame({"id": [1], "x": [2]})
    made = editing.edit(world.ctx, "plain", rows.to_arrow(), "append", "production")
    with pytest.raises(InvalidInput, match="no folder of files"):
        checkout(world.ctx, made.id, out)
