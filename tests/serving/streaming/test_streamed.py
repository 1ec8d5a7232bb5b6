"""Answers in parts: server-sent events through a worker; callers that are slow or leave, models that fail."""

import asyncio
import json
import socket
import sys
import time
from pathlib import Path

import httpx2
import pytest
from serving_house import folder_of, logged, revision

from everloop.models.predictor import Predictor
from everloop.models.signature import whole
from everloop.serving.table import Route

sys.path.insert(0, str(Path(__file__).parent))
import streaming_models  # beside this file: the line above makes it importable

X = {"inputs": [["x", "FP64"]], "caller": [["x", "FP64"]], "example": {"x": [2.0]}}
PATH = "/endpoints/shop/delay/predict?stream=true"


def served(place, model, **route):
    more = {**X, "loader": "streaming_models:load"}
    place.serve(Route("shop", "delay", [revision(folder_of(place.home, "m", model), 1, **more)], **route))
    return place.gateway().ready()


def events(text):
    found = []
    for block in text.strip().split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.splitlines())
        found.append((lines.get("event", "part"), json.loads(lines["data"])))
    return found


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    """Workers find this folder's models too."""
    here = Path(__file__).parent
    monkeypatch.setattr("serving_house.HERE", f"{here.parent}:{here}")


@pytest.mark.parametrize("path", [PATH, "/v2/models/shop.delay/generate_stream"])
def test_parts_come_as_events_and_the_whole_is_logged_once(place, path):
    gateway = served(place, streaming_models.Words())
    answer = gateway.client.post(path, json={"x": 3})
    assert answer.headers["content-type"] == "text/event-stream"
    *parts, (event, last) = events(answer.text)
    assert parts == [("part", {"part": f"word {n} "}) for n in range(3)]
    assert (event, last["predictions"]) == ("answer", ["word 0 word 1 word 2 "])
    (entry,) = logged(place.home)
    assert (entry.id, entry.route) == (last["prediction_id"], "stream")
    assert entry.answers() == {"prediction": ["word 0 word 1 word 2 "]}
    assert gateway.predict({"x": 2}).json()["predictions"] == ["word 0 word 1 "]
    accepted = gateway.client.post(PATH.partition("?")[0], json={"x": 1}, headers={"accept": "text/event-stream"})
    assert len(events(accepted.text)) == 2


def test_a_part_is_there_before_the_next_is_made(place):
    gateway = served(place, streaming_models.Words(pause=0.3))
    with gateway.client.stream("POST", PATH, json={"x": 3}) as answer:
        came = [time.monotonic() for line in answer.iter_lines() if line.startswith("data")]
    assert len(came) == 4
    assert came[2] - came[0] > 0.4


def test_a_long_stream_holds_up_neither_batches_nor_other_streams(place):
    gateway = served(place, streaming_models.Words(pause=0.01))

    async def story():
        async with httpx2.AsyncClient(base_url=gateway.url, timeout=30) as client:
            long = asyncio.create_task(client.post(PATH, json={"x": 300}))
            await asyncio.sleep(0.3)
            short = await asyncio.gather(*(client.post(PATH, json={"x": 3}) for _ in range(4)))
            assert not long.done()
            whole = await client.post("/endpoints/shop/delay/predict", json={"x": 2})
            assert not long.done()
            return short, whole, await long

    short, one, long = asyncio.run(story())
    assert [len(events(answer.text)) for answer in short] == [4] * 4
    assert one.json()["predictions"] == ["word 0 word 1 "]
    assert len(events(long.text)) == 301


def test_a_caller_that_leaves_ends_the_work(place):
    gateway = served(place, streaming_models.Words(pause=0.05, told=str(place.home / "told")))
    with gateway.client.stream("POST", PATH, json={"x": 10_000}) as answer:
        next(answer.iter_lines())
    end = time.monotonic() + 10
    while time.monotonic() < end and not (place.home / "told").exists():
        time.sleep(0.05)
    assert (place.home / "told").read_text() == "closed"
    place.until(lambda s: next(iter(s["endpoints"]["shop.delay"].values()))["waiting"] == 0)
    assert logged(place.home) == []
    assert gateway.predict({"x": 1}).json()["predictions"] == ["word 0 "]


def _settled(made):
    """How many the model has made, once that no longer grows."""
    end, last = time.monotonic() + 30, 0
    while time.monotonic() < end:
        time.sleep(0.5)
        text = made.read_text() if made.exists() else ""  # empty while it is being written
        if text and int(text) == last:
            return last
        last = int(text or 0)
    raise AssertionError("the model never waits")


def test_a_caller_that_reads_slowly_slows_the_model_and_one_that_reads_nothing_is_given_up(place):
    made = place.home / "made"
    gateway = served(place, streaming_models.Words(size=20_000, counted=str(made)), deadline_micros=2_000_000)
    with socket.socket() as caller:
        caller.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        caller.connect(("127.0.0.1", gateway.port))
        body = b'{"x": 5000}'
        head = f"POST {PATH} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(body)}\r\n\r\n".encode()
        caller.sendall(head + body)
        caller.recv(100)
        assert 0 < _settled(made) < 1000  # of 5,000: it waits
        time.sleep(2.5)
    stats = place.until(lambda s: next(iter(s["endpoints"]["shop.delay"].values()))["waiting"] == 0)
    its = next(iter(stats["endpoints"]["shop.delay"].values()))
    assert its["restarts"] == 0  # it was the caller who hung
    assert gateway.predict({"x": 1}).status_code == 200


def test_what_fails_first_has_its_status_and_what_fails_later_an_event(place):
    gateway = served(place, streaming_models.Words())
    assert gateway.client.post(PATH, json={"x": -1}).status_code == 500
    assert gateway.client.post(PATH, json={"x": [1, 2]}).status_code == 400
    assert gateway.client.post(PATH, json={"y": 1}).status_code == 400
    assert gateway.client.get(PATH).status_code == 405
    last = events(gateway.client.post(PATH, json={"x": 5.5}).text)[-1]
    assert last[0] == "error"
    assert "half a word" in last[1]["message"]


def test_a_model_that_yields_nothing_is_answered_in_one_event(place):
    gateway = served(place, streaming_models.Plain())
    ((event, answer),) = events(gateway.client.post(PATH, json={"x": 4}).text)
    assert (event, answer["predictions"]) == ("answer", [8.0])


def test_a_predictor_of_a_generator_gives_parts_and_the_whole():
    card = {"inputs": [{"name": "x", "type": "double"}], "output": "value"}
    predictor = Predictor(streaming_models.Speaker(), card)
    assert predictor.streams
    assert list(predictor.parts({"x": [2.0]})) == ["2.0", "!"]
    assert predictor.scores({"x": [2.0, 3.0]}).tolist() == ["2.0!", "3.0!"]
    assert whole([1, 2, 5]) == 5
    assert whole([]) == ""
