"""Working on a workspace's files directly: who does, and a table that a program has in memory captured in one call."""

import getpass
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from everloop import data
from everloop.catalog.context import Actor
from everloop.catalog.governance import access
from everloop.core.errors import InvalidInput, NotAuthenticated
from everloop.core.grants import Target
from everloop.core.settings import load
from everloop.data.definitions import SourceDef, Table
from everloop.data.evolution import UNCHANGED, Evolution
from everloop.data.expect import Expectation
from everloop.workspace.opened import Workspace

if TYPE_CHECKING:
    from everloop.data.capturing import Captured


def user_name() -> str:
    """The user of this machine."""
    return getpass.getuser()


def local_actor(workspace: Workspace, token: str) -> Actor:
    """Who works on this workspace's files directly; raises `NotAuthenticated` for an unknown token or user."""
    name, now = user_name(), workspace.clock.wall()
    with workspace.catalog.read() as tx:
        if token:
            actor = access.actor_of_token(tx, token, workspace.settings.project, at=now)
            if actor is None:
                raise NotAuthenticated(
                    "the token is unknown, revoked or too old", hint="everloop access create-token makes one"
                )
            return actor
        known = {user.name for user in access.all_users(tx)}
        if name not in known:
            raise NotAuthenticated(
                f"{name} is no user of this workspace", hint=f"an admin adds one: everloop access create-user {name}"
            )
        return access.user(tx, name).actor()


def capture(
    table: Any,
    *,
    name: str,
    key: str | Sequence[str] = (),
    event_time: str | None = None,
    known_time: str | None = None,
    tags: Mapping[str, str] | None = None,
    expect: Sequence[Expectation] = (),
    evolution: Evolution = UNCHANGED,
    environment: str = "",
    **settings: Any,
) -> "Captured":
    """Capture a pandas, Polars or Arrow table, a Hugging Face dataset, or record batches, as `data/<name>`.

    The same rows are the same version, whoever hands them over. With `environment` its head moves, if blocking
    expectations hold. The workspace is that of `everloop.toml` here and of the environment's variables; `settings`
    (`home=`, `project=`) stand before both. Works as the user of this machine, or the owner of `EVERLOOP_TOKEN`.
    Raises `DataError` for what is no table, `InvalidInput`, `PolicyRefused`, `PermissionDenied`.
    """
    wanted = load(settings, os.environ, Path("everloop.toml"))
    if wanted.server:
        raise InvalidInput("rows go into the object store", hint="run it where the workspace is at hand (home=)")
    source = SourceDef(name, Table(table), key, event_time, known_time, tags or {}, expect, evolution)
    with Workspace.open(wanted) as workspace:
        ctx = workspace.context(local_actor(workspace, wanted.token), environment=environment)
        ctx.need("data.capture", Target("data", name, environment))
        return data.capture(ctx, source, environment)
