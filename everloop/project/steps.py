"""Steps of one's own beside datasets and models, approvals inside a run, and how any of them is executed."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from everloop.core.errors import DefinitionError, InvalidInput
from everloop.core.ports import Resources
from everloop.flows.assets import Asset, define, key_of
from everloop.flows.compute.profiles import Price, Profile, Profiles, placed, profile
from everloop.flows.control import Approval, Each, Environment, Retry, bytes_of, seconds_of
from everloop.flows.search.definitions import Search
from everloop.project.placing import at_caller, place


def limits(
    *, cores: float = 1.0, memory: str | int | None = None, timeout: str | float | None = None, gpus: float = 0.0
) -> Resources:
    """What a step may use: `limits(cores=2, memory="2GB", timeout="10m")`.

    A step with a limit of memory or time runs in a process of its own, which is ended when it goes beyond.
    Raises `DefinitionError` for what is no amount.
    """
    if cores <= 0 or gpus < 0:
        raise DefinitionError(f"a step cannot have {cores:g} cores and {gpus:g} GPUs", hint="cores from above 0")
    return Resources(cores, bytes_of(memory), seconds_of(timeout), gpus)


class Steps:
    """The part of a `Project` that is about steps."""

    def __init__(self) -> None:
        """Start without any."""
        self.steps: dict[str, Asset] = {}
        self.computes: dict[str, Profile] = {}
        self._run_with: dict[str, tuple[Resources | None, Retry | None, str, Environment | None]] = {}

    @property
    def profiles(self) -> Profiles:
        """The compute profiles that this project declares."""
        return Profiles(self.computes)

    def compute(
        self,
        name: str,
        *,
        cores: float = 1.0,
        memory: str | int | None = None,
        gpus: float = 0.0,
        timeout: str | float | None = None,
        price: Price | None = None,
        default: bool = False,
    ) -> Profile:
        """A profile that steps and models may run on (`compute="large"`), with what it costs.

        Who uses it needs the grant `compute.use compute/<name>`. One may be the `default`: what names no profile gets
        it, and it needs no grant.
        """
        made = at_caller(
            lambda: profile(name, cores=cores, memory=memory, gpus=gpus, timeout=timeout, price=price, default=default)
        )
        at_caller(lambda: Profiles({**self.computes, name: made}))
        self._add("compute", name, self.computes, made)
        return made

    def step(
        self,
        *,
        each: Each | None = None,
        only_if: str = "",
        unless: str = "",
        joins: bool = False,
        compute: str = "",
        limits: Resources | None = None,
        retry: Retry | None = None,
        upstream: Mapping[str, str] | None = None,
        search: Search | None = None,
        environment: Environment | None = None,
    ) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Decorate a function that gives a value: anything that is no table and no model.

        `each=el.map("part", over="parts")` runs it once for every item of a list. `only_if` and `unless` name a value
        that decides whether it runs; what needs a skipped step is skipped too, unless it `joins`: then it gets None.
        `search=el.search(…)` runs it many times with other parameters and gives the best.
        `compute` names the profile that it runs on, of which `limits` may take a part; `environment=el.environment(…)`
        gives it packages of its own.
        """

        def declare(function: Callable[..., Any]) -> Callable[..., Any]:
            asset = at_caller(
                lambda: define(
                    function,
                    upstream=upstream,
                    retry=retry,
                    each=each,
                    only_if=only_if,
                    unless=unless,
                    joins=joins,
                    search=search,
                )
            )
            made = replace(asset, compute=compute, limits=limits, environment=environment)
            self._add("step", asset.name, self.steps, made)
            return function

        return declare

    def approval(
        self,
        name: str,
        *,
        of: str | Iterable[str],
        role: str = "approver",
        within: str | float = "7d",
        own: bool = False,
    ) -> None:
        """A step that waits until a person approves what the assets `of` gave; what needs it gets True.

        The run parks meanwhile and holds no worker. It goes on when somebody with `role` approves (who started the run
        only where it is their `own` to approve), and ends when they refuse, or after the time `within`.
        """
        listed = [of] if isinstance(of, str) else list(of)

        def made() -> Asset:
            seconds = seconds_of(within)
            assert seconds is not None
            needs = {one.replace("/", "_"): one for one in listed}
            return Asset(key_of("value", name), None, needs, place=place(), approval=Approval(role, seconds, own))

        self._add("step", name, self.steps, at_caller(made))

    def run_with(
        self,
        definition: Any,
        *,
        limits: Resources | None = None,
        retry: Retry | None = None,
        compute: str = "",
        environment: Environment | None = None,
    ) -> None:
        """Say with what a dataset or a model of this project is made.

        That is `el.limits(...)`, `el.Retry(...)`, the name of a profile, `el.environment(...)`.
        """
        kind, _, name = self._key_of(definition).partition("/")
        if kind not in ("dataset", "trainer"):
            raise DefinitionError(f"{place()}: a {kind} is not executed", hint="say it of a dataset or a model")
        self._run_with[f"{'data' if kind == 'dataset' else 'model'}/{name}"] = (limits, retry, compute, environment)

    def with_steps(self, assets: Iterable[Asset]) -> list[Asset]:
        """Assets as they are executed, with the steps behind them; raises `DefinitionError` for an unknown profile."""
        found = []
        for asset in [*assets, *self.steps.values()]:
            limits, retry, compute, environment = self._run_with.get(asset.key, (None, None, "", None))
            asked = replace(
                asset,
                compute=compute or asset.compute,
                limits=limits or asset.limits,
                retry=retry or asset.retry,
                environment=environment or asset.environment,
            )
            try:
                found.append(placed(asked, self.profiles))
            except InvalidInput as error:
                raise DefinitionError(f"{asset.place}: {error.message}", hint=error.hint) from error
        return found

    def _add(self, kind: str, name: str, into: dict[str, Any], made: Any) -> None:
        raise NotImplementedError

    def _key_of(self, definition: Any) -> str:
        raise NotImplementedError
