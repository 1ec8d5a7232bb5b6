"""Features online: look-ups, filling and streaming over LMDB and Redis, and over HTTP, against Feast.

Feast (its SDK on SQLite and on Redis, and its server) is installed into a virtual environment of its own in the cache
folder, and gets the same values; without it (`--no-feast`, or no package index) its columns stay empty. The HTTP load
is a closed loop over keep-alive connections. Needs `redis-server`. Prints a JSON object a line; exit status 1 when a
target is missed.

    python benchmarks/features_online.py [--quick] [--no-feast]
"""

import argparse
import asyncio
import json
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import features as frames
import numpy as np
import polars as pl
import pyarrow as pa
import redis
import uvloop
from feast_peer import feast_python, quiet

from everloop.catalog import refs, versions
from everloop.catalog.context import Actor, Context
from everloop.catalog.engine import Catalog
from everloop.core.clock import SECOND, SystemClock, iso
from everloop.core.signing import SigningKey
from everloop.core.snapshot import Snapshot
from everloop.core.version import Version
from everloop.data.definitions import SourceDef
from everloop.data.streams.consuming import Consumer
from everloop.data.streams.inbox import InboxWriter, inbox
from everloop.data.streams.origins import JSON_LINES, Push
from everloop.features import definitions as el
from everloop.features.batch.filling import materialize
from everloop.features.definitions import Feature, FeatureServiceDef, FeatureViewDef
from everloop.features.following import ViewFollower, columns_of_table
from everloop.features.online import (
    OnlineService,
    OnlineView,
    advance,
    find,
    find_columns,
    lift,
    push,
    push_facts,
    scope_of,
)
from everloop.features.stores.lmdb import LmdbStore
from everloop.features.stores.places import store_of
from everloop.features.stores.redis import RedisStore
from everloop.serving import table as tables
from everloop.serving.rollout.entries import service_of
from everloop.serving.table import Table
from everloop.store import DirectoryStore

SCOPE = scope_of("shop", "production")
POINT: tuple[Feature, ...] = (el.last("x", ttl="30d"),)
KINDS = {"point": POINT, "windowed": frames.WINDOWS}
FEAST_REPO = """
from datetime import timedelta
from feast import Entity, FeatureView, Field, FileSource
from feast.types import Float64
from feast.value_type import ValueType
def view(name, entity):
    source = FileSource(path=f"{entity}.parquet", timestamp_field="event")
    return FeatureView(name=name, entities=[Entity(name=entity, join_keys=[entity], value_type=ValueType.INT64)],
                       ttl=timedelta(days=36500), schema=[Field(name="x", dtype=Float64)], source=source)
a, b = view("a", "place"), view("b", "other")
place, other = (Entity(name=n, join_keys=[n], value_type=ValueType.INT64) for n in ("place", "other"))
"""
FEAST_RUN = """
import json, sys, time
from datetime import datetime, timezone
from feast import FeatureStore
store, asked = FeatureStore("."), int(sys.argv[1])
store.materialize(datetime(2000, 1, 1, tzinfo=timezone.utc), datetime(2030, 1, 1, tzinfo=timezone.utc))
def times(rows, count):
    spent = []
    for i in range(count):
        entities = [{"place": (i + n) % 1000, "other": (i * 7 + n) % 1000} for n in range(rows)]
        began = time.perf_counter_ns()
        answer = store.get_online_features(features=["a:x", "b:x"], entity_rows=entities,
                                           full_feature_names=True).to_dict()
        spent.append(time.perf_counter_ns() - began)
    assert all(v is not None for values in answer.values() for v in values), answer
    return sorted(spent)
times(1, 20)
one, many = times(1, asked), times(100, max(20, asked // 10))
at = lambda s, share: s[min(len(s) - 1, int(len(s) * share))] / 1000
print(json.dumps({"p50": at(one, 0.5), "p99": at(one, 0.99), "many": at(many, 0.5)}))
"""


def measure(act: Callable[[int], object], times: int) -> tuple[float, float]:
    """p50 and p99 in microseconds."""
    for i in range(min(200, times)):
        act(i)
    spent = []
    for i in range(times):
        began = time.perf_counter_ns()
        act(i)
        spent.append(time.perf_counter_ns() - began)
    return float(np.percentile(spent, 50)) / 1000, float(np.percentile(spent, 99)) / 1000


@contextmanager
def redis_server(home: Path) -> Iterator[str]:
    """A Redis server that keeps nothing; its URL."""
    program = shutil.which("redis-server")
    assert program, "redis-server is not installed"
    port = _free_port()
    process = subprocess.Popen(
        [program, "--port", str(port), "--dir", str(home), "--save", "", "--appendonly", "no"],
        stdout=subprocess.DEVNULL,
    )
    try:
        _until(lambda: redis.Redis(port=port).ping(), redis.ConnectionError)
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        process.terminate()
        process.wait(10)


def round_trip(url: str, asked: int) -> float:
    """p50 of a bare GET over a socket, in microseconds.

    It is 7 where the kernel has put the server onto this processor, and 50 on a virtual machine where it must wake
    another one. Look-ups move with it: read their figures beside this one.
    """
    host, _, port = url.removeprefix("redis://").partition("/")[0].partition(":")
    with socket.create_connection((host, int(port))) as bare:
        bare.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        def get(_: int) -> None:
            bare.sendall(b"*2\r\n$3\r\nGET\r\n$1\r\na\r\n")
            bare.recv(64)

        return measure(get, asked)[0]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _until(act: Callable[[], object], *waits_for: type[Exception], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while True:
        try:
            if act():
                return
        except waits_for:
            pass
        assert time.monotonic() < end, "it does not start"
        time.sleep(0.05)


def pinned(kind: str) -> tuple[OnlineService, list[FeatureViewDef], dict[str, str]]:
    """Two views of one kind, prepared, and the ids of their versions."""
    views = [frames.view("a", "place", *KINDS[kind]), frames.view("b", "other", *KINDS[kind])]
    ids = {view.name: Version("view", view.name, view.manifest()).id for view in views}
    return OnlineService.of(SCOPE, FeatureServiceDef("inputs", views), ids), views, ids


def lookups(store: Any, place: str, arrived: pl.DataFrame, asked: int, url: str) -> float:
    """One entity of two views, and a hundred. Returns p50 of point features."""
    medians = {}
    at = int(arrived["known"].max()) + 1  # type: ignore[arg-type]
    bounds = {("LMDB", "point"): 10, ("LMDB", "windowed"): 60, ("Redis", "point"): 80, ("Redis", "windowed"): 150}
    for kind in KINDS:
        service, _, _ = pinned(kind)
        for part in arrived.iter_slices(10_000):
            for view in service.views:
                push(store, view, part.to_dict(as_series=False))
        for view in service.views:
            advance(store, view, at)

        def one(i: int, service: OnlineService = service) -> None:
            find(store, service, [{"place": i % 1000, "other": i * 7 % 1000}], at)

        def many(i: int, service: OnlineService = service) -> None:
            find(store, service, [{"place": (i + n) % 1000, "other": (i * 7 + n) % 1000} for n in range(100)], at)

        bare = round_trip(url, asked) if place == "Redis" else None
        p50, p99 = measure(one, asked)
        medians[kind] = p50
        what = f"look-up of one entity of two views, {kind}, {place}, p50"
        frames.report(what, "us", p50, bare, at_most=bounds[place, kind])
        frames.report(f"look-up of one entity of two views, {kind}, {place}, p99", "us", p99, None)

        def columns(i: int, service: OnlineService = service) -> None:
            numbers = range(i, i + 100)
            entities = {"place": [n % 1000 for n in numbers], "other": [(i * 6 + n) % 1000 for n in numbers]}
            find_columns(store, service, entities, at)

        for form, act in (("by column", columns), ("by row", many)):
            p50, _ = measure(act, max(50, asked // 20))
            what = f"look-up of 100 entities of two views, {form}, {kind}, {place}, p50"
            frames.report(what, "us", p50, None, **({"at_most": 500} if form == "by column" else {}))
    return medians["point"]


def filling(store: Any, place: str, home: Path, keys: int, least: int) -> None:
    """One fact for each of many keys, from Parquet into an empty store."""
    source = home / "keys.parquet"
    rng = np.random.default_rng(5)
    event = frames.START + rng.integers(0, 86_400, keys) * SECOND
    columns = {"id": np.arange(keys), "place": np.arange(keys), "x": rng.normal(0, 30, keys).round(3)}
    pl.DataFrame({**columns, "event": event, "known": event}).write_parquet(source)
    view = OnlineView.of(SCOPE, f"filled-{place}", frames.view("k", "place", *POINT))
    began = time.process_time()
    done = materialize(store, view, source, frames.START + 2 * 86_400 * SECOND)
    spent = time.process_time() - began
    assert done.new == keys, done
    frames.report(f"materialise {keys} keys into {place}", "keys/CPU s", keys / spent, None, at_least=least)


def streaming(store: Any, place: str, arrived: pl.DataFrame, batch: int) -> None:
    """Events of a feed into the tiles of a windowed view, as a feed's consumer pushes them."""
    view = OnlineView.of(SCOPE, f"streamed-{place}", frames.view("s", "place", *frames.WINDOWS))
    tables_of = [part.to_arrow() for part in arrived.iter_slices(batch)]
    began = time.process_time()
    for table in tables_of:
        push_facts(store, view, *lift(view, columns_of_table(view, pa.table(table))))
    rate = len(arrived) / (time.process_time() - began)
    frames.report(f"stream into tiles, {place}, batches of {batch}", "events/CPU s", rate, None, at_least=20_000)


@contextmanager
def gateway(home: Path) -> Iterator[int]:
    """A gateway that serves one service of point features; its port."""
    key = SigningKey.generate()
    (home / "keys").mkdir(parents=True)
    (home / "keys" / "verify.pem").write_bytes(key.public.to_pem())
    _, views, ids = pinned("point")
    service = FeatureServiceDef("inputs", views)
    manifests = {ids[view.name]: view.manifest() for view in views}
    entry = service_of("shop", "inputs", service.manifest(ids), manifests, SCOPE)
    tables.write(home / "serving" / "routes.json", Table(1, "production", [], services=[entry]), key)
    port = _free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "everloop.serving.gateway", "--home", str(home), "--port", str(port)]
    )
    try:
        _until(lambda: socket.create_connection(("127.0.0.1", port), 1).close() or True, OSError)
        yield port
    finally:
        process.terminate()
        process.wait(20)


async def load(port: int, path: str, body: Callable[[int], bytes], connections: int, seconds: float) -> list[int]:
    """Nanoseconds of every answer of a closed loop."""
    spent: list[int] = []
    end = time.monotonic() + seconds

    async def connection(first: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        number = first
        while time.monotonic() < end:
            content = body(number)
            head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
            head += f"content-length: {len(content)}\r\n\r\n"
            began = time.perf_counter_ns()
            writer.write(head.encode() + content)
            answer = await reader.readuntil(b"\r\n\r\n")
            assert answer.startswith(b"HTTP/1.1 200"), answer
            length = int(answer.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            await reader.readexactly(length)
            spent.append(time.perf_counter_ns() - began)
            number += connections
        writer.close()

    await asyncio.gather(*(connection(n) for n in range(connections)))
    return spent


def asked_over_http(port: int, path: str, body: Callable[[int], bytes], seconds: float) -> tuple[float, float]:
    """Requests a second, and p99 in milliseconds, of 8 connections."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        spent = runner.run(load(port, path, body, 8, seconds))
    return len(spent) / seconds, float(np.percentile(spent, 99)) / 1e6


def over_http(home: Path, arrived: pl.DataFrame, seconds: float) -> tuple[float, float]:
    """Ours: the gateway, over LMDB."""
    service, _, _ = pinned("point")
    (home / "online").mkdir(parents=True)
    store = LmdbStore(home / "online")
    for view in service.views:
        push(store, view, arrived.to_dict(as_series=False))
    store.close()
    at = int(arrived["known"].max()) + 1  # type: ignore[arg-type]

    def body(n: int) -> bytes:
        return json.dumps({"entities": [{"place": n % 1000, "other": n * 7 % 1000}], "at": at}).encode()

    with gateway(home) as port:
        _until(lambda: asked_over_http(port, "/features/shop/inputs", body, 0.1), AssertionError, OSError)
        return asked_over_http(port, "/features/shop/inputs", body, seconds)


def feast_repo(python: Path, home: Path, arrived: pl.DataFrame, store: dict[str, str]) -> Path:
    """A Feast repository with the same newest values."""
    home.mkdir()
    for entity in ("place", "other"):
        newest = arrived.sort("event").group_by(entity, maintain_order=True).last().select(entity, "x", "event")
        newest.with_columns(pl.col("event").cast(pl.Datetime("us", "UTC"))).write_parquet(home / f"{entity}.parquet")
    (home / "defined.py").write_text(FEAST_REPO)
    lines = ["project: bench", "registry: registry.db", "provider: local", "entity_key_serialization_version: 3"]
    lines += ["online_store:", *(f"  {name}: {value}" for name, value in store.items())]
    (home / "feature_store.yaml").write_text("\n".join(lines) + "\n")
    subprocess.run(
        [python, "-m", "feast.cli.cli", "apply"], cwd=home, check=True, stdout=subprocess.DEVNULL, env=quiet()
    )
    return home


def feast(home: Path, arrived: pl.DataFrame, url: str, asked: int, seconds: float) -> dict[str, Any]:
    """What Feast's SDK and its server take for the same questions."""
    python = feast_python()
    if python is None:
        return {}
    found: dict[str, Any] = {}
    address = url.removeprefix("redis://").partition("/")[0]
    for name, store in (
        ("SQLite", {"type": "sqlite", "path": "online.db"}),
        ("Redis", {"type": "redis", "connection_string": address}),
    ):
        repo = feast_repo(python, home / f"feast-{name}", arrived, store)
        done = subprocess.run(
            [python, "-c", FEAST_RUN, str(asked)], cwd=repo, check=True, capture_output=True, text=True, env=quiet()
        )
        found[name] = json.loads(done.stdout.strip().splitlines()[-1])
    port = _free_port()
    # its worker would end after a thousand requests, and with it the connections that are measured
    command = [python, "-m", "feast.cli.cli", "serve", "-p", str(port), "--no-access-log", "--max-requests", "0"]
    server = subprocess.Popen(command, cwd=home / "feast-SQLite", env=quiet(), stdout=subprocess.DEVNULL)

    def body(n: int) -> bytes:
        return json.dumps(
            {
                "features": ["a:x", "b:x"],
                "full_feature_names": True,
                "entities": {"place": [n % 1000], "other": [n * 7 % 1000]},
            }
        ).encode()

    try:
        _until(lambda: socket.create_connection(("127.0.0.1", port), 1).close() or True, OSError, seconds=120)
        asked_over_http(port, "/get-online-features", body, 1.0)  # its first answers load what later ones need
        found["http"] = asked_over_http(port, "/get-online-features", body, seconds)
    finally:
        server.terminate()
        with suppress(subprocess.TimeoutExpired):
            server.wait(10)
        server.kill()
    return found


def servable(home: Path, events: int) -> None:
    """From a write to a feed's inbox until a look-up sees it, one event after the other; the consumer is a thread."""
    ctx = Context(
        Actor.of("bench", grants=["* */*@*#*"]),
        "shop",
        SystemClock(),
        Catalog.open(home / "catalog.db"),
        DirectoryStore(home / "objects"),
        SigningKey.generate(),
        home=home,
    )
    columns = {"id": "int64", "place": "int64", "at": "timestamp[us,UTC]", "x": "float64"}
    source = SourceDef("clicks", Push(columns), key="id", event_time="at")
    view = FeatureViewDef("seen", "clicks", "place", [el.count(over="1h")], "at", "at", "id")
    version = Version("view", "seen", view.manifest())
    snapshot = Snapshot({source.version().key: source.version().id, version.key: version.id}).version()
    with ctx.write() as tx:
        versions.put_many(tx, "shop", [source.version(), version, snapshot], actor="bench", at=ctx.now())
        refs.move(tx, "shop", refs.env_ref("production"), old=None, new=snapshot.id, actor="bench", at=ctx.now())
    stop = threading.Event()

    def consume() -> None:
        consumer = Consumer(ctx, "production", "clicks", follower=ViewFollower(ctx, "production", "clicks"))
        while not stop.is_set():
            consumer.step(0.05)
        consumer.close()

    reader = threading.Thread(target=consume)
    reader.start()
    service = OnlineService.alone(OnlineView.of(SCOPE, version.id, view))
    store, spent = store_of(home, "production"), []
    writer = InboxWriter(inbox(home, "shop", "production", "clicks"))
    for number in range(events):
        began, wall = time.perf_counter(), ctx.wall()
        line = {"id": number, "place": 1, "at": wall - SECOND, "x": 1.0}
        content = json.dumps({**line, "at": iso(wall - SECOND)}).encode()
        writer.append({"at": wall, "key": "", "media": JSON_LINES, "encoding": ""}, content)
        while find(store, service, [{"place": 1}], ctx.now()).values[0]["seen__count_1h"] <= number:
            time.sleep(0.001)
            assert time.perf_counter() - began < 30, "the event never came"
        spent.append(1000 * (time.perf_counter() - began))
    stop.set()
    reader.join()
    frames.report("event to servable, pushed feed, LMDB, p50", "ms", float(np.percentile(spent, 50)), None)
    frames.report(
        "event to servable, pushed feed, LMDB, p99", "ms", float(np.percentile(spent, 99)), None, at_most=1000
    )


def against_feast(ours: dict[str, float], http: tuple[float, float], theirs: dict[str, Any]) -> None:
    """Ratios to what Feast takes for the same values."""
    for place, name in (("LMDB", "SQLite"), ("Redis", "Redis")):
        if name in theirs:
            line = {
                "name": f"look-up, point, {place} against Feast's SDK on {name}, p50",
                "unit": "us",
                "ours": ours[place],
            }
            line |= {
                "peer": "feast",
                "theirs": theirs[name]["p50"],
                "ratio": round(theirs[name]["p50"] / ours[place], 1),
            }
            print(json.dumps(line), flush=True)
    for at, what, unit in ((0, "requests", "1/s"), (1, "p99", "ms")):
        line = {"name": f"look-up over HTTP, point, 8 connections, {what}", "unit": unit, "ours": round(http[at], 2)}
        if "http" in theirs:
            better = http[0] / theirs["http"][0] if at == 0 else theirs["http"][1] / http[1]
            line |= {"peer": "feast serve", "theirs": round(theirs["http"][at], 2), "ratio": round(better, 1)}
            line |= {"target": 10, "met": better >= 10}
            if better < 10:
                frames.missed.append(line["name"])
        print(json.dumps(line), flush=True)


def main() -> int:
    """Run all; 1 when a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--quick", action="store_true", help="small sizes, for a look")
    parser.add_argument("--no-feast", action="store_true", help="do not install and measure Feast")
    given = parser.parse_args()
    quick = given.quick
    rows, asked, keys, seconds = (40_000, 2_000, 30_000, 3.0) if quick else (200_000, 20_000, 300_000, 10.0)
    arrived = frames.facts(rows, 30, 3).sort("known")
    with tempfile.TemporaryDirectory() as folder, redis_server(Path(folder)) as url:
        home, ours = Path(folder), {}
        for place, store, least in (("LMDB", LmdbStore(home / "lmdb"), 150_000), ("Redis", RedisStore(url), 80_000)):
            ours[place] = lookups(store, place, arrived, asked, url)
            filling(store, place, home, keys, least)
            streaming(store, place, arrived, 5_000)
            store.close()
        servable(home / "feed", 50 if quick else 300)
        http = over_http(home / "served", arrived, seconds)
        theirs = {} if given.no_feast else feast(home, arrived, url, max(200, asked // 10), seconds)
        against_feast(ours, http, theirs)
    return 1 if frames.missed else 0


if __name__ == "__main__":
    sys.exit(main())
