"""Gathers what is recorded about a model into its card."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from everloop.catalog import refs, steps, versions
from everloop.catalog.context import Context
from everloop.catalog.engine import Tx
from everloop.catalog.governance import changes as rows
from everloop.catalog.governance import results
from everloop.catalog.governance.changes import Change
from everloop.catalog.governance.results import Result
from everloop.catalog.operation import Answer, Command, operation
from everloop.catalog.versions import VersionRow
from everloop.checks.card import Card, Row, Section, provided
from everloop.checks.definitions import ObjectiveDef
from everloop.core.clock import iso
from everloop.core.errors import CorruptObject, InvalidInput, NotFound
from everloop.core.grants import SANDBOX
from everloop.core.ids import is_id
from everloop.flows.compute.operations import costs_of
from everloop.flows.compute.profiles import MILLION

_PEOPLE = (
    ("intended_purpose", "Intended purpose", "owner"),
    ("intended_users", "Intended users, and who it is used on", "owner"),
    ("out_of_scope", "Uses it is not meant for", "owner"),
    ("limitations", "Known limits and foreseeable harm", "owner"),
    ("metric_rationale", "Why these metrics fit", "owner"),
    ("data_origin", "How the data was obtained, and its legal basis", "steward"),
    ("oversight", "Human oversight", "owner"),
)
"""What only people can say: key in the trainer's `card`, label, who owes it."""


class ShowCard(Command):
    """A model: id, the beginning of one, `model/delay` or `model/delay@7`."""

    model: str


class CardView(Answer):
    """A model's card, rendered."""

    model: str
    title: str
    markdown: str
    html: str
    missing: list[str]
    warnings: list[str]


@operation("checks.card", needs="read", reads=True)
def show_card(ctx: Context, cmd: ShowCard) -> CardView:
    """The card of a model, from what is recorded about it."""
    found = card(ctx, cmd.model)
    return CardView(
        model=found.model,
        title=found.title,
        markdown=found.markdown(),
        html=found.html(),
        missing=list(found.missing),
        warnings=list(found.warnings),
    )


def card(ctx: Context, model: str) -> Card:
    """The card of a model given by id or `model/name@number`. Raises `NotFound`, `InvalidInput`."""
    with ctx.read() as tx:
        row = versions.find(tx, ctx.project, model)
        if row.kind != "model":
            raise InvalidInput(f"{model} is a {row.kind}", hint="cards are of models: model/delay@7")
        found = _results(tx, ctx.project, row.id)
        touched = rows.touching(tx, ctx.project, row.id)
        changes = [c for c in touched if row.id in {new for _, new in c.delta.values()}]
        trainer = versions.manifests(tx, ctx.project, [str(row.manifest.get("trainer", ""))])
        said: Mapping[str, Any] = next(iter(trainer.values()), {}).get("card", {})
        sections = [
            _identity(row),
            Section("Purpose", tuple(provided(label, str(said.get(key, "")), role) for key, label, role in _PEOPLE)),
            _lineage(tx, ctx.project, row),
            _made(tx, ctx.project, row, found),
            *_cost(tx, ctx.project, row),
            _metrics(row, found),
            _verdicts(tx, ctx.project, found),
        ]
        review, warnings = _review(tx, ctx.project, changes)
        last = [review, _places(tx, ctx.project, row)]
        evidence = versions.manifests(tx, ctx.project, {r.evidence for r in found})
    reports = sorted({str(m["report"]) for m in evidence.values() if m.get("report")})
    sections += [*_slices(ctx, reports), *last]
    return Card(row.id, f"Model card: {row.name} v{row.number}", tuple(sections), tuple(warnings))


def _results(tx: Tx, project: str, model: str) -> list[Result]:
    """The newest result of each check, objective and environment that looked at the model as the candidate."""
    edges = versions.downstream(tx, project, model, 1)
    evidence = {e.to_id for e in edges if e.role.startswith("subject:") and e.role != "subject:champion"}
    newest: dict[tuple[str, str, str], Result] = {}
    for result in results.of_evidence(tx, project, evidence):
        newest.setdefault((result.check_id, result.objective_id, result.environment), result)
    return sorted(newest.values(), key=lambda r: (r.environment, r.name))


def _identity(row: VersionRow) -> Section:
    m = row.manifest
    signature = m.get("signature", {})
    inputs = signature.get("inputs", []) if isinstance(signature, Mapping) else []
    names = ", ".join(str(i.get("name", i)) if isinstance(i, Mapping) else str(i) for i in inputs)
    facts = [
        Row("Name", f"{row.name} v{row.number}"),
        Row("Version id", row.id, row.id),
        Row("Canonical digest", str(m.get("digest", "")), str(m.get("digest", ""))),
        Row("Kind of model", str(m.get("estimator") or m.get("flavor", ""))),
        Row("Predicts", f"{m.get('label', '')} ({signature.get('output', 'value')})"),
        Row("Inputs", names or "not recorded"),
        Row("Trained", f"{iso(row.at)} by {row.actor}"),
    ]
    return Section("Identity", tuple(facts))


def _lineage(tx: Tx, project: str, row: VersionRow) -> Section:
    """Everything with rows that led to the model, nearest first, with its size and when it was recorded."""
    edges = versions.upstream(tx, project, row.id)
    roles = {row.manifest.get("frame"): "training frame", row.manifest.get("holdout"): "holdout"}
    ids = dict.fromkeys([*(str(i) for i in roles if i), *(e.from_id for e in edges)])
    held = versions.manifests(tx, project, list(ids))
    table = []
    for identity in ids:
        if held.get(identity, {}).get("kind") not in ("data", "frame"):
            continue
        version = versions.get(tx, project, identity)
        count = version.manifest.get("rows")
        size = f"{count:,}" if isinstance(count, int) else "not recorded"
        table.append((roles.get(identity, "data"), f"{version.key} v{version.number}", size, iso(version.at), identity))
    facts = []
    for kind in ("service", "trainer"):
        identity = str(row.manifest.get(kind, ""))
        label = versions.labels(tx, project, [identity]).get(identity, identity) if is_id(identity) else identity
        facts.append(Row(f"Feature {kind}" if kind == "service" else "Trainer", label or "none", identity))
    head = ("role", "version", "rows", "recorded", "id")
    return Section("Data and features", tuple(facts), head, tuple(table))


def _made(tx: Tx, project: str, row: VersionRow, found: Iterable[Result]) -> Section:
    made = steps.of_output(tx, project, row.id)
    sealed = _seals(tx, project, row, found)
    if not made:
        missing = Row("Step", "NOT PROVIDED by the engine: no step recorded it", missing=True)
        return Section("How it was made", (missing, *sealed))
    step = made[0]
    known = versions.manifests(tx, project, [i for i in (step.code, step.runtime) if is_id(i)])
    runtime = known.get(step.runtime, {})
    facts = [
        Row("Recipe", step.recipe, step.recipe),
        Row("Code", str(known.get(step.code, {}).get("commit") or "the project's files"), step.code),
        Row("Runtime", f"Python {runtime.get('python', 'not recorded')}", step.runtime),
        Row("Run", step.run or "none"),
        *sealed,
        Row("Cost", f"{step.seconds:.1f} s, {step.cpu_seconds:.1f} CPU s, {step.peak_memory / 2**20:.0f} MiB at most"),
    ]
    params = tuple((name, json.dumps(value)) for name, value in sorted(step.params.items()))
    return Section("How it was made", tuple(facts), ("parameter", "value") if params else (), params)


def _cost(tx: Tx, project: str, row: VersionRow) -> list[Section]:
    """What the model used and cost, alone and with all that it was made from; nothing for one that no run made."""
    own, whole = costs_of(tx, project, row.id)
    table = [
        (
            said,
            f"{one.cost / MILLION:,.4f} {one.currency}" if one.currency else "no price",
            f"{one.cpu_seconds:,.1f}",
            f"{one.gpu_seconds:,.1f}",
            f"{one.seconds:,.1f}",
            f"{one.peak_memory / 2**20:,.0f}",
            str(one.count),
        )
        for said, sums in (("this model", own), ("with all it was made from", whole))
        for one in sums
    ]
    head = ("of", "cost", "CPU s", "GPU s", "seconds", "MiB at most", "attempts")
    return [Section("Compute and cost", (), head, tuple(table))] if table else []


def _seals(tx: Tx, project: str, row: VersionRow, found: Iterable[Result]) -> list[Row]:
    """The seals of its run that the version and its evidence cite: what the run held then."""
    cited = {edge.from_id for edge in versions.upstream(tx, project, row.id, 1) if edge.role == "run"}
    for evidence in sorted({result.evidence for result in found}):
        cited |= {e.from_id for e in versions.upstream(tx, project, evidence, 1) if e.role.startswith("run:")}
    rows = [versions.get(tx, project, identity) for identity in sorted(cited)]
    return [Row("Run, sealed", f"{one.manifest['run']}, seal {one.number}", one.id) for one in rows]


def _metrics(row: VersionRow, found: Iterable[Result]) -> Section:
    """Metrics of the holdout as the model recorded them, with the interval where a check measured one."""
    intervals: dict[str, str] = {}
    for result in found:
        f = result.figures
        for name in f:
            if f"{name}_low" in f and f"{name}_high" in f:
                intervals.setdefault(name, f"[{_number(f[f'{name}_low'])}, {_number(f[f'{name}_high'])}]")
    metrics = {str(k): str(v) for k, v in row.manifest.get("metrics", {}).items()}
    measured = {n: r.figures[n] for r in found for n in r.figures if n in intervals and n != "improvement"}
    table = [
        (name, _number(value), intervals.get(name, "not measured")) for name, value in {**measured, **metrics}.items()
    ]
    return Section("Metrics on the holdout", (), ("metric", "value", "95 % bootstrap interval"), tuple(sorted(table)))


def _verdicts(tx: Tx, project: str, found: list[Result]) -> Section:
    objectives = versions.manifests(tx, project, {r.objective_id for r in found if r.objective_id})
    facts = []
    for manifest in objectives.values():
        objective = ObjectiveDef.from_manifest(manifest)
        facts.append(Row(f"Objective {objective.name}", str(objective)))
        facts.append(provided(f"Owner of {objective.name}", objective.owner, "owner"))
    table = tuple((r.name, r.environment, r.state, r.summary, r.actor, r.evidence) for r in found)
    return Section(
        "Objectives and checks", tuple(facts), ("check", "for", "outcome", "found", "run by", "evidence"), table
    )


def _slices(ctx: Context, reports: Iterable[str]) -> list[Section]:
    """Slices that checks put into their details as `slices: [{slice, rows, metric, value}]`."""
    head = ("slice", "rows", "metric", "value")
    table = [
        tuple(str(entry.get(k, "")) for k in head) for report in reports for entry in _reported_slices(ctx, report)
    ]
    return [Section("Slices", (), head, tuple(table))] if table else []


def _reported_slices(ctx: Context, report: str) -> list[Mapping[str, Any]]:
    try:
        details = json.loads(ctx.store.get(report)).get("details") or {}
    except (NotFound, CorruptObject):  # erased or damaged: the evidence stays, its report does not
        return []
    return [entry for entry in details.get("slices", []) if isinstance(entry, Mapping)]


def _review(tx: Tx, project: str, changes: Iterable[Change]) -> tuple[Section, list[str]]:
    table: list[tuple[str, ...]] = []
    warnings: list[str] = []
    for change in changes:
        own = sorted(set(change.approvers) & set(change.authors))
        if own:
            warnings.append(
                f"Self-approved by {', '.join(own)} for {change.target} (solo policy), change #{change.number}"
            )
        said = [a for a in rows.approvals_of(tx, project, change.number) if a.actor in change.approvers]
        names = ", ".join(f"{a.actor} ({', '.join(sorted(a.roles)) or 'no role'})" for a in said) or "nobody"
        state = f"{change.state} {iso(change.merged_at)}" if change.merged_at else change.state
        table.append((f"#{change.number} {change.title}", change.target, state, ", ".join(change.authors), names))
    head = ("change", "target", "state", "authors", "approved by")
    return Section("Review", (), head, tuple(table)), warnings


def _places(tx: Tx, project: str, row: VersionRow) -> Section:
    table = []
    for name, snapshot in refs.all(tx, project, refs.env_ref("")).items():
        environment = name.removeprefix("env/")
        if environment.startswith(SANDBOX):
            continue
        entries = versions.get(tx, project, snapshot).manifest["entries"]
        if row.id in entries.values():
            last = refs.log(tx, project, name, 1)[0]
            table.append((environment, iso(last.at), snapshot))
    return Section("Where it is live", (), ("environment", "since", "snapshot"), tuple(table))


def _number(text: str) -> str:
    try:
        return f"{float(text):.4f}"
    except ValueError:
        return text
