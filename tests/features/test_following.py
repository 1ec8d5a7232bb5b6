"""Views that follow a feed: online at once, and byte for byte what a version makes, whoever dies in between."""

import json
import signal
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
import redis_house

from everloop import data
from everloop.catalog import refs, versions
from everloop.catalog.operating import feeds
from everloop.core.clock import HOUR
from everloop.core.errors import Conflict, Unavailable
from everloop.core.snapshot import Snapshot
from everloop.core.version import Version
from everloop.data.definitions import SourceDef
from everloop.data.streams import inbox
from everloop.data.streams.consuming import Consumer
from everloop.data.streams.origins import JSON_LINES, Push
from everloop.features import definitions as el
from everloop.features.batch.filling import materialize
from everloop.features.definitions import FeatureServiceDef, FeatureViewDef
from everloop.features.following import ViewFollower
from everloop.features.online import OnlineService, OnlineView, advance, lookup, scope_of, watermark
from everloop.features.operations import online_store
from everloop.watch.views.asking import OfView
from everloop.watch.views.operations import counts

HERE = "sandbox/ada/x"
COLUMNS = {"id": "string", "user": "int64", "at": "timestamp[us,UTC]", "amount": "float64"}
FEED = SourceDef("clicks", Push(COLUMNS, id="id", every="1m"), key="id", event_time="at")
SPEND = FeatureViewDef("spend", "clicks", "user", [el.sum("amount", over="1h"), el.count(over="7d")], "at", "at", "id")
BIG = FeatureViewDef("big", "clicks", "user", [el.count(over="1h", where=("amount", ">", 2))], "at", "at", "id")
WRONG = FeatureViewDef("wrong", "clicks", "user", [el.sum("id", over="1h")], "at", "at", "id")


def live(ctx, *views):
    """The environment holds the feed and these views."""
    made = [FEED.version(), *(Version("view", view.name, view.manifest()) for view in views)]
    snapshot = Snapshot({version.key: version.id for version in made})
    with ctx.write() as tx:
        versions.put_many(tx, ctx.project, [*made, snapshot.version()], actor="ada", at=ctx.now())
        old = refs.get(tx, ctx.project, refs.env_ref(HERE))
        refs.move(tx, ctx.project, refs.env_ref(HERE), old=old, new=snapshot.id, actor="ada", at=ctx.now())


def sending(ctx):
    writer = inbox.InboxWriter(inbox.inbox(ctx.home, ctx.project, HERE, "clicks"))

    def send(*events):
        body = "\n".join(json.dumps(event) for event in events).encode()
        writer.append({"at": ctx.wall(), "key": "", "media": JSON_LINES, "encoding": ""}, body)

    return send


def event(number, **more):
    at = datetime.now(UTC) - timedelta(seconds=1000 - number % 500)
    return {"id": f"e{number}", "user": number % 3, "at": at.isoformat(), "amount": number / 4, **more}


def online(ctx, view):
    return OnlineView.of(scope_of(ctx.project, HERE), Version("view", view.name, view.manifest()).id, view)


def states(ctx, view, scope=None):
    scope = scope or scope_of(ctx.project, HERE)
    prepared = OnlineView.of(scope, Version("view", view.name, view.manifest()).id, view)
    keys = [kind + b"i%d" % user for kind in (b"s", b"i") for user in range(3)]
    return online_store(ctx, HERE).read([(prepared.space, keys)])[0]


def from_batch(ctx, view):
    """What the newest version makes, in a space of its own."""
    with ctx.read() as tx:
        head = refs.get(tx, ctx.project, refs.head_ref(HERE, "clicks"))
    store = online_store(ctx, HERE)
    prepared = OnlineView.of("batch", Version("view", view.name, view.manifest()).id, view)
    store.drop(prepared.space)
    paths = data.paths(ctx, head)
    materialize(store, prepared, paths, ctx.now(), others={"clicks": paths})
    return states(ctx, view, "batch")


def consumer(ctx, **more):
    return Consumer(ctx, HERE, "clicks", follower=ViewFollower(ctx, HERE, "clicks"), **more)


def feed(ctx):
    with ctx.read() as tx:
        return feeds.get(tx, ctx.project, HERE, "clicks")


def test_an_event_is_online_before_its_commit_and_the_version_makes_the_same_bytes(context):
    live(context, SPEND)
    send = sending(context)
    reader = consumer(context)
    send(*(event(number) for number in range(40)), event(7))
    assert reader.step(0) is None  # nothing is committed for a minute
    service = OnlineService.of(
        scope_of(context.project, HERE),
        FeatureServiceDef("s", [SPEND]),
        {"spend": online(context, SPEND).space.rpartition("/")[2]},
    )
    (found,) = lookup(online_store(context, HERE), service, [{"user": 1}], context.now())
    assert found == {"spend__amount_sum_1h": sum(n / 4 for n in range(1, 40, 3)), "spend__count_7d": 13}
    send(event(3), event(40))
    reader.step(0)
    reader.cut()
    assert feed(context).rows == 41
    assert states(context, SPEND) == from_batch(context, SPEND)
    reader.close()


def test_a_view_over_views_follows_the_feed(context):
    most = FeatureViewDef("most", "clicks", "user", [el.max("spend__count_7d", over="1d", scale=0)], "at", "at", "id")
    most = replace(most, reads=(SPEND,))
    live(context, SPEND, most)
    for view in (SPEND, most):
        advance(online_store(context, HERE), online(context, view), 0)  # filled once, of nothing
    send = sending(context)
    reader = consumer(context)
    times = [(datetime.now(UTC) - timedelta(seconds=900 - number)).isoformat() for number in range(41)]
    send(*(event(number, at=times[number]) for number in range(40)), event(7, at=times[7]))
    reader.step(0)
    service = OnlineService.alone(online(context, most))
    (found,) = lookup(online_store(context, HERE), service, [{"user": 1}], context.now())
    assert found == {"most__spend__count_7d_max_1d": 12.0}  # the newest of 13 sees those before it
    send(event(40, at=times[40]))
    reader.step(0)
    reader.cut()
    assert states(context, most) == from_batch(context, most)
    reader.close()


def test_poison_and_the_far_future_are_dead_letters_and_the_rest_goes_on(context):
    live(context, SPEND, WRONG)
    send = sending(context)
    reader = consumer(context)
    skewed = (datetime.now(UTC) + timedelta(days=3)).isoformat()
    send(event(0), event(1, at=skewed), event(2, amount=1e300), event(3), event(4, user="nobody"), event(5, at=None))
    send(event(6, at=skewed))
    reader.step(0)
    reader.cut()
    with context.read() as tx:
        letters = refs.get(tx, context.project, refs.head_ref(HERE, "clicks.dead"))
    reasons = sorted(row["reason"] for row in data.read(context, letters).collect().to_dicts())
    assert len(reasons) == feed(context).dead == 5
    assert sum("after the time of the push" in reason for reason in reasons) == 2
    assert sum("does not fit 64 bits" in reason for reason in reasons) == 1
    assert feed(context).rows == 2
    assert states(context, SPEND) == from_batch(context, SPEND)
    reader.close()


def test_poison_that_arrives_alone_is_a_dead_letter_and_fills_nothing(context):
    live(context, SPEND)
    send = sending(context)
    reader = consumer(context)
    for more in ({}, {"amount": 1e300}, {}):
        send(event(feed(context).rows + len(more), **more))
        reader.step(0)
        reader.cut()
    assert (feed(context).rows, feed(context).dead) == (2, 1)
    assert states(context, SPEND) == from_batch(context, SPEND)
    counted = counts(context, OfView(view="spend", environment=HERE)).feed
    assert (counted.rows, counted.dead, counted.by_view, counted.dataset) == (2, 1, 1, "clicks.dead")
    assert "does not fit 64 bits" in counted.newest[0].reason
    reader.close()


def test_a_view_that_is_itself_wrong_is_said_on_the_feed_and_stays_behind(context):
    live(context, SPEND, WRONG)
    send = sending(context)
    reader = consumer(context)
    store, before = online_store(context, HERE), context.now() - HOUR
    for view in (SPEND, WRONG):
        advance(store, online(context, view), before)
    for number in range(2):
        send(event(number))
        reader.step(0)
        assert "feature view wrong" in feed(context).error
        reader.cut()
        assert "feature view wrong" in feed(context).error  # a commit does not mend it
    assert (feed(context).rows, feed(context).dead) == (2, 0)
    reader._told_at = 0.0
    reader.step(0)
    assert watermark(store, online(context, SPEND)) > before
    assert watermark(store, online(context, WRONG)) == before
    assert "feature view wrong" in counts(context, OfView(view="wrong", environment=HERE)).feed.error
    live(context, SPEND)  # the wrong one goes
    send(event(2))
    reader.step(0)
    reader.cut()
    assert not feed(context).error
    reader.close()


def test_a_view_that_appears_while_rows_are_held_gets_them(context):
    live(context, SPEND)
    send = sending(context)
    reader = consumer(context)
    send(*(event(number) for number in range(10)))
    reader.step(0)
    live(context, SPEND, BIG)
    send(*(event(number) for number in range(10, 20)))
    reader.step(0)
    reader.cut()
    for view in (SPEND, BIG):
        assert states(context, view) == from_batch(context, view)
    reader.close()


def test_the_watermark_moves_while_the_feed_is_read_and_the_view_was_filled(context):
    live(context, SPEND)
    store, view = online_store(context, HERE), online(context, SPEND)
    reader = consumer(context)
    reader.step(0)
    assert watermark(store, view) is None
    advance(store, view, context.now() - HOUR)
    before = context.now()
    reader._told_at = 0.0
    reader.step(0)
    assert before <= watermark(store, view) <= context.now()
    reader.close()


def test_redis_gone_and_back_loses_nothing(context, tmp_path):
    with redis_house.serving(tmp_path, "--appendonly", "yes", "--appendfsync", "always") as server:
        (context.home / "bindings.toml").write_text(f'[sandbox]\nonline_store = "{server.url}"\n')
        live(context, SPEND)
        send = sending(context)
        reader = consumer(context)
        send(*(event(number) for number in range(10)))
        reader.step(0)
        server.kill()
        send(*(event(number) for number in range(10, 20)))
        with pytest.raises(Unavailable, match="does not answer"):
            reader.step(0)
        with pytest.raises(Conflict, match="broke off"):
            reader.cut()  # these rows are not in the views: no commit may pass them over
        reader.close()
        server.start()
        again = consumer(context)
        again.drain()
        again.close()
        assert feed(context).rows == 20
        assert states(context, SPEND) == from_batch(context, SPEND)


KILLED = """
import os, signal, sys
from pathlib import Path
from everloop.catalog.context import Actor, Context
from everloop.catalog.engine import Catalog
from everloop.core.clock import SystemClock
from everloop.data.streams import consuming
from everloop.features import following, online
from everloop.store import open_store
home, url, objects, where = sys.argv[1:]
def dies(module, name, before):
    real = getattr(module, name)
    def act(*given, **more):
        if before: os.kill(os.getpid(), signal.SIGKILL)
        made = real(*given, **more)
        os.kill(os.getpid(), signal.SIGKILL)
    setattr(module, name, act)
module = following if "push" in where else consuming
dies(module, "push_facts" if "push" in where else "commit", where.startswith("before"))
ctx = Context(Actor.of("ada", grants=["* */*@*#*"]), "flights", SystemClock(), Catalog.open(url), open_store(objects),
              home=Path(home))
here = (ctx, "sandbox/ada/x", "clicks")
consuming.Consumer(*here, follower=following.ViewFollower(*here)).drain()
"""


def test_kill_9_anywhere_loses_and_doubles_nothing(context):
    live(context, SPEND, BIG)
    send = sending(context)
    places = [str(context.home), context.catalog.url, context.store.url]
    for turn, where in enumerate(["before push", "after push", "before commit", "after commit"]):
        send(*(event(number) for number in range(turn * 5, turn * 10 + 10)))
        done = subprocess.run(
            [sys.executable, "-c", KILLED, *places, where], check=False, capture_output=True, text=True
        )
        assert done.returncode == -signal.SIGKILL, done.stderr
    reader = consumer(context)
    reader.drain()
    reader.close()
    assert feed(context).rows == 40
    for view in (SPEND, BIG):
        assert states(context, view) == from_batch(context, view)
