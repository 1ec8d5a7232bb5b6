"""Large files through `everloop up`: the gateway moves their bytes, the server decides, and nothing else may."""

import contextlib
import http.client
import os
import socket
import stat
import time
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import pytest
from shop_house import Shop, wait_for

from everloop.serving.gateway.passing.hand import VARIABLE

LARGE = os.urandom(1 << 16) * 100 + b"the end"
PROXY = "/api/2.0/mlflow-artifacts/artifacts"


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """Processes over a workspace without a model."""
    made = Shop(tmp_path_factory.mktemp("hand") / "shop", policy="solo", days=1)
    yield made.up()
    made.close()


@pytest.fixture(scope="module")
def web(shop):
    with httpx2.Client(base_url=shop.url, timeout=60) as client:
        yield client


@pytest.fixture(scope="module")
def folder(web):
    """The address of a run's artifacts."""
    made = web.post("/api/2.0/mlflow/runs/create", json={"experiment_id": "0"}).json()
    return f"{PROXY}/0/{made['run']['info']['run_id']}/artifacts"


def waiting(shop):
    return list((shop.home / "tmp").glob("upload-*"))


def objects(shop):
    return set((shop.home / "objects").glob("??/*"))


def test_a_large_file_goes_up_and_comes_down(shop, web, folder):
    before = objects(shop)
    sent = web.put(f"{folder}/large.bin", content=LARGE)
    assert (sent.status_code, sent.json(), sent.headers["connection"]) == (200, {}, "close")
    assert waiting(shop) == []
    (made,) = objects(shop) - before
    assert (made.read_bytes(), stat.S_IMODE(made.stat().st_mode)) == (LARGE, 0o444)
    got = web.get(f"{folder}/large.bin")
    assert got.content == LARGE
    assert got.headers["connection"] == "close"
    assert got.headers["content-disposition"].startswith("attachment")
    assert got.headers["x-content-type-options"] == "nosniff"
    assert not any(name.startswith("everloop-hand") for name in got.headers)


def test_a_span_of_a_large_file(web, folder):
    web.put(f"{folder}/spans.bin", content=LARGE)
    for _ in range(2):
        got = web.get(f"{folder}/spans.bin", headers={"Range": "bytes=1000-3000000"})
        assert (got.status_code, got.content) == (206, LARGE[1000:3_000_001])
        assert got.headers["content-range"] == f"bytes 1000-3000000/{len(LARGE)}"


def test_a_damaged_file_never_arrives_whole(shop, web, folder):
    before = objects(shop)
    content = b"damaged" + LARGE
    web.put(f"{folder}/damaged.bin", content=content)
    (made,) = objects(shop) - before
    made.chmod(0o644)
    with made.open("r+b") as file:
        file.seek(5000)
        file.write(b"#")
    with pytest.raises(httpx2.RemoteProtocolError):
        web.get(f"{folder}/damaged.bin")
    span = web.get(f"{folder}/damaged.bin", headers={"Range": f"bytes=0-{3 << 20}"})
    assert (span.status_code, span.json()["error_code"]) == (422, "DATA_LOSS")
    made.unlink()


def test_what_is_refused_leaves_nothing(shop, web, folder):
    before = objects(shop)
    elsewhere = folder.replace(folder.split("/")[-2], "f" * 32)
    assert web.put(f"{elsewhere}/a.bin", content=b"refused" + LARGE).status_code == 404
    assert web.put(f"{folder}/%2e%2e/a.bin", content=b"refused" + LARGE).status_code == 400
    assert (objects(shop) - before, waiting(shop)) == (set(), [])


def test_a_name_that_is_taken_is_told_after_the_upload(shop, web, folder):
    web.put(f"{folder}/taken", content=b"a file")
    answer = web.put(f"{folder}/taken/below.bin", content=b"clash" + LARGE)
    assert (answer.status_code, answer.json()["error_code"]) == (400, "INVALID_PARAMETER_VALUE")
    assert waiting(shop) == []


def test_a_caller_who_leaves_leaves_nothing(shop, web, folder):
    place = urlsplit(shop.url)
    head = f"PUT {folder}/left.bin HTTP/1.1\r\nHost: {place.netloc}\r\nContent-Length: {len(LARGE)}\r\n\r\n"
    with socket.create_connection((place.hostname, place.port)) as connection:
        connection.sendall(head.encode() + LARGE[: 3 << 20])
        wait_for(lambda: waiting(shop), 10, "the upload begins")
    wait_for(lambda: not waiting(shop), 10, "what came is gone")
    assert web.get(f"{folder}/left.bin").status_code == 404


def test_a_reader_who_leaves_harms_nobody(shop, web, folder):
    web.put(f"{folder}/unread.bin", content=LARGE)
    connection = http.client.HTTPConnection(urlsplit(shop.url).netloc, timeout=30)
    connection.request("GET", f"{folder}/unread.bin")
    assert connection.getresponse().read(10) == LARGE[:10]
    connection.close()
    assert web.get(f"{folder}/unread.bin").content == LARGE


@pytest.mark.parametrize("order", [1, -1])
def test_more_at_once_than_there_are_threads(shop, folder, order):
    """The ninth and later ones stream through the server; nobody waits for callers who are silent."""
    place = urlsplit(shop.url)
    connections = [http.client.HTTPConnection(place.netloc, timeout=20) for _ in range(12)]
    with contextlib.ExitStack() as opened:
        for number, connection in enumerate(connections):
            opened.callback(connection.close)
            connection.connect()
            connection.putrequest("PUT", f"{folder}/several/{number}.bin")
            connection.putheader("Content-Length", str(len(LARGE)))
        for connection in connections:  # all at one moment
            connection.endheaders(LARGE[:100_000])
        time.sleep(0.3)
        for connection in connections[::order]:
            connection.send(LARGE[100_000:])
        assert [connection.getresponse().status for connection in connections] == [200] * 12
    with httpx2.Client(base_url=shop.url) as client:
        assert all(client.get(f"{folder}/several/{number}.bin").content == LARGE for number in range(12))


def test_callers_who_know_the_headers_get_nothing(shop, web, folder):
    web.put(f"{folder}/mine.bin", content=LARGE)
    lies = {"everloop-hand": "guessed", "everloop-hand-size": "5000000"}
    assert web.post(f"{folder}/b.bin", headers=lies).status_code == 404
    done = '{"Received": {"name": "upload-abc", "object": "b3:' + "0" * 64 + '", "size": 1}}'
    assert web.post(f"{folder}/b.bin", headers={**lies, "everloop-hand-done": done}).status_code == 404
    direct = httpx2.Client(transport=httpx2.HTTPTransport(uds=str(shop.home / "run" / "server.sock")))
    with direct:
        got = direct.get(f"http://localhost{folder}/mine.bin", headers=lies)
        assert (got.content, "everloop-hand" in got.headers) == (LARGE, False)
        assert direct.post(f"http://localhost{folder}/b.bin", headers=lies).status_code == 404


def test_the_secret_is_theirs_alone(shop):
    told = {name: VARIABLE.encode() in Path(f"/proc/{pid}/environ").read_bytes() for name, pid in shop.pids.items()}
    assert told == {name: name in {"gateway", "server"} for name in told}
