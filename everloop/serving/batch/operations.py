"""Scoring a dataset, as an operation: a task of the durable queue, taken up again when its worker dies."""

from pydantic import Field

from everloop.catalog import tasks
from everloop.catalog.context import Context
from everloop.catalog.operation import Answer, Command, operation
from everloop.core.grants import Target

_TASK = "endpoints.score"


class Score(Command):
    """Score a dataset by a live revision of an endpoint."""

    endpoint: str
    dataset: str
    """As in `data.show`: a name, `name@7`, an id. With `by`, a name whose head is followed."""
    environment: str = "production"
    revision: str = ""
    """Number or id of a live revision; empty: the one with most of the traffic."""
    name: str = ""
    """Of the dataset of scores; empty: `scores.<endpoint>`."""
    by: tuple[str, ...] = ()
    """Columns that tell rows apart: only rows that were not scored yet are, and appended."""
    workers: int = Field(default=2, ge=1, le=64)
    """Processes for each part of the graph; on a cluster, replicas."""
    processes: int = Field(default=1, ge=1, le=64)
    """That read, look up, run the graph and write, each with workers of its own."""
    cluster: bool = False
    """Whether models answer on the Ray cluster that the workspace's workers know."""


class Scoring(Answer):
    """The task that scores; `tasks.show` tells how it goes, and what it made."""

    task: str


def _on(_ctx: Context, cmd: Score) -> Target:
    return Target("data", cmd.name or f"scores.{cmd.endpoint}", cmd.environment)


@operation("endpoints.score", needs="data.capture", on=_on)
def score(ctx: Context, cmd: Score) -> Scoring:
    """Have a worker score a dataset with the graph and revision that answer callers; the result is a dataset."""
    payload = cmd.model_dump(mode="json")
    dedupe = f"{cmd.endpoint} {cmd.dataset} {cmd.revision} {cmd.name} {cmd.environment}"
    with ctx.write() as tx:
        task = tasks.enqueue(tx, ctx.project, _TASK, payload, actor=ctx.actor.name, now=ctx.wall(), dedupe=dedupe)
    return Scoring(task=str(task))
