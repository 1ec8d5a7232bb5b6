"""Policy: what a protected environment demands of a change; a pure function from facts to a decision.

A policy is read from the *target* of a change, never from the proposal. It is a version like any other
(`policy/<environment>`), so changing it is an ordinary change; leaving `team` needs the team's quorum,
because the policy that decides is the one in force.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Mode = Literal["solo", "team"]
TIERS = ("bit", "canonical", "functional", "numeric", "statistical", "different")
"""How closely a version came out again, nearest first (see `flows.reproduce`)."""


@dataclass(frozen=True, slots=True)
class Policy:
    """The rules of one protected environment."""

    mode: Mode
    approvals: int = 1
    """How many different people must approve."""
    roles: tuple[str, ...] = ("approver",)
    """Each of these roles must be held by at least one of the approvers (team only)."""
    checks: tuple[str, ...] = ()
    """Names of checks that every change needs, beside those that block this environment by themselves."""
    data: Literal["grant", "change"] = "grant"
    """Whether data heads move by their standing grant or only through changes."""
    tags: Mapping[str, str] = field(default_factory=dict)
    """Tag -> the role that one of the approvers must hold, under every mode, when what a change brings carries it."""
    scan: Literal["new", "text", "asked"] = "new"
    """Which data is scanned for personal data: every new version, its free text too, or what somebody asks for."""
    found: Literal["wait", "tag"] = "wait"
    """Whether what a scan for personal data finds waits for a person, or is a tag at once."""
    reproduced: str = ""
    """How closely a worker must have reproduced every model that a change brings: a tier; empty: not at all."""

    def manifest(self) -> dict[str, Any]:
        """The manifest of the policy's version; fields that came later are there where they say something."""
        later: dict[str, Any] = {"tags": dict(self.tags)} if self.tags else {}
        later |= {"scan": self.scan} if self.scan != "new" else {}
        later |= {"found": self.found} if self.found != "wait" else {}
        later |= {"reproduced": self.reproduced} if self.reproduced else {}
        return {
            "mode": self.mode,
            "approvals": self.approvals,
            "roles": list(self.roles),
            "checks": list(self.checks),
            "data": self.data,
            **later,
        }

    @classmethod
    def from_manifest(cls, manifest: Mapping[str, Any]) -> "Policy":
        """Read a policy back from its version."""
        return cls(
            mode=manifest["mode"],
            approvals=manifest["approvals"],
            roles=tuple(manifest["roles"]),
            checks=tuple(manifest["checks"]),
            data=manifest["data"],
            tags=dict(manifest.get("tags", {})),
            scan=manifest.get("scan", "new"),
            found=manifest.get("found", "wait"),
            reproduced=manifest.get("reproduced", ""),
        )


def genesis(mode: Mode) -> Policy:
    """The policy that `everloop init` writes: `solo` (self-approval allowed and shown) or `team` (four eyes)."""
    return Policy(mode)


@dataclass(frozen=True, slots=True)
class Approval:
    """One person's approval, bound to what they saw."""

    actor: str
    roles: frozenset[str]
    delta: str
    policy: str
    evidence: str
    service: bool = False
    """Whether the actor is a service account; those never approve."""


@dataclass(frozen=True, slots=True)
class CheckState:
    """Where one required check stands for this delta."""

    name: str
    state: Literal["missing", "waiting", "running", "passed", "failed", "error"]
    """`missing`: it has no result, and nobody works on one; `waiting` and `running`: a worker will, or does."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What the approvals of a change must be bound to now, and who made the change."""

    delta: str
    policy: str
    evidence: str
    authors: frozenset[str]


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether the change may merge, why not, and which approvals count."""

    allowed: bool
    reasons: tuple[str, ...]
    counted: tuple[str, ...]
    notes: tuple[str, ...] = ()


def approval_refusal(policy: Policy, actor: str, subject: Subject, *, service: bool) -> str | None:
    """Why this actor may not approve, or None. Under `team` no author may, whatever role they hold."""
    if service:
        return "service accounts cannot approve"
    if policy.mode == "team" and actor in subject.authors:
        return f"{actor} is an author of this change; under the team policy somebody else must approve"
    return None


def decide(
    policy: Policy,
    subject: Subject,
    checks: tuple[CheckState, ...],
    approvals: tuple[Approval, ...],
    tags: frozenset[str] = frozenset(),
) -> Decision:
    """Decide whether a change may merge. An approval bound to another delta, policy or evidence is dead.

    `tags` are those of everything that the change brings in.
    """
    reasons = [f"check {c.name} is {c.state}" for c in checks if c.state != "passed"]
    alive: dict[str, Approval] = {}
    for approval in approvals:
        bound = (approval.delta, approval.policy, approval.evidence) == (
            subject.delta,
            subject.policy,
            subject.evidence,
        )
        if bound and approval_refusal(policy, approval.actor, subject, service=approval.service) is None:
            alive[approval.actor] = approval
    missing = policy.approvals - len(alive)
    if missing > 0:
        reasons.append(f"{missing} more approval{'s' if missing > 1 else ''} needed")
    held = frozenset[str]().union(*(a.roles for a in alive.values()))
    reasons.extend(
        f"an approver with the role {role} is needed: the change brings {tag} data"
        for tag, role in sorted(policy.tags.items())
        if tag in tags and role not in held
    )
    if policy.mode == "team":
        reasons.extend(f"an approver with the role {role} is needed" for role in policy.roles if role not in held)
    notes = tuple(f"self-approved by {actor} (solo policy)" for actor in sorted(alive) if actor in subject.authors)
    return Decision(not reasons, tuple(reasons), tuple(sorted(alive)), notes)
