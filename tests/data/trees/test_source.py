"""Folders become versions: what counts, what is kept, what is refused."""

import os
import socket
from dataclasses import replace
from fnmatch import fnmatchcase

import numpy as np
import polars as pl
import pytest

from everloop import data
from everloop.catalog import placements, steps, versions
from everloop.catalog.trees import packs
from everloop.core.clock import ReplayClock
from everloop.core.errors import Conflict, DataError, InvalidInput, NotFound
from everloop.core.ids import object_id
from everloop.data import Folder, SourceDef
from everloop.data.trees import open_tree
from everloop.data.trees.packing.packs import FULL
from everloop.data.trees.scanning import FINE, look, racy, scan
from everloop.data.trees.source import BIG, FolderSource
from everloop.workspace.work.sweeping import sweep_store

noise = np.random.default_rng(7).bytes


def objects(ctx):
    return {identity: ctx.store.size(identity) for identity in ctx.store.ids()}


def test_a_folder_is_a_table_with_the_key_path(world):
    made = world.capture()
    table = data.read(world.ctx, made.id).collect()
    assert table.columns == ["path", "size", "media_type", "digest"]
    assert (made.rows, made.new, made.read) == (42, True, True)
    assert table["path"].to_list() == sorted(table["path"].to_list())
    row = table.row(by_predicate=pl.col("path") == "notes/a.txt", named=True)
    assert row == {"path": "notes/a.txt", "size": 5, "media_type": "text/plain", "digest": object_id(b"hello")}
    assert ".hidden" not in table["path"].to_list()
    assert data.manifest_of(world.ctx, made.id)["key"] == ["path"]


def test_small_files_lie_in_packs_and_not_in_objects_of_their_own(world):
    world.capture()
    assert len(objects(world.ctx)) == 2  # the table's part, the pack
    assert world.packs() == [sum(8 + 500 + i for i in range(40)) + 5]


def test_unchanged_files_are_not_read_and_add_nothing(world):
    first = world.capture()
    before = objects(world.ctx)
    again = world.capture()
    assert (again.id, again.new, again.read) == (first.id, False, False)
    assert objects(world.ctx) == before


def test_only_what_changed_is_read_and_kept(world):
    world.capture()
    world.write("d3/f39.png", b"new")
    made = world.capture()
    assert (made.number, made.new) == (2, True)
    assert min(world.packs()) == 3
    assert open_tree(world.ctx, made.id).read("d0/f00.png").startswith(b"\x89PNG")


def test_equal_contents_are_kept_once_whatever_they_are_called(world):
    world.capture()
    kept = world.packs()
    (world.folder / "d0").rename(world.folder / "renamed")
    world.write("copy.png", (world.folder / "d1/f01.png").read_bytes())
    made = world.capture()
    assert made.new
    assert world.packs() == kept
    assert open_tree(world.ctx, made.id).read("renamed/f00.png").startswith(b"\x89PNG")


def test_contents_that_an_older_version_had_are_not_kept_again(world):
    first = world.capture()
    before = (world.folder / "notes/a.txt").read_bytes()
    world.write("notes/a.txt", b"other")
    world.capture()
    kept = world.packs()
    world.write("notes/a.txt", before)
    assert world.capture().id == first.id
    assert world.packs() == kept


def test_big_files_are_cut_and_an_edit_keeps_most_of_them(world):
    content = noise(8 << 20)
    world.write("big.bin", content)
    first = world.capture()
    kept = sum(world.packs())
    assert open_tree(world.ctx, first.id).read("big.bin") == content
    edited = content[: 3 << 20] + b"inserted" + content[3 << 20 :]
    world.write("big.bin", edited)
    second = world.capture()
    assert sum(world.packs()) - kept < 0.2 * len(content)
    tree = open_tree(world.ctx, second.id)
    assert tree.read("big.bin") == edited
    with tree.open("big.bin") as stream:
        stream.seek(-10, os.SEEK_END)
        assert stream.read() == edited[-10:]
        stream.seek(2 << 20)
        assert stream.read(100_000) == edited[2 << 20 : (2 << 20) + 100_000]
        assert stream.read() == edited[(2 << 20) + 100_000 :]
        assert stream.read(1) == b""
    assert open_tree(world.ctx, first.id).read("big.bin") == content


def test_the_way_of_keeping_is_no_part_of_identity(world, tmp_path):
    """A workspace that saw another history gives the same ids."""
    world.write("x.bin", noise(BIG - 1))
    world.capture()
    world.write("x.bin", noise(BIG))
    here = world.capture()
    other = replace(world.ctx, project="other", home=tmp_path / "elsewhere")
    there = data.capture(other, SourceDef("files", world.origin), root=world.root)
    assert here.id == there.id


def test_packs_are_of_bounded_size(world):
    for i in range(5):
        world.write(f"middling/{i}", noise(BIG - 1))
    for i in range(2):
        world.write(f"big/{i}", noise(FULL // 2 + BIG))
    world.capture()
    assert max(objects(world.ctx).values()) < FULL + (2 << 20)
    assert len(world.packs()) >= 2


def test_a_file_that_was_written_just_now_is_read_again(world):
    """Another write in the same tick of the disk's clock leaves the same size and time."""
    file = world.write("fresh", b"aaaa", fresh=True)
    first = world.capture()
    then = file.stat()
    with file.open("r+b") as stream:  # the same inode, size and time
        stream.write(b"bbbb")
    os.utime(file, ns=(then.st_atime_ns, then.st_mtime_ns))
    second = world.capture()
    assert second.id != first.id
    assert open_tree(world.ctx, second.id).read("fresh") == b"bbbb"


def test_what_counts_as_written_just_now():
    stamps = np.array([(1, t, 0, 0) for t in (5 * 10**9 + 1, 5 * 10**9)], "<i8,<i8,<i8,<i8")
    stamps.dtype.names = ("size", "mtime", "ctime", "inode")
    assert racy(stamps, 5 * 10**9 + FINE // 2).tolist() == [True, True]
    assert racy(stamps, 6 * 10**9).tolist() == [False, True]  # a disk that counts whole seconds
    assert racy(stamps, 8 * 10**9).tolist() == [False, False]


def test_the_memory_of_a_source_is_only_a_memory(world):
    first = world.capture()
    (memory,) = (world.ctx.home / "trees").rglob("*.stamps")
    memory.write_bytes(memory.read_bytes()[:-3])
    world.write("more", b"1")
    assert world.capture().rows == first.rows + 1
    memory.unlink()
    world.write("more", b"12")
    assert world.capture().rows == first.rows + 1


@pytest.mark.parametrize(
    ("pattern", "exclude", "count"),
    [
        ("files", (), 42),
        ("files/**/*.png", (), 40),
        ("files/d0/*", (), 10),
        ("files/*", (), 1),
        ("files/**", ("d[0-2]",), 12),
        ("files/**", ("**/*.png", "empty"), 1),
        ("files/.h*", (), 1),
    ],
)
def test_patterns_choose(world, pattern, exclude, count):
    world.origin = Folder(pattern, exclude=exclude)
    assert world.capture().rows == count


def test_links_within_the_folder_count_as_their_files(world):
    (world.folder / "link.txt").symlink_to("notes/a.txt")
    made = world.capture()
    assert open_tree(world.ctx, made.id).read("link.txt") == b"hello"


def outward(world):
    (world.root / "secret").write_bytes(b"s")
    (world.folder / "out").symlink_to(world.root / "secret")


def to_a_folder(world):
    (world.folder / "loop").symlink_to(".")


def broken(world):
    (world.folder / "nowhere").symlink_to("missing")


def pipe(world):
    os.mkfifo(world.folder / "pipe")


def sock(world):
    listener = socket.socket(socket.AF_UNIX)
    here = os.getcwd()  # noqa: PTH109 - paths of sockets are short
    os.chdir(world.folder)
    try:
        listener.bind("sock")
    finally:
        os.chdir(here)
        listener.close()


def not_text(world):
    (world.folder / os.fsdecode(b"bad\xff.png")).write_bytes(b"x")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (outward, "out is a link that leads out of the folder"),
        (to_a_folder, "loop is a link to a folder"),
        (broken, "nowhere is a link"),
        (pipe, "pipe is a pipe"),
        (sock, "sock is a socket"),
        (not_text, "not UTF-8"),
    ],
)
def test_what_is_no_file_of_the_folder_is_refused(world, spoil, words):
    world.capture()
    before = objects(world.ctx)
    spoil(world)
    with pytest.raises(DataError, match=words) as caught:
        world.capture()
    assert caught.value.hint
    assert objects(world.ctx) == before
    with world.ctx.read() as tx:
        assert len(versions.history(tx, world.ctx.project, "data", "files", limit=9)) == 1


def test_what_is_excluded_may_be_anything(world):
    outward(world)
    to_a_folder(world)
    pipe(world)
    world.origin = Folder("files/**", exclude=("out", "loop", "pipe"))
    assert world.capture().rows == 42


def test_a_file_of_another_kind_than_promised_is_refused(world):
    world.origin = Folder("files/**", media=("image", "text/plain"))
    with pytest.raises(DataError, match="empty is application/octet-stream, not image or text/plain"):
        world.capture()
    world.origin = Folder("files/**", media=("image", "text/plain"), exclude="empty")
    assert world.capture().rows == 41


def test_an_empty_or_missing_folder_is_said(world):
    world.origin = Folder("files/*.wav")
    with pytest.raises(NotFound, match="no file matches"):
        world.capture()
    world.origin = Folder("absent/**")
    with pytest.raises(NotFound, match="no folder"):
        world.capture()


@pytest.mark.parametrize("change", ["grow", "shrink", "replace", "remove"])
def test_a_file_that_changes_between_listing_and_reading_is_refused(world, change):
    source = FolderSource(world.ctx, world.origin, "files", world.root)
    assert source.state()["files"] == 42
    file = world.folder / "d0/f00.png"
    if change == "grow":
        file.write_bytes(file.read_bytes() + b"more")
    elif change == "shrink":
        file.write_bytes(b"less")
    elif change == "replace":
        content = file.read_bytes()
        file.unlink()
        (world.folder / "taken").write_bytes(b"")  # takes the inode
        file.write_bytes(content)
    else:
        file.unlink()
    with pytest.raises(DataError, match="was written to while it was read"):
        list(source.read())


def test_a_link_that_is_put_in_the_place_of_a_file_is_not_followed(world):
    source = FolderSource(world.ctx, world.origin, "files", world.root)
    source.state()
    (world.root / "secret").write_bytes(b"s")
    (world.folder / "empty").unlink()
    (world.folder / "empty").symlink_to(world.root / "secret")
    with pytest.raises(DataError, match="cannot be read"):
        list(source.read())


def test_definitions_of_folders():
    folder = Folder("images/**", media="image", exclude=["**/*.tmp"])
    assert (folder.media, folder.exclude) == (("image",), ("**/*.tmp",))
    source = SourceDef("images", folder)
    assert source.key == ("path",)
    again = SourceDef.from_manifest("images", source.manifest())
    assert again.version().id == source.version().id
    with pytest.raises(InvalidInput, match="key 'path'"):
        SourceDef("images", folder, key="digest")
    with pytest.raises(InvalidInput, match="Folder needs"):
        Folder("")


def test_expectations_and_differences_are_those_of_tables(world):
    first = world.capture()
    world.write("notes/a.txt", b"longer text")
    world.write("notes/b.txt", b"new")
    second = world.capture()
    found = data.compare(world.ctx, first.id, second.id)
    assert (found.added, found.removed, found.changed) == (1, 0, 1)


def test_a_sweep_keeps_packs_of_recorded_versions(world):
    made = world.capture()
    sweep_store(world.ctx, grace=0)
    assert open_tree(world.ctx, made.id).read("notes/a.txt") == b"hello"


def test_a_capture_whose_packs_were_replaced_meanwhile_is_refused(world):
    world.capture()
    world.write("more", b"1")
    source = FolderSource(world.ctx, world.origin, "files", world.root)
    list(source.read())
    with world.ctx.write() as tx:
        rows = packs.of(tx, world.ctx.project)
        packs.replace(
            tx, world.ctx.project, [r.object for r in rows], [], at=1, seen=packs.recorded(tx, world.ctx.project)
        )
    with pytest.raises(Conflict, match="moved to other packs"), world.ctx.write() as tx:
        source.record(tx)


def test_looking_without_reading_never_raises(world):
    outward(world)
    pipe(world)
    not_text(world)
    found = look(world.folder, taken=1)
    sizes = dict(zip(found.paths, found.stamps["size"].tolist(), strict=True))
    assert (sizes["out"], sizes["pipe"], sizes[".hidden"]) == (-1, -1, 6)
    with pytest.raises(NotFound):
        scan(world.root / "absent", taken=1)


def test_a_replayed_clock_does_not_matter_to_what_is_fresh(world):
    ctx = replace(world.ctx, clock=ReplayClock(1))
    world.ctx = ctx
    first = world.capture()
    assert world.capture().read is False
    with ctx.read() as tx:
        assert placements.objects(tx, ctx.project)
        assert steps.of_output(tx, ctx.project, first.id)


@pytest.mark.parametrize("pattern", ["files", "files/**", "files/**/*.png", "files/*/*.png"])
def test_the_files_of_a_folder_are_no_code_of_the_project(world, pattern):
    globs = Folder(pattern).globs()
    world.origin = Folder(pattern)
    made = world.capture()
    assert all(any(fnmatchcase(f"files/{file.path}", glob) for glob in globs) for file in open_tree(world.ctx, made.id))
    assert not any(fnmatchcase("files.py", glob) for glob in globs)
