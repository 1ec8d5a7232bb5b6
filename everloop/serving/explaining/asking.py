"""Explanations beside answers: asked of a worker of its own while the model answers, and waited for within a budget."""

import asyncio
import time
from dataclasses import dataclass
from typing import Any

from everloop.core.errors import EverloopError, InvalidInput
from everloop.serving import log
from everloop.serving.gateway.fleet import Live


@dataclass(frozen=True, slots=True)
class Explanation:
    """What an explainer said, or why it did not."""

    rows: int
    logged: tuple[str, list[str], bytes] | None = None
    left_out: str = ""

    def told(self) -> Any:
        """For the reply: one explanation a row, or `{left_out: why}`."""
        return log.explanations(*self.logged, self.rows) if self.logged else {"left_out": self.left_out}


def need_explainer(live: Live) -> None:
    """Raise `InvalidInput` when this revision explains nothing."""
    if live.explainer is None:
        raise InvalidInput("this endpoint explains no answers", hint="its definition would say explain=el.Explain()")


async def explained(live: Live, payload: bytes, rows: int) -> Explanation:
    """The explanation of the rows of `payload`; one that is late, or fails, is left out, and the work is given up."""
    said, crew = live.revision.explainer, live.explainer
    assert said is not None
    if rows > said.rows:
        return Explanation(rows, left_out=f"{rows} rows are more than the {said.rows} that are explained at once")
    deadline = time.monotonic() + said.part.budget_micros / 1e6
    crew.wake()
    if not await crew.become_ready(deadline - time.monotonic()):
        return Explanation(rows, left_out=crew.problem or "the explainer is starting; ask again")
    try:
        # the crew itself gives up on what is late, and on a worker that hangs, but looks only now and then
        frame = await asyncio.wait_for(crew.ask(payload, rows, deadline), deadline - time.monotonic())
    except TimeoutError:
        return Explanation(rows, left_out="it took longer than its budget")
    except EverloopError as error:
        late = time.monotonic() >= deadline
        return Explanation(rows, left_out="it took longer than its budget" if late else error.message)
    return Explanation(rows, (crew.engine, said.columns, frame.payload))
