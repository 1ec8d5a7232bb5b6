"""The short way of ordinary questions: it answers, logs and counts as the ordinary way does, and leaves it the rest."""

import gc
import json
import socket
import threading
from types import SimpleNamespace

import numpy as np
import pytest
import serving_models
from serving_house import Place, folder_of, logged, one_row, revision

from everloop.core.errors import InvalidInput
from everloop.serving.columns import Layout
from everloop.serving.gateway.express.lines import Row
from everloop.serving.gateway.express.passage import Passage
from everloop.serving.table import Route, Split

PREDICT = "/endpoints/shop/delay/predict"
_OWN = ("date", "everloop-prediction-id", "content-length")
ORDINARY = {"content-encoding": "identity"}
"""All that is particular about a question."""
TRACING = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
"""What an instrumented caller sends with everything; the endpoint keeps no traces."""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = Place(tmp_path_factory.mktemp("express"))
    moody = revision(folder_of(place.home, "m1", serving_models.Moody()), 1)
    plain = revision(folder_of(place.home, "m2", serving_models.Constant(7.0)), 2, weight=0)
    alone = Route("shop", "delay", [moody], deadline_micros=20_000_000)
    halves = [revision(plain.folder, 3, weight=50), revision(moody.folder, 4, weight=50)]
    lost = [revision(str(place.home / "nowhere"), 5, weight=50), revision(plain.folder, 6, weight=50)]
    by_hour = Split("salt", "hour", halves[0].id, [(5_000, halves[0].id), (10_000, halves[1].id)])
    place.serve(
        alone,
        Route("shop", "kept", [moody, plain], deadline_micros=20_000_000),
        Route("shop", "canary", halves, deadline_micros=20_000_000),
        Route("shop", "share", halves, deadline_micros=20_000_000),
        Route("shop", "apart", lost, deadline_micros=20_000_000),
        Route("shop", "experiment", halves, deadline_micros=20_000_000, split=by_hour),
    )
    place.gateway().ready()
    yield place
    place.close()


def without_id(reply):
    body = reply.json()
    body.pop("prediction_id", None)
    body.get("parameters", {}).pop("prediction_id", None)
    told = {name: value for name, value in reply.headers.items() if name not in _OWN}
    return reply.status_code, body, told


QUESTIONS = [
    ("predict", one_row()),
    ("predict", {"distance": 5, "hour": 2, "carrier": None}),
    ("predict", {"distance": [1.5, 2.5], "hour": [1, 2], "carrier": ["a", "b"]}),
    ("predict", [one_row(1.0), one_row(2.0)]),
    ("predict", {"distance": [float(n) for n in range(400)], "hour": [1] * 400, "carrier": ["x"] * 400}),
    ("predict", {"distance": "far", "hour": 3, "carrier": "AA"}),
    ("predict", {"distance": 1.0, "hour": 3.5, "carrier": "AA"}),
    ("predict", {"distance": 1.0, "hour": 3}),
    ("predict", one_row(-1.0)),
    ("invocations", {"dataframe_records": [one_row(3.0)]}),
    ("invocations", {"unknown": 1}),
    ("infer", {"id": "mine", "inputs": [
        {"name": "distance", "shape": [1], "datatype": "FP64", "data": [4.0]},
        {"name": "hour", "shape": [1], "datatype": "INT64", "data": [4]},
        {"name": "carrier", "shape": [1], "datatype": "BYTES", "data": ["z"]},
    ], "outputs": [{"name": "echo", "parameters": {"binary_data": False}}]}),
    ("infer", {"inputs": []}),
]  # fmt: skip


@pytest.mark.parametrize(("leaf", "question"), QUESTIONS)
def test_both_ways_answer_alike(place, leaf, question):
    path = "/v2/models/shop.delay/infer" if leaf == "infer" else f"/endpoints/shop/delay/{leaf}"
    client = place.gateways[0].client
    short, ordinary, traced = (client.post(path, json=question, headers=more) for more in ({}, ORDINARY, TRACING))
    assert without_id(short) == without_id(ordinary) == without_id(traced)


def test_both_ways_are_logged_alike(place):
    client = place.gateways[0].client
    replies = [client.post(PREDICT, json=one_row(77.0), headers=more) for more in ({}, ORDINARY)]
    short, ordinary = ({e.id: e for e in logged(place.home)}[reply.json()["prediction_id"]] for reply in replies)
    for name in ("project", "endpoint", "revision", "rows", "inputs", "answer", "keys", "fallback", "route"):
        assert getattr(short, name) == getattr(ordinary, name), name
    assert short.columns()["carrier"] == ["AA"]
    assert short.id < ordinary.id
    assert short.micros > 0


def test_a_failure_is_answered_by_the_fallback_and_counted_once(place):
    before = place.stats()["endpoints"]["shop.kept"][f"b3:{1:064x}"]
    reply = place.gateways[0].predict(one_row(-1.0), "shop.kept")
    assert reply.json()["predictions"] == [7.0]
    assert reply.headers["everloop-fallback-kind"] == "previous"

    def counted(stats):
        its = stats["endpoints"]["shop.kept"][f"b3:{1:064x}"]
        return its["requests"] == before["requests"] + 1 and its["errors"] == before["errors"] + 1

    place.until(counted)


def revisions(place, path, questions, **headers):
    """Which revision answers each, the short way and the ordinary one."""
    client = place.gateways[0].client
    ways = [
        [client.post(path, json=q, headers={**headers, **more}).headers["everloop-revision"] for q in questions]
        for more in ({}, ORDINARY)
    ]
    return ways[0], ways[1]


@pytest.mark.parametrize("path", ["/endpoints/shop/canary/predict", "/v2/models/shop.canary/infer"])
def test_a_key_meets_one_revision_whichever_way_it_goes(place, path):
    tensors = [{"name": "distance", "shape": [1], "datatype": "FP64", "data": [1.0]},
               {"name": "hour", "shape": [1], "datatype": "INT64", "data": [1]},
               {"name": "carrier", "shape": [1], "datatype": "BYTES", "data": ["a"]}]  # fmt: skip
    question = {"inputs": tensors} if path.endswith("infer") else one_row()
    met = set()
    for key in "abcdefghijkl":
        short, ordinary = revisions(place, path, [question] * 3, **{"everloop-sticky": key})
        assert short == ordinary
        assert len(set(short)) == 1
        met.add(short[0])
    assert len(met) == 2


def test_an_experiment_deals_by_its_column_whichever_way_a_question_goes(place):
    questions = [{"distance": 1.0, "hour": n % 12, "carrier": "a"} for n in range(24)]
    short, ordinary = revisions(place, "/endpoints/shop/experiment/predict", questions)
    assert short == ordinary
    assert short[:12] == short[12:]
    assert len(set(short)) == 2


def test_what_a_canary_of_no_key_meets_is_its_share_and_counted_once(place):
    client = place.gateways[0].client
    named = [f"b3:{number:064x}" for number in (3, 4)]
    replies = [client.post("/endpoints/shop/share/predict", json=one_row(n)) for n in range(200)]
    met = [reply.headers["everloop-revision"] for reply in replies]
    assert 60 < met.count(named[0]) < 140
    entries = {e.id: e for e in logged(place.home)}
    assert [entries[reply.json()["prediction_id"]].revision for reply in replies] == met

    def counted(stats):
        return all(stats["endpoints"]["shop.share"][one]["requests"] == met.count(one) for one in named)

    place.until(counted)


def test_a_canary_that_does_not_start_is_failed_by_its_whole_share(place):
    lost, other = (f"b3:{number:064x}" for number in (5, 6))
    client = place.gateways[0].client
    replies = [client.post("/endpoints/shop/apart/predict", json=one_row(n)) for n in range(100)]
    assert {reply.headers["everloop-revision"] for reply in replies} == {other}
    stood_in = sum("everloop-fallback" in reply.headers for reply in replies)
    assert 25 < stood_in < 75
    place.until(lambda now: now["endpoints"]["shop.apart"][lost]["errors"] == stood_in)


def raw(content, path=PREDICT, more=""):
    head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n{more}"
    return f"{head}content-length: {len(content)}\r\n\r\n".encode() + content


def answers(connection, count):
    """So many replies of a connection, whole."""
    stream, told = connection.makefile("rb"), []
    for _ in range(count):
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            line = stream.readline()
            assert line, head
            head += line
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        told.append((head, json.loads(stream.read(length))))
    return told


def asked(place):
    connection = socket.create_connection(("127.0.0.1", place.gateways[0].port))
    connection.settimeout(30)
    return connection


def test_questions_one_behind_the_other_are_answered_in_their_order(place):
    questions = [raw(json.dumps(one_row(float(n))).encode(), more="x: y\r\n" * (n % 2)) for n in range(8)]
    questions[3] = raw(json.dumps(one_row(3.0)).encode(), more="everloop-sticky: me\r\n")
    with asked(place) as connection:
        connection.sendall(b"".join(questions))
        assert [body["predictions"][0]["echo"] for _, body in answers(connection, 8)] == [float(n) for n in range(8)]


def test_a_caller_that_does_not_read_is_waited_for(place):
    rows = 2000
    many = {"distance": [1.0] * rows, "hour": [1] * rows, "carrier": ["abcdefghij"] * rows}
    question, count = raw(json.dumps(many).encode()), 150
    with asked(place) as connection:
        sender = threading.Thread(target=connection.sendall, args=(question * count,))
        sender.start()
        for _, body in answers(connection, count):
            assert len(body["predictions"]) == rows
        sender.join()


def test_a_question_may_come_in_pieces_and_ask_for_the_end_of_its_connection(place):
    question = raw(json.dumps(one_row(9.0)).encode(), more="connection: close\r\n")
    with asked(place) as connection:
        for at in range(0, len(question), 40):
            connection.sendall(question[at : at + 40])
        ((head, body),) = answers(connection, 1)
        assert body["predictions"][0]["echo"] == 9.0
        assert b"connection: close" in head.lower()
        assert connection.recv(1) == b""


def test_a_large_body_is_read_by_the_ordinary_way(place):
    rows = 60_000
    question = {"distance": [1.0] * rows, "hour": [1] * rows, "carrier": ["abcdefghij"] * rows}
    assert len(json.dumps(question)) > 1 << 20
    reply = place.gateways[0].client.post(PREDICT, json=question)
    assert len(reply.json()["predictions"]) == rows


def test_a_caller_that_leaves_is_answered_all_the_same(place):
    with asked(place) as connection:
        connection.sendall(raw(json.dumps({**one_row(-4.0), "carrier": "left"}).encode()))
    place.until(lambda _: any(e.rows == 1 and e.columns()["carrier"] == ["left"] for e in logged(place.home)))


def test_the_host_is_checked(place):
    with asked(place) as connection:
        connection.sendall(raw(json.dumps(one_row()).encode()).replace(b"localhost", b"elsewhere.example"))
        ((head, _),) = answers(connection, 1)
        assert b" 403 " in head


LAYOUT = Layout.from_pairs([["a", "FP64"], ["n", "INT32"], ["t", "BYTES"], ["b", "FP64"]])


@pytest.mark.parametrize(
    "row",
    [
        {"a": 1.5, "n": 3, "t": "x", "b": -0.0, "more": 1},
        {"a": 2, "n": True, "t": None, "b": 1e300},
    ],
)
def test_a_packed_row_is_what_columns_make(row):
    columns = {name: [row[name]] for name in LAYOUT.names}
    assert Row(LAYOUT).packed(row) == LAYOUT.pack(columns, 1)


@pytest.mark.parametrize(
    "row",
    [
        {"a": 1.5, "n": 3, "t": "x"},
        {"a": None, "n": 3, "t": "x", "b": 1},
        {"a": "1", "n": 3, "t": "x", "b": 1},
        {"a": 1, "n": 2**40, "t": "x", "b": 1},
        {"a": 1, "n": 3.0, "t": "x", "b": 1},
        {"a": 1, "n": 3, "t": 4, "b": 1},
        {"a": [1], "n": [3], "t": ["x"], "b": [1]},
        [1, 2, 3],
        None,
    ],
)
def test_whatever_else_a_row_is_is_left_to_the_ordinary_way(row):
    assert Row(LAYOUT).packed(row) is None


def test_lists_of_numbers_are_packed_as_one_by_one():
    layout = Layout.from_pairs([["a", "FP64"], ["b", "FP64"]])
    lists = {"a": [1, 2.5, True], "b": [2**60, -1.0, 0]}
    assert layout.pack(lists, 3) == layout.pack({n: np.array(v, np.float64) for n, v in lists.items()}, 3)
    assert np.isnan(layout.unpack(layout.pack({"a": [None, 1.0], "b": [1, 2]}, 2), 2)["a"][0])
    with pytest.raises(InvalidInput, match="'b'"):
        layout.pack({"a": [1.0, 2.0], "b": [1.0, "2"]}, 2)


def test_a_question_leaves_no_cycle_for_the_collector():
    protocol = SimpleNamespace(scope={}, parser=SimpleNamespace(should_keep_alive=lambda: True))
    passage = Passage(None, protocol, None, None, ({}, b""))
    passage.message_event.set()
    assert all(held is not passage for held in gc.get_referents(passage))
