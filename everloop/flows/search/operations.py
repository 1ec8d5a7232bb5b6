"""What was searched, and how far: read off the runs of the tracking store, so it is live while a search runs."""

import json
import math
from typing import Any

from pydantic import Field

from everloop.catalog.context import Context
from everloop.catalog.operation import Answer, Command, operation
from everloop.catalog.tracking import experiments, querying, runs
from everloop.catalog.tracking.rows import Run
from everloop.core.clock import iso
from everloop.core.errors import NotFound
from everloop.core.grants import Target
from everloop.flows.search.marks import BEST, IMPORTANCE, PARENT, REUSED, SEARCH, SECONDS, STATE, TRIAL, WHY

MOST = 5000
"""Trials that are shown of one search."""


class ListSearches(Command):
    """Searches, newest first; of the step `name`, or of all."""

    name: str = ""
    limit: int = Field(default=50, ge=1, le=500)


class ShowSearch(Command):
    """A search: the name of its step (its newest run), or the id of its run."""

    search: str


class SearchView(Answer):
    """A search, as one line says it."""

    run: str
    name: str
    status: str
    started: str
    ended: str | None
    seconds: float | None
    actor: str
    metrics: tuple[tuple[str, str], ...]
    """Name, and `max` or `min`."""
    sampler: str
    trials: int
    """How many began; the runs of the trials say what became of them."""
    done: int
    pruned: int
    failed: int
    reused: int
    best: tuple[float, ...]
    """The values of the best trial; empty while there is none."""


class TrialView(Answer):
    """One trial."""

    number: int
    run: str
    state: str
    """`running`, `done`, `pruned`, `failed` or `killed`."""
    params: dict[str, str]
    metrics: dict[str, float]
    reused: bool
    seconds: float | None
    """How long it ran; None for one that was known."""
    why: str
    best: bool
    """Whether it is the best, or on the Pareto front."""


class SearchDetail(Answer):
    """A search with its trials, in the order of their numbers."""

    search: SearchView
    space: dict[str, Any]
    definition: dict[str, Any]
    importance: dict[str, dict[str, float]]
    """For each metric the share of each parameter in what makes the best trials; empty until it ended."""
    trials: tuple[TrialView, ...]


class SearchList(Answer):
    """Searches, newest first."""

    searches: tuple[SearchView, ...]


@operation("searches.list", needs="read", on=lambda _ctx, _cmd: Target("run"), reads=True)
def list_searches(ctx: Context, cmd: ListSearches) -> SearchList:
    """List searches, newest first."""
    with ctx.read() as tx:
        names = experiments.names(tx, ctx.project)
        if cmd.name:
            bare = cmd.name.partition("/")[2] or cmd.name
            names = {identity: name for identity, name in names.items() if name == bare}
        wanted = f"tags.`{SEARCH}` LIKE '%'"
        found = querying.search(tx, ctx.project, names, filter_text=wanted, limit=cmd.limit).rows if names else ()
    return SearchList(searches=tuple(_view(one, names[one.experiment]) for one in found))


@operation("searches.show", needs="read", on=lambda _ctx, _cmd: Target("run"), reads=True)
def show_search(ctx: Context, cmd: ShowSearch) -> SearchDetail:
    """Show a search with its trials. Raises `NotFound` for what was never searched."""
    with ctx.read() as tx:
        names = experiments.names(tx, ctx.project)
        parent = _parent(ctx, tx, cmd.search, names)
        mine = {parent.experiment: names[parent.experiment]}
        wanted = f"tags.`{PARENT}` = '{parent.id}'"
        rows = querying.search(tx, ctx.project, mine, filter_text=wanted, limit=MOST).rows
    said = json.loads(parent.tags[SEARCH])
    best = set(json.loads(parent.tags.get(BEST, "[]")))
    trials = sorted((_trial(one, best) for one in rows if TRIAL in one.tags), key=lambda one: one.number)
    view = _view(parent, names[parent.experiment])
    if view.status == "RUNNING":  # its own figures are written when it ends
        view = view.model_copy(update=_counted(trials))
    return SearchDetail(
        search=view,
        space=said["space"],
        definition=said,
        importance=json.loads(parent.tags.get(IMPORTANCE, "{}")),
        trials=tuple(trials),
    )


def _parent(ctx: Context, tx: Any, wanted: str, names: dict[str, str]) -> Run:
    bare = wanted.partition("/")[2] or wanted
    home = {identity: name for identity, name in names.items() if name == bare}
    if home:
        found = querying.search(tx, ctx.project, home, filter_text=f"tags.`{SEARCH}` LIKE '%'", limit=1).rows
        if found:
            return found[0]
    try:
        run = runs.get(tx, ctx.project, wanted)
    except NotFound:
        run = None
    if run is None or SEARCH not in run.tags:
        raise NotFound(f"nothing was searched under {wanted!r}", hint="everloop searches list")
    return run


def _view(run: Run, name: str) -> SearchView:
    said = json.loads(run.tags[SEARCH])
    figures = {point.key: point.value for point in run.metrics}
    best = [figures.get(f"best_{metric}") for metric, _ in said["metrics"]]
    counts = {key: int(figures.get(key, 0)) for key in ("trials", "done", "pruned", "failed", "reused")}
    return SearchView(
        run=run.id,
        name=name,
        status=run.status,
        started=iso(run.start),
        ended=None if run.end is None else iso(run.end),
        seconds=None if run.end is None else (run.end - run.start) / 1_000_000,
        actor=run.actor,
        metrics=tuple((metric, way) for metric, way in said["metrics"]),
        sampler=said["sampler"],
        best=tuple(value for value in best if value is not None),
        **counts,
    )


def _trial(run: Run, best: set[int]) -> TrialView:
    number = int(run.tags[TRIAL])
    return TrialView(
        number=number,
        run=run.id,
        state=run.tags.get(STATE, "running" if run.status == "RUNNING" else "killed"),
        params=dict(run.params),
        metrics={point.key: point.value for point in run.metrics if not math.isnan(point.value)},
        reused=run.tags.get(REUSED) == "true",
        seconds=float(run.tags[SECONDS]) if SECONDS in run.tags else None,
        why=run.tags.get(WHY, ""),
        best=number in best,
    )


def _counted(trials: list[TrialView]) -> dict[str, int]:
    counted = {state: sum(one.state == state for one in trials) for state in ("done", "pruned", "failed")}
    return {"trials": len(trials), "reused": sum(one.reused for one in trials), **counted}
