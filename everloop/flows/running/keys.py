"""The recipe of each step of a run: its code, packages, host, parameters and inputs as one key."""

import threading
from collections.abc import Mapping
from typing import Any

from everloop.catalog.making.recipes import Ingredients
from everloop.core.ports import Executor
from everloop.flows.assets import Asset
from everloop.flows.identity import Closure, Runtime, closure_hash, recipe, runner_identity, runtime
from everloop.flows.running.settings import Options, Origin

HOST = ("python", "implementation", "platform", "machine", "threads")
"""What of the machine is in a recipe."""


class Keys:
    """What steps are made of, as far as it is the same for a whole run."""

    def __init__(self, origin: Origin, executor: Executor, codecs: Mapping[str, str], options: Options) -> None:
        """Of a project at `origin`, run by `executor`."""
        self._origin, self._executor, self._codecs, self._options = origin, executor, codecs, options
        self._runtimes: dict[int | None, Runtime] = {}
        self._closures: dict[str, tuple[object, Closure]] = {}
        self._seen: dict[str, Runtime] = {}
        self._hosts: dict[int, dict[str, Any]] = {}
        self._needed: dict[tuple[int, frozenset[str]], dict[str, str]] = {}
        self._lock = threading.Lock()
        self.isolated = bool(getattr(executor, "isolated", True))
        self.surrounds = hasattr(executor, "runtime_of")
        """Whether steps may have environments of their own."""

    def isolates(self, asset: Asset) -> bool:
        """Whether a step gets a process of its own."""
        chooses = getattr(self._executor, "isolates", None)
        return bool(chooses(asset.key, limited=asset.resources.limited)) if chooses is not None else self.isolated

    def runtime_of(self, asset: Asset) -> Runtime:
        """The runtime that a step sees: of its own threads in a process of its own, else of this process."""
        held = self._seen.get(asset.key)
        if held is None:
            own = getattr(self._executor, "runtime_of", None) if asset.environment is not None else None
            held = self._seen[asset.key] = (
                own(asset.key, max(1, int(asset.resources.cores)))
                if own is not None
                else self.runtime(asset.resources.cores, isolated=self.isolates(asset))
            )
        return held

    def runtime(self, cores: float, *, isolated: bool) -> Runtime:
        """A runtime; read once a run."""
        threads = max(1, int(cores)) if isolated else None
        with self._lock:
            if threads not in self._runtimes:
                sees = getattr(self._executor, "runtime", None)  # another interpreter has other packages
                self._runtimes[threads] = sees(threads) if sees is not None else runtime(threads)
            return self._runtimes[threads]

    def params(self, asset: Asset) -> dict[str, Any]:
        """The asset's parameters with what the run sets."""
        chosen = self._options.params
        if not chosen:
            return dict(asset.params)
        return {**asset.params, **chosen.get(asset.name, {}), **chosen.get(asset.key, {})}

    def seed(self) -> dict[str, int]:
        """The seed of the run, where it has one."""
        return {} if self._options.seed is None else {"seed": self._options.seed}

    def recipe(self, asset: Asset, inputs: Mapping[str, str]) -> tuple[str, Ingredients]:
        """A step's key, and what it is made of; see `identity.recipe`."""
        assert asset.function is not None
        closure = self._closure(asset)
        runner = runner_identity(asset.runner)
        environment = self.runtime_of(asset)
        host, packages = self._surrounded(environment, frozenset((*closure.packages, *runner.packages)))
        made_of = Ingredients(
            asset.key,
            closure.parts,
            packages,
            host,
            {**asset.facts, **self._options.bound.get(asset.key, {}), **self.seed()},
            {
                "step": asset.key,
                "runner": f"{asset.runner} {runner.digest}",
                "codec": asset.codec or self._codecs.get(asset.kind, ""),
                **({"each": asset.each.parameter} if asset.each is not None else {}),
            },
            closure.opaque,
        )
        key = recipe(
            closure=closure.hash,
            packages=made_of.packages,
            host=made_of.host,
            params=self.params(asset),
            inputs=inputs,
            facts=made_of.facts,
            how=made_of.how,
        )
        return key, made_of

    def _surrounded(self, environment: Runtime, imports: frozenset[str]) -> tuple[dict[str, Any], dict[str, str]]:
        """Host and packages, which most steps of a run share; the runtimes live as long as this."""
        place = id(environment)
        host = self._hosts.get(place)
        if host is None:
            host = self._hosts[place] = {name: environment.version.manifest[name] for name in HOST}
        needed = self._needed.get((place, imports))
        if needed is None:
            needed = self._needed[place, imports] = environment.restricted(imports)
        return host, needed

    def _closure(self, asset: Asset) -> Closure:
        """The closure of a step; of one that runs for many items, or in many trials, it is read once."""
        assert asset.function is not None
        if asset.each is None and asset.search is None:
            return closure_hash(asset.function, self._origin.root)
        held = self._closures.get(asset.key)
        if held is None or held[0] is not asset.function:
            held = self._closures[asset.key] = (asset.function, closure_hash(asset.function, self._origin.root))
        return held[1]
