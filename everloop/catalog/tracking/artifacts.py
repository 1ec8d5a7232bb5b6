"""Artifacts: which object stands at which path of a run, logged model or experiment. The bytes are in the store."""

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from sqlalchemy import ColumnElement, delete, or_, select

from everloop.catalog.engine import Tx
from everloop.catalog.tables.tracking import artifacts
from everloop.catalog.tracking.rows import Artifact
from everloop.core.clock import Micros
from everloop.core.errors import InvalidInput, NotFound

_LONGEST = 1024
_NO_EMPTY_PART = frozenset(("", ".", ".."))
_NEVER = re.compile(r"[\\\x00-\x1f\x7f]|%[0-9a-fA-F]{2}")


def checked_path(path: str, *, empty: bool = False) -> str:
    """Return a relative path of plain parts, or raise `InvalidInput`: no way leads out of its owner.

    Refused are empty, `.` and `..` parts, backslashes, control characters, a leading slash, a drive letter, and a
    percent sign before two hexadecimal digits, which some client might decode once more.
    """
    if path == "" and empty:
        return path
    wrong = (
        not _NO_EMPTY_PART.isdisjoint(path.split("/"))
        or _NEVER.search(path) is not None
        or path[1:2] == ":"
        or len(path.encode("utf-8", "surrogatepass")) > _LONGEST
    )
    if wrong:
        raise InvalidInput("Invalid path", hint=f"a relative path without '..', at most {_LONGEST} bytes")
    return path


def put(tx: Tx, project: str, owner: str, path: str, *, identity: str, size: int, at: Micros) -> None:
    """Name an object; a path that is there already names the new object from now on.

    Raises `InvalidInput` when a part of the path is a file, or the path is a directory.
    """
    checked_path(path)
    parents = [path[:place] for place, character in enumerate(path) if character == "/"]
    mark = "?" if tx.dialect.name == "sqlite" else "%s"
    mine = (project, owner)
    above = (*mine, *parents) if parents else ()
    clash = tx.exec_driver_sql(_clash(mark, len(parents)), (*mine, path + "/", path + "0", *above))
    if (other := clash.scalar()) is not None:
        raise InvalidInput(f"'{path}' and '{other}' cannot both be files", hint="choose another path")
    tx.exec_driver_sql(_NAMING[mark], (project, owner, path, identity, size, at))


# a folder of small files is a thousand of these: straight through the driver


@lru_cache
def _clash(mark: str, parents: int) -> str:
    """A file below the path, or one of its `parents`: '0' is the character after '/'."""
    mine = f"SELECT path FROM artifacts WHERE project = {mark} AND owner = {mark} AND path"  # noqa: S608 - marks alone
    above = f" UNION ALL {mine} IN ({', '.join([mark] * parents)})" if parents else ""
    return f"{mine} > {mark} AND path < {mark}{above} LIMIT 1"


_NAMING = {
    mark: f"INSERT INTO artifacts (project, owner, path, object, size, at) VALUES ({', '.join([mark] * 6)}) "  # noqa: S608
    "ON CONFLICT (project, owner, path) DO UPDATE SET object = excluded.object, size = excluded.size, at = excluded.at"
    for mark in ("?", "%s")
}


def object_at(tx: Tx, project: str, owner: str, path: str) -> str:
    """The object that a path names, or nothing: what an upload asks each time, so without a statement being built."""
    mark = "?" if tx.dialect.name == "sqlite" else "%s"
    asked = f"SELECT object FROM artifacts WHERE project = {mark} AND owner = {mark} AND path = {mark}"  # noqa: S608 - marks alone
    return str(tx.exec_driver_sql(asked, (project, owner, path)).scalar() or "")


def get(tx: Tx, project: str, owner: str, path: str) -> Artifact:
    """The file at a path; raises `NotFound`."""
    row = tx.execute(select(artifacts).where(*_of(project, owner), artifacts.c.path == path)).first()
    if row is None:
        raise NotFound(f"No such artifact: '{path}'", hint="list the artifacts to see what there is")
    return Artifact(row.path, row.object, row.size)


def children(tx: Tx, project: str, owner: str, path: str = "") -> list[Artifact]:
    """Files and directories directly below a directory, by path; empty for a file and for what is not there."""
    listed: dict[str, Artifact] = {}
    start = len(path) + 1 if path else 0
    for item in tree(tx, project, owner, path):
        name, slash, _ = item.path[start:].partition("/")
        whole = item.path[:start] + name
        listed.setdefault(whole, Artifact(whole, "", 0) if slash else item)
    return list(listed.values())


def tree(tx: Tx, project: str, owner: str, path: str = "") -> list[Artifact]:
    """Every file below a directory, at any depth, by path."""
    statement = select(artifacts).where(*_of(project, owner))
    if path:
        statement = statement.where(_below(path))
    return [Artifact(row.path, row.object, row.size) for row in tx.execute(statement.order_by(artifacts.c.path))]


def remove(tx: Tx, project: str, owner: str, path: str) -> int:
    """Forget a file, or all below a directory, and return how many there were; objects stay until a sweep."""
    here = or_(artifacts.c.path == path, _below(path)) if path else artifacts.c.path != ""
    return tx.execute(delete(artifacts).where(*_of(project, owner), here)).rowcount


def objects(tx: Tx) -> Iterable[str]:
    """Every object that an artifact of any project names, for sweeps and checks."""
    return tx.execute(select(artifacts.c.object).distinct()).scalars()


def _of(project: str, owner: str) -> tuple[ColumnElement[bool], ...]:
    return (artifacts.c.project == project, artifacts.c.owner == owner)


def _below(path: str) -> ColumnElement[Any]:
    """Paths in a directory, by the index: '0' is the character after '/'."""
    return (artifacts.c.path > path + "/") & (artifacts.c.path < path + "0")
