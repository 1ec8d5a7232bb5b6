"""Run a plan: reuse what was made from the same recipe, execute the rest, record each step as it ends.

Downstream keys are made of output ids, never of upstream keys: an edit that gives the same output stops there. What
a killed run had finished is in the catalog, so a new run repeats only the steps that were in flight.
"""

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from typing import Any, Literal

from everloop.catalog.context import Context
from everloop.catalog.engine import Tx
from everloop.catalog.making import flows
from everloop.catalog.making.flows import Flow
from everloop.core.errors import Cancelled, EverloopError, InvalidInput, OverBudget
from everloop.core.ports import Executor, RunSink
from everloop.flows.assets import Asset, suggest
from everloop.flows.compute.accounts import Accounts
from everloop.flows.compute.admission import admitted
from everloop.flows.compute.profiles import Profile, Profiles, hourly
from everloop.flows.identity import project_tree
from everloop.flows.identity.recipe import plain_text
from everloop.flows.observation.observed import Said
from everloop.flows.running.approving import Approvals, remind
from everloop.flows.running.attempt import Attempts
from everloop.flows.running.driver import Driver
from everloop.flows.running.finding import objects_of
from everloop.flows.running.interrupting import Interrupts
from everloop.flows.running.keys import HOST, Keys
from everloop.flows.running.known import Known
from everloop.flows.running.ledger import Ledger
from everloop.flows.running.settings import Done, Options, Origin, Progress, Results, State
from everloop.flows.search.driving import check_params

__all__ = ["HOST", "Done", "Options", "Origin", "Progress", "Results", "State", "objects_of", "owner", "run"]


def run(
    ctx: Context,
    plan: Sequence[Asset],
    *,
    origin: Origin,
    executor: Executor,
    codecs: Mapping[str, str],
    runs: RunSink | None = None,
    options: Options | None = None,
    progress: Progress | None = None,
    said: Said | None = None,
) -> Results:
    """Make every asset of `plan` (see `assets.plan`) and return the outputs' ids.

    `codecs` names a codec (`module:attribute`) for each kind of version. `said` shows the lines that steps print.
    A finished step is recorded in one transaction, short ones together. Raises `StepFailed` for user code, after the
    steps that ran beside it have ended and were recorded; `Cancelled` when somebody ended the run; `Conflict` when
    another process went on with it; `PolicyRefused` when an approval was refused; `InvalidInput` for a given asset
    without a version, or a parameter that no step has. A run that waits for a person returns with `parked` steps.
    """
    chosen = options or Options()
    keys = Keys(origin, executor, codecs, chosen)
    plan, profiles = _admitted(ctx, plan, chosen, keys)
    if chosen.price is None:  # searches with a budget of money ask
        chosen = replace(chosen, price=lambda asset: hourly(profiles.get(asset.key)))
    code = chosen.code or project_tree(origin.root, ctx.store, origin.name).version
    flow = chosen.flow or (_open(ctx, plan, chosen) if chosen.recorded else None)
    interrupts = Interrupts()
    accounts = _accounts(ctx, flow, profiles, chosen)
    ledger = Ledger(ctx, flow, accounts)
    ledger.base(code)
    say: Progress = progress or (lambda _step, _state, _seconds: None)
    plain = [one.key for one in plan if one.function is not None and one.each is None and one.search is None]
    known = Known(ctx, plain)
    parts: dict[str, Any] = {"keys": keys, "known": known, "ledger": ledger, "progress": say, "interrupts": interrupts}
    attempts = Attempts(
        ctx,
        origin,
        executor,
        codecs=codecs,
        runs=runs,
        options=chosen,
        said=said,
        code=code,
        accounts=accounts,
        **parts,
    )
    approvals = Approvals(ctx, ledger, keys, code.id)
    driver = Driver(ctx, executor, chosen, attempts=attempts, approvals=approvals, code=code.id, runs=runs, **parts)
    ledger.stop = driver.stop
    given = {asset.key: chosen.given[asset.key] for asset in plan if asset.function is None and asset.approval is None}
    _drive(ctx, driver, ledger, plan, given)
    done = tuple(driver.done[asset.key] for asset in plan if asset.key in driver.done)
    runtime = keys.runtime(1, isolated=keys.isolated).version.id
    named = flow.id if flow is not None else ""
    return Results(
        done, driver.outputs, code.id, runtime, named, tuple(sorted(driver.skipped)), tuple(sorted(driver.parked))
    )


def owner() -> str:
    """This process, as it drives runs."""
    return f"{os.uname().nodename}:{os.getpid()}"


def _drive(ctx: Context, driver: Driver, ledger: Ledger, plan: Sequence[Asset], given: Mapping[str, str]) -> None:
    """Make the plan and close the run, whatever comes of it."""
    flow = ledger.flow

    def ended(_kind: object, error: BaseException | None, _trace: object) -> None:
        if error is None:
            return
        try:
            ledger.close()  # what ended well beside it
        except EverloopError:
            ledger.abort()
        if flow is not None:
            _close(ctx, flow, error)

    def last(tx: Tx) -> None:
        assert flow is not None
        held = flows.end(tx, ctx.project, flow, "parked" if driver.parked else "done", now=ctx.wall())
        if held and driver.parked:
            remind(tx, ctx, flow)

    with ExitStack() as end:
        end.push(ended)
        driver.make(plan, given)
        ledger.close(last if flow is not None else None)


def _close(ctx: Context, flow: Flow, error: BaseException) -> None:
    state: Literal["cancelled", "stopped", "failed"] = "failed"
    if isinstance(error, Cancelled | KeyboardInterrupt | SystemExit):
        state = "cancelled"
    elif isinstance(error, OverBudget):
        state = "stopped"
    said = str(error) or type(error).__name__
    with suppress(EverloopError), ctx.write() as tx:  # the database may be away: the run shows as lost then
        if flows.end(tx, ctx.project, flow, state, now=ctx.wall(), error=said[:2000]):
            flows.close_steps(tx, ctx.project, flow.id, "stopped" if state == "stopped" else "cancelled")


def _admitted(
    ctx: Context, plan: Sequence[Asset], options: Options, keys: Keys
) -> tuple[Sequence[Asset], Mapping[str, Profile]]:
    """The plan on its profiles; what is refused closes a run that was taken over."""
    try:
        plan, profiles = admitted(ctx, plan, options.profiles or Profiles(), options.environment)
        _check(plan, options, keys)
    except EverloopError as error:
        if options.flow is not None:
            _close(ctx, options.flow, error)
        raise
    return plan, profiles


def _accounts(ctx: Context, flow: Flow | None, profiles: Mapping[str, Profile], options: Options) -> Accounts:
    try:
        return Accounts(ctx, flow, profiles, options.environment)
    except EverloopError as error:
        if flow is not None:
            _close(ctx, flow, error)
        raise


def _open(ctx: Context, plan: Sequence[Asset], options: Options) -> Flow:
    listed = [{"step": one.key, "needs": list(one.needs), **_marks(one)} for one in plan]
    needed = {key for one in plan for key in one.needs}
    title = options.title or ", ".join(one.name for one in plan if one.key not in needed)[:200]
    with ctx.write() as tx:
        return flows.create(
            tx,
            ctx.project,
            title=title or "nothing",
            environment=options.environment,
            actor=ctx.actor.name,
            owner=owner(),
            request=options.request,
            plan=listed,
            now=ctx.wall(),
        )


def _marks(asset: Asset) -> dict[str, Any]:
    """What the pages say of a step before it ran."""
    approval = asset.approval
    found: dict[str, Any] = {"role": approval.role, "within": approval.within, "own": approval.own} if approval else {}
    if asset.each is not None:
        found["each"] = asset.each.parameter
    if asset.search is not None:
        found["search"] = list(asset.search.space)
    if asset.function is None and approval is None:
        found["given"] = True
    return found


def _check(plan: Sequence[Asset], options: Options, keys: Keys) -> None:
    """Refuse before anything runs what would fail later."""
    names = {asset.key for asset in plan} | {asset.name for asset in plan}
    for wanted, values in options.params.items():
        if wanted not in names:
            raise InvalidInput(f"parameters for {wanted!r}, which is not in the plan", hint=suggest(wanted, names))
        asset = next(asset for asset in plan if wanted in (asset.key, asset.name))
        unknown = next((name for name in values if name not in asset.params), None)
        if unknown is not None:
            raise InvalidInput(f"{asset.key} has no parameter {unknown!r}", hint=suggest(unknown, asset.params))
        check_params(asset, list(values))
    for asset in plan:
        plain_text(keys.params(asset))
        if asset.function is None and asset.approval is None and asset.key not in options.given:
            raise InvalidInput(
                f"{asset.key} has no version yet", hint=f"capture it: everloop data capture {asset.name}"
            )
        if asset.environment is not None and not keys.surrounds:
            raise InvalidInput(
                f"{asset.key} names an environment of its own, which this executor cannot give it",
                hint="run it on this machine, without a cluster",
            )
        if asset.function is not None and asset.resources.limited and not keys.isolates(asset):
            raise InvalidInput(
                f"{asset.key} has a limit of memory or time, which nothing holds it to in this process",
                hint="run it in a process of its own",
            )
