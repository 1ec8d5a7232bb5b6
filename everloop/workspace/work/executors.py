"""Where steps run: tables and frames in this process, models and steps with limits in a child; or all on a cluster."""

import os
from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec

from everloop.catalog.context import Context
from everloop.core.errors import InvalidInput
from everloop.core.ports import Blobs, Executor, Job, Observer, Outcome
from everloop.core.settings import FLOWS_RAY, RAY_TOKEN
from everloop.flows.assets import Asset
from everloop.flows.engine import Origin
from everloop.flows.executors.forked import ForkedExecutor
from everloop.flows.executors.local import LocalExecutor
from everloop.project import Project
from everloop.workspace.build import code_tree


def executor_of(ctx: Context, project: Project, origin: Origin, cluster: str = "") -> Executor:
    """What runs the steps of a project: this machine, or the Ray cluster at `cluster`.

    Without `cluster` the variable `EVERLOOP_FLOWS_RAY` names one (`host:port` of its head), whose token is in
    `RAY_AUTH_TOKEN`. Raises `InvalidInput` without a token or without Ray, `Unavailable` when it does not answer.
    """
    address = cluster or os.environ.get(FLOWS_RAY, "")
    if not address:
        return ByKind(project.assets(), ctx.store)
    if find_spec("ray") is None:
        raise InvalidInput("Ray is not installed", hint="pip install everloop[ray]")
    files = code_tree(ctx, project, origin).version.manifest["files"]
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
