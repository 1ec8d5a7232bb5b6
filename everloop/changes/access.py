"""Access as operations: users and their roles, tokens, one-time login links, and who one is.

Nobody grants anything to themselves: an admin's own roles are set by another admin, and tokens never reach further
than their owner. The first admin comes from `first_admin`, in a workspace that has no user yet.
"""

from typing import Any, Literal

from everloop.catalog.context import Context
from everloop.catalog.engine import Tx
from everloop.catalog.governance import access
from everloop.catalog.operation import Answer, Command, operation
from everloop.core.clock import DAY, MINUTE, Micros, iso
from everloop.core.errors import Conflict, InvalidInput, PermissionDenied
from everloop.core.grants import Grant, Target

CODE_LIFE: Micros = 10 * MINUTE
"""How long a login link works."""

OWNER_ROLES = ("admin", "approver", "auditor", "contributor", "deployer", "steward")
"""What the first user of a workspace holds: on a laptop, one person is everybody."""


class CreateUser(Command):
    """Add a person, or a service account, which never approves."""

    name: str
    kind: Literal["person", "service"] = "person"
    roles: tuple[str, ...] = ()


class SetRoles(Command):
    """Replace the roles of somebody else."""

    name: str
    roles: tuple[str, ...]


class SetGrants(Command):
    """Replace what somebody else is granted beside the roles: `compute.use compute/large`, one text each."""

    name: str
    grants: tuple[str, ...]


class SetDisabled(Command):
    """Shut somebody else out, or let them in again."""

    name: str
    disabled: bool


class NoArguments(Command):
    """Asks nothing."""


class CreateToken(Command):
    """A token for oneself, or by an admin for a service account. `grants` narrow it; empty means all one's roles."""

    user: str = ""
    label: str = ""
    days: int = 90
    project: str = ""
    grants: tuple[str, ...] = ()


class RevokeToken(Command):
    """End a token: one's own, or by an admin anybody's."""

    id: str


class LoginLink(Command):
    """A link that signs a user in once: oneself, or by an admin somebody else."""

    user: str = ""


class UserView(Answer):
    """A user, as people see one."""

    name: str
    kind: str
    roles: tuple[str, ...]
    created: str
    created_by: str
    disabled: bool
    grants: tuple[str, ...]
    """Beside the roles."""


class UserList(Answer):
    """Every user of the workspace."""

    users: tuple[UserView, ...]


class TokenView(Answer):
    """A token without its secret."""

    id: str
    prefix: str
    user: str
    label: str
    project: str
    grants: tuple[str, ...]
    created: str
    expires: str
    revoked: str | None


class TokenList(Answer):
    """One's own tokens."""

    tokens: tuple[TokenView, ...]


class NewToken(Answer):
    """A token with its secret, which is shown this once."""

    token: TokenView
    secret: str


class Link(Answer):
    """The path to open in a browser; it works once, until `expires`."""

    user: str
    path: str
    expires: str


class Who(Answer):
    """Who the caller is, and what they may do."""

    name: str
    kind: str
    anonymous: bool
    project: str
    roles: tuple[str, ...]
    grants: tuple[str, ...]


def first_admin(tx: Tx, name: str, *, at: Micros) -> access.User:
    """Make the first user, with every role; raises `Conflict` when there is a user already."""
    if access.count_users(tx):
        raise Conflict("the workspace has users already", hint="ask an admin to add you")
    return access.create_user(tx, name, kind="person", roles=OWNER_ROLES, actor=name, at=at)


def _named(_ctx: Context, cmd: Any) -> Target:
    return Target("user", cmd.name)


def _meant(ctx: Context, cmd: Any) -> Target:
    return Target("user", cmd.user or ctx.actor.name)


def _token_meant(_ctx: Context, cmd: RevokeToken) -> Target:
    return Target("token", cmd.id)


@operation("access.create_user", needs="access.write", on=_named)
def create_user(ctx: Context, cmd: CreateUser) -> UserView:
    """Add a user to the workspace."""
    with ctx.write() as tx:
        return _view(
            access.create_user(tx, cmd.name, kind=cmd.kind, roles=cmd.roles, actor=ctx.actor.name, at=ctx.wall())
        )


@operation("access.list_users", needs="read", on=lambda _ctx, _cmd: Target("user", "*"), reads=True)
def list_users(ctx: Context, cmd: NoArguments) -> UserList:  # noqa: ARG001 - every operation has a command
    """List the workspace's users and their roles."""
    with ctx.read() as tx:
        return UserList(users=tuple(_view(one) for one in access.all_users(tx)))


@operation("access.set_roles", needs="access.write", on=_named)
def set_roles(ctx: Context, cmd: SetRoles) -> UserView:
    """Replace somebody else's roles."""
    _refuse_self(ctx, cmd.name)
    with ctx.write() as tx:
        return _view(access.set_roles(tx, cmd.name, cmd.roles))


@operation("access.set_grants", needs="access.write", on=_named)
def set_grants(ctx: Context, cmd: SetGrants) -> UserView:
    """Replace what somebody else may do beside their roles: which compute profiles they may use."""
    _refuse_self(ctx, cmd.name)
    grants = [Grant.parse(text) for text in cmd.grants]
    with ctx.write() as tx:
        return _view(access.set_grants(tx, cmd.name, grants))


@operation("access.set_disabled", needs="access.write", on=_named)
def set_disabled(ctx: Context, cmd: SetDisabled) -> UserView:
    """Shut a user out, or let them in again."""
    _refuse_self(ctx, cmd.name)
    with ctx.write() as tx:
        return _view(access.set_disabled(tx, cmd.name, disabled=cmd.disabled))


@operation("access.create_token", needs="read", on=_meant)
def create_token(ctx: Context, cmd: CreateToken) -> NewToken:
    """Make a token; its secret is shown this once."""
    if not 1 <= cmd.days <= 366:
        raise InvalidInput("a token lives 1 to 366 days", hint="choose the shortest time that serves")
    grants = tuple(Grant.parse(text) for text in cmd.grants)
    name = cmd.user or ctx.actor.name
    _refuse_guests(ctx)
    at = ctx.wall()
    with ctx.write() as tx:
        owner = access.user(tx, name)
        if name != ctx.actor.name:
            ctx.need("access.write", Target("user", name))
            if owner.kind != "service":
                raise PermissionDenied("a person's tokens are made by that person", hint="send them a login link")
        elif ctx.actor.grants != owner.actor().grants:
            raise PermissionDenied(
                "a token with a narrowed scope cannot make tokens", hint="sign in, then make the token"
            )
        token, secret = access.issue_token(
            tx,
            name,
            at=at,
            expires=at + cmd.days * DAY,
            kind=owner.kind,
            label=cmd.label,
            project=cmd.project,
            grants=grants,
        )
    return NewToken(token=_token_view(token), secret=secret)


@operation("access.list_tokens", needs="read", on=lambda ctx, _cmd: Target("user", ctx.actor.name), reads=True)
def list_tokens(ctx: Context, cmd: NoArguments) -> TokenList:  # noqa: ARG001 - every operation has a command
    """List one's own tokens, without their secrets."""
    with ctx.read() as tx:
        return TokenList(tokens=tuple(_token_view(one) for one in access.tokens_of(tx, ctx.actor.name)))


@operation("access.revoke_token", needs="read", on=_token_meant)
def revoke_token(ctx: Context, cmd: RevokeToken) -> TokenView:
    """End a token now."""
    _refuse_guests(ctx)
    with ctx.write() as tx:
        if access.token(tx, cmd.id).user != ctx.actor.name:
            ctx.need("access.write", Target("token", cmd.id))
        return _token_view(access.revoke_token(tx, cmd.id, at=ctx.wall()))


@operation("access.login_link", needs="read", on=_meant)
def login_link(ctx: Context, cmd: LoginLink) -> Link:
    """Make a one-time link that signs a user in."""
    name = cmd.user or ctx.actor.name
    _refuse_guests(ctx)
    with ctx.write() as tx:
        if name != ctx.actor.name:
            ctx.need("access.write", Target("user", name))
        elif ctx.actor.grants != access.user(tx, name).actor().grants:
            raise PermissionDenied("a token with a narrowed scope opens no session", hint="use your full token")
        return link(tx, name, at=ctx.wall())


@operation("access.whoami", needs="read", reads=True)
def whoami(ctx: Context, cmd: NoArguments) -> Who:  # noqa: ARG001 - every operation has a command
    """Say who the caller is and what they may do here."""
    actor = ctx.actor
    return Who(
        name=actor.name,
        kind=actor.kind,
        anonymous=actor.anonymous,
        project=ctx.project,
        roles=tuple(sorted(actor.roles)),
        grants=tuple(str(grant) for grant in actor.grants),
    )


def link(tx: Tx, name: str, *, at: Micros) -> Link:
    """A one-time login link for a user, for those who hold the workspace itself (`everloop up`)."""
    code = access.issue_code(tx, name, at=at, expires=at + CODE_LIFE)
    return Link(user=name, path=f"/login?code={code}", expires=iso(at + CODE_LIFE))


def _refuse_self(ctx: Context, name: str) -> None:
    if name == ctx.actor.name:
        raise PermissionDenied("nobody changes their own access", hint="ask another admin")


def _refuse_guests(ctx: Context) -> None:
    if ctx.actor.anonymous or ctx.actor.kind == "task":
        raise PermissionDenied("only somebody who signed in may do this", hint="sign in, or present a token")


def _view(user: access.User) -> UserView:
    return UserView(
        name=user.name,
        kind=user.kind,
        roles=tuple(sorted(user.roles)),
        created=iso(user.created),
        created_by=user.created_by,
        disabled=user.disabled,
        grants=tuple(str(grant) for grant in user.grants),
    )


def _token_view(token: access.Token) -> TokenView:
    return TokenView(
        id=token.id,
        prefix=token.prefix,
        user=token.user,
        label=token.label,
        project=token.project,
        grants=tuple(str(grant) for grant in token.grants),
        created=iso(token.created),
        expires=iso(token.expires),
        revoked=None if token.revoked is None else iso(token.revoked),
    )
