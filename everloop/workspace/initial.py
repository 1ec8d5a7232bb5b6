"""`init`: makes a workspace, its first admin, and a project's environments with their genesis policy."""

from dataclasses import replace
from pathlib import Path

from everloop.catalog.context import Actor
from everloop.catalog.governance import access
from everloop.changes.access import OWNER_ROLES, first_admin
from everloop.changes.environments import create_workspace_environments
from everloop.core.policy import Mode
from everloop.core.settings import EVERYWHERE, Settings
from everloop.workspace import home as layout
from everloop.workspace.opened import Workspace


def initialise(settings: Settings, user: str, mode: Mode, files: Path | None = None) -> str:
    """Make the workspace, or add a project to it; doing it again changes nothing. Returns production's snapshot id.

    `files` is the folder that relative paths of sources start from.
    """
    home = settings.home.resolve()
    layout.create(home)
    if files is not None:
        layout.bind(home, EVERYWHERE, "files", str(files.resolve()))
    with Workspace.open(replace(settings, home=home)) as workspace:
        at = workspace.clock.wall()
        with workspace.catalog.write() as tx:
            if access.count_users(tx) == 0:
                first_admin(tx, user, at=at)
        owner = Actor.of(user, *OWNER_ROLES)
        return create_workspace_environments(workspace.context(owner), mode)
