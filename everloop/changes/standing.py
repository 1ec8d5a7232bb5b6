"""Where a change stands now: its delta on the target as it is, checks, approvals, and what the policy says.

Everything here is read, nothing is written: `show`, `approve` and `merge` ask the same question.

When an approval dies (DESIGN, rule 3). It is bound to the delta's id, the id of the target's policy and the digest of
the newest evidence of every required check. A merge of something unrelated changes none of these. Data that arrives
does not either while the policy leaves data to its standing grant: evidence names the very heads it saw, and stays
true of them; how far data moved on is shown. Under `data: "change"` heads move by review only, so evidence on other
heads than the present ones is stale and the check must run again.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from everloop.catalog import tasks
from everloop.catalog.engine import Tx
from everloop.catalog.governance import changes as rows
from everloop.catalog.governance import results
from everloop.catalog.governance.changes import ApprovalRow, Change
from everloop.catalog.governance.results import Result
from everloop.catalog.tasks import Task
from everloop.changes.ancestry import snapshot_of
from everloop.changes.closure import incoherences
from everloop.changes.environments import heads_of
from everloop.changes.heads.contracts import heads_among, proposed_heads
from everloop.changes.policies import InForce, head_of, policy_in
from everloop.changes.requirements import Required, required_checks, surroundings
from everloop.checks import reproduced
from everloop.checks.request import TASK, CheckRequest, request_key
from everloop.core.ids import manifest_id
from everloop.core.policy import Approval, CheckState, Decision, Subject, decide
from everloop.core.snapshot import Delta, apply_delta, delta_id
from everloop.data.sensitive.tags import tags_of_delta

_WORKED_ON: Mapping[str, Literal["waiting", "running"]] = {"queued": "waiting", "running": "running"}


@dataclass(frozen=True, slots=True)
class Checked:
    """A required check and its newest result for what is proposed; None while it has none."""

    required: Required
    result: Result | None
    stale_heads: tuple[str, ...] = ()
    """Datasets that moved on since the result."""
    task: Task | None = None
    """The newest task that was to run it, while it has not passed."""

    @property
    def state(self) -> CheckState:
        """As the policy wants to know it."""
        if self.task is not None and self.task.state in _WORKED_ON:
            return CheckState(self.required.label, _WORKED_ON[self.task.state])
        return CheckState(self.required.label, "missing" if self.result is None else self.result.state)

    @property
    def trouble(self) -> str:
        """Why nobody works on it any more; empty when somebody does, or never began."""
        if self.task is None or self.task.state not in ("failed", "cancelled"):
            return ""
        return f"its task {self.task.state}: {_told(self.task.error)}; ask for the check again"


@dataclass(frozen=True, slots=True)
class Standing:
    """Everything that decides whether a change may merge, at one moment."""

    change: Change
    target_snapshot: str
    target: Mapping[str, str]
    """Entries of the target now."""
    entries: Mapping[str, str]
    """Entries of the target after the merge."""
    delta: Delta
    """What the merge would do to the target as it is now."""
    delta_id: str
    conflicts: tuple[str, ...]
    policy: InForce
    checks: tuple[Checked, ...]
    approvals: tuple[ApprovalRow, ...]
    subject: Subject
    decision: Decision
    blocking: tuple[str, ...] = ()
    """Reasons against the merge that neither a check's run nor an approval would take away."""

    @property
    def evidence(self) -> str:
        """The digest that approvals bind to."""
        return self.subject.evidence

    def alive(self, approval: ApprovalRow) -> bool:
        """Whether the approval is bound to the delta, policy and evidence of now."""
        now = (self.subject.delta, self.subject.policy, self.subject.evidence)
        return (approval.delta, approval.policy, approval.evidence) == now

    def pending(self, *, again: bool = False) -> tuple[CheckRequest, ...]:
        """The required checks that can run and have no result yet; `again`: those that did not pass, too."""
        done = ("passed",) if again else ("passed", "failed", "error")
        return tuple(
            self._request(c.required)
            for c in self.checks
            if (c.result is None or c.result.state not in done) and not c.required.subjects.problems
        )

    def requests(self) -> tuple[CheckRequest, ...]:
        """Every required check that can run, whatever its result."""
        return tuple(self._request(c.required) for c in self.checks if not c.required.subjects.problems)

    def _request(self, required: Required) -> CheckRequest:
        return CheckRequest(
            change=self.change.number,
            environment=self.change.target,
            source=self.change.source,
            head=self.change.head,
            delta_id=self.delta_id,
            name=required.name,
            check_id=required.check_id,
            function=required.check["function"],
            parameters=tuple(required.check["parameters"]),
            subjects=dict(required.subjects.ids),
            heads=dict(required.subjects.heads),
            objective_id=required.objective_id,
            objective=dict(required.objective),
            candidate=required.subjects.candidate,
            origin=required.origin,
            origin_snapshot=self.target_snapshot if required.origin == "target" else self.change.head,
        )


def standing(tx: Tx, project: str, change: Change) -> Standing:
    """Read where a change stands. Raises `NotFound` and `PolicyRefused` when the target is gone or has no policy."""
    target_snapshot = head_of(tx, project, change.target)
    held = snapshot_of(tx, project, target_snapshot).entries
    target = {**held, **heads_among(tx, project, change.target, change.delta)}
    delta, conflicts = rebase(change.delta, target)
    entries = apply_delta(target, delta)
    identity = delta_id(delta)
    policy = policy_in(tx, project, change.target, target)
    heads = heads_of(tx, project, change.target, change.source) | proposed_heads(delta)
    around = surroundings(tx, project, entries, target, heads)
    needs = required_checks(tx, project, change.target, around=around, delta=delta, policy=policy.policy)
    found = results.of(tx, project, identity)
    strict = policy.policy.data == "change"
    checks = tuple(_checked(required, found, strict=strict) for required in needs.required)
    if change.state == "open" and change.number:
        checks = _with_tasks(tx, project, identity, checks)
    subject = Subject(identity, policy.id, evidence_digest(checks), frozenset(change.authors))
    approvals = tuple(rows.approvals_of(tx, project, change.number))
    tags = tags_of_delta(tx, project, delta) if policy.policy.tags else frozenset()
    wanted = (*(c.state for c in checks), *reproduced.states(tx, project, delta, policy.policy.reproduced))
    decision = decide(policy.policy, subject, wanted, tuple(_bound(a) for a in approvals), tags)
    blocking = [
        *(f"{key} was changed in {change.target} meanwhile" for key in conflicts),
        *(["nothing is left to change"] if not delta else []),
        *(f"the policy names check {name}, which nobody defines" for name in needs.unknown),
        *(f"check {c.required.label}: {p}" for c in checks for p in c.required.subjects.problems),
        *incoherences(tx, project, entries, delta),
    ]
    notes = (*decision.notes, *needs.notes, *_said(checks))
    decision = Decision(decision.allowed and not blocking, (*blocking, *decision.reasons), decision.counted, notes)
    return Standing(
        change,
        target_snapshot,
        target,
        entries,
        delta,
        identity,
        conflicts,
        policy,
        checks,
        approvals,
        subject,
        decision,
        tuple(blocking),
    )


def rebase(delta: Delta, target: Mapping[str, str]) -> tuple[Delta, tuple[str, ...]]:
    """The delta on the target as it is now: what still has to be done, and the keys that moved elsewhere.

    A key that is where the delta wants it already has nothing to be done; that makes another delta, so approvals die.
    """
    left: Delta = {}
    conflicts: list[str] = []
    for key, (old, new) in delta.items():
        now = target.get(key)
        if now == new:
            continue
        if now != old:
            conflicts.append(key)
        left[key] = (old, new)
    return left, tuple(conflicts)


def evidence_digest(checks: tuple[Checked, ...]) -> str:
    """The digest of the newest evidence of every required check; evidence pins subjects and heads."""
    return manifest_id(
        [
            [c.required.check_id, c.required.objective_id, c.required.label, c.result.evidence if c.result else ""]
            for c in checks
        ]
    )


def _checked(required: Required, found: list[Result], *, strict: bool) -> Checked:
    """The newest result on the same check, objective and subjects; `strict`: on the same heads too."""
    wanted = (required.check_id, required.objective_id, dict(required.subjects.ids))
    for result in found:
        if (result.check_id, result.objective_id, dict(result.subjects)) != wanted:
            continue
        moved = tuple(name for name, head in sorted(required.subjects.heads.items()) if result.heads.get(name) != head)
        if not (strict and moved):
            return Checked(required, result, moved)
    return Checked(required, None)


def _with_tasks(tx: Tx, project: str, delta: str, checks: tuple[Checked, ...]) -> tuple[Checked, ...]:
    """The checks that have not passed, each with the task that works on it, or was to."""
    left = [None if c.state.state == "passed" else _key(delta, c.required) for c in checks]
    keys = [key for key in left if key is not None]
    found = tasks.newest(tx, project, TASK, keys) if keys else {}
    return tuple(replace(c, task=found.get(key) if key else None) for c, key in zip(checks, left, strict=True))


def _key(delta: str, required: Required) -> str:
    return request_key(delta, required.check_id, required.objective_id, required.subjects.candidate)


def _told(error: str | None) -> str:
    """The words of a task's error, which is a problem in JSON or a plain text."""
    try:
        return str(json.loads(error or "")["detail"])
    except (ValueError, TypeError, KeyError):
        return error or "it was cancelled"


def _bound(row: ApprovalRow) -> Approval:
    return Approval(row.actor, row.roles, row.delta, row.policy, row.evidence, row.service)


def _said(checks: tuple[Checked, ...]) -> list[str]:
    """What a reviewer should know though it blocks nothing."""
    return [f"data of {name} moved on since {c.required.label} ran" for c in checks for name in c.stale_heads]
