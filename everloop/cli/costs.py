"""What things cost, the compute that they run on, and the budgets that hold it."""

from typing import Annotated, Any

import typer

from everloop.cli.output import output
from everloop.cli.session import session
from everloop.flows.compute.profiles import MILLION

compute = typer.Typer(help="Compute profiles: what steps run on, and what that costs.", no_args_is_help=True)
budget = typer.Typer(help="Budgets of the project, people and runs.", no_args_is_help=True)
Scope = Annotated[str, typer.Argument(help="project, person/NAME, person/* (each), flow/RUN or flow/* (each run).")]
Environment = Annotated[str, typer.Option("--env", help="The environment that holds them.")]
_COSTS = ["cost", "currency", "core_hours", "gpu_hours", "seconds", "peak_mb", "written_mb", "count"]


def add_to(app: typer.Typer) -> None:
    """Register the commands of this module."""
    app.command()(cost)
    app.add_typer(compute, name="compute")
    app.add_typer(budget, name="budget")


def cost(
    by: Annotated[
        list[str] | None,
        typer.Argument(
            help="person, flow, step, run, model, version, endpoint, profile, environment, month, day, state; up to 3."
        ),
    ] = None,
    *,
    days: Annotated[int, typer.Option("--days", help="Of how many days until now.")] = 30,
    person: Annotated[str, typer.Option("--person", help="Only of this one.")] = "",
    flow: Annotated[str, typer.Option("--flow", help="Only of this run.")] = "",
    of: Annotated[str, typer.Option("--of", help="What a version took: model/delay@7.")] = "",
    limit: Annotated[int, typer.Option("--limit", help="How many rows.")] = 50,
) -> None:
    """What was used and paid, grouped; the dearest first."""
    groups = tuple(by or ("person",))
    with session.client() as client:
        if of:
            found = client.call("costs.version", version=of)
            rows = [{"of": "itself", **_shown(one)} for one in found.own]
            rows += [{"of": "with its lineage", **_shown(one)} for one in found.lineage]
            output.rows(rows, ["of", *_COSTS], empty="nothing is known of what it took")
            return
        asked: dict[str, Any] = {"by": groups, "person": person, "flow": flow, "limit": limit}
        told = client.call("costs.report", days=days, **asked)
    rows = [dict(zip(groups, one.keys, strict=True)) | _shown(one) for one in told.rows]
    rows += [{groups[0]: "all"} | _shown(one) for one in told.total]
    output.rows(rows, [*groups, *_COSTS], empty="nothing was run in this time")


@compute.command("list")
def list_profiles(environment: Environment = "production") -> None:
    """The profiles that an environment holds; those of production are in force."""
    with session.client() as client:
        found = client.call("compute.list", environment=environment).profiles
    columns = ["name", "cores", "memory", "gpus", "seconds", "costs", "default", "may_use"]
    output.rows([one.model_dump(mode="json") for one in found], columns, empty="none")


@compute.command("show")
def show_profile(name: str, environment: Environment = "production") -> None:
    """One profile."""
    with session.client() as client:
        output.show(client.call("compute.show", name=name, environment=environment))


@budget.command("list")
def list_budgets() -> None:
    """Every budget with what was used of it."""
    with session.client() as client:
        found = client.call("budgets.list").budgets
    rows = [
        {
            "scope": held.scope,
            "period": held.period or "the run",
            "used": used(one, held),
            "of": limits(one),
            "state": held.state,
        }
        for one in found
        for held in one.holds
    ]
    named = {row["scope"] for row in rows}
    rows += [{"scope": one.scope, "of": limits(one), "state": "ok"} for one in found if one.scope not in named]
    output.rows(rows, ["scope", "period", "used", "of", "state"], empty="there are no budgets")


@budget.command("set")
def set_budget(
    scope: Scope,
    *,
    money: Annotated[str, typer.Option("--money", help="As 250 or 12.50.")] = "",
    currency: Annotated[str, typer.Option("--currency", help="Its three letters.")] = "",
    core_hours: Annotated[float | None, typer.Option("--core-hours")] = None,
    gpu_hours: Annotated[float | None, typer.Option("--gpu-hours")] = None,
    warn: Annotated[float, typer.Option("--warn", help="The share from which people are told.")] = 0.8,
) -> None:
    """Set what a scope may use: in a month, or as one run."""
    asked = {"scope": scope, "money": money, "currency": currency, "core_hours": core_hours, "gpu_hours": gpu_hours}
    with session.client() as client:
        made = client.call("budgets.set", **asked, warn=warn)
    output.show(made, f"{made.scope} may use {limits(made)}")


@budget.command("remove")
def remove_budget(scope: Scope) -> None:
    """Take a budget away."""
    with session.client() as client:
        client.call("budgets.remove", scope=scope)
    output.say(f"{scope} has no budget any more")


def limits(one: Any) -> str:
    """What a budget allows, for people."""
    return _amounts(one.currency, one.cost, one.cpu_seconds, one.gpu_seconds)


def used(one: Any, held: Any) -> str:
    """What was used of a budget, in the units that it limits."""
    return _amounts(
        one.currency,
        held.cost if one.cost is not None else None,
        held.cpu_seconds if one.cpu_seconds is not None else None,
        held.gpu_seconds if one.gpu_seconds is not None else None,
    )


def _amounts(currency: str, cost: int | None, cores: float | None, gpus: float | None) -> str:
    said = [] if cost is None else [f"{currency} {cost / MILLION:,.2f}"]
    said += [] if cores is None else [f"{cores / 3600:,.2f} core-hours"]
    return ", ".join([*said, *([] if gpus is None else [f"{gpus / 3600:,.2f} GPU-hours"])])


def _shown(one: Any) -> dict[str, Any]:
    return {
        "cost": f"{one.cost / MILLION:,.4f}" if one.currency else "",
        "currency": one.currency,
        "core_hours": round(one.cpu_seconds / 3600, 4),
        "gpu_hours": round(one.gpu_seconds / 3600, 4),
        "seconds": round(one.seconds, 2),
        "peak_mb": round(one.peak_memory / 1e6),
        "written_mb": round(one.written / 1e6),
        "count": one.count,
    }
