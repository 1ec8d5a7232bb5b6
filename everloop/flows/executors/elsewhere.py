"""Steps in another interpreter than this one: its packages are theirs."""

from everloop.flows.executors.forked import ForkedExecutor
from everloop.flows.identity import Runtime
from everloop.flows.reproducing import environment


class Elsewhere(ForkedExecutor):
    """Runs every step in children of another interpreter, and knows what that holds."""

    def __init__(self, python: str) -> None:
        """Use this interpreter."""
        super().__init__(python)
        self._interpreter = python

    def runtime(self, threads: int | None) -> Runtime:
        """What its steps see."""
        return environment.seen_by(self._interpreter, threads or 1)
