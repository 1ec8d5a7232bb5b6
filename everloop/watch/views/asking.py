"""A feature view that is asked about: who may, and the version that its environment holds."""

from everloop.catalog import versions
from everloop.catalog.context import Context
from everloop.catalog.engine import Tx
from everloop.catalog.operation import Command
from everloop.catalog.versions import VersionRow
from everloop.core.errors import NotFound
from everloop.core.grants import Target
from everloop.watch.triggers import entries


class OfView(Command):
    """A feature view of an environment."""

    view: str
    environment: str = "production"


def target(_ctx: Context, cmd: OfView) -> Target:
    """What is read."""
    return Target("view", cmd.view, cmd.environment)


def held(tx: Tx, project: str, cmd: OfView) -> tuple[dict[str, str], VersionRow]:
    """All that the environment holds (`kind/name` -> version id), and the view's version; raises `NotFound`."""
    found = entries(tx, project, cmd.environment)
    if f"view/{cmd.view}" not in found:
        raise NotFound(f"{cmd.environment} has no feature view {cmd.view!r}", hint="everloop features list")
    return found, versions.get(tx, project, found[f"view/{cmd.view}"])
