"""Plays a month against the running system: facts in, questions at the HTTP endpoint, labels at landing time."""

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from heapq import heappop, heappush
from http.client import HTTPConnection, HTTPException
from typing import Self
from urllib.parse import urlsplit

import orjson

from everloop.client import Client
from everloop.core.clock import Micros, iso
from everloop.demo.events import BLOCK, Block, Month, Question
from everloop.demo.stage import PROJECT, Stage

_AT_ONCE = 8
"""Questions in flight at a time."""


@dataclass
class Played:
    """What a replay did, counted."""

    facts: int = 0
    asked: int = 0
    failed: int = 0
    labels: int = 0
    revisions: dict[str, int] = field(default_factory=dict)
    last: str = ""
    """The newest prediction's id."""


class Player:
    """Keeps what is under way from one month to the next: labels whose flights have not landed yet."""

    def __init__(self, stage: Stage, client: Client) -> None:
        """Push and label as `client`; ask anybody's way, without a token."""
        self._stage, self._client = stage, client
        self._flying: list[tuple[Micros, str, int]] = []

    def play(self, blocks: Sequence[Block]) -> Played:
        """Play blocks in order and say what was done."""
        played = Played()
        with self.asking() as asking, ThreadPoolExecutor(1) as feeder:
            self._push(blocks[0], played)
            for block, following in zip(blocks, [*blocks[1:], None], strict=True):
                self._stage.set_time(block.start)
                ahead = feeder.submit(self._push, following, played) if following else None
                self._ask(asking, block.questions, played)
                self._stage.set_time(block.start + BLOCK)
                played.labels += self._label(block.start + BLOCK)
                if ahead is not None:
                    ahead.result()
        self._stage.measure()
        return played

    def feed(self, month: Month, *, until: Micros) -> None:
        """Push what becomes known before `until`; its replay pushes it again, which changes nothing."""
        for block in month.blocks():
            if block.start < until:
                self._push(block, Played())

    def ask(self, questions: Sequence[Question]) -> Played:
        """Only ask, at the questions' times."""
        played = Played()
        with self.asking() as asking:
            self._ask(asking, questions, played)
        return played

    def asking(self) -> "Asking":
        """What asks the endpoint."""
        return Asking(urlsplit(self._stage.url).netloc)

    def _ask(self, asking: "Asking", questions: Sequence[Question], played: Played) -> None:
        played.asked += len(questions)
        for question, (status, body) in zip(questions, asking.answers(questions), strict=True):
            if status != 200:
                played.failed += 1
                continue
            answer = orjson.loads(body)
            revision = answer["revision"]
            played.revisions[revision] = played.revisions.get(revision, 0) + 1
            played.last = answer["prediction_id"]
            if question.late is not None and question.landed is not None:
                heappush(self._flying, (question.landed, answer["prediction_id"], question.late))

    def _push(self, block: Block, played: Played) -> None:
        """Feed a block's facts, while the block before it is asked about: a fact counts once it is known."""
        for dataset, rows in block.facts.items():
            self._client.call("features.push", environment="production", dataset=dataset, rows=rows)
            played.facts += len(rows)

    def _label(self, now: Micros) -> int:
        """Send the labels of flights that have landed by now."""
        landed = []
        while self._flying and self._flying[0][0] <= now:
            at, prediction, late = heappop(self._flying)
            landed.append({"prediction": prediction, "value": late, "at": iso(at)})
        if landed:
            self._client.call("labels.add", endpoint="delay", labels=landed)
        return len(landed)


class Asking:
    """Asks `delay` over HTTP, eight questions at a time, a connection to a thread: a context manager."""

    def __init__(self, address: str) -> None:
        """Ask at `host:port`."""
        self._address = address
        self._pool = ThreadPoolExecutor(_AT_ONCE)
        self._own = threading.local()
        self._open: list[HTTPConnection] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._pool.shutdown()
        for connection in self._open:
            connection.close()

    def answers(self, questions: Sequence[Question]) -> Iterator[tuple[int, bytes]]:
        """Status and body of each answer, in the order of the questions."""
        return self._pool.map(self.answer, questions)

    def answer(self, question: Question) -> tuple[int, bytes]:
        """Ask one; raises `OSError` or `http.client.HTTPException` when nobody answers."""
        connection: HTTPConnection | None = getattr(self._own, "connection", None)
        if connection is None:
            connection = self._own.connection = HTTPConnection(self._address, timeout=30)
            self._open.append(connection)
        headers = {"Everloop-Time": iso(question.at), "Content-Type": "application/json"}
        try:
            connection.request("POST", f"/endpoints/{PROJECT}/delay/predict", orjson.dumps(question.row), headers)
            reply = connection.getresponse()
            return reply.status, reply.read()
        except (OSError, HTTPException):
            connection.close()  # the next request opens it anew
            raise
