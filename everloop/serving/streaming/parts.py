"""The parts of one answer on their way from a worker to a caller; the worker never gets far ahead."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

from everloop.serving.streaming.working import WINDOW

_AGAIN = WINDOW // 2


class Parts:
    """Filled by the link to a worker, emptied by whoever sends to the caller."""

    def __init__(self) -> None:
        """Nothing came yet."""
        self._waiting: deque[Any] = deque()
        self._arrived = asyncio.Event()
        self._taken = 0
        self.begun = False
        """Whether the caller was given a part: from then on nobody else can answer instead."""
        self.more: Callable[[int], None] = lambda _count: None
        """Lets the worker send so many more."""

    @property
    def held(self) -> bool:
        """Whether it is the caller who is waited for."""
        return bool(self._waiting)

    def put(self, part: Any) -> None:
        """One more part arrived."""
        self._waiting.append(part)
        self._arrived.set()

    async def get(self) -> Any:
        """The next part."""
        while not self._waiting:
            self._arrived.clear()
            await self._arrived.wait()
        self.begun = True
        self._taken += 1
        if self._taken % _AGAIN == 0:
            self.more(_AGAIN)
        return self._waiting.popleft()
