"""Plays a month against the running system: facts in, questions at the HTTP endpoint, labels at landing time."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush

import httpx2
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
        return asyncio.run(self._play(blocks))

    def feed(self, month: Month, *, until: Micros) -> None:
        """Push what becomes known before `until`; its replay pushes it again, which changes nothing."""
        for block in month.blocks():
            if block.start < until:
                asyncio.run(self._push(block, Played()))

    def ask(self, questions: Sequence[Question]) -> Played:
        """Only ask, at the questions' times."""
        played = Played()

        async def alone() -> None:
            async with self._http() as http:
                await self._ask(http, questions, played)

        asyncio.run(alone())
        return played

    async def _play(self, blocks: Sequence[Block]) -> Played:
        played = Played()
        async with self._http() as http:
            await self._push(blocks[0], played)
            for block, following in zip(blocks, [*blocks[1:], None], strict=True):
                self._stage.set_time(block.start)
                ahead = asyncio.create_task(self._push(following, played)) if following else None
                await self._ask(http, block.questions, played)
                self._stage.set_time(block.start + BLOCK)
                played.labels += await asyncio.to_thread(self._label, block.start + BLOCK)
                if ahead is not None:
                    await ahead
        self._stage.measure()
        return played

    def _http(self) -> httpx2.AsyncClient:
        return httpx2.AsyncClient(base_url=self._stage.url, timeout=30)

    async def _push(self, block: Block, played: Played) -> None:
        """Feed a block's facts, while the block before it is asked about: a fact counts once it is known."""
        for dataset, rows in block.facts.items():
            await asyncio.to_thread(
                self._client.call, "features.push", environment="production", dataset=dataset, rows=rows
            )
            played.facts += len(rows)

    async def _ask(self, http: httpx2.AsyncClient, questions: Sequence[Question], played: Played) -> None:
        gate = asyncio.Semaphore(_AT_ONCE)

        async def one(question: Question) -> None:
            async with gate:
                await self._one(http, question, played)

        await asyncio.gather(*(one(question) for question in questions))

    async def _one(self, http: httpx2.AsyncClient, question: Question, played: Played) -> None:
        played.asked += 1
        answer = await http.post(
            f"/endpoints/{PROJECT}/delay/predict",
            content=orjson.dumps(question.row),
            headers={"Everloop-Time": iso(question.at), "Content-Type": "application/json"},
        )
        if answer.status_code != 200:
            played.failed += 1
            return
        body = answer.json()
        revision = body["revision"]
        played.revisions[revision] = played.revisions.get(revision, 0) + 1
        played.last = body["prediction_id"]
        if question.late is not None and question.landed is not None:
            heappush(self._flying, (question.landed, body["prediction_id"], question.late))

    def _label(self, now: Micros) -> int:
        """Send the labels of flights that have landed by now."""
        landed = []
        while self._flying and self._flying[0][0] <= now:
            at, prediction, late = heappop(self._flying)
            landed.append({"prediction": prediction, "value": late, "at": iso(at)})
        if landed:
            self._client.call("labels.add", endpoint="delay", labels=landed)
        return len(landed)
