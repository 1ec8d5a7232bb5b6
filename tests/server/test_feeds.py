"""Feeds over HTTP: a server takes events, its worker has them read into versions."""

import gzip
import json
import os
import signal

import httpx2
import psutil
import pytest
from shop_house import Shop, wait_for

from everloop import data
from everloop.catalog import refs, versions
from everloop.core.errors import NotFound
from everloop.data.definitions import SourceDef
from everloop.data.streams.origins import Push

COLUMNS = {"id": "string", "user": "int64", "at": "timestamp[us,UTC]"}
TYPE = {"Content-Type": "application/x-ndjson"}


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """Processes over a workspace with two feeds, one of which takes next to nothing."""
    made = Shop(tmp_path_factory.mktemp("feeds") / "shop", policy="solo", days=1)
    ctx = made.workspace.system("shop")
    feeds = {"clicks": Push(COLUMNS, id="id", every="500ms"), "narrow": Push(COLUMNS, backlog=100)}
    with ctx.write() as tx:
        for name, origin in feeds.items():
            source = SourceDef(name, origin, event_time="at").version()
            versions.put(tx, "shop", source, actor="ada", at=ctx.now())
    yield made.up()
    made.close()


@pytest.fixture(scope="module")
def device(shop):
    """What a device has: a token that pushes to one feed, and nothing else."""
    grants = ["feed.push data/clicks@production", "feed.push data/narrow@production"]
    secret = shop.person("ada").call("access.create_token", label="device", grants=grants).secret
    with httpx2.Client(base_url=shop.url, headers={"Authorization": f"Bearer {secret}"}, timeout=30) as client:
        yield client


def body(numbers):
    return "\n".join(json.dumps({"id": f"e{n}", "user": n, "at": "2026-03-01T00:00:00Z"}) for n in numbers).encode()


def users(shop):
    ctx = shop.workspace.system("shop")
    with ctx.read() as tx:
        head = refs.get(tx, "shop", refs.head_ref("production", "clicks"))
    return [] if head is None else sorted(data.read(ctx, head).collect()["user"].to_list())


def readers(shop):
    below = psutil.Process(shop.pids["worker-0"]).children()
    below = [process for process in below if process.status() != psutil.STATUS_ZOMBIE]
    return [process for process in below if "everloop.server.feeds.reader" in process.cmdline()]


def test_what_is_pushed_is_in_a_version_once_whatever_dies_and_comes_again(shop, device):
    sent = 0
    for number in range(6):
        part = body(range(sent, sent + 20))
        sent += 20
        for _ in range(1 + number % 2):  # every other batch comes again
            headers = {**TYPE, "Idempotency-Key": f"b{number}", "Content-Encoding": "gzip"}
            answer = device.post("/feeds/shop/clicks", content=gzip.compress(part), headers=headers)
            assert answer.status_code == 202, answer.text
        if number in (2, 4):
            wait_for(lambda: readers(shop), 30, "a process that reads")
            os.kill(readers(shop)[0].pid, signal.SIGKILL)
    wait_for(lambda: len(users(shop)) >= sent, 60, "all of it is there")
    assert users(shop) == list(range(sent))
    (feed,) = [f for f in shop.person("ada").call("feeds.list").feeds if f.name == "clicks"]
    assert (feed.rows, feed.dead, feed.kind, feed.error) == (sent, 0, "push", "")
    page = httpx2.get(f"{shop.url}/shop/feeds", headers={"Authorization": f"Bearer {shop.token('ada')}"})
    assert page.status_code == 200
    assert "clicks" in page.text


def test_who_may_push_is_asked_first(shop, device):
    answer = device.post("/feeds/shop/clicks?environment=sandbox/ada/x", content=body([1]), headers=TYPE)
    assert answer.status_code == 403
    assert httpx2.post(f"{shop.url}/feeds/shop/clicks", content=body([1]), headers=TYPE).status_code in (401, 403)
    assert device.post("/rest/v1/shop/data.list", json={}).status_code == 403


@pytest.mark.parametrize(
    ("headers", "content", "status"),
    [
        ({"Content-Type": "text/csv"}, b"a,b", 400),
        (TYPE, b"", 400),
        ({**TYPE, "Content-Encoding": "br"}, b"x", 400),
        ({**TYPE, "Idempotency-Key": "k" * 300}, b"{}", 400),
    ],
)
def test_what_cannot_be_a_batch_is_refused(device, headers, content, status):
    answer = device.post("/feeds/shop/clicks", content=content, headers=headers)
    assert answer.status_code == status
    assert answer.json()["hint"]


def test_what_breaks_over_one_feed_or_over_none_ends_no_other(shop, device):
    before = len(users(shop))
    for poison in (b"null", b"\xef\xbb\xbfnull", b"[" * 100_000, b"{}\nnull\n", b"\xff\xfe", b'{"at":1e999}'):
        assert device.post("/feeds/shop/clicks", content=poison, headers=TYPE).status_code == 202
    assert device.post("/feeds/shop/clicks", content=body([7_777]), headers=TYPE).status_code == 202
    wait_for(lambda: len(users(shop)) == before + 1, 60, "what came after the poison is there")
    feed = shop.person("ada").call("feeds.show", name="clicks")
    assert (feed.dead, feed.error) == (7, "")


def test_an_environment_that_is_not_there_takes_nothing(shop):
    headers = {**TYPE, "Authorization": f"Bearer {shop.token('ada')}"}
    answer = httpx2.post(f"{shop.url}/feeds/shop/clicks?environment=prod", content=body([1]), headers=headers)
    assert answer.status_code in {403, 404}
    with pytest.raises(NotFound, match="no environment 'sandbox/ada/nowhere'"):
        shop.person("ada").call("feeds.start", name="clicks", environment="sandbox/ada/nowhere")


def test_too_much_is_told_to_come_back(device):
    answer = device.post("/feeds/shop/narrow", content=body(range(20)), headers=TYPE)
    assert answer.status_code == 429
    assert int(answer.headers["Retry-After"]) > 0
    assert answer.json()["code"] == "overloaded"
