"""Large artifacts pass through the server; they are never held in it."""

import http.client
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import httpx2
import pytest

MEGABYTE = bytes(range(256)) * 4096
MANY = 40
PROXY = "/api/2.0/mlflow-artifacts/artifacts"


@pytest.fixture(scope="module")
def folder(served):
    """The address of a run's artifacts."""
    made = httpx2.post(f"{served.url}/api/2.0/mlflow/runs/create", json={"experiment_id": "0"}).json()
    return f"{PROXY}/0/{made['run']['info']['run_id']}/artifacts"


def sent(served, path, pieces, **headers):
    """Upload pieces one after another; the status."""
    connection = http.client.HTTPConnection(urlsplit(served.url).netloc, timeout=60)
    connection.request("PUT", path, pieces, headers, encode_chunked="Content-Length" not in headers)
    status = connection.getresponse().status
    connection.close()
    return status


def read(served, path):
    """Download a piece at a time; how many bytes, and whether each was right."""
    connection = http.client.HTTPConnection(urlsplit(served.url).netloc, timeout=60)
    connection.request("GET", path)
    answer, size, right = connection.getresponse(), 0, True
    while piece := answer.read(len(MEGABYTE)):
        size += len(piece)
        right = right and piece == MEGABYTE
    connection.close()
    return size, right


@pytest.mark.parametrize("headers", [{"Content-Length": str(MANY * len(MEGABYTE))}, {"Transfer-Encoding": "chunked"}])
def test_a_large_artifact_is_never_held(served, folder, headers):
    path = f"{folder}/large-{len(headers)}-{next(iter(headers))}.bin"
    tracemalloc.start()
    try:
        assert sent(served, path, (MEGABYTE for _ in range(MANY)), **headers) == 200
        assert read(served, path) == (MANY * len(MEGABYTE), True)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < MANY * len(MEGABYTE) / 2
    assert list((served.home / "tmp").glob("upload-*")) == []


def test_several_at_once(served, folder):
    def there_and_back(number):
        path = f"{folder}/several/{number}.bin"
        length = {"Content-Length": str(4 * len(MEGABYTE))}
        assert sent(served, path, (MEGABYTE for _ in range(4)), **length) == 200
        return read(served, path)

    with ThreadPoolExecutor(6) as pool:
        assert set(pool.map(there_and_back, range(6))) == {(4 * len(MEGABYTE), True)}


def test_small_artifacts_of_any_size_come_back(served, folder):
    with httpx2.Client(base_url=served.url) as client:
        for size in (0, 1, 1 << 20, (1 << 20) + 1):
            content = (MEGABYTE + b"x")[:size]
            assert client.put(f"{folder}/small/{size}", content=content).json() == {}
            assert client.get(f"{folder}/small/{size}").content == content


def test_nothing_is_stored_for_who_may_not_write(served, folder):
    before = sum(1 for _ in served.store.ids())
    path = folder.replace(folder.split("/")[-2], "f" * 32)
    assert httpx2.put(f"{served.url}{path}/a", content=b"nobody has stored this").status_code == 404
    assert sum(1 for _ in served.store.ids()) == before
