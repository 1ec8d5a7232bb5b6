"""Who may ask endpoints beyond loopback: the digests of valid tokens, for the gateways' signed table."""

import json

from sqlalchemy import select

from everloop.catalog.engine import Tx
from everloop.catalog.tables.access import tokens, user_roles, users
from everloop.core.clock import Micros
from everloop.core.grants import Grant, Target

_ASK = Target("endpoint", "any", "production")


def callers(tx: Tx, *, at: Micros) -> dict[str, list[str]]:
    """SHA-256 of each token that may ask endpoints -> the projects that it opens (`*`: all).

    Tokens of people and services whose user is enabled; a token with narrower grants counts when one of them reads
    every endpoint of production. Tokens of tasks never ask.
    """
    query = (
        select(tokens.c.digest, tokens.c.project, tokens.c.grants)
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
    found = {}
    for row in tx.execute(query):
        narrowed = [Grant.parse(text) for text in json.loads(row.grants)]
        if not narrowed or any(grant.allows("read", _ASK) for grant in narrowed):
            found[row.digest] = [row.project or "*"]
    return found
