"""Who acts, in which project, with what at hand: the one argument that every operation takes."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from everloop.catalog import facts
from everloop.catalog.engine import Catalog, Tx
from everloop.catalog.facts import Fact
from everloop.core.clock import Clock, Micros
from everloop.core.errors import PermissionDenied
from everloop.core.grants import ROLES, SYSTEM_ROLES, Grant, Target, allowing, role_grants
from everloop.core.ports import Blobs
from everloop.core.signing import SigningKey

ActorKind = Literal["person", "service", "task"]
"""A task is a step's own credential: it holds the few grants of its run, and never approves."""


@dataclass(frozen=True, slots=True)
class Actor:
    """Who acts. `grants` is all that they may do; `roles` only says as whom they count when they approve."""

    name: str
    kind: ActorKind = "person"
    roles: frozenset[str] = frozenset()
    grants: tuple[Grant, ...] = ()
    anonymous: bool = False
    """Nobody presented a credential; the name stands for the way in (`loopback`)."""

    @classmethod
    def of(cls, name: str, *roles: str, kind: ActorKind = "person", grants: Iterable[str | Grant] = ()) -> "Actor":
        """An actor with the grants of its roles and some more. Raises `InvalidInput` for an unknown role."""
        held = [grant for role in roles for grant in role_grants(role)]
        held.extend(Grant.parse(grant) if isinstance(grant, str) else grant for grant in grants)
        return cls(name, kind, frozenset(roles), tuple(held))

    def may(self, verb: str, target: Target) -> bool:
        """Whether a grant permits it."""
        return allowing(self.grants, verb, target) is not None

    def need(self, verb: str, target: Target) -> Grant:
        """The grant that permits it; raises `PermissionDenied`, saying which one would."""
        grant = allowing(self.grants, verb, target)
        if grant is None:
            raise PermissionDenied(
                f"{self.name} may not {verb} {target}",
                hint=_way_in(verb, target) if self.anonymous else f"ask an admin for the grant: {verb} {target}",
                verb=verb,
                target=str(target),
            )
        return grant


def _way_in(verb: str, target: Target) -> str:
    """What somebody without a credential can do: the roles that may, and where a token of theirs comes from."""
    may = [role for role in sorted(set(ROLES) - SYSTEM_ROLES) if allowing(role_grants(role), verb, target)]
    of_whom = f" of somebody with the role {' or '.join(may)}" if may else ""
    return (
        f"sign in, or present a token{of_whom}: `everloop access create-token` makes it, MLFLOW_TRACKING_TOKEN holds it"
    )


@dataclass(slots=True)
class Act:
    """The operation that runs now, as far as its audit records need to know it."""

    operation: str
    target: str
    grant: str
    digest: str
    """Of the command, its secrets left out."""
    audited: bool
    """Whether what it writes is recorded."""
    records: int = 0
    """Audit records committed so far."""


@dataclass(frozen=True, slots=True)
class Context:
    """What an operation works with. Frozen: `as_actor` and `replace` make another one."""

    actor: Actor
    project: str
    clock: Clock
    catalog: Catalog
    store: Blobs
    key: SigningKey | None = None
    home: Path = Path(".everloop")
    bindings: Mapping[str, Any] = field(default_factory=dict)
    """Values of the names that versions may use (`warehouse`), for the environment at hand."""
    ports: Mapping[str, Any] = field(default_factory=dict)
    """What higher packages plug in, by the name of its protocol (`executor`, `online`)."""
    act: Act | None = None

    @contextmanager
    def read(self) -> Iterator[Tx]:
        """A transaction that sees one state and cannot write."""
        with self.catalog.read() as tx:
            yield tx

    @contextmanager
    def write(self) -> Iterator[Tx]:
        """A transaction; the audit record of the operation that runs is its last row, so both are or neither is."""
        act = self.act
        with self.catalog.write() as tx:
            yield tx
            if act is not None and act.audited:
                facts.append(tx, self.project, self.audit_fact("audit.allowed", act))
        if act is not None and act.audited:
            act.records += 1

    def now(self) -> Micros:
        """Event time, which a replay moves."""
        return self.clock.now()

    def wall(self) -> Micros:
        """The time of the machine."""
        return self.clock.wall()

    def fact(self, kind: str, subject: str, payload: Mapping[str, Any] | None = None) -> Fact:
        """A fact of this actor, now."""
        return Fact(kind, subject, self.actor.name, self.now(), payload or {}, recorded=self.wall())

    def need(self, verb: str, target: Target) -> Grant:
        """`actor.need`, for a permission beside the one that the operation declares."""
        return self.actor.need(verb, target)

    def as_actor(self, actor: Actor) -> "Context":
        """The same place for somebody else."""
        return replace(self, actor=actor, act=None)

    def audit_fact(self, kind: str, act: Act, **more: Any) -> Fact:
        """The audit record of `act`: who did what to what, by which grant, with which command."""
        payload = {
            "operation": act.operation,
            "target": act.target,
            "grant": act.grant,
            "command": act.digest,
            "actor_kind": "anonymous" if self.actor.anonymous else self.actor.kind,
            "roles": sorted(self.actor.roles),
            "part": act.records + 1,
            **more,
        }
        return self.fact(kind, act.target, payload)
