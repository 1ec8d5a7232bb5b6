"""Saved views: a page's query under a name that a whole project shares."""

from dataclasses import dataclass

from sqlalchemy import delete, func, select

from everloop.catalog.engine import Tx, insert_into
from everloop.catalog.tables.browsing import saved_views
from everloop.core.clock import Micros
from everloop.core.errors import InvalidInput, NotFound

MOST = 200
"""Saved views of one page."""


@dataclass(frozen=True, slots=True)
class SavedView:
    """`query` is what follows the question mark in the page's address."""

    page: str
    name: str
    query: str
    actor: str
    at: Micros


def save(tx: Tx, project: str, view: SavedView) -> None:
    """Keep a view; one of that name is replaced. Raises `InvalidInput` when the page has too many."""
    here = (saved_views.c.project == project, saved_views.c.page == view.page)
    others = select(func.count()).where(*here, saved_views.c.name != view.name)
    if tx.execute(others).scalar_one() >= MOST:
        raise InvalidInput(f"{MOST} views are saved already", hint="delete one that nobody uses")
    row = {
        "project": project,
        "page": view.page,
        "name": view.name,
        "query": view.query,
        "actor": view.actor,
        "at": view.at,
    }
    made = insert_into(tx, saved_views)
    fresh = {name: made.excluded[name] for name in ("query", "actor", "at")}
    tx.execute(made.on_conflict_do_update(index_elements=["project", "page", "name"], set_=fresh), row)


def of_page(tx: Tx, project: str, page: str) -> list[SavedView]:
    """The views of a page, by name."""
    here = (saved_views.c.project == project, saved_views.c.page == page)
    rows = tx.execute(select(saved_views).where(*here).order_by(saved_views.c.name))
    return [SavedView(row.page, row.name, row.query, row.actor, row.at) for row in rows]


def forget(tx: Tx, project: str, page: str, name: str) -> None:
    """Delete a view; raises `NotFound`."""
    mine = (saved_views.c.project == project, saved_views.c.page == page, saved_views.c.name == name)
    if tx.execute(delete(saved_views).where(*mine)).rowcount == 0:
        raise NotFound(f"there is no saved view {name!r}", hint="it may be gone already")
