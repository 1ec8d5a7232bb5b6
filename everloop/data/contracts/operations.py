"""The operations of contracts: what is promised of a dataset and how it went, and how far columns drifted."""

from operator import itemgetter
from typing import Any

from everloop import data
from everloop.catalog import facts, refs, versions
from everloop.catalog.context import Context
from everloop.catalog.operation import Answer, Command, operation
from everloop.core.errors import InvalidInput, NotFound
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


class Failing(OfDataset):
    """The rows of a version that break an expectation of the contract."""

    expectation: str
    """As results say it: `between(distance, lower=0, upper=6000)`."""
    version: str = ""
    """Named as in `data.show`; by default the one of the newest results, else the head."""
    format: str = "csv"
    """`csv` or `parquet`."""


class FailingView(Answer):
    """A file of rows."""

    id: str
    """The version."""
    name: str
    number: int
    expectation: str
    rows: int
    cut: bool
    """Whether there are more rows than the file holds: 20,000."""
    masked: list[str]
    """Columns whose values the asker may not see."""
    format: str
    content: str
    """The file in base64."""


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


def _on_failing(_ctx: Context, cmd: Failing) -> Target:
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


@operation("data.failing", needs="read", on=_on_failing, audit="denied", reads=True, engine=True)
def failing(ctx: Context, cmd: Failing) -> FailingView:
    """The rows that break an expectation as CSV or Parquet, masked for who may not see a column."""
    told = contract(ctx, OfDataset(name=cmd.name, environment=cmd.environment))
    if not told.definition:
        raise NotFound(f"nothing is expected of data/{cmd.name}", hint="`everloop data expect` drafts expectations")
    with ctx.read() as tx:
        promised = Contract.from_manifest(versions.get(tx, ctx.project, told.definition).manifest).expect
    wanted = next((e for e in promised if str(e) == cmd.expectation), None)
    if wanted is None:
        raise NotFound(
            f"{cmd.expectation!r} is not expected of data/{cmd.name}", hint="one of: " + "; ".join(map(str, promised))
        )
    row = find_version(ctx, cmd.version or told.checked or cmd.name, cmd.environment)
    if row.name != cmd.name:
        raise InvalidInput(f"{cmd.version} is a version of data/{row.name}, not of data/{cmd.name}")
    found = contracts.handed(ctx, row, wanted, cmd.format, cmd.environment)
    return FailingView(
        id=row.id,
        name=row.name,
        number=row.number,
        expectation=str(wanted),
        rows=found.rows,
        cut=found.cut,
        masked=list(found.masked),
        format=cmd.format,
        content=found.content,
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
