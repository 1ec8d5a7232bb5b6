"""Artifacts in parts and in ranges, with the real client and byte by byte; workspaces with the real client."""

import os
from pathlib import Path

import httpx2
import pytest

from everloop.catalog import facts
from everloop.catalog.governance import access
from everloop.core.clock import DAY, SystemClock

API = "/api/2.0/mlflow"
PROXY = "/api/2.0/mlflow-artifacts"
LARGE = os.urandom(1 << 20) * 3 + b"end"


@pytest.fixture
def web(served):
    with httpx2.Client(base_url=served.url, timeout=20) as client:
        yield client


@pytest.fixture
def root(web):
    run = web.post(f"{API}/runs/create", json={"experiment_id": "0"}).json()["run"]["info"]
    return f"{run['experiment_id']}/{run['run_id']}/artifacts"


def begun(web, root, name="large.bin", parts=3):
    return web.post(f"{PROXY}/mpu/create/{root}", json={"path": f"/home/ada/{name}", "num_parts": parts}).json()


def sent(web, upload, pieces):
    found = []
    for credential, piece in zip(upload["credentials"], pieces, strict=True):
        answer = web.put(credential["url"], content=piece, headers=credential["headers"])
        found.append({"part_number": credential["part_number"], "etag": answer.headers["etag"], "url": ""})
    return found


def test_the_client_sends_and_fetches_large_files_in_parts(served, monkeypatch, tmp_path):
    from mlflow import MlflowClient
    from mlflow.store.artifact import http_artifact_repo

    for name, value in {
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
        "MLFLOW_ENABLE_PROXY_MULTIPART_UPLOAD": "true",
        "MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD": "true",
        "MLFLOW_MULTIPART_UPLOAD_MINIMUM_FILE_SIZE": str(1 << 20),
        "MLFLOW_MULTIPART_UPLOAD_CHUNK_SIZE": str(1 << 20),
        "MLFLOW_MULTIPART_DOWNLOAD_CHUNK_SIZE": str(1 << 20),
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }.items():
        monkeypatch.setenv(name, value)
    parted = []
    once = http_artifact_repo.HttpArtifactRepository._try_multipart_upload
    monkeypatch.setattr(
        http_artifact_repo.HttpArtifactRepository,
        "_try_multipart_upload",
        lambda self, *more: (parted.append(more), once(self, *more))[1],
    )
    client = MlflowClient(tracking_uri=served.url)
    run = client.create_run("0").info.run_id
    (tmp_path / "grün.bin").write_bytes(LARGE)
    client.log_artifact(run, str(tmp_path / "grün.bin"), "deep")
    assert len(parted) == 1
    (tmp_path / "down").mkdir()
    there = client.download_artifacts(run, "deep/grün.bin", str(tmp_path / "down"))
    assert Path(there).read_bytes() == LARGE
    assert not list((served.home / "tmp").rglob("*.part"))


def test_parts_come_in_any_order_and_twice(web, root):
    upload = begun(web, root)
    one, two, three = upload["credentials"]
    assert web.put(three["url"], content=b"ccc").status_code == 200
    assert web.put(one["url"], content=b"wrong").status_code == 200
    assert web.put(one["url"], content=b"aaa").status_code == 200
    body = {"path": "large.bin", "upload_id": upload["upload_id"], "parts": [{"part_number": n} for n in (3, 1, 2)]}
    early = web.post(f"{PROXY}/mpu/complete/{root}", json=body)
    assert (early.status_code, "part 2" in early.json()["message"]) == (400, True)
    assert web.get(f"{PROXY}/artifacts/{root}/large.bin").status_code == 404
    assert web.put(two["url"], content=b"bbb").status_code == 200
    for _ in range(2):  # a client whose answer was lost completes again
        assert web.post(f"{PROXY}/mpu/complete/{root}", json=body).json() == {}
    assert web.get(f"{PROXY}/artifacts/{root}/large.bin").content == b"aaabbbccc"
    assert web.put(two["url"], content=b"late").status_code == 400


def test_a_part_that_differs_is_noticed(web, root):
    upload = begun(web, root)
    parts = sent(web, upload, [b"a", b"b", b"c"])
    web.put(upload["credentials"][1]["url"], content=b"x")
    body = {"path": "large.bin", "upload_id": upload["upload_id"], "parts": parts}
    answer = web.post(f"{PROXY}/mpu/complete/{root}", json=body)
    assert (answer.status_code, "part 2 is not what was sent" in answer.json()["message"]) == (400, True)
    elsewhere = web.post(f"{PROXY}/mpu/complete/{root}/other", json=body)
    assert "another artifact" in elsewhere.json()["message"]
    for numbers in ([], [1, 3], [2, 3], [1, 1, 2]):
        wrong = {**body, "parts": [{"part_number": number} for number in numbers]}
        assert web.post(f"{PROXY}/mpu/complete/{root}", json=wrong).status_code == 400, numbers


def test_an_upload_that_is_given_up_leaves_nothing(served, web, root):
    upload = begun(web, root)
    sent(web, upload, [b"a", b"b", b"c"])
    folder = served.home / "tmp" / f"mpu-{upload['upload_id']}"
    assert folder.is_dir()
    body = {"path": "large.bin", "upload_id": upload["upload_id"]}
    for _ in range(2):
        assert web.post(f"{PROXY}/mpu/abort/{root}", json=body).json() == {}
    assert not folder.exists()
    assert web.put(upload["credentials"][0]["url"], content=b"x").status_code == 404
    body["parts"] = [{"part_number": 1}]
    assert web.post(f"{PROXY}/mpu/complete/{root}", json=body).status_code == 404


def test_uploads_that_nobody_completed_are_cleared_after_a_week(served, web, root):
    old, young = begun(web, root)["upload_id"], begun(web, root)["upload_id"]
    folder = served.home / "tmp" / f"mpu-{old}"
    past = SystemClock().wall() / 1e6 - 8 * 86_400
    os.utime(folder, (past, past))
    begun(web, root)
    assert not folder.exists()
    assert (served.home / "tmp" / f"mpu-{young}").is_dir()


@pytest.mark.parametrize(
    ("asked", "status", "wanted"),
    [
        ("bytes=0-2", 206, b"012"),
        ("bytes=7-", 206, b"789"),
        ("bytes=-3", 206, b"789"),
        ("bytes=8-99", 206, b"89"),
        ("bytes=0-9", 200, b"0123456789"),
        ("bytes=-99", 200, b"0123456789"),
        ("bytes=50-60", 200, b"0123456789"),
        ("bytes=3-1", 200, b"0123456789"),
        ("bytes=-", 200, b"0123456789"),
        ("bytes=0-1,3-4", 200, b"0123456789"),
        ("lines=1-2", 200, b"0123456789"),
        ("bytes=0-" + "9" * 30, 200, b"0123456789"),
    ],
)
def test_a_span_of_bytes(web, root, asked, status, wanted):
    web.put(f"{PROXY}/artifacts/{root}/ten", content=b"0123456789")
    answer = web.get(f"{PROXY}/artifacts/{root}/ten", headers={"Range": asked})
    assert (answer.status_code, answer.content) == (status, wanted)
    assert ("content-range" in answer.headers) == (status == 206)


@pytest.mark.parametrize("held", ["run", "experiment"])
def test_files_of_a_run_under_a_legal_hold_are_neither_removed_nor_replaced(served, web, held):
    home = web.post(f"{API}/experiments/create", json={"name": f"held {held}"}).json()["experiment_id"]
    run = web.post(f"{API}/runs/create", json={"experiment_id": home}).json()["run"]["info"]["run_id"]
    file = f"{PROXY}/artifacts/{home}/{run}/artifacts/report.txt"
    assert web.put(file, content=b"as filed").status_code == 200
    place = f"run/{run}" if held == "run" else f"experiment/{home}"
    _say(served, "data.held", place)
    for refused in (web.delete(file), web.put(file, content=b"other words")):
        assert refused.status_code == 403
        assert "a legal hold stands: case 7" in refused.text
    assert web.put(file, content=b"as filed").status_code == 200  # the same once more takes nothing away
    assert web.put(file.replace("report", "later"), content=b"new").status_code == 200
    assert web.get(file).content == b"as filed"
    _say(served, "data.released", place)
    assert web.delete(file).status_code == 200
    assert web.get(file).status_code == 404


def _say(served, kind, place):
    with served.catalog.write() as tx:
        facts.append(tx, "default", facts.Fact(kind, place, "grace", SystemClock().now(), {"reason": "case 7"}))


def test_an_address_is_worth_no_more_than_its_caller(guarded):
    now = SystemClock().wall()
    with guarded.catalog.write() as tx:
        writer = access.issue_token(tx, "carl", at=now, expires=now + DAY)[1]
        reader = access.issue_token(tx, "vera", at=now, expires=now + DAY)[1]

    def web(secret=None):
        headers = {"Authorization": f"Bearer {secret}"} if secret else {}
        return httpx2.Client(base_url=guarded.url, headers=headers, timeout=20)

    with web(writer) as carl, web(reader) as vera, web() as nobody:
        run = carl.post(f"{API}/runs/create", json={"experiment_id": "0"}).json()["run"]["info"]["run_id"]
        asked = {"run_id": run, "path": "a/b"}
        address = carl.post(f"{API}/artifacts/presigned-upload-url", json=asked).json()
        assert nobody.put(address["presigned_url"], content=b"x").status_code == 401
        assert vera.put(address["presigned_url"], content=b"x").status_code == 403
        assert nobody.put(address["presigned_url"], content=b"x", headers=address["headers"]).status_code == 200
        assert vera.post(f"{API}/artifacts/presigned-upload-url", json=asked).status_code == 403
        fetched = vera.post(f"{API}/artifacts/presigned-download-url", json=asked).json()
        assert nobody.get(fetched["url"]).status_code == 401
        assert nobody.get(fetched["url"], headers=fetched["headers"]).content == b"x"
        upload = carl.post(f"{PROXY}/mpu/create/0/{run}/artifacts", json={"path": "p", "num_parts": 1})
        assert upload.headers["cache-control"] == "no-store"
        (part,) = upload.json()["credentials"]
        assert [who.put(part["url"], content=b"x").status_code for who in (nobody, vera, carl)] == [401, 403, 200]
        for seconds in (0, -1, 604_801):
            body = {**asked, "expiration": seconds}
            assert carl.post(f"{API}/artifacts/presigned-upload-url", json=body).status_code == 400
        assert carl.post(f"{API}/artifacts/presigned-upload-url", json={"path": "x"}).status_code == 400


def test_workspaces_are_projects(served, monkeypatch):
    import mlflow
    from mlflow.exceptions import MlflowException

    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    client = mlflow.MlflowClient(tracking_uri=served.url)
    made = client.create_workspace("team-a")
    assert made.name == "team-a"
    assert {"default", "team-a"} <= {one.name for one in client.list_workspaces()}
    assert client.get_workspace("team-a").name == "team-a"
    with pytest.raises(MlflowException, match="already exists"):
        client.create_workspace("team-a")
    with pytest.raises(MlflowException, match="not found"):
        client.get_workspace("never-made")
    with pytest.raises(MlflowException, match="administrators"):
        client.delete_workspace("team-a")
    monkeypatch.setenv("MLFLOW_WORKSPACE", "team-a")
    assert client.get_experiment(client.create_experiment("theirs")).workspace == "team-a"
    monkeypatch.delenv("MLFLOW_WORKSPACE")
    assert client.get_experiment_by_name("theirs") is None


def test_a_token_of_one_project_sees_one_workspace(guarded):
    now = SystemClock().wall()
    with guarded.catalog.write() as tx:
        secret = access.issue_token(tx, "carl", at=now, expires=now + DAY, project="mine")[1]
        whole = access.issue_token(tx, "carl", at=now, expires=now + DAY)[1]
    for token, header, wanted in ((secret, "mine", {"mine"}), (whole, "other", {"mine", "other"})):
        headers = {"Authorization": f"Bearer {token}", "X-MLFLOW-WORKSPACE": header}
        with httpx2.Client(base_url=guarded.url, headers=headers) as web:
            listed = {one["name"] for one in web.get("/api/3.0/mlflow/workspaces").json()["workspaces"]}
            assert wanted <= listed
            assert token == whole or listed == {"mine"}
            assert web.get("/api/3.0/mlflow/workspaces/mine").status_code == 200
            assert web.get("/api/3.0/mlflow/workspaces/default").status_code == (200 if token == whole else 401)
