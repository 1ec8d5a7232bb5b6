"""Where steps run: tables and frames in this process, models and steps with limits in a child of their own."""

import os
from collections.abc import Mapping

from everloop.core.ports import Blobs, Executor, Job, Observer, Outcome
from everloop.flows.assets import Asset
from everloop.flows.executors.forked import ForkedExecutor
from everloop.flows.executors.local import LocalExecutor


def _beside(asset: Asset) -> bool:
    """Whether a step is one of which several run beside each other: trials of a search."""
    return asset.search is not None and asset.search.at_once > 1


class ByKind:
    """An executor that isolates training and keeps tables where their data is.

    A child costs an interpreter and the libraries that it loads, seconds on a small machine. Training earns it: it
    runs for longer, uses the libraries that fail hardest, and its bytes must not depend on what ran here before.
    """

    isolated = False
    """Steps run one at a time: some of them share this process."""

    def __init__(self, assets: Mapping[str, Asset], blobs: Blobs) -> None:
        """Run `assets` against this store."""
        self._limited = frozenset(key for key, asset in assets.items() if asset.resources.limited or _beside(asset))
        self._here = LocalExecutor(assets, blobs)
        self._apart = ForkedExecutor()

    def isolates(self, step: str, *, limited: bool = False) -> bool:
        """Whether a step (its key) gets a process of its own, with threads and seeds of its own."""
        return limited or step.startswith("model/") or step in self._limited

    def environ(self, step: str) -> Mapping[str, str]:
        """The variables that a step would see if it ran now."""
        return self._apart.environ(step) if self.isolates(step) else os.environ

    def run(self, job: Job, observer: Observer | None = None) -> Outcome:
        """Run it; see `core.ports.Executor`."""
        chosen: Executor = self._apart if self.isolates(job.step, limited=job.resources.limited) else self._here
        return chosen.run(job, observer)

    def close(self) -> None:
        """End the children."""
        self._apart.close()
