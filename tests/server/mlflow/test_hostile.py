"""Hostile use of the protocol: paths that climb, sources that lead elsewhere, foreign pages, scripts, pickles."""

import http.client
import io
import json
import pickle
import re
import socket
import tarfile
import threading
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import httpx2
import pytest
from sqlalchemy import select
from starlette.responses import StreamingResponse

from everloop.catalog.tables import tracking as tables
from everloop.catalog.tracking import artifacts as stored
from everloop.catalog.tracking import runs as stored_runs
from everloop.server import auth
from everloop.server.mlflow import sources
from everloop.server.mlflow.files import artifacts

API = "/api/2.0/mlflow"
PROXY = "/api/2.0/mlflow-artifacts"
CLIMBING = (
    "../x",
    "a/../../x",
    "..",
    "a/..",
    "./x",
    "a//x",
    "/etc/passwd",
    "//etc/passwd",
    "..\\x",
    "a\\..\\x",
    "C:\\x",
    "C:/x",
    "%2e%2e/x",
    "..%2fx",
    "%2e%2e%2fx",
    "%252e%252e%252fx",
    "%252e%252e/x",
    "a/%5c..%5cx",
    "a\x00b",
    "a\nb",
    "x" * 3000,
)


@pytest.fixture
def web(served):
    with httpx2.Client(base_url=served.url, timeout=20) as client:
        yield client


@pytest.fixture
def run(web):
    return made_run(web)


def made_run(web, **headers):
    return web.post(f"{API}/runs/create", json={"experiment_id": "0"}, headers=headers).json()["run"]["info"]


def made_model(web, run, **headers):
    body = {"experiment_id": "0", "source_run_id": run["run_id"]}
    return web.post(f"{API}/logged-models", json=body, headers=headers).json()["model"]["info"]["model_id"]


def place(run, path=""):
    return f"{run['experiment_id']}/{run['run_id']}/artifacts/{path}"


def raw(served, method, target, body=None, **headers):
    """A request whose target is sent as it is."""
    connection = http.client.HTTPConnection(served.url.removeprefix("http://"))
    connection.request(method, target, body=body, headers=headers)
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, content


def everything_below(folder):
    return {path: path.stat().st_size for path in Path(folder).rglob("*") if path.is_file()}


def test_no_path_leads_out_of_its_owner_wherever_one_is_given(served, web, run):
    model = made_model(web, run)
    before = set(everything_below(served.home.parent))
    for path in CLIMBING:
        for target in (place(run, path), f"0/models/{model}/artifacts/{path}"):
            encoded = quote(target, safe="/%")
            for method in ("GET", "PUT", "DELETE"):
                status, content = raw(served, method, f"{PROXY}/artifacts/{encoded}", b"x" if method == "PUT" else None)
                assert status in {400, 404}, (method, path)
                assert b"root:" not in content
            assert raw(served, "GET", f"{PROXY}/presigned/{encoded}")[0] in {400, 404}, path
        asked = [
            web.get(f"{API}/artifacts/list", params={"run_id": run["run_id"], "path": path}),
            web.get("/get-artifact", params={"run_id": run["run_id"], "path": path}),
            web.get(f"{PROXY}/artifacts", params={"path": place(run, path)}),
            web.get(f"{API}/logged-models/{model}/artifacts/directories", params={"artifact_directory_path": path}),
            web.get(f"{API}/logged-models/{model}/artifacts/files", params={"artifact_file_path": path}),
            web.post(f"{API}/upload-artifact", params={"run_uuid": run["run_id"], "path": path}, content=b"x"),
            web.post(f"{API}/artifacts/presigned-upload-url", json={"run_id": run["run_id"], "path": path}),
            web.post(f"{API}/artifacts/presigned-download-url", json={"run_id": run["run_id"], "path": path}),
        ]
        assert {answer.status_code for answer in asked} <= {400, 404}, (path, [a.status_code for a in asked])
    assert web.get(f"{API}/artifacts/list", params={"run_id": run["run_id"]}).json()["files"] == []
    fresh = {path for path in everything_below(served.home.parent) if path not in before}
    assert {path.suffix for path in fresh} <= {".db-wal", ".db-shm"}


def test_uploads_in_parts_stay_in_their_folder(served, web, run):
    outside = served.home / "tmp" / "meta.json"
    outside.parent.mkdir(exist_ok=True)
    outside.write_text(json.dumps({"project": "default", "path": place(run, "x"), "done": False}))
    for upload in ("..", ".", "../tmp", "%2e%2e", "0" * 31, "0" * 33, "x" * 32, "a/../..", ""):
        for verb in ("complete", "abort"):
            body = {"path": "x", "upload_id": upload, "parts": [{"part_number": 1}]}
            answer = web.post(f"{PROXY}/mpu/{verb}/{place(run)}", json=body)
            assert answer.status_code in {400, 404}, (verb, upload)
        status, _ = raw(served, "PUT", f"{PROXY}/mpu/parts/{quote(upload, safe='%')}/1", b"x")
        assert status in {400, 404, 405}, upload
    outside.unlink()
    for name in ("..", "a/..", "\\..", "%2e%2e"):
        begun = web.post(f"{PROXY}/mpu/create/{place(run)}", json={"path": name, "num_parts": 1})
        assert begun.status_code == 400, name
    for count in (0, -1, 10_001, "many"):
        begun = web.post(f"{PROXY}/mpu/create/{place(run)}", json={"path": "x", "num_parts": count})
        assert begun.status_code == 400, count


BAD_SOURCES = (
    "file:///etc/passwd",
    "FILE:///etc/passwd",
    "file:etc",
    "file://host/share",
    "/etc/passwd",
    "etc/passwd",
    "./x",
    "..",
    "C:\\x",
    "\\\\host\\share",
    "http://127.0.0.1:{port}/x",
    "HTTP://localhost:{port}/x",
    "https://169.254.169.254/latest/meta-data",
    "ftp://127.0.0.1/x",
    "sftp://host/x",
    "hdfs://host/x",
    "data:text/plain,x",
    "javascript:alert(1)",
    "mlflow-artifacts://127.0.0.1:{port}/1/2",
    "mlflow-artifacts:/../../etc",
    "mlflow-artifacts:/0/%2e%2e/x",
    "mlflow-artifacts:/0/%252e%252e/x",
    "s3://bucket/../x",
    "s3://bucket/%2e%2e/x",
    "s3://bucket/%25252e%25252e/x",
    "gs://bucket/a\\..\\b",
    "s3://bucket/?/../x",
    "runs:/{run}/../x",
    "runs:/{run}/%2e%2e/x",
    "runs:/{run}/a\\b",
    "runs:/{other}/model",
    "models:/x/1/../..",
    "\x01s3://bucket/x",
    "s3://" + "b" * 3000,
)


def test_a_version_is_never_made_of_what_lies_elsewhere(web, run):
    web.post(f"{API}/registered-models/create", json={"name": "sourced"})
    other = made_run(web)["run_id"]
    with socket.create_server(("127.0.0.1", 0)) as trap:
        trap.settimeout(0)
        for source in BAD_SOURCES:
            written = source.format(port=trap.getsockname()[1], run=run["run_id"], other=other)
            for one in (written, quote(written, safe=""), quote(quote(written))):
                body = {"name": "sourced", "source": one, "run_id": run["run_id"]}
                answer = web.post(f"{API}/model-versions/create", json=body)
                assert answer.status_code in {400, 404}, one
        with pytest.raises(BlockingIOError):
            trap.accept()
    found = web.get(f"{API}/model-versions/search", params={"filter": "name = 'sourced'"}).json()
    assert found.get("model_versions", []) == []
    for location in ("file:///etc", "/etc", "http://127.0.0.1/x", "../x", "s3://b/x"):
        made = web.post(f"{API}/experiments/create", json={"name": location, "artifact_location": location})
        assert made.json()["error_code"] == "INVALID_PARAMETER_VALUE", location


FOREIGN = (
    ({"Host": "evil.example"}, {400}),
    ({"Host": "evil.example:80"}, {400}),
    ({"Origin": "https://evil.example"}, {403}),
    ({"Origin": "null"}, {403}),
    ({"Origin": "http://127.0.0.1:1"}, {403}),
    ({"Sec-Fetch-Site": "cross-site"}, {403}),
    ({"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "no-cors"}, {403}),
)


OPEN = {("GET", "/health")}
"""What asks for no name: whoever watches whether we live has none for us."""


@pytest.mark.parametrize(("headers", "wanted"), FOREIGN)
def test_a_foreign_page_gets_nothing_by_any_method(whole, headers, wanted):
    address, routes = whole
    assert {("POST", "/v1/traces"), ("DELETE", "/ajax-api/3.0/mlflow/workspaces/{name}")} < set(routes)
    assert {("GET", "/{project}/runs"), ("POST", "/rest/v1/{project}/runs.list"), ("GET", "/login")} < set(routes)
    with closing(http.client.HTTPConnection(address.removeprefix("http://"))) as connection:
        for method, path in routes:
            if (method, path) in OPEN:
                continue
            connection.request(method, re.sub(r"\{[^}]+\}", "1", path), body=b"{}", headers=headers)
            answer = connection.getresponse()
            answer.read()
            assert answer.status in wanted, (method, path)
            assert "access-control-allow-origin" not in {name.lower() for name, _ in answer.getheaders()}


SCRIPTS = {
    "page.html": b"<script>alert(1)</script>",
    "image.svg": b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>",
    "doc.xml": b"<?xml version='1.0'?><x:script xmlns:x='http://www.w3.org/1999/xhtml'>alert(1)</x:script>",
    'a"; filename=evil.html': b"<script>alert(1)</script>",
    "<script>alert(1)</script>.htm": b"<script>alert(1)</script>",
    "no-kind": b"<html><script>alert(1)</script></html>",
}


def test_what_is_downloaded_is_no_page_of_ours(web, run):
    model = made_model(web, run)
    web.post(f"{API}/registered-models/create", json={"name": "scripted"})
    for name, content in SCRIPTS.items():
        web.put(f"{PROXY}/artifacts/{quote(place(run, 'm/' + name))}", content=content)
        web.put(f"{PROXY}/artifacts/0/models/{model}/artifacts/{quote(name)}", content=content)
    made = web.post(f"{API}/model-versions/create", json={"name": "scripted", "source": f"runs:/{run['run_id']}/m"})
    version = made.json()["model_version"]["version"]
    for name, content in SCRIPTS.items():
        served_at = [
            web.get(f"{PROXY}/artifacts/{quote(place(run, 'm/' + name))}"),
            web.get(f"{PROXY}/artifacts/{quote(place(run, 'm/' + name))}", headers={"Range": "bytes=0-9"}),
            web.get("/get-artifact", params={"run_id": run["run_id"], "path": f"m/{name}"}),
            web.get("/model-versions/get-artifact", params={"name": "scripted", "version": version, "path": name}),
            web.get(f"{API}/logged-models/{model}/artifacts/files", params={"artifact_file_path": name}),
        ]
        for answer in served_at:
            assert content.startswith(answer.content), name
            assert answer.headers["content-disposition"].startswith("attachment; filename*=UTF-8''"), name
            assert "evil" not in answer.headers["content-disposition"].split(";")[0]
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["content-security-policy"] == "sandbox"


def test_names_with_scripts_stay_json(web):
    name = "<img src=x onerror=alert(1)>"
    made = web.post(f"{API}/runs/create", json={"experiment_id": "0", "run_name": name})
    asked = (made, web.get(f"{API}/experiments/get-by-name", params={"experiment_name": name}), web.get(f"/api/{name}"))
    for answer in asked:
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["x-content-type-options"] == "nosniff"


class Touch:
    """A pickle that leaves a mark where it is opened."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (Path(self.path),))


def test_the_server_opens_no_pickle_no_yaml_and_no_archive(served, web, run, tmp_path):
    mark = tmp_path / "opened"
    described = f"flavors:\n  python_function:\n    loader: !!python/object/apply:pathlib.Path.touch ['{mark}']\n"
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        for name in ("../climbed", "/climbed", "inside"):
            member = tarfile.TarInfo(name)
            member.size = 1
            tar.addfile(member, io.BytesIO(b"x"))
        link = tarfile.TarInfo("climbed")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    files = {
        "MLmodel": described.encode(),
        "model.pkl": pickle.dumps(Touch(mark)),
        "model.tar.gz": archive.getvalue(),
        "input_example.json": b"{}",
    }
    model = made_model(web, run)
    for name, content in files.items():
        web.put(f"{PROXY}/artifacts/{place(run, 'model/' + name)}", content=content)
        web.put(f"{PROXY}/artifacts/0/models/{model}/artifacts/{name}", content=content)
    web.patch(f"{API}/logged-models/{model}", json={"status": "LOGGED_MODEL_READY"})
    web.post(f"{API}/registered-models/create", json={"name": "pickled"})
    for source in (f"runs:/{run['run_id']}/model", f"models:/{model}"):
        body = {"name": "pickled", "source": source}
        assert web.post(f"{API}/model-versions/create", json=body).status_code == 200
    web.post(f"{API}/registered-models/alias", json={"name": "pickled", "alias": "best", "version": "1"})
    web.post(f"{API}/model-versions/transition-stage", json={"name": "pickled", "version": "1", "stage": "Archived"})
    web.get(f"{API}/registered-models/search")
    web.get(f"{API}/model-versions/search")
    found = web.get(f"{API}/logged-models/{model}/artifacts/directories").json()["files"]
    assert {one["path"] for one in found} == set(files)
    for name, content in files.items():
        asked = {"name": "pickled", "version": "2", "path": name}
        assert web.get("/model-versions/get-artifact", params=asked).content == content
    assert not mark.exists()
    assert not [path for path in served.home.parent.rglob("*") if path.name in {"climbed", "inside"}]
    pickle.loads(files["model.pkl"])  # the trap works: whoever opens it leaves the mark
    assert mark.exists()


def test_another_projects_run_is_not_there(web):
    theirs = {"X-MLFLOW-WORKSPACE": "theirs"}
    run = made_run(web, **theirs)
    model = made_model(web, run, **theirs)
    identity, secret = run["run_id"], b"their secret"
    point = {"key": "m", "value": 1, "timestamp": 1}
    web.post(f"{API}/runs/log-metric", json={"run_id": identity, **point}, headers=theirs)
    assert web.put(f"{PROXY}/artifacts/{place(run, 'm/f')}", content=secret, headers=theirs).status_code == 200
    web.put(f"{PROXY}/artifacts/0/models/{model}/artifacts/f", content=secret, headers=theirs)
    web.post(f"{API}/registered-models/create", json={"name": "theirs"}, headers=theirs)
    web.post(f"{API}/model-versions/create", json={"name": "theirs", "source": f"runs:/{identity}/m"}, headers=theirs)
    asked = {"name": "theirs", "version": "1"}
    pinned = web.get(f"{API}/model-versions/get-download-uri", params=asked, headers=theirs).json()["artifact_uri"]
    pinned = pinned.removeprefix("mlflow-artifacts:/")
    assert web.get(f"{PROXY}/artifacts/{pinned}/f", headers=theirs).content == secret
    begun = web.post(f"{PROXY}/mpu/create/{place(run)}", json={"path": "g", "num_parts": 1}, headers=theirs).json()
    (credential,) = begun["credentials"]
    web.post(f"{API}/registered-models/create", json={"name": "ours"})
    mine = made_run(web)
    done = {"path": "g", "upload_id": begun["upload_id"], "parts": [{"part_number": 1}]}
    answers = [
        web.get(f"{API}/runs/get", params={"run_id": identity}),
        web.get(f"{API}/metrics/get-history", params={"run_id": identity, "metric_key": "m"}),
        web.get(f"{API}/artifacts/list", params={"run_id": identity}),
        web.get("/get-artifact", params={"run_id": identity, "path": "m/f"}),
        web.get(f"{PROXY}/artifacts/{place(run, 'm/f')}"),
        web.get(f"{PROXY}/artifacts/{pinned}/f"),
        web.get(f"{PROXY}/presigned/{place(run, 'm/f')}"),
        web.post(f"{API}/artifacts/presigned-download-url", json={"run_id": identity, "path": "m/f"}),
        web.post(f"{API}/artifacts/presigned-upload-url", json={"model_id": model, "path": "f"}),
        web.get(f"{API}/logged-models/{model}"),
        web.get(f"{API}/logged-models/{model}/artifacts/files", params={"artifact_file_path": "f"}),
        web.get(f"{API}/logged-models/{model}/artifacts/directories"),
        web.get(f"{API}/registered-models/get", params={"name": "theirs"}),
        web.get(f"{API}/model-versions/get", params=asked),
        web.get("/model-versions/get-artifact", params={**asked, "path": "f"}),
        web.post(f"{API}/runs/log-metric", json={"run_id": identity, **point}),
        web.post(f"{API}/runs/set-tag", json={"run_id": identity, "key": "k", "value": "v"}),
        web.post(f"{API}/runs/update", json={"run_id": identity, "status": "FAILED"}),
        web.post(f"{API}/runs/delete", json={"run_id": identity}),
        web.put(f"{PROXY}/artifacts/{place(run, 'm/f')}", content=b"mine"),
        web.delete(f"{PROXY}/artifacts/{place(run, 'm/f')}"),
        web.put(credential["url"], content=b"mine"),
        web.post(f"{PROXY}/mpu/complete/{place(mine)}", json=done),
        web.post(f"{API}/model-versions/create", json={"name": "ours", "source": f"runs:/{identity}/m"}),
        web.post(f"{API}/model-versions/create", json={"name": "ours", "source": f"models:/{model}"}),
        web.post(f"{API}/model-versions/create", json={"name": "ours", "source": "models:/theirs/1"}),
        web.post(f"{API}/model-versions/create", json={"name": "ours", "source": f"mlflow-artifacts:/{pinned}"}),
        web.post(
            f"{API}/model-versions/create", json={"name": "ours", "source": f"mlflow-artifacts:/{place(run, 'm')}"}
        ),
        web.post(f"{API}/logged-models", json={"experiment_id": "0", "source_run_id": identity}),
    ]
    assert [answer.status_code for answer in answers] == [404] * len(answers)
    assert all(secret not in answer.content for answer in answers)
    bulk = {"metric_key": "m", "run_ids": [identity]}
    assert web.get(f"{API}/metrics/get-history-bulk-interval", params=bulk).json().get("metrics", []) == []
    bulk = {"metric_key": "m", "run_id": [identity]}
    assert web.get("/ajax-api/2.0/mlflow/metrics/get-history-bulk", params=bulk).json().get("metrics", []) == []
    kept = web.get(f"{API}/runs/get", params={"run_id": identity}, headers=theirs).json()["run"]
    assert (kept["info"]["status"], kept["info"]["lifecycle_stage"]) == ("RUNNING", "active")


def test_an_upload_that_breaks_off_leaves_nothing(served, run):
    """A client that goes away in the middle: no artifact, no rest of it."""
    host, port = served.url.removeprefix("http://").split(":")
    rest, waited = served.home / "tmp", threading.Event()
    length = 64 << 20  # too much to be held, so that it goes to a file
    with socket.create_connection((host, int(port))) as connection:
        head = f"PUT {PROXY}/artifacts/{place(run, 'half')} HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Length: {length}"
        connection.sendall(head.encode() + b"\r\n\r\n" + b"x" * (1 << 20))
        assert any(list(rest.glob("upload-*")) or waited.wait(0.01) for _ in range(1000))
    assert any(not list(rest.glob("upload-*")) or waited.wait(0.01) for _ in range(1000))
    with httpx2.Client(base_url=served.url) as web:
        assert web.get(f"{PROXY}/artifacts/{place(run, 'half')}").status_code == 404


def without(*names):
    """Answers that lack some headers."""

    def answer(body, status=200, *, headers, **more):
        kept = {name: value for name, value in headers.items() if name not in names}
        return StreamingResponse(body, status, headers=kept, **more)

    return answer


def of_any_project(tx, _project, identity):
    return tx.execute(select(tables.runs).where(tables.runs.c.id == identity)).one()


def foreign(headers, wanted):
    return lambda _bare, _web, whole: test_a_foreign_page_gets_nothing_by_any_method(whole, headers, wanted)


def downloads(_bare, web, _whole):
    test_what_is_downloaded_is_no_page_of_ours(web, made_run(web))


TAKEN = {
    "the check of Host": (auth, "_host_name", lambda _host: "127.0.0.1", foreign(*FOREIGN[0])),
    "the check of Origin": (auth, "_same_place", lambda *_: True, foreign(*FOREIGN[2])),
    "both, by name": (auth.Authenticator, "check_place", lambda *_: None, foreign(*FOREIGN[0])),
    "both, by origin": (auth.Authenticator, "check_place", lambda *_: None, foreign(*FOREIGN[3])),
    "both, by what the browser says": (auth.Authenticator, "check_place", lambda *_: None, foreign(*FOREIGN[5])),
    "the check of paths": (
        stored,
        "checked_path",
        lambda path, **_: path,
        lambda bare, web, _: test_no_path_leads_out_of_its_owner_wherever_one_is_given(bare, web, made_run(web)),
    ),
    "the check of sources": (
        sources,
        "_check",
        lambda _source: None,
        lambda _bare, web, _whole: test_a_version_is_never_made_of_what_lies_elsewhere(web, made_run(web)),
    ),
    "the project of a run": (
        stored_runs,
        "_find",
        of_any_project,
        lambda _bare, web, _whole: test_another_projects_run_is_not_there(web),
    ),
    "saving instead of showing": (artifacts, "StreamingResponse", without("Content-Disposition"), downloads),
    "no guess at a kind": (artifacts, "StreamingResponse", without("X-Content-Type-Options"), downloads),
    "no script in a file": (artifacts, "StreamingResponse", without("Content-Security-Policy"), downloads),
}
"""A defence, what is there instead of it, and the attack of a test above, which must now be seen."""


@pytest.mark.parametrize("name", TAKEN)
def test_without_a_defence_its_attack_is_seen(bare, whole, monkeypatch, name):
    owner, function, instead, attack = TAKEN[name]
    with httpx2.Client(base_url=bare.url, timeout=20) as web:
        monkeypatch.setattr(owner, function, instead)
        with pytest.raises((AssertionError, KeyError)):
            attack(bare, web, whole)
