"""What a command works on: the settings, the project, and a client that is local or remote."""

import getpass
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from everloop.catalog.context import Actor, Context
from everloop.catalog.governance import access
from everloop.cli.options import given
from everloop.client import Client, connect, local
from everloop.core.errors import NotAuthenticated
from everloop.core.settings import Settings, load
from everloop.project import Project
from everloop.project.loading import load_project
from everloop.workspace.opened import Workspace

CONFIG = "everloop.toml"


@dataclass
class Session:
    """The options before the command; commands read them from here."""

    flags: dict[str, Any]

    @property
    def settings(self) -> Settings:
        """Flags over environment variables over `everloop.toml` here or in the workspace's folder."""
        return load(self.flags, os.environ, Path(CONFIG))

    @contextmanager
    def client(self) -> Iterator[Client]:
        """A client of the server that the settings name, else of the workspace in `home`."""
        settings = self.settings
        if settings.server:
            with connect(settings.server, token=settings.token, project=settings.project) as client:
                yield client
            return
        with self.workspace() as workspace:
            yield local(self.context(workspace))

    @contextmanager
    def workspace(self) -> Iterator[Workspace]:
        """The workspace in `home`, opened here."""
        with Workspace.open(self.settings) as workspace:
            yield workspace

    def context(self, workspace: Workspace, environment: str = "") -> Context:
        """A local context: as the owner of `EVERLOOP_TOKEN`, else as the user of this machine."""
        return workspace.context(local_actor(workspace, self.settings.token), environment=environment)

    def project(self) -> Project:
        """The project of this folder."""
        return load_project(self.root, self.settings.module)

    @property
    def root(self) -> Path:
        """The project's folder."""
        return Path.cwd()


session = Session(given)


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
        found = access.user(tx, name)
    return Actor.of(found.name, *sorted(found.roles), kind=found.kind)
