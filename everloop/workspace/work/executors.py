"""Where steps run: tables and frames in this process, models and steps with limits in a child; or all on a cluster."""

import os
import threading
from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from everloop.catalog.context import Context
from everloop.core.errors import InvalidInput
from everloop.core.ports import Blobs, Executor, Job, Observer, Outcome
from everloop.core.settings import FLOWS_RAY, RAY_TOKEN
from everloop.flows.assets import Asset
from everloop.flows.control import Environment
from everloop.flows.executors.elsewhere import Elsewhere
from everloop.flows.executors.forked import ForkedExecutor
from everloop.flows.executors.local import LocalExecutor
from everloop.flows.identity import Runtime, Tree, runtime
from everloop.flows.reproducing import environment


def executor_of(ctx: Context, assets: Mapping[str, Asset], code: Tree, cluster: str = "") -> Executor:
    """What runs the steps of a project whose files are `code`: this machine, or the Ray cluster at `cluster`.

    Without `cluster` the variable `EVERLOOP_FLOWS_RAY` names one (`host:port` of its head), whose token is in
    `RAY_AUTH_TOKEN`. Raises `InvalidInput` without a token or without Ray, `Unavailable` when it does not answer.
    """
    address = cluster or os.environ.get(FLOWS_RAY, "")
    if not address:
        return ByKind(assets, ctx.store, home=ctx.home)
    if find_spec("ray") is None:
        raise InvalidInput("Ray is not installed", hint="pip install everloop[ray]")
    files = code.version.manifest["files"]
    on_ray = import_module("everloop.flows.executors.on_ray")
    made: Executor = on_ray.RayExecutor(address, os.environ.get(RAY_TOKEN, ""), files=files, blobs=ctx.store)
    return made


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

    def __init__(self, assets: Mapping[str, Asset], blobs: Blobs, *, home: Path | None = None) -> None:
        """Run `assets` against this store; environments that steps name are made below `home`."""
        self._named = {key: one.environment for key, one in assets.items() if one.environment is not None}
        self._home = home
        self._own: dict[Environment, Elsewhere] = {}
        self._making = threading.Lock()
        self._limited = frozenset(key for key, asset in assets.items() if asset.resources.limited or _beside(asset))
        self._here = LocalExecutor(assets, blobs)
        self._apart = ForkedExecutor()

    def isolates(self, step: str, *, limited: bool = False) -> bool:
        """Whether a step (its key) gets a process of its own, with threads and seeds of its own."""
        return limited or step.startswith("model/") or step in self._limited or step in self._named

    def runtime_of(self, step: str, threads: int) -> Runtime:
        """What a step with an environment of its own sees; makes that environment where it is not there yet."""
        own = self._elsewhere(step)
        return own.runtime(threads) if own is not None else runtime(threads)

    def environ(self, step: str) -> Mapping[str, str]:
        """The variables that a step would see if it ran now."""
        return self._apart.environ(step) if self.isolates(step) else os.environ

    def run(self, job: Job, observer: Observer | None = None) -> Outcome:
        """Run it; see `core.ports.Executor`."""
        own = self._elsewhere(job.step)
        if own is not None:
            return own.run(job, observer)
        chosen: Executor = self._apart if self.isolates(job.step, limited=job.resources.limited) else self._here
        return chosen.run(job, observer)

    def close(self) -> None:
        """End the children."""
        self._apart.close()
        with self._making:
            for own in self._own.values():
                own.close()

    def _elsewhere(self, step: str) -> Elsewhere | None:
        named = self._named.get(step)
        if named is None:
            return None
        if self._home is None:
            raise InvalidInput(f"{step} names an environment of its own, which has no place here", hint="give `home`")
        with self._making:
            if named not in self._own:
                self._own[named] = Elsewhere(str(environment.overlay(self._home, dict(named.packages))))
            return self._own[named]
