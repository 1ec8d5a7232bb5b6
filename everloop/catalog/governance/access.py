"""Users, tokens, one-time login codes and sessions, as rows of the workspace.

A secret is a random text of 256 bits that is shown once; what is kept is its SHA-256, which is also how it is found: so
neither the database nor the time of a look-up tells anything about a secret. Roles are read when a credential is used,
so a role that is taken away is gone at once for every token and session.
"""

import hashlib
import hmac
import json
import secrets
from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Row, delete, func, insert, select, update

from everloop.catalog.context import Actor, ActorKind
from everloop.catalog.engine import Tx
from everloop.catalog.tables.access import login_codes, sessions, tokens, user_grants, user_roles, users
from everloop.core.clock import Micros
from everloop.core.errors import Conflict, InvalidInput, NotFound
from everloop.core.grants import SINGLE, SYSTEM_ROLES, Grant, narrowed, role_grants
from everloop.core.ids import checked_name, fresh_id

UserKind = Literal["person", "service"]
PREFIX = "el_"
"""How every token begins, so that scanners for leaked secrets can know one."""


@dataclass(frozen=True, slots=True)
class User:
    """A person or a service account."""

    name: str
    kind: UserKind
    roles: frozenset[str]
    created: Micros
    created_by: str
    disabled: bool
    grants: tuple[Grant, ...] = ()
    """What the user was granted beside the roles."""

    def actor(self) -> Actor:
        """The user, acting with all that the roles and the grants allow."""
        return Actor.of(self.name, *sorted(self.roles), kind=self.kind, grants=self.grants)


@dataclass(frozen=True, slots=True)
class Token:
    """A credential without its secret. `grants` narrow what the user's roles allow; empty narrows nothing."""

    id: str
    prefix: str
    user: str
    kind: ActorKind
    label: str
    project: str
    """The one project that it opens; empty means every project."""
    grants: tuple[Grant, ...]
    created: Micros
    expires: Micros
    revoked: Micros | None


def create_user(tx: Tx, name: str, *, kind: UserKind, roles: Collection[str], actor: str, at: Micros) -> User:
    """Add a user; raises `InvalidInput` for a name or role, `Conflict` when the name is taken."""
    checked_name(name)
    _checked_roles(roles)
    if tx.execute(select(users.c.name).where(users.c.name == name)).first() is not None:
        raise Conflict(f"a user {name} exists already", hint="choose another name, or set that user's roles")
    row = {"name": name, "kind": kind, "created": at, "created_by": actor, "disabled": False}
    tx.execute(insert(users), [row])
    _write_roles(tx, name, roles)
    return user(tx, name)


def user(tx: Tx, name: str) -> User:
    """The user of that name; raises `NotFound`."""
    row = tx.execute(select(users).where(users.c.name == name)).first()
    if row is None:
        raise NotFound(f"there is no user {name}", hint="`everloop access list-users` shows who there is")
    held = tx.execute(select(user_roles.c.role).where(user_roles.c.user == name)).scalars()
    granted = tx.execute(select(user_grants.c.grant).where(user_grants.c.user == name).order_by(user_grants.c.grant))
    return _user(row, frozenset(held), tuple(map(Grant.parse, granted.scalars())))


def all_users(tx: Tx) -> list[User]:
    """Every user, by name."""
    held: dict[str, set[str]] = defaultdict(set)
    for row in tx.execute(select(user_roles)):
        held[row.user].add(row.role)
    granted: dict[str, list[Grant]] = defaultdict(list)
    for row in tx.execute(select(user_grants).order_by(user_grants.c.grant)):
        granted[row.user].append(Grant.parse(row.grant))
    rows = tx.execute(select(users).order_by(users.c.name))
    return [_user(row, frozenset(held[row.name]), tuple(granted[row.name])) for row in rows]


def count_users(tx: Tx) -> int:
    """How many users there are; 0 in a fresh workspace, where the first admin is still to be made."""
    return tx.execute(select(func.count()).select_from(users)).scalar_one()


def set_roles(tx: Tx, name: str, roles: Collection[str]) -> User:
    """Replace a user's roles; raises `NotFound`, `InvalidInput`."""
    _checked_roles(roles)
    user(tx, name)
    tx.execute(delete(user_roles).where(user_roles.c.user == name))
    _write_roles(tx, name, roles)
    return user(tx, name)


def set_grants(tx: Tx, name: str, grants: Collection[Grant]) -> User:
    """Replace what a user is granted beside the roles; raises `NotFound`, and `InvalidInput` for what only roles give.

    Tokens follow at once: they are narrowed by what their owner may do now.
    """
    for grant in grants:
        if grant.verb not in SINGLE:
            raise InvalidInput(
                f"{grant} is given by roles only", hint="what can be granted by itself: " + ", ".join(sorted(SINGLE))
            )
    user(tx, name)
    tx.execute(delete(user_grants).where(user_grants.c.user == name))
    rows = [{"user": name, "grant": text} for text in sorted({str(grant) for grant in grants})]
    if rows:
        tx.execute(insert(user_grants), rows)
    return user(tx, name)


def set_disabled(tx: Tx, name: str, *, disabled: bool) -> User:
    """Shut a user out, or let them in again; their sessions end."""
    user(tx, name)
    tx.execute(update(users).where(users.c.name == name).values(disabled=disabled))
    tx.execute(delete(sessions).where(sessions.c.user == name))
    return user(tx, name)


def issue_token(
    tx: Tx,
    name: str,
    *,
    at: Micros,
    expires: Micros,
    kind: ActorKind = "person",
    label: str = "",
    project: str = "",
    grants: Collection[Grant] = (),
) -> tuple[Token, str]:
    """Make a token for a user and return it with its secret, which is nowhere else."""
    secret = PREFIX + secrets.token_urlsafe(32)
    row = {
        "digest": _digest(secret),
        "id": fresh_id("token"),
        "prefix": secret[:9],
        "user": name,
        "kind": kind,
        "label": label,
        "project": project,
        "grants": json.dumps([str(grant) for grant in grants]),
        "created": at,
        "expires": expires,
    }
    tx.execute(insert(tokens), [row])
    return token(tx, str(row["id"])), secret


def issue_task_token(
    tx: Tx, project: str, run: str, *, name: str, at: Micros, expires: Micros, more: Collection[Grant] = ()
) -> tuple[Token, str]:
    """A token for one step: it reads the project's runs and models, and writes this run and its artifacts only."""
    texts = (f"run.write run/{run}", "read run/*", "read experiment/*", "read model/*")
    grants = [*(Grant.parse(text) for text in texts), *more]
    return issue_token(
        tx, name, at=at, expires=expires, kind="task", label=f"run {run}", project=project, grants=grants
    )


def token(tx: Tx, identity: str) -> Token:
    """The token of that id; raises `NotFound`."""
    row = tx.execute(select(tokens).where(tokens.c.id == identity)).first()
    if row is None:
        raise NotFound(f"there is no token {identity}", hint="tokens are named by their id, not by their secret")
    return _token(row)


def tokens_of(tx: Tx, name: str) -> list[Token]:
    """A user's tokens, newest first, those of tasks left out."""
    mine = select(tokens).where(tokens.c.user == name, tokens.c.kind != "task")
    return [_token(row) for row in tx.execute(mine.order_by(tokens.c.created.desc(), tokens.c.id))]


def revoke_token(tx: Tx, identity: str, *, at: Micros) -> Token:
    """End a token now; ending it twice changes nothing."""
    token(tx, identity)
    tx.execute(update(tokens).where(tokens.c.id == identity, tokens.c.revoked.is_(None)).values(revoked=at))
    return token(tx, identity)


def actor_of_token(tx: Tx, secret: str, project: str, *, at: Micros) -> Actor | None:
    """Whom a secret stands for in a project; None when it is unknown, revoked, expired or for another project.

    A task's token carries its own grants; any other is narrowed to what its user's roles allow now.
    """
    digest = _digest(secret)
    row = tx.execute(select(tokens).where(tokens.c.digest == digest)).first()
    if row is None or not hmac.compare_digest(row.digest, digest):
        return None
    found = _token(row)
    if found.revoked is not None or found.expires <= at or found.project not in {"", project}:
        return None
    if found.kind == "task":
        return Actor(found.user, "task", frozenset(), found.grants)
    whole = _enabled(tx, found.user)
    if whole is None or not found.grants:
        return whole
    return Actor(whole.name, whole.kind, whole.roles, narrowed(found.grants, whole.grants))


def issue_code(tx: Tx, name: str, *, at: Micros, expires: Micros) -> str:
    """A one-time login code for a user; raises `NotFound`. Codes that ran out are swept on the way."""
    user(tx, name)
    tx.execute(delete(login_codes).where(login_codes.c.expires <= at))
    code = secrets.token_urlsafe(32)
    tx.execute(insert(login_codes), [{"digest": _digest(code), "user": name, "created": at, "expires": expires}])
    return code


def take_code(tx: Tx, code: str, *, at: Micros) -> str | None:
    """The user that a code was made for, once: whoever comes second gets None, as for a wrong or old code."""
    gone = delete(login_codes).where(login_codes.c.digest == _digest(code)).returning(login_codes)
    row = tx.execute(gone).first()
    return None if row is None or row.expires <= at else str(row.user)


def open_session(tx: Tx, name: str, *, at: Micros, expires: Micros) -> str:
    """Start a session and return its secret, for the cookie."""
    tx.execute(delete(sessions).where(sessions.c.expires <= at))
    secret = secrets.token_urlsafe(32)
    tx.execute(insert(sessions), [{"digest": _digest(secret), "user": name, "created": at, "expires": expires}])
    return secret


def actor_of_session(tx: Tx, secret: str, *, at: Micros) -> Actor | None:
    """Whom a session stands for; None when it is unknown or ran out, or its user is shut out."""
    digest = _digest(secret)
    row = tx.execute(select(sessions).where(sessions.c.digest == digest)).first()
    if row is None or not hmac.compare_digest(row.digest, digest) or row.expires <= at:
        return None
    return _enabled(tx, row.user)


def close_session(tx: Tx, secret: str) -> None:
    """End a session."""
    tx.execute(delete(sessions).where(sessions.c.digest == _digest(secret)))


def _enabled(tx: Tx, name: str) -> Actor | None:
    try:
        found = user(tx, name)
    except NotFound:
        return None
    return None if found.disabled else found.actor()


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def _checked_roles(roles: Collection[str]) -> None:
    for role in roles:
        role_grants(role)
        if role in SYSTEM_ROLES:
            raise InvalidInput(
                f"nobody can be given the role {role!r}", hint="workers hold it; evidence is what they found"
            )


def _write_roles(tx: Tx, name: str, roles: Collection[str]) -> None:
    rows = [{"user": name, "role": role} for role in sorted(set(roles))]
    if rows:
        tx.execute(insert(user_roles), rows)


def _user(row: Row[Any], roles: frozenset[str], grants: tuple[Grant, ...]) -> User:
    if row.kind not in {"person", "service"}:
        raise InvalidInput(f"{row.kind!r} is not a kind of user", hint="person or service")
    return User(row.name, row.kind, roles, row.created, row.created_by, row.disabled, grants)


def _token(row: Row[Any]) -> Token:
    return Token(
        id=row.id,
        prefix=row.prefix,
        user=row.user,
        kind=row.kind,
        label=row.label,
        project=row.project,
        grants=tuple(Grant.parse(text) for text in json.loads(row.grants)),
        created=row.created,
        expires=row.expires,
        revoked=row.revoked,
    )
