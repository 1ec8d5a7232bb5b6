"""What a step says of itself while it runs: intermediate values, by which a search ends a trial early.

Here and not in `flows`, because what runs inside a step (training, cross-validation) reports without knowing who
listens.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

Take = Callable[[float, int], None]
"""Gets a value and its step."""


class Pruned(BaseException):
    """Raised inside a trial that is not worth going on with; no step may catch it as an error of its own."""


_taking: ContextVar[Take | None] = ContextVar("taking", default=None)


def report(value: float, *, step: int) -> None:
    """Say how good a trial is so far: the search may end it here, and the run shows the curve.

    `value` is of the search's first metric, `step` counts up (epochs, trees, folds). Outside of a search nothing
    happens.
    """
    take = _taking.get()
    if take is not None:
        take(float(value), int(step))


@contextmanager
def listening(take: Take) -> Iterator[None]:
    """Have `take` called for every report inside."""
    before = _taking.set(take)
    try:
        yield
    finally:
        _taking.reset(before)
