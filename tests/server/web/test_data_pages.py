"""The page of a dataset: its contract and results, what differs and drifted, what goes together."""

import html
import io
import re
from urllib.parse import quote, unquote

import page_world
import polars as pl
import pytest
from PIL import Image

from everloop.data import Call, Folder, SourceDef, expect
from everloop.data.editing import edit
from everloop.server.web.charts import histogram


def test_the_contract_and_how_it_went(http, world):
    world.seal()
    text = http("eve", timeout=120).get("/shop/data/flights").text
    assert '<h2 id="contract">Contract</h2>' in text
    assert "newest results" in text


def test_two_versions_are_compared_with_their_drift(http):
    text = http("eve", timeout=120).get("/shop/data/flights?version=2&against=1").text
    assert "Against v1" in text
    assert "How far columns drifted" in text
    drift = text.partition("How far columns drifted")[2].partition("</section>")[0]
    assert "Kolmogorov-Smirnov distance" in drift
    assert "N7" not in drift  # the tagged column
    assert "Columns that go together" in text


def test_drift_over_versions_is_drawn_of_the_columns_that_moved_most(http):
    plain = http("eve", timeout=120).get("/shop/data/flights").text
    assert "course=drift" in plain
    assert "Drift over versions" not in plain
    text = http("eve", timeout=120).get("/shop/data/flights?course=drift").text
    drawn = text.partition('id="course"')[2].partition("</section>")[0]
    assert "<svg" in drawn
    assert {"origin", "note"} <= set(re.findall(r"\w+", drawn))
    assert "N7" not in drawn  # a value of the tagged column


def test_two_histograms_stand_over_one_range():
    before, after = (histogram(edges, 4, (0.0, 4.0)) for edges in ([0.0, 1.0, 2.0], [2.0, 3.0, 4.0]))
    assert [share for *_, share in before] == [0.5, 0.5, 0.0, 0.0]
    assert [share for *_, share in after] == [0.0, 0.0, 0.5, 0.5]


@pytest.fixture(scope="module")
def wards(world):
    """A dataset that breaks an expectation that only warns, with a tagged column and words about it."""
    source = SourceDef(
        "wards",
        Call("rules:wards"),
        key="id",
        tags={"name": "personal"},
        expect=[expect.between("beds", 1, 100, severity="warn"), expect.row_count(at_least=1)],
    )
    world.put(source.version())
    rows = [{"id": i, "beds": i * 20, "name": f"Somebody{i}"} for i in range(9)]
    ctx = world.by("ada")
    edit(ctx, "wards", pl.DataFrame(rows), "append", "production", contract=source.contract)
    said = {"owner": "ops", "description": "Wards of the hospital", "labels": ["care"]}
    world.ask("ada", "catalogue.annotate", asset="data/wards", **said)
    world.ask("ada", "catalogue.annotate", asset="data/wards", column="beds", description="Beds that can be used")
    world.seal()
    return world


def test_failing_rows_are_taken_away_masked(http, wards):
    text = http("eve", timeout=120).get("/shop/data/wards").text
    links = re.findall(r'href="([^"]*failing[^"]*)"', text)
    assert len(links) == 2
    for person, name in (("eve", "•••"), ("ada", "Somebody6")):
        answer = http(person, timeout=120).get(html.unescape(links[0]))
        assert answer.headers["content-type"].startswith("text/csv")
        assert 'filename="wards-v1-failing.csv"' in answer.headers["content-disposition"]
        assert answer.text.splitlines()[:2] == ["id,beds,name", "0,0," + name.replace("6", "0")]
        assert len(answer.text.splitlines()) == 1 + 4
        parquet = http(person, timeout=120).get(html.unescape(links[1]))
        rows = pl.read_parquet(io.BytesIO(parquet.content))
        assert rows["id"].to_list() == [0, 6, 7, 8]
        assert rows["name"][1] == name
    for wrong, status in (("nothing(x)", 404), ("row_count(at_least=1)", 400)):
        answer = http("eve", timeout=120).get("/shop/data/wards/failing", params={"expectation": wrong})
        assert answer.status_code == status


def test_who_owns_it_and_what_its_columns_mean(http, wards):
    text = http("eve", timeout=120).get("/shop/data/wards").text
    for words in ("owned by ops", "Wards of the hospital", "care", "Beds that can be used"):
        assert words in text


def test_images_of_a_folder_are_shown(http, world, tmp_path):
    for number in range(3):
        picture = Image.new("RGB", (40 + number, 30), (200, 40 * number, 90))
        picture.save(tmp_path / f"{number}.png")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    (tmp_path / "words.txt").write_text("hello")
    world.put(SourceDef("pictures", Folder(str(tmp_path / "*"))).version())
    world.ask("ada", "data.capture", source="pictures", environment="production")
    text = http("eve", timeout=120).get("/shop/data/pictures").text
    assert text.count('<img src="data:image/png;base64,') == 3
    assert re.search(r"40 . 30<", text)
    assert "5 files" in text
    assert "not a readable image" in text
    world.put(SourceDef("faces", Folder(str(tmp_path / "*")), tags={"digest": "personal"}).version())
    world.ask("ada", "data.capture", source="faces", environment="production")
    text = http("eve", timeout=120).get("/shop/data/faces").text
    assert "<img src" not in text
    assert "tagged personal" in text


def test_a_folder_is_paged_and_its_files_are_looked_into(http, world, tmp_path):
    files = {
        "a.txt": f"plain {page_world.ATTACK}".encode(),
        "b.html": f"<html>{page_world.ATTACK}</html>".encode(),
        "c.svg": b'<svg xmlns="http://www.w3.org/2000/svg"><script>document.title="pwned"</script></svg>',
        "d.wav": b"RIFF\x24\0\0\0WAVEfmt \x10\0\0\0\1\0\1\0\x40\x1f\0\0\x80\x3e\0\0\2\0\x10\0data\0\0\0\0",
        "e.pdf": b"%PDF-1.4 /OpenAction << /JS (app.alert(1)) >>",
        "g h/ü.png": page_world.picture(),
        **{f"z/{number:03d}.txt": b"x" for number in range(115)},
    }
    for path, content in files.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_bytes(content)
    world.put(SourceDef("mixed", Folder(str(tmp_path / "**/*"))).version())
    world.ask("ada", "data.capture", source="mixed", environment="production")
    web, seen, address = http("eve", timeout=120), [], "/shop/data/mixed"
    while address:
        text = web.get(address).text
        seen += [unquote(one) for one in re.findall(r'href="/shop/data/mixed/files/([^"?]+)\?version=1"', text)]
        later = re.search(r'rel="next" href="([^"#]+)', text)
        address = later and later[1].replace("&amp;", "&")
    assert seen == sorted(files)
    assert "of 121" in text
    assert 'rel="prev"' in text

    def shown(path):
        answer = web.get(f"/shop/data/mixed/files/{quote(path, safe='')}?version=1")
        assert answer.status_code == 200, path
        assert "<script>document" not in answer.text
        assert "script-src" not in answer.headers["content-security-policy"]
        return answer.text

    assert "plain &lt;script&gt;" in shown("a.txt")
    assert "&lt;html&gt;&lt;script&gt;" in shown("b.html")
    assert "data:image/svg" not in shown("c.svg")
    assert '<audio controls preload="metadata" src="data:audio/wav;base64,UklGR' in shown("d.wav")
    assert "may hold scripts" in shown("e.pdf")
    assert "data:application/pdf" not in shown("e.pdf")
    assert 'src="data:image/png;base64,' in shown("g h/ü.png")
    assert web.get("/shop/data/mixed/files/nothing.txt").status_code == 404
    world.put(SourceDef("private", Folder(str(tmp_path / "*.txt")), tags={"digest": "personal"}).version())
    world.ask("ada", "data.capture", source="private", environment="production")
    assert web.get("/shop/data/private/files/a.txt").status_code == 403
