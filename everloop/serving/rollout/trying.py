"""Experiments against the catalog: what their metric came to, wishes for shares, the change that promotes."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from everloop.catalog import facts, versions
from everloop.catalog.context import Context
from everloop.catalog.operation import invoke
from everloop.changes import environments, merging, proposing
from everloop.core.clock import Micros
from everloop.core.errors import EverloopError, PolicyRefused
from everloop.core.version import Version
from everloop.serving.rollout.evidence import Evidence
from everloop.serving.rollout.experiments import Reading, Trial, begun, served, step, trial_of
from everloop.serving.rollout.judging import MOST_IDS
from everloop.serving.rollout.state import Event, Observed, Plan, Rollout

WISH = "experiment.asked"
"""Kind of the fact that somebody asked for other shares."""
_OPEN = ("live", "settled")


@dataclass(slots=True)
class Trying:
    """The experiments of one controller."""

    evidence: Evidence
    read: dict[tuple[str, str, str], tuple[Micros, dict[str, Reading]]] = field(default_factory=dict)

    def step(
        self,
        ctx: Context,
        environment: str,
        named: tuple[str, Mapping[str, Any]],
        arms: Mapping[str, str],
        moved: tuple[Rollout, Plan, Observed],
    ) -> tuple[Rollout, tuple[Event, ...]]:
        """One step of the experiment of an endpoint (name, manifest), once its champion takes all traffic."""
        name, endpoint = named
        state, plan, observed = moved
        said, before = endpoint.get("experiment"), trial_of(state.experiment)
        if said is None:
            ended = (Event("experiment_ended", {"reason": "the endpoint has none any more"}),) if before else ()
            return (replace(state, experiment={}) if before else state), ended
        if state.phase not in _OPEN or not arms:
            return state, ()  # what was dealt is kept for when the champion takes all traffic again
        trial = begun(said, arms, state.target, before)
        readings = self._readings(ctx, name, (said, plan), trial) if trial.began else {}
        wish = _wish(ctx, environment, name)
        trial, events = step(trial, said, plan, observed, readings=readings, wish=wish, now=ctx.now())
        won = next((arm for arm, its in trial.arms.items() if its.state == "won"), "")
        if won and not trial.change and said["won"] == "promote":
            number, promoted = _promote(ctx, environment, named, (won, trial.arms[won].reason))
            trial, events = replace(trial, change=number), (*events, promoted)
        return (state if trial == before else replace(state, experiment=trial.told())), events

    def _readings(
        self, ctx: Context, name: str, wanted: tuple[Mapping[str, Any], Plan], trial: Trial
    ) -> dict[str, Reading]:
        """Metric and guardrails of champion and challengers since keys were dealt; read seldom when reading is slow."""
        said, plan = wanted
        key, wall = (ctx.project, name, trial.champion), ctx.wall()
        last = self.read.get(key)
        if last is not None and wall < last[0]:
            return last[1]
        champion = self.evidence.sample(ctx, name, trial.champion, said["metric"], trial.began).sums
        found = {}
        for arm, its in served(trial).items():
            sample = self.evidence.sample(ctx, name, its.revision, said["metric"], trial.began)
            pair = (its.revision, trial.champion)
            findings = self.evidence.findings(ctx, name, pair, plan.guards, trial.began)
            found[arm] = Reading(champion, sample.sums, sample.ids[-MOST_IDS:], findings)
        self.read[key] = (self.evidence.again(ctx, wall), found)
        return found


def _wish(ctx: Context, environment: str, name: str) -> tuple[int, Mapping[str, int]]:
    with ctx.read() as tx:
        asked = facts.tail(tx, ctx.project, kinds=(WISH,), subject=name, limit=5)
    for fact in asked:
        if fact.payload["environment"] == environment:
            return fact.position, fact.payload["shares"]
    return 0, {}


def _promote(
    ctx: Context, environment: str, named: tuple[str, Mapping[str, Any]], winner: tuple[str, str]
) -> tuple[int, Event]:
    """Open the change that makes a challenger's graph the endpoint's; merged at once where nobody must approve it."""
    name, endpoint = named
    arm, reason = winner
    version = Version("endpoint", name, promoted(endpoint, arm))
    told: dict[str, Any] = {"challenger": arm}
    number = -1
    try:
        with ctx.write() as tx:
            versions.put(tx, ctx.project, version, actor=ctx.actor.name, at=ctx.now())
        start = environments.CreateSandbox(environment="sandbox/auto", base=environment)
        sandbox = invoke(ctx, environments.create_sandbox, start).name
        entries: dict[str, str | None] = {version.key: version.id}
        message = f"{arm} becomes the champion of {name}"
        invoke(ctx, environments.commit, environments.Commit(environment=sandbox, entries=entries, message=message))
        proposal = proposing.Propose(
            source=sandbox,
            target=environment,
            title=f"Promote challenger {arm} of {name}",
            description=f"Opened by the endpoint's experiment: {arm} is {reason}.",
        )
        number = invoke(ctx, proposing.propose, proposal).number
        told["change"] = number
        merged = invoke(ctx, merging.merge, proposing.Numbered(number=number))
        told["merged"] = merged.merge_snapshot
    except PolicyRefused as error:
        told["waits"] = error.message
    except EverloopError as error:
        told["problem"] = error.message
    return number, Event("experiment_promoted", told)


def promoted(endpoint: Mapping[str, Any], arm: str) -> dict[str, Any]:
    """An endpoint's manifest with a challenger's graph as its own; the others go on as challengers."""
    left = {name: graph for name, graph in endpoint["challengers"].items() if name != arm}
    made = {**endpoint, "graph": endpoint["challengers"][arm], "challengers": left}
    shares = {name: share for name, share in endpoint["experiment"]["shares"].items() if name != arm}
    made["experiment"] = {**endpoint["experiment"], "shares": shares}
    return made if left else {key: value for key, value in made.items() if key not in ("challengers", "experiment")}
