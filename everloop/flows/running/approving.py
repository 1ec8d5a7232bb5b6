"""Approvals inside a run: the step parks until a person decides, and the run goes on, or ends, in another process."""

from collections.abc import Mapping
from typing import Any

import msgspec

from everloop.catalog import tasks
from everloop.catalog.context import Context
from everloop.catalog.engine import Tx
from everloop.catalog.making import flows
from everloop.catalog.making.flows import Flow, FlowStep
from everloop.catalog.steps import StepRow
from everloop.core.clock import SECOND
from everloop.core.errors import InvalidInput, PolicyRefused
from everloop.core.ids import manifest_id
from everloop.core.version import Version
from everloop.flows.running.keys import Keys
from everloop.flows.running.ledger import Ledger, Record
from everloop.flows.running.unit import Unit

GO_ON = "flow.go_on"
"""The kind of task that goes on with a run."""


class Approvals:
    """The decisions of one run."""

    def __init__(self, ctx: Context, ledger: Ledger, keys: Keys, code: str) -> None:
        """Of the run that `ledger` writes for."""
        self._ctx, self._ledger, self._keys, self._code = ctx, ledger, keys, code
        self._asked: dict[str, FlowStep] = {}
        if ledger.flow is not None and ledger.flow.token > 1:  # nobody was asked before a run's first driver
            with ctx.read() as tx:
                rows = flows.steps_of(tx, ctx.project, ledger.flow.id)
            self._asked = {row.step: row for row in rows if row.state == "parked" or row.decision}

    def decided(self, unit: Unit) -> Record | None:
        """What to write down when it was approved; None when the step waits.

        A decision is about the very inputs that it saw: other ones ask again. Raises `PolicyRefused` when it was
        refused, or when nobody decided in time.
        """
        if self._ledger.flow is None or unit.asset.approval is None:
            raise InvalidInput(f"{unit.step} waits for a person, and this run is not listed", hint="everloop run")
        recipe = manifest_id({"approval": unit.step, "flow": self._ledger.flow.id, "inputs": dict(unit.inputs)})
        asked = self._asked.get(unit.step)
        wall = self._ctx.wall()
        if asked is None or asked.recipe != recipe:
            self._park(unit, recipe, wall)
            return None
        if not asked.decision:
            if wall >= (asked.began or wall) + round(unit.asset.approval.within * SECOND):
                self._refuse(unit, asked, "nobody decided in time")
            return None
        if not asked.decision.get("approved"):
            comment = asked.decision.get("comment")
            self._refuse(unit, asked, f"refused by {asked.decision.get('by')}" + (f": {comment}" if comment else ""))
        return self._approved(unit, recipe, asked.decision)

    def _park(self, unit: Unit, recipe: str, wall: int) -> None:
        assert unit.asset.approval is not None
        why = f"waits for {unit.asset.approval.role}"
        self._ledger.state(FlowStep(unit.step, unit.place, "parked", recipe, why=why, began=wall))

    def _refuse(self, unit: Unit, asked: FlowStep, why: str) -> None:
        at = FlowStep(
            unit.step, unit.place, "refused", asked.recipe, why=why, began=asked.began, ended=self._ctx.wall()
        )
        self._ledger.state(at)
        raise PolicyRefused(f"{unit.step}: {why}", hint="a new run asks again")

    def _approved(self, unit: Unit, recipe: str, decision: Mapping[str, Any]) -> Record:
        content = msgspec.json.encode(True)
        manifest = {"format": "json", "object": self._ctx.store.put(content), "bytes": len(content), "type": "bool"}
        runtime = self._keys.runtime_of(unit.asset).version
        self._ledger.base(runtime)
        version = Version("value", unit.asset.name, manifest, tuple(unit.lineage.items()))
        row = StepRow(recipe, unit.step, version.id, self._code, runtime.id, {}, dict(unit.lineage), self._ctx.now())
        why = f"approved by {decision.get('by')}"
        at = FlowStep(unit.step, unit.place, "done", recipe, version.id, why=why, ended=self._ctx.wall())
        self._ledger.state(at)
        return Record(row, version)


def go_on(tx: Tx, ctx: Context, flow: Flow, *, not_before: int = 0, again: bool = False) -> None:
    """Have a worker go on with a run, where that can be done in another process; `again`: also one that has ended."""
    if flow.request:
        dedupe = f"{flow.id}:{not_before}"
        about = {"flow": flow.id, **({"again": flow.token} if again else {})}
        now = ctx.wall()
        tasks.enqueue(tx, ctx.project, GO_ON, about, actor=flow.actor, now=now, dedupe=dedupe, not_before=not_before)


def remind(tx: Tx, ctx: Context, flow: Flow) -> None:
    """Have a worker look at a parked run when the time to decide is over."""
    times = {str(one["step"]): float(one["within"]) for one in flow.plan if "within" in one}
    asked = [row for row in flows.steps_of(tx, ctx.project, flow.id) if row.state == "parked"]
    ends = [round((row.began or ctx.wall()) + times.get(row.step, 0.0) * SECOND) for row in asked]
    if ends:
        go_on(tx, ctx, flow, not_before=min(ends) + SECOND)
