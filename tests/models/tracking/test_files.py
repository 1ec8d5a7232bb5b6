"""Files of runs: directories, and a look into one."""

import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from everloop.catalog.operation import find_operation, invoke
from everloop.catalog.tracking import artifacts, experiments, runs
from everloop.core.errors import InvalidInput, NotFound
from everloop.models.tracking import files


def ask(context, name, /, **fields):
    op = find_operation(name)
    return invoke(context, op, op.command(**fields))


@pytest.fixture
def run(context):
    with context.write() as tx:
        home = experiments.create(tx, context.project, "files", at=1)
        return runs.create(tx, context.project, experiment=home, actor="ada", at=1).id


def put(context, run, path, content):
    with context.write() as tx:
        identity = context.store.put(content)
        artifacts.put(tx, context.project, run, path, identity=identity, size=len(content), at=1)


def test_a_directory_says_what_is_below_it(context, run):
    for path, content in (("b.txt", b"123"), ("a/x", b"1"), ("a/b/y", b"12"), ("a.txt", b"")):
        put(context, run, path, content)
    top = ask(context, "runs.files", run=run)
    assert [(one.name, one.files, one.size, bool(one.object)) for one in top.entries] == [
        ("a", 2, 3, False),
        ("a.txt", 1, 0, True),
        ("b.txt", 1, 3, True),
    ]
    assert [one.path for one in ask(context, "runs.files", run=run, path="a").entries] == ["a/b", "a/x"]
    assert ask(context, "runs.files", run=run, path="b.txt").entries == ()


@pytest.mark.parametrize("path", ["../x", "/etc/passwd", "a/../b", "a\\b", "%2e%2e/x", "c:/x"])
def test_no_path_leads_out(context, run, path):
    for name in ("runs.file", "runs.preview", "runs.head"):
        with pytest.raises((InvalidInput, NotFound)):
            ask(context, name, run=run, path=path)


@pytest.mark.parametrize(
    ("path", "content", "kind"),
    [
        ("a.txt", "grüß".encode(), "text"),
        ("a.html", b"<script>", "text"),
        ("a.svg", b"<svg/>", "text"),
        ("a.json", b'{"b": [1]}', "json"),
        ("a.json", b"{no json", "text"),
        ("a.png", b"\x89PNG", "picture"),
        ("a.PARQUET", b"", "parquet"),
        ("a.bin", bytes(range(256)), "none"),
        ("a.txt", b"\xff\xfe", "none"),
    ],
)
def test_what_a_file_is(context, run, path, content, kind):
    put(context, run, path, content)
    assert ask(context, "runs.preview", run=run, path=path).kind == kind


def test_a_long_text_is_cut_between_characters(context, run, monkeypatch):
    monkeypatch.setattr(files, "LARGEST_TEXT", 10)
    put(context, run, "a.txt", "ääääääää".encode())  # 16 bytes
    found = ask(context, "runs.preview", run=run, path="a.txt")
    assert (found.text, found.cut) == ("äääää", True)
    monkeypatch.setattr(files, "LARGEST_TEXT", 9)
    assert ask(context, "runs.preview", run=run, path="a.txt").text == "ääää"


def test_csv_is_a_table_of_texts(context, run):
    put(context, run, "a.csv", b'id,"na,me"\n1,"<b>"\n2\n3,x,more\n')
    found = ask(context, "runs.preview", run=run, path="a.csv")
    assert (found.columns, found.rows) == (("id", "na,me"), (("1", "<b>"), ("2", None), ("3", "x")))
    assert (found.total, found.cut) == (3, False)
    assert ask(context, "runs.preview", run=run, path="a.csv", rows=1).total is None


def test_the_head_of_parquet(context, run):
    content = io.BytesIO()
    table = {"id": range(300), "value": [None, 0.123456789, float("nan")] * 100, "text": ["x" * 500] * 300}
    pq.write_table(pa.table(table), content)
    put(context, run, "a.parquet", content.getvalue())
    found = ask(context, "runs.head", run=run, path="a.parquet", rows=3)
    assert (found.columns, found.types) == (("id", "value", "text"), ("int64", "double", "string"))
    assert [row[:2] for row in found.rows] == [("0", None), ("1", "0.123457"), ("2", "nan")]
    assert (found.total, found.cut, len(found.rows[0][2])) == (300, True, 200)
    json.loads(found.model_dump_json())


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1" + b"\xff" * 60 + b"PAR1"])
def test_what_is_no_parquet_says_so(context, run, content):
    put(context, run, "a.parquet", content)
    found = ask(context, "runs.head", run=run, path="a.parquet")
    assert found.kind == "none"
    assert "no Parquet" in found.note
