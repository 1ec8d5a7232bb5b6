"""Feeds from brokers: a real Redis server, and the mock brokers that librdkafka brings (Kafka's protocol over TCP)."""

import json
import time

import pytest
import redis
from confluent_kafka import Producer

from everloop import data
from everloop.catalog import refs, versions
from everloop.catalog.operating import feeds
from everloop.catalog.verify import verify
from everloop.core.errors import InvalidInput, Unavailable
from everloop.data.definitions import SourceDef
from everloop.data.streams.consuming import Consumer
from everloop.data.streams.origins import Kafka, RedisStream

COLUMNS = {"id": "string", "user": "int64"}
HERE = "sandbox/ada/x"


@pytest.fixture(scope="module")
def kafka():
    """Mock brokers, which live as long as this client: (their address, the client)."""
    holder = Producer({"bootstrap.servers": "mock", "test.mock.num.brokers": 1, "log_level": 0})
    (broker,) = holder.list_topics(timeout=10).brokers.values()
    return f"{broker.host}:{broker.port}", holder


def define(ctx, origin):
    with ctx.write() as tx:
        versions.put(tx, ctx.project, SourceDef("clicks", origin).version(), actor="ada", at=ctx.now())


def users(ctx, name="clicks", column="user"):
    with ctx.read() as tx:
        head = refs.get(tx, ctx.project, refs.head_ref(HERE, name))
    return [] if head is None else data.read(ctx, head).collect()[column].to_list()


def drained(ctx, wanted):
    """Read until so many rows are there."""
    consumer = Consumer(ctx, HERE, "clicks")
    for _ in range(50):
        consumer.drain()
        if consumer.feed.rows >= wanted:
            break
    consumer.close()
    return consumer.feed


def add(server, stream, numbers):
    for number in numbers:
        server.xadd(stream, {"data": json.dumps({"id": f"e{number}", "user": number})})


def test_entries_of_a_stream_come_once_though_a_consumer_died_with_them(context_of, sqlite_catalog, redis_url):
    ctx = context_of(sqlite_catalog, bindings={"queue": redis_url})
    define(ctx, RedisStream("queue", "clicks", "ml", COLUMNS, field="data", claim="1ms"))
    with redis.Redis.from_url(redis_url) as server:
        server.xgroup_create("clicks", "ml", id="0", mkstream=True)
        add(server, "clicks", range(10))
        server.xadd("clicks", {"data": "poison"})
        server.xreadgroup("ml", "somebody who dies", {"clicks": ">"}, count=4)
        time.sleep(0.01)
        assert drained(ctx, 10).dead == 1
        assert sorted(users(ctx)) == list(range(10))
        assert server.xpending("clicks", "ml")["pending"] == 0
        add(server, "clicks", range(10, 13))
        feed = drained(ctx, 13)
        assert sorted(users(ctx)) == list(range(13))
        assert (feed.rows, feed.duplicates) == (13, 0)
    assert verify(ctx.catalog, ctx.store) == []


def test_entries_that_were_committed_and_not_acknowledged_are_not_read_again(context_of, sqlite_catalog, redis_url):
    ctx = context_of(sqlite_catalog, bindings={"queue": redis_url})
    define(ctx, RedisStream("queue", "taps", "ml", COLUMNS))
    with redis.Redis.from_url(redis_url) as server:
        for number in range(3):
            server.xadd("taps", {"id": str(number), "user": str(number)})
        dying = Consumer(ctx, HERE, "clicks")
        dying._arrivals.acknowledge = lambda position: None  # it is killed between its commit and this
        dying.drain()
        assert server.xpending("taps", "ml")["pending"] == 3
        with ctx.write() as tx:
            feeds.take(tx, dying.feed, dying.feed.owner, until=0, now=ctx.wall())
        feed = drained(ctx, 3)
        assert users(ctx) == [0, 1, 2]
        assert users(ctx, column="id") == ["0", "1", "2"]
        assert (feed.rows, feed.dead) == (3, 0)
        assert server.xpending("taps", "ml")["pending"] == 0


def test_a_server_that_is_not_there_is_one_clear_error(context_of, sqlite_catalog):
    ctx = context_of(sqlite_catalog, bindings={"queue": "redis://127.0.0.1:1"})
    define(ctx, RedisStream("queue", "clicks", "ml", COLUMNS))
    with pytest.raises(Unavailable, match="Redis does not answer"):
        Consumer(ctx, HERE, "clicks")
    with pytest.raises(InvalidInput, match="has no value"):
        Consumer(context_of(sqlite_catalog), HERE, "clicks")


def test_messages_of_a_topic_come_once_from_the_offsets_of_the_catalog(context_of, sqlite_catalog, kafka):
    address, producer = kafka
    ctx = context_of(sqlite_catalog, bindings={"queue": address})
    define(ctx, Kafka("queue", "clicks", "ml", COLUMNS, arrived="seen_at"))

    def send(numbers):
        for number in numbers:
            producer.produce("clicks", json.dumps({"id": f"e{number}", "user": number}), key=str(number))
        assert producer.flush(10) == 0

    send(range(20))
    producer.produce("clicks", b"poison")
    assert producer.flush(10) == 0
    assert drained(ctx, 20).dead == 1
    assert sorted(users(ctx)) == list(range(20))
    held = Consumer(ctx, HERE, "clicks")  # takes some, and dies before it commits them
    send(range(20, 30))
    while not held._held.oldest:
        held._arrive(held._arrivals.take(0.5))
    held.close()
    feed = drained(ctx, 30)
    assert sorted(users(ctx)) == list(range(30))
    assert (feed.rows, feed.duplicates) == (30, 0)
    assert sum(feed.position.values()) == 31
