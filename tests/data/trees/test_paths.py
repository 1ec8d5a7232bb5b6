import pytest
from hypothesis import given
from hypothesis import strategies as st

from everloop.core.errors import DataError
from everloop.data.trees.media import media_type
from everloop.data.trees.paths import checked_path, clashes, matcher, split_pattern


@pytest.mark.parametrize("path", ["a", "a/b.png", ".hidden/x", "..a/b..", "a" * 255, "ü/日本.jpg", "a b/c\\d"])
def test_plain_paths_pass(path):
    assert checked_path(path) == path


@pytest.mark.parametrize(
    "path",
    ["", "/", "/etc/passwd", "..", "../x", "a/../b", "a/..", "./a", "a/.", "a//b", "a/", "a\0b", "a" * 256, "x/" * 2100,
     "\udcff.png", "a/" + "ü" * 200],
)  # fmt: skip
def test_paths_that_lead_out_or_cannot_be_are_refused(path):
    with pytest.raises(DataError):
        checked_path(path)


@given(st.lists(st.sampled_from(["a", "..", ".", "", "b.c", "/", "\0"]), min_size=1, max_size=5).map("/".join))
def test_what_passes_stays_below_its_folder(path):
    try:
        checked_path(path)
    except DataError:
        return
    names = path.split("/")
    assert not path.startswith("/")
    assert not {"", ".", ".."} & set(names)
    assert "\0" not in path


def test_clashes_are_paths_that_are_one_file_where_case_or_accents_do_not_count():
    assert clashes(["a", "b", "c/d"]) == []
    assert clashes(["Cat.png", "cat.PNG"]) == [("Cat.png", "cat.PNG")]
    assert clashes(["A/x", "a/y"]) == [("A", "a")]
    assert clashes(["caf\u00e9", "cafe\u0301"]) == [("caf\u00e9", "cafe\u0301")]


@pytest.mark.parametrize(
    ("pattern", "begin", "rest"),
    [
        ("images", "images", "**"),
        ("images/**", "images", "**"),
        ("images/*.png", "images", "*.png"),
        ("a/b*/c", "a", "b*/c"),
        ("*.png", ".", "*.png"),
        ("/data/x/**/*.wav", "/data/x", "**/*.wav"),
    ],
)
def test_a_pattern_begins_with_a_folder(pattern, begin, rest):
    assert split_pattern(pattern) == (begin, rest)


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        ("**", ["a", "a/b", "a/b/c.png"], [".a", "a/.b", ".a/b"]),
        ("**/*.png", ["a.png", "x/y/a.png"], ["a.jpg", ".x/a.png", "x/.a.png"]),
        ("*.png", ["a.png"], ["x/a.png", ".png"]),
        ("x/[ab]?.txt", ["x/a1.txt"], ["x/c1.txt", "x/a.txt", "y/a1.txt"]),
        ("[!a]*", ["b", "bc"], ["a", ".b"]),
        (".cache/*", [".cache/a"], ["cache/a"]),
        ("a/**/z", ["a/z", "a/b/z", "a/b/c/z"], ["z", "b/z", "a/b"]),
    ],
)
def test_patterns_mean_what_a_shell_means(pattern, yes, no):
    found = matcher(pattern)
    assert [p for p in yes if not found.match(p)] == []
    assert [p for p in no if found.match(p)] == []


@pytest.mark.parametrize(
    ("path", "head", "media"),
    [
        ("a.JPG", b"", "image/jpeg"),
        ("a/b.c/x", b"%PDF-1.7", "application/pdf"),
        ("noending", b"RIFF\0\0\0\0WAVEfmt ", "audio/wav"),
        ("jpg", b"\x89PNG\r\n\x1a\n", "image/jpeg"),  # the ending decides, and a name may be all ending
        ("thing.unknown", b"hello", "application/octet-stream"),
        ("", b"", "application/octet-stream"),
    ],
)
def test_media_types(path, head, media):
    assert media_type(path, head) == media
