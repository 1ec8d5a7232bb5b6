"""Operations of serving: endpoints as wanted and as observed, predictions and where they come from, labels."""

from collections.abc import Collection
from typing import Any

from pydantic import Field

from everloop.catalog import facts, refs, versions
from everloop.catalog.context import Context
from everloop.catalog.engine import Tx
from everloop.catalog.governance import changes
from everloop.catalog.operating import predictions, rollouts
from everloop.catalog.operating.predictions import Label, PredictionRow
from everloop.catalog.operation import Answer, Command, operation
from everloop.core.clock import iso, parse_time
from everloop.core.errors import InvalidInput, NotFound
from everloop.core.grants import Target
from everloop.core.ids import short
from everloop.data.sensitive.masking import hidden_of, masked
from everloop.serving import segments
from everloop.serving.log import Entry
from everloop.serving.rollout import observe
from everloop.serving.rollout.experiments import of_state, routed
from everloop.serving.rollout.state import Plan, Rollout

MOST_LABELS = 50_000
MOST_LISTED = 1_000


class ListEndpoints(Command):
    """The endpoints of an environment."""

    environment: str = "production"


class ShowEndpoint(Command):
    """One endpoint."""

    name: str
    environment: str = "production"


class RevisionView(Answer):
    """A live revision: its share of the traffic as decided, and what each gateway counted."""

    id: str
    number: int
    weight: int
    observed: dict[str, dict[str, Any]]
    """By gateway: state, problem, requests, errors, fallbacks, p50_micros, p99_micros, ..."""


class EndpointView(Answer):
    """What is wanted of an endpoint, and what is."""

    name: str
    address: str
    environment: str
    phase: str
    """none, starting, shadow, canary, live, settled, reverted, failed."""
    target: str
    """The revision that the environment means."""
    serving: str
    """The revision that most callers meet now."""
    reason: str
    """Why it was reverted or failed."""
    blocked: str
    """Why the newest definition makes no revision."""
    evidence: dict[str, Any]
    since: str
    revisions: list[RevisionView]
    """All that are live, each with its share."""
    experiment: dict[str, Any]
    """Champion and challengers: shares, states, and the course of each one's interval; empty without one."""


class EndpointList(Answer):
    """Endpoints by name."""

    endpoints: list[EndpointView]


class PredictionQuery(Command):
    """One prediction, by the id in its reply (`<id>.<row>` where several rows were asked at once)."""

    id: str


class NewestPredictions(Command):
    """The newest predictions of an endpoint."""

    endpoint: str
    limit: int = 20
    environment: str = "production"


class PredictionLine(Answer):
    """That something was answered: by whom and how fast, not what."""

    id: str
    at: str
    revision: str
    """`revision/name v7`."""
    milliseconds: float
    fallback: bool


class PredictionLines(Answer):
    """Predictions, the newest first."""

    predictions: list[PredictionLine]


class PredictionView(Answer):
    """What was asked and answered."""

    id: str
    endpoint: str
    revision: str
    at: str
    recorded: str
    milliseconds: float
    fallback: str
    keys: dict[str, str]
    inputs: dict[str, Any]
    answer: dict[str, Any]
    masked: tuple[str, ...] = ()
    """Keys and inputs whose values the asker may not see."""
    explanation: dict[str, Any] = Field(default={})
    """`{method, base, output, values}` where the caller asked for it; what masked inputs add is left out."""
    label: Any = None
    label_at: str = ""


class Origin(Answer):
    """A version that a prediction came from."""

    role: str
    id: str
    label: str
    """`kind/name v7`."""


class PredictionTrace(Answer):
    """Where a prediction comes from: revision, models, frames, data, code, and who let it in."""

    prediction: PredictionView
    revision: str
    origins: list[Origin]
    snapshot: str
    """What the environment held then."""
    change: int | None
    """Number of the change that brought the snapshot in."""
    title: str
    authors: list[str]
    approvers: list[str]


class GivenLabel(Command):
    """What turned out to be true for one prediction."""

    prediction: str
    value: Any
    at: str = ""
    """Event time in ISO 8601 when it was known; empty: now."""


class AddLabels(Command):
    """Labels of an endpoint's predictions."""

    endpoint: str
    labels: list[GivenLabel]
    environment: str = "production"


class LabelsAdded(Answer):
    """How many were taken; those that were there already count too."""

    taken: int
    unknown: int = 0
    """Of predictions that this endpoint did not make, as far as is known by now: they may still be on their way."""


def _on_endpoint(_ctx: Context, cmd: Any) -> Target:
    name: str = getattr(cmd, "name", "") or getattr(cmd, "endpoint", "") or "*"
    return Target("endpoint", name, cmd.environment)


@operation("endpoints.list", needs="read", on=_on_endpoint, reads=True)
def list_endpoints(ctx: Context, cmd: ListEndpoints) -> EndpointList:
    """Endpoints of an environment, wanted and observed."""
    with ctx.read() as tx:
        states = rollouts.of(tx, ctx.project, cmd.environment)
        views = [_endpoint(ctx, tx, cmd.environment, name, Rollout.from_told(s)) for name, s in states.items()]
    return EndpointList(endpoints=views)


@operation("endpoints.show", needs="read", on=_on_endpoint, reads=True)
def show_endpoint(ctx: Context, cmd: ShowEndpoint) -> EndpointView:
    """One endpoint, wanted and observed."""
    with ctx.read() as tx:
        states = rollouts.of(tx, ctx.project, cmd.environment)
        if cmd.name not in states:
            raise NotFound(f"{cmd.environment} has no endpoint {cmd.name!r}", hint="merge one into it first")
        return _endpoint(ctx, tx, cmd.environment, cmd.name, Rollout.from_told(states[cmd.name]))


def _endpoint(ctx: Context, tx: Tx, environment: str, name: str, state: Rollout) -> EndpointView:
    address = f"{ctx.project}.{name}"
    weights = routed(state, state.weights(_plan(ctx, tx, state)))
    weights += [(state.simpler, 0)] if state.simpler else []
    trial = of_state(state)
    told = observe.gateways(ctx.home, ctx.wall())
    listed = []
    for identity, weight in weights:
        seen = {said["gateway"]: said["endpoints"].get(address, {}).get(identity) for said in told}
        row = versions.get(tx, ctx.project, identity)
        kept = {g: {k: v for k, v in its.items() if k != "latency"} for g, its in seen.items() if its}
        listed.append(RevisionView(id=identity, number=row.number, weight=weight, observed=kept))
    return EndpointView(
        name=name,
        address=address,
        environment=environment,
        phase=state.phase,
        target=state.target,
        serving=trial.champion if trial else max(weights, key=lambda pair: pair[1])[0] if weights else "",
        reason=state.reason,
        blocked=state.blocked,
        evidence=dict(state.evidence),
        since=iso(state.since),
        revisions=listed,
        experiment=trial.told() if trial else {},
    )


def _plan(ctx: Context, tx: Tx, state: Rollout) -> Plan:
    if not state.target:
        return Plan()
    endpoint = versions.get(tx, ctx.project, state.target).manifest["endpoint"]
    return Plan.from_manifest(versions.get(tx, ctx.project, endpoint).manifest)


def _on_prediction(_ctx: Context, cmd: PredictionQuery) -> Target:
    return Target("prediction", cmd.id, "production")


@operation("predictions.get", needs="read", on=_on_prediction, reads=True)
def get_prediction(ctx: Context, cmd: PredictionQuery) -> PredictionView:
    """What was asked and answered, and the label if it is known."""
    with ctx.read() as tx:
        row = predictions.get(tx, ctx.project, cmd.id)
        label = predictions.labels_of(tx, ctx.project, [cmd.id]).get(cmd.id)
    return _prediction(ctx, row, label)


@operation("predictions.newest", needs="read", on=_on_endpoint, reads=True)
def newest_predictions(ctx: Context, cmd: NewestPredictions) -> PredictionLines:
    """The newest predictions of an endpoint, without what was asked and answered."""
    if not 1 <= cmd.limit <= MOST_LISTED:
        raise InvalidInput(f"{cmd.limit} predictions", hint=f"1 to {MOST_LISTED}")
    with ctx.read() as tx:
        rows = predictions.newest(tx, ctx.project, cmd.endpoint, cmd.limit)
        labels = versions.labels(tx, ctx.project, {row.revision for row in rows})
    return PredictionLines(
        predictions=[
            PredictionLine(
                id=row.id,
                at=iso(row.at),
                revision=labels.get(row.revision, short(row.revision)),
                milliseconds=row.micros / 1000,
                fallback=bool(row.fallback),
            )
            for row in rows
        ]
    )


def _prediction(ctx: Context, row: PredictionRow, label: Label | None) -> PredictionView:
    entry = segments.entry_of(ctx.home, row)
    with ctx.read() as tx:
        revision = versions.get(tx, ctx.project, row.revision)
    hidden = hidden_of(ctx, revision, "production")
    keys = {name: values[row.row] for name, values in entry.keys.items()}
    inputs = {name: values[row.row] for name, values in segments.inputs_of(entry).items()}
    return PredictionView(
        id=row.id,
        endpoint=row.endpoint,
        revision=row.revision,
        at=iso(row.at),
        recorded=iso(row.recorded),
        milliseconds=row.micros / 1000,
        fallback=row.fallback,
        keys=masked(keys, hidden),
        inputs=masked(inputs, hidden),
        masked=tuple(sorted(hidden & {*keys, *inputs})),
        answer={name: values[row.row] for name, values in segments.answers_of(entry).items()},
        explanation=_explanation(entry, row.row, hidden),
        label=None if label is None else label.value,
        label_at="" if label is None else iso(label.at),
    )


def _explanation(entry: Entry, row: int, hidden: Collection[str]) -> dict[str, Any]:
    listed = entry.explanation()
    if not listed:
        return {}
    told = listed[row]
    return {**told, "values": {name: value for name, value in told["values"].items() if name not in hidden}}


@operation("predictions.trace", needs="read", on=_on_prediction, reads=True)
def trace_prediction(ctx: Context, cmd: PredictionQuery) -> PredictionTrace:
    """Where a prediction comes from: rows, code, packages, model, and who approved it."""
    view = get_prediction(ctx, cmd)
    with ctx.read() as tx:
        row = predictions.get(tx, ctx.project, cmd.id)
        edges = versions.upstream(tx, ctx.project, row.revision)
        roles = {edge.from_id: edge.role for edge in reversed(edges)}
        labels = versions.labels(tx, ctx.project, [row.revision, *roles])
        snapshot, change = _let_in(ctx, tx, row)
    origins = [
        Origin(role=role, id=identity, label=labels.get(identity, short(identity))) for identity, role in roles.items()
    ]
    return PredictionTrace(
        prediction=view,
        revision=labels.get(row.revision, short(row.revision)),
        origins=origins[::-1],
        snapshot=snapshot,
        change=None if change is None else change.number,
        title="" if change is None else change.title,
        authors=[] if change is None else sorted(change.authors),
        approvers=[] if change is None else list(change.approvers),
    )


def _let_in(ctx: Context, tx: Tx, row: PredictionRow) -> tuple[str, changes.Change | None]:
    """The snapshot that brought the revision's models into production, and the change that did it.

    Not simply what production held at that time: during a canary the revision before still answers.
    """
    models = set(versions.get(tx, ctx.project, row.revision).manifest["models"].values())
    brought = ""
    for move in refs.log(tx, ctx.project, refs.env_ref("production"), limit=1000):
        if move.new is None or move.at > row.at:
            continue
        if models <= set(versions.get(tx, ctx.project, move.new).manifest["entries"].values()):
            brought = move.new
        elif brought:
            break
    return brought, changes.by_merge(tx, ctx.project, brought)


@operation("labels.add", needs="label.write", on=_on_endpoint)
def add_labels(ctx: Context, cmd: AddLabels) -> LabelsAdded:
    """Say what turned out to be true; the same label again changes nothing, a later one corrects."""
    if len(cmd.labels) > MOST_LABELS:
        raise InvalidInput(f"{len(cmd.labels)} labels at once", hint=f"send at most {MOST_LABELS} in one call")
    now = ctx.now()
    try:
        given = [Label(g.prediction, g.value, parse_time(g.at) if g.at else now) for g in cmd.labels]
    except ValueError as error:
        raise InvalidInput(f"a label's time: {error}", hint="ISO 8601, for example 2013-05-01T12:00:00Z") from error
    with ctx.write() as tx:
        predictions.add_labels(tx, ctx.project, given, actor=ctx.actor.name, recorded=ctx.wall())
        facts.append(tx, ctx.project, ctx.fact("labels.added", cmd.endpoint, {"count": len(given)}))
    with ctx.read() as tx:
        unknown = predictions.strangers(tx, ctx.project, cmd.endpoint, (label.prediction for label in given))
    return LabelsAdded(taken=len(given), unknown=unknown)
