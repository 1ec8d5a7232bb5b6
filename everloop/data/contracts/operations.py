"""The operations of contracts: what is promised of a dataset and how it went, and how far columns drifted."""

from operator import itemgetter
from typing import Any

from everloop import data
from everloop.catalog import facts, refs, versions
from everloop.catalog.context import Context
from everloop.catalog.operation import Answer, Command, operation
from everloop.core.grants import Target
from everloop.data import contracts
from everloop.data.definitions import Contract
from everloop.data.heads import find_version
from everloop.data.sensitive.masking import column_tags, hidden

_TOP = 12


class OfDataset(Command):
    """A dataset in an environment."""

    name: str
    environment: str = "production"


class ContractView(Answer):
    """What is promised of a dataset, by whom, and how the newest version that was checked kept it."""

    name: str
    environment: str
    definition: str
    """The version that promises it; empty when nobody does."""
    held: bool
    """Whether the environment's snapshot holds that definition; else it is the newest one."""
    authors: list[str]
    """Who recorded the definitions, the newest first."""
    expectations: list[dict[str, str]]
    checked: str
    """The version of the newest results; empty while none was checked."""
    moved: bool
    at: int
    results: list[dict[str, Any]]


class Drift(Command):
    """Two versions, named as in `data.show`."""

    old: str
    new: str
    environment: str = ""


class DriftView(Answer):
    """How far the columns that both have drifted, the farthest first; hidden ones are left out."""

    old: str
    new: str
    columns: list[dict[str, Any]]
    """name, test, distance, and of both sides: nulls (share), quantiles, top."""
    hidden: list[str]


def _on_dataset(_ctx: Context, cmd: OfDataset) -> Target:
    return Target("data", cmd.name, cmd.environment)


def _on_drift(ctx: Context, cmd: Drift) -> Target:
    return Target("data", find_version(ctx, cmd.new, cmd.environment).name, cmd.environment)


@operation("data.contract", needs="read", on=_on_dataset, audit="denied", reads=True)
def contract(ctx: Context, cmd: OfDataset) -> ContractView:
    """The contract of a dataset as the environment holds it, and the newest results."""
    keys = [f"source/{cmd.name}", f"dataset/{cmd.name}"]
    with ctx.read() as tx:
        snapshot = refs.get(tx, ctx.project, refs.env_ref(cmd.environment))
        entries = versions.manifests(tx, ctx.project, [snapshot])[snapshot]["entries"] if snapshot else {}
        known = [row for key in keys for row in versions.history(tx, ctx.project, *key.split("/", 1), limit=20)]
        found = facts.tail(tx, ctx.project, kinds=("data.checked",), subject=f"data/{cmd.name}", limit=20)
    own = next((entries[key] for key in keys if key in entries), "")
    row = next((row for row in known if row.id == own), known[0] if known else None)
    newest = next((f for f in found if f.payload.get("environment") == cmd.environment), None)
    promised = Contract.from_manifest(row.manifest).expect if row else ()
    return ContractView(
        name=cmd.name,
        environment=cmd.environment,
        definition=row.id if row else "",
        held=bool(row and row.id == own),
        authors=list(dict.fromkeys(one.actor for one in known)),
        expectations=[{"expectation": str(e), "severity": e.severity} for e in promised],
        checked=newest.payload["version"] if newest else "",
        moved=bool(newest and newest.payload["moved"]),
        at=newest.at if newest else 0,
        results=list(newest.payload["results"]) if newest else [],
    )


@operation("data.drift", needs="read", on=_on_drift, audit="denied", reads=True, engine=True)
def drift(ctx: Context, cmd: Drift) -> DriftView:
    """How far the distributions of two versions lie apart, column by column, off their profiles."""
    rows = [find_version(ctx, which, cmd.environment) for which in (cmd.old, cmd.new)]
    ctx.need("read", Target("data", rows[0].name, cmd.environment))
    masked = {c for row in rows for c in hidden(ctx, "data", row.name, cmd.environment, column_tags(ctx, row))}
    old, new = (data.profile_of(ctx, row.id).columns for row in rows)
    found: list[tuple[float, str, dict[str, Any]]] = []
    for name in (n for n in new if n in old and n not in masked):
        far = contracts.drift_of(old[name], new[name])
        if far is not None:
            sides = {"old": _side(old[name].json()), "new": _side(new[name].json())}
            told = {"name": name, "test": far[0], "distance": round(far[1], 4), **sides}
            found.append((-far[1], name, told))
    columns = [told for *_, told in sorted(found, key=itemgetter(0, 1))]
    return DriftView(old=rows[0].id, new=rows[1].id, columns=columns, hidden=sorted(masked & new.keys()))


def _side(told: dict[str, Any]) -> dict[str, Any]:
    rows = max(told["rows"], 1)
    top = [[str(value), count / rows] for value, count in told.get("top", ())[:_TOP]]
    return {"nulls": told["nulls"] / rows, "quantiles": told.get("quantiles", []), "top": top}
