"""Saved views of tables, shared by a project."""

from typing import Literal

from pydantic import Field

from everloop.catalog import facts
from everloop.catalog.browsing import views
from everloop.catalog.browsing.views import SavedView
from everloop.catalog.context import Context
from everloop.catalog.operation import Answer, Command, operation
from everloop.core.errors import InvalidInput
from everloop.core.grants import Target

Page = Literal["runs", "models", "traces"]


class ListViews(Command):
    """Of which page to list the views."""

    page: Page


class SaveView(Command):
    """Keep what a page shows: `query` is what follows the question mark in its address."""

    page: Page
    name: str = Field(max_length=80)
    query: str = Field(max_length=8000)


class DeleteView(Command):
    """Which view to delete."""

    page: Page
    name: str


class ViewView(Answer):
    """A saved view, as people see it."""

    name: str
    query: str
    actor: str
    at: int


class ViewList(Answer):
    """The saved views of a page, by name."""

    views: tuple[ViewView, ...]


@operation("views.list", needs="read", on=lambda _ctx, _cmd: Target("run", "*"), reads=True)
def list_views(ctx: Context, cmd: ListViews) -> ViewList:
    """List the saved views of a page."""
    with ctx.read() as tx:
        return _listed(views.of_page(tx, ctx.project, cmd.page))


@operation("views.save", needs="run.write", on=lambda _ctx, _cmd: Target("run", "*"))
def save_view(ctx: Context, cmd: SaveView) -> ViewList:
    """Keep a view under a name; the view of that name is replaced."""
    name = cmd.name.strip()
    if not name or any(ord(character) < 32 for character in name):
        raise InvalidInput("a saved view needs a name", hint="write one beside the button")
    with ctx.write() as tx:
        views.save(tx, ctx.project, SavedView(cmd.page, name, cmd.query, ctx.actor.name, ctx.now()))
        facts.append(tx, ctx.project, ctx.fact("view.saved", f"view/{cmd.page}", {"name": name, "query": cmd.query}))
        return _listed(views.of_page(tx, ctx.project, cmd.page))


@operation("views.delete", needs="run.write", on=lambda _ctx, _cmd: Target("run", "*"))
def delete_view(ctx: Context, cmd: DeleteView) -> ViewList:
    """Delete a saved view."""
    with ctx.write() as tx:
        views.forget(tx, ctx.project, cmd.page, cmd.name)
        facts.append(tx, ctx.project, ctx.fact("view.deleted", f"view/{cmd.page}", {"name": cmd.name}))
        return _listed(views.of_page(tx, ctx.project, cmd.page))


def _listed(found: list[SavedView]) -> ViewList:
    return ViewList(views=tuple(ViewView(name=v.name, query=v.query, actor=v.actor, at=v.at) for v in found))
