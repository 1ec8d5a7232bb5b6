"""Tables of users, tokens, login codes and sessions, as they were at revision 0001."""

from alembic import op
from sqlalchemy import BigInteger, Boolean, Column, ForeignKeyConstraint, PrimaryKeyConstraint, Text, UniqueConstraint

from everloop.catalog.migrations.r0001.columns import Key


def create() -> None:
    """Create them."""
    _login_codes()
    _sessions()
    _tokens()
    _users()
    _user_roles()


def _login_codes() -> None:
    op.create_table(
        "login_codes",
        Column("digest", Key, nullable=False),
        Column("user", Key, nullable=False),
        Column("created", BigInteger, nullable=False),
        Column("expires", BigInteger, nullable=False),
        PrimaryKeyConstraint("digest", name="pk_login_codes"),
    )


def _sessions() -> None:
    op.create_table(
        "sessions",
        Column("digest", Key, nullable=False),
        Column("user", Key, nullable=False),
        Column("created", BigInteger, nullable=False),
        Column("expires", BigInteger, nullable=False),
        PrimaryKeyConstraint("digest", name="pk_sessions"),
    )
    op.create_index("ix_sessions_user", "sessions", ["user"])


def _tokens() -> None:
    op.create_table(
        "tokens",
        Column("digest", Key, nullable=False),
        Column("id", Key, nullable=False),
        Column("prefix", Key, nullable=False),
        Column("user", Key, nullable=False),
        Column("kind", Key, nullable=False),
        Column("label", Text, nullable=False),
        Column("project", Key, nullable=False),
        Column("grants", Text, nullable=False),
        Column("created", BigInteger, nullable=False),
        Column("expires", BigInteger, nullable=False),
        Column("revoked", BigInteger),
        PrimaryKeyConstraint("digest", name="pk_tokens"),
        UniqueConstraint("id", name="uq_tokens_id"),
    )
    op.create_index("ix_tokens_user", "tokens", ["user"])


def _users() -> None:
    op.create_table(
        "users",
        Column("name", Key, nullable=False),
        Column("kind", Key, nullable=False),
        Column("created", BigInteger, nullable=False),
        Column("created_by", Key, nullable=False),
        Column("disabled", Boolean, nullable=False),
        PrimaryKeyConstraint("name", name="pk_users"),
    )


def _user_roles() -> None:
    op.create_table(
        "user_roles",
        Column("user", Key, nullable=False),
        Column("role", Key, nullable=False),
        PrimaryKeyConstraint("user", "role", name="pk_user_roles"),
        ForeignKeyConstraint(["user"], ["users.name"], name="fk_user_roles_user"),
        sqlite_with_rowid=False,
    )
