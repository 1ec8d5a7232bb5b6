"""Where a step's run is recorded: the tracking store, one experiment a model."""

import os
import secrets
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

from everloop.catalog.context import Context
from everloop.catalog.engine import Tx
from everloop.catalog.governance import access
from everloop.catalog.tracking import artifacts, experiments, points, runs
from everloop.catalog.tracking.rows import Point
from everloop.core.clock import DAY, Micros
from everloop.core.errors import NotFound
from everloop.core.ports import Line, Sample
from everloop.core.settings import FLOWS_TRACKING
from everloop.flows.identity import Tree
from everloop.models import console

RECIPE = "everloop.recipe"
"""The tag that holds a step's recipe key."""
CODE = "everloop.code"
"""The tag that holds the id of the code version."""
COMMIT = "mlflow.source.git.commit"
UNCOMMITTED = "code/uncommitted.diff"
"""The file of a run that holds what its code differs in from the commit."""
_LIFE = DAY


class TrackedRuns:
    """A `core.ports.RunSink` over the catalog."""

    def __init__(self, ctx: Context, tracking_uri: str = "", code: Tree | None = None) -> None:
        """`tracking_uri` is the address of our server, for the mlflow client inside steps; empty: there is none.

        `EVERLOOP_FLOWS_TRACKING` says another one, which steps on other machines reach too.
        `code` is what the steps run: its version and commit become tags, what is not committed a file of the run.
        """
        self._ctx = ctx
        self._uri = os.environ.get(FLOWS_TRACKING, "").rstrip("/") or tracking_uri if tracking_uri else ""
        self._code = code
        self._began: dict[str, tuple[Micros, Micros]] = {}
        """Event time and wall time at which each run that is open here began."""

    def start(self, step: str, params: Mapping[str, Any], tags: Mapping[str, str]) -> str:
        """Open a run in the experiment that is named after the step's asset."""
        ctx, name = self._ctx, step.partition("/")[2]
        identity, diff = secrets.token_hex(16), self._diff()
        self._began[identity] = (ctx.now(), ctx.wall())
        with ctx.write() as tx:
            # a recipe is worked on once at a time: another run of it that is open is that of a process that died
            for left in runs.open_with(tx, ctx.project, RECIPE, tags.get(RECIPE, "")):
                runs.finish(tx, ctx.project, left, status="KILLED", at=ctx.now())
            try:
                experiment = experiments.by_name(tx, ctx.project, name).id
            except NotFound:
                experiment = experiments.create(tx, ctx.project, name, at=ctx.now())
            whole = {"everloop.step": step, "mlflow.user": ctx.actor.name, **self._code_tags(), **tags}
            run = runs.create(
                tx,
                ctx.project,
                experiment=experiment,
                actor=ctx.actor.name,
                at=ctx.now(),
                tags=whole,
                identity=identity,
            )
            runs.log_params(tx, run, [(key, str(value)) for key, value in params.items()])
            if diff is not None:
                identity_of_diff, size = diff
                artifacts.put(
                    tx, ctx.project, identity, UNCOMMITTED, identity=identity_of_diff, size=size, at=ctx.now()
                )
        return identity

    def _code_tags(self) -> dict[str, str]:
        if self._code is None:
            return {}
        commit = {COMMIT: self._code.commit} if self._code.commit else {}
        return {CODE: self._code.version.id, **commit}

    def _diff(self) -> tuple[str, int] | None:
        """Object and size of what is not committed; put before the transaction, for that is I/O."""
        if self._code is None or not self._code.diff:
            return None
        content = self._code.diff.encode("utf-8", "replace")
        return self._ctx.store.put(content), len(content)

    def log(self, run: str, samples: Sequence[Sample]) -> None:
        """Add measurements of the machine and of the step's processes to a run."""
        rows = [
            Point(key, float(value), sample.at, sample.step)
            for sample in samples
            for key, value in sorted(sample.values.items())
        ]
        ctx = self._ctx
        with ctx.write() as tx:
            points.log(tx, ctx.project, runs.find(tx, ctx.project, run).number, rows)

    def write(self, owner: str, lines: Sequence[Line], *, first: bool = False, last: bool = False) -> None:
        """Add to what a run, or a step by its recipe, printed."""
        if first:
            console.forget(self._ctx, owner)
        console.append(self._ctx, owner, lines)
        if last:
            console.compact(self._ctx, owner)

    def finish(
        self,
        run: str,
        *,
        status: str,
        metrics: Mapping[str, float],
        tags: Mapping[str, str] | None = None,
        tx: Tx | None = None,
    ) -> None:
        """Record what was measured, and what else is said of it, and close the run."""
        ctx = self._ctx
        rows = [Point(key, float(value), ctx.now()) for key, value in sorted(metrics.items())]
        with ctx.write() if tx is None else nullcontext(tx) as inside:
            found = runs.find(inside, ctx.project, run)
            if rows:
                points.log(inside, ctx.project, found.number, rows)
            if tags:
                runs.set_tags(inside, found, tags)
            runs.finish(inside, ctx.project, run, status=status, at=self._ended(run))

    def _ended(self, run: str) -> Micros:
        """When a run ends: on a replay's clock, which stands still meanwhile, after the time that it took."""
        now, wall = self._ctx.now(), self._ctx.wall()
        began, seen = self._began.pop(run, (now, wall))
        return max(now, began + wall - seen)

    def environ(self, _step: str, run: str) -> dict[str, str]:
        """The variables by which an ordinary mlflow client inside the step finds its run, and may write no other."""
        if not run or not self._uri:
            return {}
        ctx = self._ctx
        with ctx.write() as tx:
            secret = access.issue_task_token(
                tx, ctx.project, run, name=ctx.actor.name, at=ctx.wall(), expires=ctx.wall() + _LIFE
            )[1]
        return {
            "MLFLOW_TRACKING_URI": self._uri,
            "MLFLOW_TRACKING_TOKEN": secret,
            "MLFLOW_RUN_ID": run,
            "MLFLOW_WORKSPACE": ctx.project,
            # the address of the run's page: that of a server which may live no longer than the step
            "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
        }
