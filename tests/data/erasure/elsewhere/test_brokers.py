"""A real Redis server: a subject's entries go from a stream and from the server's files; groups go on as they were."""

import shutil
import socket
import subprocess
import time

import pytest
import redis

from everloop.catalog import versions
from everloop.data.definitions import SourceDef
from everloop.data.erasure.elsewhere.brokers import Brokers, erase_from_stream
from everloop.data.erasure.finding.subjects import Subject
from everloop.data.streams.consuming import Consumer
from everloop.data.streams.origins import Kafka, RedisStream

KEY, OTHER = "customer-0004711-x", "customer-0004712-x"
SUBJECT = Subject(KEY, ("customer",), words=True)
HERE = "sandbox/ada/x"


@pytest.fixture
def server(tmp_path):
    """A server that writes both kinds of files: (address, its folder, a client)."""
    program = shutil.which("redis-server")
    assert program, "redis-server is a package of Debian"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folder = tmp_path / "redis"
    folder.mkdir()
    words = ["--port", str(port), "--dir", str(folder), "--save", "3600", "1", "--appendonly", "yes"]
    process = subprocess.Popen([program, *words], stdout=subprocess.DEVNULL)
    with redis.Redis(port=port) as client:
        for _ in range(200):
            try:
                if client.ping():
                    break
            except redis.ConnectionError:
                time.sleep(0.05)
        yield f"redis://127.0.0.1:{port}", folder, client
    process.terminate()
    process.wait(10)


def on_disk(folder):
    return [path.name for path in folder.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]


def test_entries_go_and_groups_keep_their_place_and_what_is_pending(server):
    url, folder, client = server
    for number in range(250):
        person = KEY if number % 50 == 7 else f"{OTHER}{number}"
        client.xadd("clicks", {"customer": person, "n": number})
    client.xadd("clicks", {"json": f'{{"customer": "{KEY}"}}'})
    client.xgroup_create("clicks", "ml", id="0")
    client.xgroup_create("clicks", "other", id="$")
    taken = client.xreadgroup("ml", "one", {"clicks": ">"}, count=100)[0][1]
    client.xack("clicks", "ml", *[identity for identity, _ in taken[:90]])
    client.save()
    client.config_set("rdbcompression", "no")
    assert on_disk(folder)
    before = client.xinfo_stream("clicks")
    assert erase_from_stream(url, "clicks", SUBJECT) == 6
    assert on_disk(folder) == []
    kept = client.xrange("clicks")
    assert [int(fields[b"n"]) for _, fields in kept] == [n for n in range(250) if n % 50 != 7]
    after = client.xinfo_stream("clicks")
    assert all(after[name] == before[name] for name in ("last-generated-id", "entries-added"))
    pending = client.xpending_range("clicks", "ml", "-", "+", 100)
    assert [one["message_id"] for one in pending] == [identity for identity, _ in taken[90:]]
    assert {one["consumer"] for one in pending} == {b"one"}
    (_, rest), *_ = client.xreadgroup("ml", "one", {"clicks": ">"}, count=1000)
    assert [int(fields[b"n"]) for _, fields in rest] == [n for n in range(100, 250) if n % 50 != 7]
    assert client.xreadgroup("other", "two", {"clicks": ">"}) == []
    assert erase_from_stream(url, "clicks", SUBJECT) == 0
    client.xadd("alone", {"customer": KEY})
    assert erase_from_stream(url, "alone", SUBJECT) == 1
    assert client.xlen("alone") == 0
    assert on_disk(folder) == []


def test_a_consumer_of_ours_reads_on_where_it_was_and_what_is_not_ours_is_listed(context_of, sqlite_catalog, server):
    url, folder, client = server
    ctx = context_of(sqlite_catalog, bindings={"queue": url})
    columns = {"customer": "string", "n": "int64"}
    sources = [
        SourceDef("clicks", RedisStream("queue", "clicks", "ml", columns), tags={"customer": "subject"}),
        SourceDef("topic", Kafka("brokers", "taps", "ml", columns)),
        SourceDef("far", RedisStream("nowhere", "steps", "ml", columns)),
    ]
    with ctx.write() as tx:
        for source in sources:
            versions.put(tx, ctx.project, source.version(), actor="ada", at=1)
    client.xadd("clicks", {"customer": OTHER, "n": 1})
    consumer = Consumer(ctx, HERE, "clicks")
    assert [made.rows for made in consumer.drain()] == [1]
    client.xadd("clicks", {"customer": KEY, "n": 2})
    client.xadd("clicks", {"customer": OTHER, "n": 3})
    place = Brokers(ctx, SUBJECT)
    assert place.erase(KEY) == 1
    assert sorted(place.left()) == [
        "source far: the stream steps; the binding nowhere has no value here: erase with the environment that has it",
        "source topic: messages of the topic taps stay with its brokers until their retention",
    ]
    assert [made.rows for made in consumer.drain()] == [1]
    consumer.close()
    assert on_disk(folder) == []
