"""Operations: one function, declared once, for every face of Everloop.

From a declaration come the REST route, the permission check, the audit record, the SDK's remote call and the CLI's
remote mode. Permission is denied by default: an operation that does not say what it needs cannot even be declared.

Audit records are facts about the target, and each is in the transaction of the effect it records: `audit.allowed` (one
for every transaction that the operation commits, or one alone when it wrote nothing), `audit.denied`, and
`audit.failed` for one that was allowed and raised before it wrote.
"""

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar, get_type_hints

from pydantic import BaseModel, ConfigDict

from everloop.catalog import facts
from everloop.catalog.context import Act, Context
from everloop.core.errors import DefinitionError, EverloopError, NotFound, PermissionDenied
from everloop.core.grants import ROLES, Grant, Target, role_grants
from everloop.core.ids import object_id

Audit = Literal["each", "denied"]


class Command(BaseModel):
    """What an operation is asked; subclasses add fields. Unknown fields are refused. Secrets are `SecretStr`."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Answer(BaseModel):
    """What an operation answers; subclasses add fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


C = TypeVar("C", bound=Command)
A = TypeVar("A", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Operation:
    """One declared operation."""

    name: str
    """`noun.verb`; the REST route is made from it."""
    function: Callable[[Context, Any], Any]
    command: type[Command]
    answer: type[BaseModel]
    needs: str
    """The verb that a grant must hold."""
    on: Callable[[Context, Any], Target]
    """What the command touches."""
    audit: Audit
    reads: bool
    """Whether it changes nothing, so that only denials are recorded."""
    engine: bool = False
    """Whether it loads an engine (Arrow, Polars, DuckDB): a server that stays small runs it in another process."""

    @property
    def summary(self) -> str:
        """The first line of the function's docstring."""
        return (self.function.__doc__ or self.name).strip().splitlines()[0]


_registered: dict[str, Operation] = {}


def _whole_project(ctx: Context, _command: Any) -> Target:
    return Target("project", ctx.project)


def operation(
    name: str,
    *,
    needs: str,
    on: Callable[[Context, C], Target] = _whole_project,
    audit: Audit = "each",
    reads: bool = False,
    engine: bool = False,
) -> Callable[[Callable[[Context, C], A]], Callable[[Context, C], A]]:
    """Declare the function below as an operation; it stays an ordinary function.

    A direct call of the function checks nothing and records nothing of its own: so one operation may use another
    inside. Everything that comes from outside goes through `invoke`. Raises `DefinitionError`, when the module is
    imported, for a missing or unknown verb, a name that is taken, or a signature that is not
    `(ctx: Context, cmd: Command) -> Answer`.
    """
    if not needs or not _held_by_some_role(needs):
        raise DefinitionError(
            f"operation {name!r} needs {needs!r}, which no role can hold",
            hint="use a verb of everloop.core.grants.ROLES",
        )

    if engine and not reads:
        raise DefinitionError(f"operation {name!r} writes, so it cannot run elsewhere", hint="let a worker do it")

    def declare(function: Callable[[Context, C], A]) -> Callable[[Context, C], A]:
        command, answer = _signature(name, function)
        if name in _registered:
            raise DefinitionError(f"operation {name!r} is declared twice", hint="one name, one function")
        _registered[name] = Operation(name, function, command, answer, needs, on, audit, reads, engine)
        return function

    return declare


def operations() -> dict[str, Operation]:
    """Every operation of the modules that are loaded, by name."""
    return dict(sorted(_registered.items()))


def find_operation(which: str | Callable[[Context, Any], Any]) -> Operation:
    """The operation of that name or function; raises `NotFound`."""
    if isinstance(which, str):
        found = _registered.get(which)
    else:
        found = next((known for known in _registered.values() if known.function is which), None)
    if found is None:
        raise NotFound(f"there is no operation {which!r}", hint="`everloop operations` lists them")
    return found


def invoke(ctx: Context, op: Operation | str | Callable[[Context, C], A], cmd: C) -> A:
    """Run an operation for `ctx.actor`: check the permission, run, audit.

    Raises `PermissionDenied` (and records that) when no grant permits it, and what the operation raises.
    """
    found = op if isinstance(op, Operation) else find_operation(op)
    target = found.on(ctx, cmd)
    act = Act(found.name, str(target), "", "", audited=found.audit == "each" and not found.reads)
    try:
        act.grant = str(ctx.actor.need(found.needs, target))
    except PermissionDenied:
        act.digest = digest_of(cmd)
        _record(ctx, act, "audit.denied", needs=found.needs)
        raise
    if act.audited:  # only what is recorded is hashed, and before any transaction
        act.digest = digest_of(cmd)
    elsewhere = ctx.ports.get("engines") if found.engine else None
    try:
        answer: A = elsewhere(ctx, found, cmd) if elsewhere else found.function(replace(ctx, act=act), cmd)
    except EverloopError as error:
        if act.audited and act.records == 0:
            with suppress(EverloopError):  # the operation's own error matters more
                _record(ctx, act, "audit.failed", error=error.code)
        raise
    if act.audited and act.records == 0:
        _record(ctx, act, "audit.allowed")
    return answer


def digest_of(cmd: BaseModel) -> str:
    """The digest of a command for its audit record. Fields of type `SecretStr` count as a constant mask."""
    text = json.dumps(cmd.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
    return object_id(text.encode())


def _record(ctx: Context, act: Act, kind: str, **more: str) -> None:
    with ctx.catalog.write() as tx:
        facts.append(tx, ctx.project, ctx.audit_fact(kind, act, **more))


def _held_by_some_role(verb: str) -> bool:
    anywhere = Target()
    grants = (grant for role in ROLES for grant in role_grants(role))
    return any(Grant(grant.verb, "*", "*", "*", "*").allows(verb, anywhere) for grant in grants)


def _signature(name: str, function: Callable[..., Any]) -> tuple[type[Command], type[BaseModel]]:
    try:
        hints = get_type_hints(function)
    except NameError as error:
        raise DefinitionError(
            f"operation {name!r}: {error}", hint="annotate with types that the module knows"
        ) from error
    answer = hints.pop("return", None)
    types = list(hints.values())
    if (
        len(types) != 2
        or types[0] is not Context
        or not _is_model(types[1], Command)
        or not _is_model(answer, BaseModel)
    ):
        raise DefinitionError(
            f"operation {name!r} must be annotated (ctx: Context, cmd: <a Command>) -> <an Answer>",
            hint="subclass everloop.catalog.operation.Command and Answer",
        )
    return types[1], answer


def _is_model(candidate: Any, parent: type) -> bool:
    return isinstance(candidate, type) and issubclass(candidate, parent)
