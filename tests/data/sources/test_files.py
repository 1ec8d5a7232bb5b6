import bz2
import gzip
import http.server
import json
import threading
import zipfile
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import s3_server

from everloop import data
from everloop.catalog import placements, versions
from everloop.core.errors import DataError, InvalidInput, NotFound, Unavailable
from everloop.data import Files, SourceDef

ROWS = pa.table({"id": [1, 2, 3], "name": ["a", "b", None], "x": [1.5, 2.0, None]})
CSV = b"id,name,x\n1,a,1.5\n2,b,2.0\n3,,\n"


def refused(ctx, origin, error, *words, root, **contract):
    def state():
        with ctx.read() as tx:
            return versions.names(tx, ctx.project, "data"), placements.objects(tx, ctx.project), set(ctx.store.ids())

    before = state()
    with pytest.raises(error) as caught:
        data.capture(ctx, SourceDef("x", origin, **contract), root=root)
    assert caught.value.hint
    for word in words:
        assert word in str(caught.value)
    assert state() == before
    assert not list((ctx.home / "scratch").glob("*"))
    return caught.value


def workbook(path, rows, names=("Sheet1",)):
    """A workbook as Excel writes it, reduced to what a reader needs."""
    cells = "".join(
        f'<row r="{r}">'
        + "".join(
            f'<c r="{chr(65 + c)}{r}" t="inlineStr"><is><t>{v}</t></is></c>'
            if isinstance(v, str)
            else f'<c r="{chr(65 + c)}{r}"><v>{v}</v></c>'
            for c, v in enumerate(row)
            if v is not None
        )
        + "</row>"
        for r, row in enumerate(rows, 1)
    )
    main = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    office = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    package = "http://schemas.openxmlformats.org/package/2006"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(
            "[Content_Types].xml",
            f'<Types xmlns="{package}/content-types"><Default Extension="xml" ContentType="application/xml"/></Types>',
        )
        file.writestr(
            "_rels/.rels",
            f'<Relationships xmlns="{package}/relationships"><Relationship Id="r" Type="{office}/officeDocument"'
            ' Target="xl/workbook.xml"/></Relationships>',
        )
        listed = "".join(f'<sheet name="{n}" sheetId="{i}" r:id="r{i}"/>' for i, n in enumerate(names, 1))
        file.writestr(
            "xl/workbook.xml", f'<workbook xmlns="{main}" xmlns:r="{office}"><sheets>{listed}</sheets></workbook>'
        )
        links = "".join(
            f'<Relationship Id="r{i}" Type="{office}/worksheet" Target="worksheets/sheet1.xml"/>'
            for i, _ in enumerate(names, 1)
        )
        file.writestr(
            "xl/_rels/workbook.xml.rels", f'<Relationships xmlns="{package}/relationships">{links}</Relationships>'
        )
        file.writestr(
            "xl/worksheets/sheet1.xml", f'<worksheet xmlns="{main}"><sheetData>{cells}</sheetData></worksheet>'
        )


def test_packed_files_and_workbooks_give_the_same_version(context, tmp_path):
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(CSV))
    (tmp_path / "a.csv.bz2").write_bytes(bz2.compress(CSV))
    (tmp_path / "a.csv.zst").write_bytes(pa.compress(CSV, "zstd", asbytes=True))
    with zipfile.ZipFile(tmp_path / "a.csv.zip", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("inside.csv", CSV)
    pq.write_table(ROWS, tmp_path / "a.parquet")
    (tmp_path / "a.parquet.gz").write_bytes(gzip.compress((tmp_path / "a.parquet").read_bytes()))
    with gzip.open(tmp_path / "a.jsonl.gz", "wt") as file:
        file.writelines(json.dumps(row) + "\n" for row in ROWS.to_pylist())
    workbook(tmp_path / "a.xlsx", [("id", "name", "x"), (1, "a", 1.5), (2, "b", 2.0), (3, None, None)])
    found = {
        path.name: data.capture(context, SourceDef("t", Files(path.name), key="id"), root=tmp_path).id
        for path in sorted(tmp_path.glob("a.*"))
    }
    assert len(found) == 8
    assert len(set(found.values())) == 1, found
    assert data.read(context, found["a.xlsx"]).collect().to_arrow().cast(ROWS.schema).equals(ROWS)


def test_workbooks_that_do_not_hold_a_table(context, tmp_path):
    workbook(tmp_path / "x.xlsx", [("a", "b"), (1, "x"), ("one", "y")])
    refused(context, Files("x.xlsx"), DataError, "x.xlsx:3", "column 'a' holds 'one'", root=tmp_path)
    refused(context, Files("x.xlsx", sheet="Other"), NotFound, "no sheet 'Other'", root=tmp_path)
    workbook(tmp_path / "x.xlsx", [("a", None, "c"), (1, 2, 3)])
    refused(context, Files("x.xlsx"), DataError, "column 2 has no name", root=tmp_path)
    (tmp_path / "x.xlsx").write_bytes(b"PK no workbook")
    refused(context, Files("x.xlsx"), DataError, "x.xlsx", root=tmp_path)


def test_bombs_are_refused_while_they_unpack(context, tmp_path):
    zeros = b"1\n" * (34 << 20)
    (tmp_path / "x.csv.gz").write_bytes(gzip.compress(b"a\n" + zeros, 1))
    refused(context, Files("x.csv.gz"), DataError, "unpacks to more than 200 times", root=tmp_path)
    for name, inner in (("x.csv.zip", "x.csv"), ("x.xlsx", "xl/worksheets/sheet1.xml")):
        with zipfile.ZipFile(tmp_path / name, "w", zipfile.ZIP_DEFLATED) as file:
            file.writestr(inner, zeros)
        refused(context, Files(name), DataError, "unpacks to more than 200 times", root=tmp_path)
    with zipfile.ZipFile(tmp_path / "y.csv.zip", "w") as file:
        file.writestr("a.csv", CSV)
        file.writestr("b.csv", CSV)
    refused(context, Files("y.csv.zip"), DataError, "holds 2 files", root=tmp_path)
    (tmp_path / "z.csv.gz").write_bytes(gzip.compress(CSV * 50)[:60])
    refused(context, Files("z.csv.gz"), DataError, "z.csv.gz", root=tmp_path)
    (tmp_path / "z.csv.zip").write_bytes(b"PK\x03\x04 cut off")
    refused(context, Files("z.csv.zip"), DataError, "broken archive", root=tmp_path)


def test_links_out_of_the_folder_are_refused(context, tmp_path):
    outside, inside = tmp_path / "outside", tmp_path / "in"
    outside.mkdir()
    inside.mkdir()
    (outside / "secret.csv").write_bytes(CSV)
    (inside / "a.csv").write_bytes(CSV)
    (inside / "again.csv").symlink_to(inside / "a.csv")
    assert data.capture(context, SourceDef("ok", Files("in/*.csv")), root=tmp_path).rows == 6
    (inside / "b.csv").symlink_to(outside / "secret.csv")
    refused(context, Files("in/*.csv"), DataError, "b.csv", "link out of its folder", root=tmp_path)
    (inside / "b.csv").unlink()
    (inside / "deep").symlink_to(outside)
    refused(context, Files("in/**/*.csv"), DataError, "secret.csv", root=tmp_path)
    (tmp_path / "linked").symlink_to(inside)  # the folder that the author names may be a link itself
    assert data.capture(context, SourceDef("ok", Files("linked/*.csv")), root=tmp_path).rows == 6


WHOLE = ("x", '"x"', '"a ""x"""', '""', '5" pipe', "'cut", '"a,"""', '"one\ntwo"', '"1"', "2", '"a"b"c', "''")
CUT = ('"cut in the mid', '"', '"a ""x""', '"a, b', '"a,""', '"a\nb', '"a\r\n', '"12', '"2026-01-02', '"é', '"a "" b')


@pytest.mark.parametrize("packed", [False, True])
def test_a_file_that_ends_within_quotes_is_refused(context, tmp_path, packed):
    """Whatever kind of column is last, whichever fields hold quotes, also where the end can be read only once."""
    name = "x.csv.gz" if packed else "x.csv"

    def write(text, encoding="utf-8"):
        content = text.encode(encoding)
        (tmp_path / name).write_bytes(gzip.compress(content) if packed else content)

    for number, field in enumerate(WHOLE):
        for end in ("", "\n", "\r\n"):
            write(f'a,b,c\n1,1,"ok"\n2,2,{field}{end}')
            found = data.capture(context, SourceDef(f"whole{number}", Files(name)), root=tmp_path)
            assert found.rows == 2, (field, end)
    for field in CUT:
        write(f'a,b,c\n1,1,"ok"\n2,2,{field}')
        refused(context, Files(name), DataError, name, "ends within a quoted field", root=tmp_path)
    for last in ('1,2\n2,"3', '1,true\n2,"false', '1,2026-01-01\n2,"2026-01-02'):  # columns that are no text
        write(f"a,b\n{last}")
        refused(context, Files(name), DataError, name, "ends within a quoted field", root=tmp_path)
    write('a,b\n1,é\n2,"é', "latin-1")
    refused(context, Files(name, encoding="latin-1"), DataError, name, "ends within a quoted field", root=tmp_path)
    (tmp_path / "x.tsv").write_text('a\tb\n1\t"x, y"\n2\t"x, y')
    refused(context, Files("x.tsv"), DataError, "x.tsv", "ends within a quoted field", root=tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("x.csv", b"a,b\n1,\xc3\xa9\n2,\xe9\n", ("x.csv:3", "not UTF-8 text")),
        ("x.csv", "a,b\n1,é\n".encode("utf-16"), ("x.csv", "not UTF-8 text")),
        ("x.jsonl", b'{"a": 1}\nnull\n', ("x.jsonl:2", "not an object")),
        ("x.jsonl", b'{"a": "\xc3\xa9"}\n{"a": "\xe9"}\n', ("x.jsonl:2", "not UTF-8 text")),
        ("x.csv", b"a,b\n1,2\n3\n", ("x.csv:3", "Expected 2 columns, got 1")),
        ("x.csv", b"a,a\n1,2\n", ("two columns are called 'a'",)),
    ],
)
def test_broken_text(context, tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    refused(context, Files(name), DataError, *words, root=tmp_path)


def test_an_encoding_that_is_said(context, tmp_path):
    (tmp_path / "x.csv").write_bytes("a,b\n1,é\n".encode("latin-1"))
    found = data.capture(context, SourceDef("t", Files("x.csv", encoding="latin-1")), root=tmp_path)
    assert data.read(context, found.id).collect().rows() == [(1, "é")]


def test_truncated_tables(context, tmp_path):
    many = pa.table({"a": range(50_000)})
    pq.write_table(many, tmp_path / "x.parquet")
    with pa.OSFile(str(tmp_path / "x.arrow"), "wb") as file, pa.ipc.new_stream(file, many.schema) as writer:
        writer.write_table(many, max_chunksize=10_000)
    for name in ("x.parquet", "x.arrow"):
        content = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(content[: len(content) * 2 // 3])
        for key in ((), "a"):
            refused(context, Files(name), DataError, name, root=tmp_path, key=key)


def test_two_rows_with_one_key_are_refused(context, tmp_path):
    (tmp_path / "x.csv").write_text("a,b,c\n1,x,1\n2,x,2\n1,y,3\n1,x,4\n")
    refused(context, Files("x.csv"), DataError, "two rows have the key a=1, b='x'", root=tmp_path, key=("a", "b"))
    assert data.capture(context, SourceDef("t", Files("x.csv"), key="c"), root=tmp_path).rows == 4


def test_json_lines_in_many_blocks_agree_in_their_types(context, tmp_path):
    (tmp_path / "1.jsonl").write_text('{"a": 1, "n": {"x": 1}}\n{"a": null}\n')
    (tmp_path / "2.jsonl").write_text('{"a": 2.5, "b": "t", "n": {"x": 1.5, "y": "z"}}\n\n')
    found = data.capture(context, SourceDef("t", Files("*.jsonl")), root=tmp_path)
    assert data.read(context, found.id).collect().to_dicts() == [
        {"a": 1.0, "n": {"x": 1.0, "y": None}, "b": None},
        {"a": None, "n": None, "b": None},
        {"a": 2.5, "n": {"x": 1.5, "y": "z"}, "b": "t"},
    ]
    (tmp_path / "3.jsonl").write_text('{"a": "text"}\n')
    refused(context, Files("*.jsonl"), DataError, "3.jsonl", "'a' is string here", root=tmp_path)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Files("ftp://host/x.csv"),
        lambda: Files("https://user:secret@host/x.csv"),
        lambda: Files("https://host/x.csv?X-Amz-Signature=secret"),
        lambda: Files("https://host/*.csv"),
        lambda: Files("s3://bucket"),
        lambda: Files("x.parquet", encoding="latin-1"),
        lambda: Files("x.csv", sheet="1"),
    ],
)
def test_origins_that_say_too_much(make):
    with pytest.raises(InvalidInput) as caught:
        make()
    assert caught.value.hint
    assert "secret" not in str(caught.value.problem())


# --- buckets


@pytest.fixture(scope="module")
def s3():
    with s3_server.serving() as server:
        yield server


def lake(s3, **more):
    options = {
        "endpoint": s3.url,
        "allow_http": True,
        "access_key_id": "key-of-the-lake",
        "secret_access_key": "secret-of-the-lake",
        "region": "us-east-1",
    }
    return {"lake": {**options, **more}}


def test_a_bucket_that_fails_one_call_in_ten(context_of, sqlite_catalog, s3, tmp_path):
    ctx = context_of(sqlite_catalog, bindings=lake(s3))
    body = pa.BufferOutputStream()
    pq.write_table(ROWS, body)
    for i in range(12):
        s3.client.put_object(Bucket=s3_server.BUCKET, Key=f"in/{i:02}.parquet", Body=body.getvalue().to_pybytes())
    s3.client.put_object(Bucket=s3_server.BUCKET, Key="in/deep/notes.txt", Body=b"no table")
    source = SourceDef("t", Files(f"s3://{s3_server.BUCKET}/in/*.parquet", binding="lake"))
    s3.on, failed = True, s3.failed
    try:
        found = data.capture(ctx, source)
        again = data.capture(ctx, source)
    finally:
        s3.on = False
    assert s3.failed > failed
    assert (found.rows, found.new, again.id, again.read) == (36, True, found.id, False)
    assert "lake" in str(source.version().manifest)
    assert "secret-of" not in str(source.version().manifest)
    s3.client.put_object(Bucket=s3_server.BUCKET, Key="in/deep/13.csv", Body=CSV)
    one = data.capture(ctx, SourceDef("one", Files(f"s3://{s3_server.BUCKET}/in/deep/13.csv", binding="lake")))
    assert one.rows == 3
    nested = SourceDef("n", Files(f"s3://{s3_server.BUCKET}/in/**/1[0-3].csv", binding="lake"))
    assert data.capture(ctx, nested).rows == 3
    refused(ctx, Files(f"s3://{s3_server.BUCKET}/no/*.csv", binding="lake"), NotFound, "no file", root=tmp_path)
    refused(ctx, Files(f"s3://{s3_server.BUCKET}/no.csv", binding="lake"), NotFound, "no file", root=tmp_path)


def test_credentials_of_a_bucket(context_of, sqlite_catalog, s3, tmp_path):
    ctx = context_of(sqlite_catalog, bindings=lake(s3, session_token="token-of-last-week"))
    s3.client.put_object(Bucket=s3_server.BUCKET, Key="c/x.csv", Body=CSV)
    s3.expired = True
    try:
        for name in ("c/*.csv", "c/x.csv"):
            error = refused(
                ctx, Files(f"s3://{s3_server.BUCKET}/{name}", binding="lake"), Unavailable, "refuses us", root=tmp_path
            )
            assert "expired" in error.hint
            assert not any(secret in str(error.problem()) for secret in ("of-the-lake", "last-week"))
    finally:
        s3.expired = False
    refused(ctx, Files("s3://loop/c/*.csv", binding="none"), InvalidInput, "no binding 'none'", root=tmp_path)
    wrong = context_of(sqlite_catalog, bindings={"lake": "secret-of-the-lake"})
    error = refused(
        wrong, Files("s3://loop/c/*.csv", binding="lake"), InvalidInput, "no table of options", root=tmp_path
    )
    assert "secret-of" not in str(error.problem())


def test_google_and_azure(context_of, sqlite_catalog, s3, tmp_path):
    """Google's list and objects are spoken as S3's are, so the same server answers; of Azure only what refuses."""
    account = {
        "gcs_base_url": s3.url,
        "disable_oauth": True,
        "client_email": "",
        "private_key": "",
        "private_key_id": "",
    }
    google = {"service_account_key": json.dumps(account), "allow_http": True}
    azure = {"account_name": "acc", "account_key": "c2VjcmV0LW9mLXRoZS1sYWtl", "endpoint": s3.url, "allow_http": True}
    ctx = context_of(sqlite_catalog, bindings={"google": google, "azure": azure, "wrong": {"account_key": "%%"}})
    for name in ("a", "b"):
        s3.client.put_object(Bucket=s3_server.BUCKET, Key=f"g/{name}.csv", Body=CSV, ACL="public-read")
    source = SourceDef("x", Files(f"gs://{s3_server.BUCKET}/g/*.csv", binding="google"))
    found = data.capture(ctx, source, root=tmp_path)
    assert (found.rows, found.new) == (6, True)
    assert not data.capture(ctx, source, root=tmp_path).read
    none = Files(f"gs://{s3_server.BUCKET}/h/*.csv", binding="google")
    refused(ctx, none, NotFound, "no file matches", root=tmp_path)
    s3.expired = True
    try:
        for pattern, binding in ((f"gs://{s3_server.BUCKET}/g/*.csv", "google"), ("az://box/in/*.csv", "azure")):
            error = refused(ctx, Files(pattern, binding=binding), Unavailable, "refuses us", root=tmp_path)
            assert "c2VjcmV0" not in str(error.problem())
    finally:
        s3.expired = False
    refused(ctx, Files("az://box/in/*.csv", binding="wrong"), Unavailable, "fails", root=tmp_path)


# --- the web


class Site(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_HEAD(self):
        self.answer()

    def do_GET(self):
        self.answer()

    def answer(self):
        site = self.server
        site.asked.append((self.command, self.path, self.headers.get("Authorization")))
        if self.path.startswith("/moved"):
            self.send_response(302)
            self.send_header("Location", self.path.replace("/moved", "", 1) if self.path != "/moved" else "/moved")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        status = (
            404
            if self.path not in site.files
            else 401
            if "private" in self.path and not self.headers.get("Authorization")
            else 200
        )
        body = site.files.get(self.path, b"") if status == 200 else b""
        self.send_response(status)
        self.send_header("ETag", f'"{hash(body)}"')
        self.send_header("Content-Length", str(len(body) + (10 if "short" in self.path else 0)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)
        self.close_connection = True

    def log_message(self, *_):
        pass


@pytest.fixture
def site():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Site)
    server.files, server.asked = {}, []
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    server.url = f"http://127.0.0.1:{server.server_port}"
    yield server
    server.shutdown()
    thread.join(10)
    server.server_close()


def test_a_file_of_the_web(context_of, sqlite_catalog, site, tmp_path):
    bindings = {
        "web": {"private": True, "headers": {"Authorization": "Bearer of-the-web"}},
        "bare": '{"private": true, "limit": 20}',
        "plain": {},
    }
    ctx = context_of(sqlite_catalog, bindings=bindings)
    site.files |= {"/private/x.csv": CSV, "/short/x.csv": CSV}
    source = SourceDef("t", Files(f"{site.url}/private/x.csv?v=1".replace("?v=1", ""), binding="web"))
    first, again = data.capture(ctx, source), data.capture(ctx, source)
    assert (first.rows, first.read, again.id, again.read) == (3, True, first.id, False)
    site.files["/private/x.csv"] = CSV + b"4,d,1\n"
    assert data.capture(ctx, source).rows == 4
    assert data.capture(ctx, SourceDef("m", Files(f"{site.url}/moved/private/x.csv", binding="web"))).rows == 4
    for path, binding, error, word in (
        ("/private/x.csv", "plain", InvalidInput, "no https: address"),
        ("/private/x.csv", "bare", Unavailable, "refuses us (401)"),
        ("/short/x.csv", "bare", DataError, "longer than 20 bytes"),
        ("/short/x.csv", "web", Unavailable, "broke off"),
        ("/none.csv", "web", NotFound, "404"),
        ("/moved/moved/moved/moved/moved/moved/x.csv", "web", Unavailable, "redirects more than 5 times"),
    ):
        found = refused(ctx, Files(site.url + path, binding=binding), error, word, root=tmp_path)
        assert "of-the-web" not in str(found.problem())


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "10.0.0.1", "169.254.169.254", "[::1]", "[::ffff:10.0.0.1]"]
)
def test_internal_addresses_are_not_asked(context, tmp_path, host):
    refused(context, Files(f"https://{host}/x.csv"), InvalidInput, "internal address", root=tmp_path)


def test_headers_do_not_follow_to_another_host(context_of, sqlite_catalog, site):
    with other_site() as other:
        other.files["/x.csv"] = CSV
        ctx = context_of(
            sqlite_catalog, bindings={"web": {"private": True, "headers": {"Authorization": "Bearer of-the-web"}}}
        )
        site.files["/go.csv"] = b""

        class Away(Site):
            def answer(self):
                self.send_response(307)
                self.send_header("Location", other.url + "/x.csv")
                self.send_header("Content-Length", "0")
                self.end_headers()

        site.RequestHandlerClass = Away
        assert data.capture(ctx, SourceDef("t", Files(f"{site.url}/go.csv", binding="web"))).rows == 3
        assert {told for _, _, told in other.asked} == {None}


@contextmanager
def other_site():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Site)
    server.files, server.asked = {}, []
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    server.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield server
    finally:
        server.shutdown()
        thread.join(10)
        server.server_close()
