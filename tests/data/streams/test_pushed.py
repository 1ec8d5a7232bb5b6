"""Pushed feeds: what arrives is in a version once, whatever happens to who reads it."""

import gzip
import json
import signal
import subprocess
import sys

import pyarrow as pa
import pytest

from everloop import data
from everloop.catalog import chain, facts, refs, versions
from everloop.catalog.operating import feeds
from everloop.catalog.verify import verify
from everloop.core.errors import Conflict, InvalidInput
from everloop.core.snapshot import Snapshot
from everloop.data import capture, expect
from everloop.data.definitions import SourceDef
from everloop.data.streams import committing, inbox
from everloop.data.streams.consuming import Consumer, source_of
from everloop.data.streams.decoding import decode_lines, schema_of
from everloop.data.streams.operations import Replay, Replayed, replay
from everloop.data.streams.origins import ARROW, JSON_LINES, Push

COLUMNS = {"id": "string", "user": "int64", "at": "timestamp[us,UTC]", "amount": "float64"}
HERE = "sandbox/ada/x"


@pytest.fixture
def context(each_context):
    return each_context


def define(ctx, **more):
    said = {"columns": COLUMNS, "id": "id", "every": "500ms", **more.pop("push", {})}
    source = SourceDef("clicks", Push(**said), event_time="at", **more)
    with ctx.write() as tx:
        versions.put(tx, ctx.project, source.version(), actor="ada", at=ctx.now())
    return source


def event(number, **more):
    return {"id": f"e{number}", "user": number % 7, "at": "2026-03-01T12:00:00Z", "amount": number / 4, **more}


def lines(events):
    return "\n".join(json.dumps(e) for e in events).encode()


class Sender:
    """Writes to the inbox as the server does."""

    def __init__(self, ctx):
        self.folder = inbox.inbox(ctx.home, ctx.project, HERE, "clicks")
        self.writer = inbox.InboxWriter(self.folder)

    def __call__(self, body, *, key="", media=JSON_LINES, encoding=""):
        self.writer.append({"at": 1_772_000_000_000_000, "key": key, "media": media, "encoding": encoding}, body)


def rows(ctx, name="clicks"):
    with ctx.read() as tx:
        head = refs.get(tx, ctx.project, refs.head_ref(HERE, name))
    return [] if head is None else data.read(ctx, head).collect().to_dicts()


def ids(ctx):
    return [row["id"] for row in rows(ctx)]


def feed(ctx):
    with ctx.read() as tx:
        return feeds.get(tx, ctx.project, HERE, "clicks")


def drained(ctx):
    consumer = Consumer(ctx, HERE, "clicks")
    made = consumer.drain()
    consumer.close()
    return made


def test_events_of_every_form_become_rows_of_a_version(context):
    define(context, push={"arrived": "seen_at"}, known_time="seen_at")
    send = Sender(context)
    send(lines([event(0), event(1)]))
    send(gzip.compress(lines([event(2)])), encoding="gzip")
    table = pa.table({"id": ["e3"], "user": pa.array([3], pa.int32()), "amount": [0.5]})
    table = table.append_column("at", pa.array([0], pa.timestamp("ms", "UTC")))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    send(sink.getvalue().to_pybytes(), media=ARROW)
    (made,) = drained(context)
    assert made.rows == 4
    found = rows(context)
    assert [row["id"] for row in found] == ["e0", "e1", "e2", "e3"]
    assert found[1]["amount"] == 0.25
    assert {str(row["seen_at"]) for row in found} == {"2026-02-25 06:13:20+00:00"}
    assert verify(context.catalog, context.store) == []


def test_poison_goes_to_the_dead_letters_and_the_rest_goes_on(context):
    rule = [expect.between("amount", 0, 100), expect.one_of("user", [0, 1, 2, 3, 4], severity="warn")]
    define(context, expect=rule)
    send = Sender(context)
    bad = [b"nope", b"[1]", lines([event(1, user="x")]), lines([event(2, more=1)]), lines([event(3, amount=-1)])]
    bad += [lines([{"user": 1}]), b'{"id": "\xff"}', b'{"id": "a"} {"id": "b"}']
    send(b"\n".join([lines([event(10)]), *bad, lines([event(11)])]))
    send(b"no gzip", encoding="gzip")
    send(b"no arrow", media=ARROW)
    drained(context)
    assert ids(context) == ["e10", "e11"]
    letters = rows(context, "clicks.dead")
    assert len(letters) == len(bad) + 2 == feed(context).dead
    reasons = [letter["reason"] for letter in letters]
    assert "not JSON" in reasons
    assert "a column 'more' that the feed has not" in reasons
    assert "between(amount, lower=0, upper=100)" in reasons
    assert "no value in 'id'" in reasons
    assert json.loads(next(one["event"] for one in letters if "between" in one["reason"]))["id"] == "e3"


def test_what_comes_again_counts_once(context):
    define(context)
    send = Sender(context)
    send(lines([event(0), event(1), event(0)]), key="a")
    send(lines([event(0), event(1)]), key="a")  # the batch again
    drained(context)
    send(lines([event(5)]), key="a")  # whatever it says: that batch was there
    send(lines([event(1), event(2)]), key="b")  # an event again, in another batch
    drained(context)
    assert ids(context) == ["e0", "e1", "e2"]
    assert feed(context).duplicates == 5
    assert feed(context).rows == 3


def test_small_cuts_become_proper_parts_and_nothing_is_lost(context, monkeypatch):
    monkeypatch.setattr(committing, "MOST_CUTS", 4)
    define(context)
    send = Sender(context)
    for number in range(10):
        send(lines([event(2 * number), event(2 * number + 1)]))
        drained(context)
    with context.read() as tx:
        newest = versions.history(tx, context.project, "data", "clicks", limit=20)
    assert len(newest) == 10
    assert len(newest[0].manifest["parts"]) <= 5
    assert ids(context) == [f"e{n}" for n in range(20)]
    assert verify(context.catalog, context.store) == []


def test_one_consumer_at_a_time_and_what_is_committed_leaves_the_inbox(context):
    define(context)
    send = Sender(context)
    send(lines([event(0)]))
    first = Consumer(context, HERE, "clicks", owner="elsewhere:1")
    with pytest.raises(Conflict):
        Consumer(context, HERE, "clicks")
    send.writer.close()
    first.drain()
    assert inbox.files(send.folder) == []
    first.close()
    assert drained(context) == []
    chain.seal(context.catalog, context.clock)
    with context.read() as tx:
        assert len(facts.tail(tx, context.project, kinds=("data.fed",), limit=10)) == 1


def test_a_commit_that_was_overtaken_changes_nothing(context):
    define(context)
    send = Sender(context)
    send(lines([event(0)]))
    slow = Consumer(context, HERE, "clicks", owner="elsewhere:1")
    slow._arrive(slow._arrivals.take(0))
    with context.write() as tx:
        feeds.take(tx, slow.feed, "elsewhere:1", until=0, now=context.wall())
    drained(context)
    with pytest.raises(Conflict):
        slow.cut()
    assert ids(context) == ["e0"]


def test_half_a_frame_counts_for_nothing(context):
    define(context)
    send = Sender(context)
    send(lines([event(0)]))
    send.writer.close()
    (path,) = inbox.files(send.folder)
    whole = path.read_bytes()
    path.write_bytes(whole + whole[: len(whole) // 2])
    drained(context)
    assert ids(context) == ["e0"]
    assert inbox.files(send.folder) == []


def test_a_blocking_expectation_about_the_whole_is_refused():
    with pytest.raises(InvalidInput, match="cannot block"):
        SourceDef("clicks", Push(COLUMNS), expect=[expect.row_count(1)])


KILLED = """
import os, signal, sys
from pathlib import Path
from everloop.catalog.context import Actor, Context
from everloop.catalog.engine import Catalog
from everloop.core.clock import SystemClock
from everloop.data.streams import consuming
from everloop.store import open_store
home, url, objects, when = sys.argv[1:]
real = consuming.commit
def commit(*given):
    if when == "before": os.kill(os.getpid(), signal.SIGKILL)
    made = real(*given)
    if when == "after": os.kill(os.getpid(), signal.SIGKILL)
    return made
consuming.commit = commit
actor = Actor.of("ada", grants=["* */*@*#*"])
ctx = Context(actor, "flights", SystemClock(), Catalog.open(url), open_store(objects), home=Path(home))
consuming.Consumer(ctx, "sandbox/ada/x", "clicks").drain()
"""


@pytest.mark.parametrize("when", ["before", "after"])
def test_kill_9_around_a_commit_loses_and_doubles_nothing(context, when):
    define(context)
    send = Sender(context)
    send(lines([event(0), event(1)]), key="a")
    places = [str(context.home), context.catalog.url, context.store.url, when]
    done = subprocess.run([sys.executable, "-c", KILLED, *places], check=False, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    send(lines([event(0), event(1)]), key="a")
    send(lines([event(2)]), key="b")
    drained(context)
    assert ids(context) == ["e0", "e1", "e2"]
    assert verify(context.catalog, context.store) == []


def test_a_feed_without_events_is_an_empty_version_until_they_come(context):
    define(context)
    made = capture(context, source_of(context, HERE, "clicks"), HERE)
    again = capture(context, source_of(context, HERE, "clicks"), HERE)
    assert (made.rows, made.id) == (0, again.id)
    assert data.read(context, made.id).collect().is_empty()
    with context.read() as tx:
        assert (
            refs.get(tx, context.project, refs.head_ref(HERE, "clicks")) is None
        )  # a sandbox goes on looking elsewhere
    begun = capture(context, source_of(context, "staging", "clicks"), "staging")
    with context.read() as tx:
        assert refs.get(tx, context.project, refs.head_ref("staging", "clicks")) == begun.id == made.id
    send = Sender(context)
    send(lines([event(0), event(1), event(0)]))
    drained(context)
    assert ids(context) == ["e0", "e1"]
    newest = capture(context, source_of(context, HERE, "clicks"), HERE)
    assert newest.rows == 2
    assert verify(context.catalog, context.store) == []


@pytest.mark.parametrize(
    "poison", [b"null", b" null ", b"\xef\xbb\xbfnull", b"null,", b"[" * 100_000, b'{"id":' * 100_000]
)
def test_what_would_end_a_process_is_a_dead_letter(poison):
    schema = schema_of({"id": "string"})
    good = b'{"id":"null"}', b'{"id":null}'
    found = decode_lines([good[0], poison, good[1]], schema)
    assert found.rows["id"].to_pylist() == ["null", None]
    ((place, why, _),) = found.dead
    assert (place, why) in {(1, "not JSON"), (1, "not a JSON object")}


def test_dead_letters_come_again_once_when_what_refused_them_is_mended(context):
    with context.write() as tx:
        empty = Snapshot({}).version()
        versions.put(tx, context.project, empty, actor="ada", at=context.now())
        refs.move(tx, context.project, refs.env_ref(HERE), old=None, new=empty.id, actor="ada", at=context.now())
    define(context, expect=[expect.between("amount", 0, 1)])
    send = Sender(context)
    send(lines([event(0), event(9), event(10)]) + b"\nno json\n" + lines([event(11, id="x" * 20_000)]))
    drained(context)
    assert (ids(context), feed(context).dead) == (["e0"], 4)
    define(context)  # it was the expectation that was wrong
    again = Replay(name="clicks", environment=HERE, reason="amount")
    assert replay(context, again) == replay(context, again) == Replayed(letters=2, cut=1)
    drained(context)
    assert (ids(context), feed(context).dead) == (["e0", "e9", "e10"], 4)
    replay(context, Replay(name="clicks", environment=HERE))  # others too: those that are there count once
    drained(context)
    assert (ids(context), feed(context).dead) == (["e0", "e9", "e10"], 5)
