"""Reading files of versions, previews, operations, compaction."""

import base64
import io

import numpy as np
import pytest
from blake3 import blake3
from PIL import Image

from everloop import data
from everloop.catalog.operation import invoke
from everloop.catalog.trees import packs
from everloop.core.errors import Conflict, NotFound, PermissionDenied
from everloop.data import SourceDef, trees
from everloop.data.trees import previews
from everloop.data.trees.operations import ListFiles, OfFile, list_files, preview_file
from everloop.data.trees.source import BIG
from everloop.workspace.work.sweeping import sweep_store
from tests.data.trees.conftest import noise


def test_files_are_read_by_path(world):
    made = world.capture()
    with trees.open_file(world.ctx, made.id, "notes/a.txt") as stream:
        assert stream.read() == b"hello"
    tree = trees.open_tree(world.ctx, made.id)
    assert (len(tree), "empty" in tree, "absent" in tree) == (42, True, False)
    assert tree.file("empty").digest == "b3:" + blake3(b"").hexdigest()
    with pytest.raises(NotFound, match="has no file"):
        tree.read("absent")


def test_all_files_follow_each_other_in_order(world):
    world.write("d1/big", noise(2 * BIG))
    made = world.capture()
    world.write("zz", b"later")  # lies in another pack
    later = world.capture()
    for version in (made, later):
        found = list(trees.open_tree(world.ctx, version.id).items())
        assert [path for path, _ in found] == sorted(path for path, _ in found)
        assert len(found) == version.rows
        assert all((world.folder / path).read_bytes() == content for path, content in found)


def picture(mode="RGB", size=(400, 200), form="PNG", **more):
    sink = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), np.uint8)).convert(mode).save(
        sink, form, **more
    )
    return sink.getvalue()


FORMS = ["PNG RGB", "PNG LA", "PNG P", "JPEG L", "JPEG CMYK", "GIF P", "WEBP RGB"]


@pytest.mark.parametrize("kind", FORMS)
def test_images_are_shown_small(world, kind):
    form, mode = kind.split()
    world.write(f"pictures/x.{form.lower()}", picture(mode, form=form))
    made = world.capture()
    found = invoke(world.ctx, preview_file, OfFile(version=made.id, path=f"pictures/x.{form.lower()}", edge=64))
    assert (found.kind, found.width, found.height) == ("image", 400, 200)
    small = Image.open(io.BytesIO(base64.b64decode(found.image.removeprefix("data:image/png;base64,"))))
    assert small.size == (64, 32)


def test_an_image_is_turned_as_the_camera_says(world):
    exif = Image.Exif()
    exif[0x0112] = 6
    world.write("x.jpg", picture(form="JPEG", exif=exif))
    made = world.capture()
    found = invoke(world.ctx, preview_file, OfFile(version=made.id, path="x.jpg", edge=64))
    small = Image.open(io.BytesIO(base64.b64decode(found.image.partition(",")[2])))
    assert small.size == (32, 64)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\x89PNG\r\n\x1a\nbroken", "not a readable image"),
        (picture()[:3000], "not a readable image"),
        (b"", "not a readable image"),
    ],
    ids=["broken", "cut short", "empty"],
)
def test_images_that_cannot_be_shown_say_why(world, content, words):
    world.write("x.png", content)
    made = world.capture()
    found = invoke(world.ctx, preview_file, OfFile(version=made.id, path="x.png"))
    assert found.kind == "none"
    assert words in found.note


def test_an_image_bomb_is_not_decoded(world):
    """A PNG of a few bytes that says it holds 20,000 x 20,000 pixels."""
    small = Image.new("1", (20_000, 20_000))
    sink = io.BytesIO()
    small.save(sink, "PNG")
    world.write("bomb.png", sink.getvalue())
    made = world.capture()
    found = invoke(world.ctx, preview_file, OfFile(version=made.id, path="bomb.png"))
    assert found.kind == "none"
    assert "pixels" in found.note


def test_texts_begin_and_other_files_say_what_they_are(world):
    world.write("long.md", "äöü ".encode() * 4000)
    world.write("x.pdf", b"%PDF-1.4")
    made = world.capture()
    text = invoke(world.ctx, preview_file, OfFile(version=made.id, path="long.md"))
    assert text.kind == "text"
    assert text.text.startswith("äöü äöü")
    assert len(text.text) < 4000
    other = invoke(world.ctx, preview_file, OfFile(version=made.id, path="x.pdf"))
    assert (other.kind, other.media_type) == ("none", "application/pdf")
    assert other.note


def test_a_short_recording_is_heard_and_a_long_one_is_not(world):
    world.write("short.wav", b"RIFF" + bytes(100))
    world.write("long.mp3", bytes(previews.AUDIO + 1))
    made = world.capture()
    short, long = (
        invoke(world.ctx, preview_file, OfFile(version=made.id, path=path)) for path in ("short.wav", "long.mp3")
    )
    assert (short.kind, short.audio[:25]) == ("audio", "data:audio/wav;base64,UklG"[:25])
    assert base64.b64decode(short.audio.partition(",")[2]) == b"RIFF" + bytes(100)
    assert (long.kind, long.audio) == ("none", "")
    assert "4 MiB" in long.note


def test_tagged_contents_are_not_shown(world):
    source = SourceDef("files", world.origin, tags={"digest": "personal"})
    made = data.capture(world.ctx, source, root=world.root)
    with pytest.raises(PermissionDenied, match="tagged personal"):
        invoke(world.ctx, preview_file, OfFile(version=made.id, path="notes/a.txt"))


def test_files_are_listed_in_pages(world):
    made = world.capture()
    found = invoke(world.ctx, list_files, ListFiles(version="files@1", prefix="d1/", offset=8, limit=5))
    assert (found.id, found.files, found.number) == (made.id, 10, 1)
    assert [item.path for item in found.items] == ["d1/f33.png", "d1/f37.png"]
    assert found.items[0].media_type == "image/png"


def test_reading_needs_the_right_to(world, context_of):
    made = world.capture()
    stranger = context_of(world.ctx.catalog, name="eve", roles=())
    for function, command in (
        (list_files, ListFiles(version=made.id)),
        (preview_file, OfFile(version=made.id, path="notes/a.txt")),
    ):
        with pytest.raises(PermissionDenied):
            invoke(stranger, function, command)


# --- compaction


def total(world):
    return sum(world.packs())


def test_compaction_leaves_what_versions_want(world):
    world.write("big", noise(3 * BIG))
    made = world.capture()
    kept = total(world)
    assert trees.compact(world.ctx).rewritten == 0
    assert total(world) == kept
    assert trees.open_tree(world.ctx, made.id).read("big") == noise(3 * BIG)


def test_files_that_no_version_wants_go_and_a_sweep_frees_their_bytes(world):
    """The bytes of a file are erased by writing its pack again without it."""
    secret = b"all about somebody" * 10
    world.write("secret.txt", secret)
    made = world.capture()
    found = trees.compact(world.ctx, without=[blake3(secret).digest()], dry_run=True)
    assert (found.rewritten, found.removed, found.freed) == (1, 0, len(secret))
    assert trees.open_tree(world.ctx, made.id).read("secret.txt") == secret
    trees.compact(world.ctx, without=[blake3(secret).digest()])
    sweep_store(world.ctx, grace=0)
    assert all(secret not in world.ctx.store.get(identity) for identity in world.ctx.store.ids())
    tree = trees.open_tree(world.ctx, made.id)
    assert tree.read("notes/a.txt") == b"hello"
    with pytest.raises(NotFound, match=r"secret.txt are not here"):
        tree.read("secret.txt")
    assert world.capture().id == made.id  # unchanged input is not read: the bytes stay away


def test_packs_that_nothing_wants_are_removed(world):
    world.capture()
    with world.ctx.write() as tx:
        identity = world.ctx.store.put(world.ctx.store.get(packs.of(tx, world.ctx.project)[0].object))
        packs.put(tx, "other", [packs.PackRow(identity, "files", 41, 1)], at=1)
    stranger = world.ctx.__class__(**{f: getattr(world.ctx, f) for f in world.ctx.__slots__} | {"project": "other"})
    found = trees.compact(stranger)
    assert (found.packs, found.rewritten, found.removed) == (1, 0, 1)
    with world.ctx.read() as tx:
        assert packs.of(tx, "other") == []
        assert len(packs.of(tx, world.ctx.project)) == 1


def test_a_version_that_is_recorded_meanwhile_stops_a_compaction(world):
    world.capture()
    with world.ctx.read() as tx:
        seen = packs.recorded(tx, world.ctx.project)
        rows = packs.of(tx, world.ctx.project)
    world.write("later", b"1")
    world.capture()
    with pytest.raises(Conflict, match="recorded meanwhile"), world.ctx.write() as tx:
        packs.replace(tx, world.ctx.project, [rows[0].object], [], at=1, seen=seen)
    with pytest.raises(Conflict, match="somebody else"), world.ctx.write() as tx:
        packs.replace(tx, world.ctx.project, ["b3:" + "0" * 64], [], at=1, seen=seen + 1)
