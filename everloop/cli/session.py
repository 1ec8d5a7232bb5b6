"""What a command works on: the settings, the project, and a client that is local or remote."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from everloop.catalog.context import Context
from everloop.cli.options import given
from everloop.client import Client, connect, local
from everloop.core.settings import Settings, load
from everloop.project import Project
from everloop.project.loading import load_project
from everloop.workspace.direct import local_actor
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
