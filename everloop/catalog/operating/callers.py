"""Who may ask endpoints beyond loopback: the digests of valid tokens, for the gateways' signed table."""

import json
from typing import Any

from sqlalchemy import Select, select

from everloop.catalog.engine import Tx
from everloop.catalog.tables.access import tokens, user_roles, users
from everloop.core.clock import Micros
from everloop.core.grants import Grant, Target, narrowed, role_grants

_ASK = Target("endpoint", "*", "production")
"""All of them: only a grant whose name is `*` covers it."""


def explaining(tx: Tx, *, at: Micros) -> list[str]:
    """SHA-256 of each token that may ask endpoints of production for explanations (`endpoint.explain`).

    The user's roles must allow it, and the token's own grants, where it has any.
    """
    held: dict[str, list[Grant]] = {}
    for row in tx.execute(select(user_roles.c.user, user_roles.c.role)):
        held.setdefault(row.user, []).extend(role_grants(row.role))
    return [row.digest for row in tx.execute(_valid(at)) if _may_explain(row.grants, held.get(row.user, []))]


def _may_explain(grants: str, held: list[Grant]) -> bool:
    own = [Grant.parse(text) for text in json.loads(grants)]
    return any(grant.allows("endpoint.explain", _ASK) for grant in (narrowed(own, held) if own else held))


def callers(tx: Tx, *, at: Micros) -> dict[str, list[str]]:
    """SHA-256 of each token that may ask endpoints -> what it opens: a project, `*` for all, or `project.endpoint`.

    Tokens of people and services whose user is enabled; a token with narrower grants opens the endpoints of production
    that one of them reads (`read endpoint/delay@production`; the name may be a glob). Tokens of tasks never ask.
    """
    found = {}
    for row in tx.execute(_valid(at)):
        own = [Grant.parse(text) for text in json.loads(row.grants)]
        place = row.project or "*"
        if not own or any(grant.allows("read", _ASK) for grant in own):
            found[row.digest] = [place]
        elif named := [grant.name for grant in own if _reads_some(grant)]:
            found[row.digest] = [f"{place}.{name}" for name in named]
    return found


def _reads_some(grant: Grant) -> bool:
    """Whether it reads at least the endpoints of production that its name covers."""
    return grant.allows("read", Target("endpoint", grant.name, "production"))


def _valid(at: Micros) -> Select[Any]:
    return (
        select(tokens.c.digest, tokens.c.project, tokens.c.grants, tokens.c.user)
        .join(users, users.c.name == tokens.c.user)
        .where(
            tokens.c.kind != "task",
            tokens.c.revoked.is_(None),
            tokens.c.expires > at,
            users.c.disabled.is_(False),
            users.c.name.in_(select(user_roles.c.user)),  # every role reads; without one, nothing
        )
        .order_by(tokens.c.digest)
    )
