"""Tables of access: users, tokens, one-time login codes, sessions. They belong to the workspace, not to one project.

Secrets are kept as the SHA-256 of a random 256-bit text: such a text cannot be guessed, so a slow hash would add
nothing, and the digest can be the key that is looked up. `project` narrows a credential: empty means every project.
"""

from sqlalchemy import Boolean, Column, ForeignKey, Index, Table, Text

from everloop.catalog.tables.columns import Key, Moment, metadata

users = Table(
    "users",
    metadata,
    Column("name", Key, primary_key=True),
    Column("kind", Key, nullable=False),  # person | service
    Column("created", Moment, nullable=False),
    Column("created_by", Key, nullable=False),
    Column("disabled", Boolean, nullable=False),
)

user_roles = Table(
    "user_roles",
    metadata,
    Column("user", Key, ForeignKey(users.c.name), primary_key=True),
    Column("role", Key, primary_key=True),
    sqlite_with_rowid=False,
)

user_grants = Table(
    "user_grants",
    metadata,
    Column("user", Key, ForeignKey(users.c.name), primary_key=True),
    Column("grant", Key, primary_key=True),
    sqlite_with_rowid=False,
)

tokens = Table(
    "tokens",
    metadata,
    Column("digest", Key, primary_key=True),
    Column("id", Key, nullable=False, unique=True),
    Column("prefix", Key, nullable=False),  # the first characters of the token, so that people know which one it is
    Column("user", Key, nullable=False),
    Column("kind", Key, nullable=False),  # person | service | task
    Column("label", Text, nullable=False),
    Column("project", Key, nullable=False),
    Column("grants", Text, nullable=False),  # JSON list; empty: all that the user's roles allow
    Column("created", Moment, nullable=False),
    Column("expires", Moment, nullable=False),
    Column("revoked", Moment),
    Index(None, "user"),
)

login_codes = Table(
    "login_codes",
    metadata,
    Column("digest", Key, primary_key=True),
    Column("user", Key, nullable=False),
    Column("created", Moment, nullable=False),
    Column("expires", Moment, nullable=False),
)

sessions = Table(
    "sessions",
    metadata,
    Column("digest", Key, primary_key=True),
    Column("user", Key, nullable=False),
    Column("created", Moment, nullable=False),
    Column("expires", Moment, nullable=False),
    Index(None, "user"),
)
