"""Steps in this process: no isolation, no start-up cost. For trying things, for tests, and for trusted small steps."""

import os
from collections.abc import Mapping

from everloop.core.errors import InvalidInput
from everloop.core.ports import Blobs, Job, Observer, Outcome
from everloop.flows.assets import Asset, suggest
from everloop.flows.observation.observed import listening
from everloop.flows.perform import perform


class LocalExecutor:
    """Runs the functions of `assets` as they are imported here; limits of memory and time do not apply."""

    isolated = False
    """Steps share this process: they run one at a time, for seeds and variables are the process's."""

    def __init__(self, assets: Mapping[str, Asset], blobs: Blobs) -> None:
        """Run steps of these assets against this store."""
        self._assets = assets
        self._blobs = blobs

    def run(self, job: Job, observer: Observer | None = None) -> Outcome:
        """Run it; raises `StepFailed` with the end of the traceback."""
        if job.step not in self._assets:
            raise InvalidInput(f"no asset {job.step}", hint=suggest(job.step, self._assets))
        if observer is not None:
            observer.began(os.getpid())
        with listening(observer):
            return perform(self._assets[job.step], job, self._blobs)

    def close(self) -> None:
        """Nothing to end."""
