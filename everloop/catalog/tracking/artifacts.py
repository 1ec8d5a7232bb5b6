"""Artifacts: which object stands at which path of a run, logged model or experiment. The bytes are in the store."""

from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from sqlalchemy import ColumnElement, Executable, delete, or_, select

from everloop.catalog.engine import Tx, insert_for
from everloop.catalog.tables.tracking import artifacts
from everloop.catalog.tracking.rows import Artifact
from everloop.core.clock import Micros
from everloop.core.errors import InvalidInput, NotFound

_LONGEST = 1024


def checked_path(path: str, *, empty: bool = False) -> str:
    """Return a relative path of plain parts, or raise `InvalidInput`: no way leads out of its owner.

    Refused are empty, `.` and `..` parts, backslashes, control characters, a leading slash, a drive letter, and a
    percent sign before two hexadecimal digits, which some client might decode once more.
    """
    if path == "" and empty:
        return path
    parts = path.split("/")
    wrong = (
        any(part in {"", ".", ".."} for part in parts)
        or "\\" in path
        or any(ord(character) < 32 or ord(character) == 127 for character in path)
        or (len(path) > 1 and path[1] == ":")
        or len(path.encode("utf-8", "surrogatepass")) > _LONGEST
        or _still_encoded(path)
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
    blocked = [artifacts.c.path.in_(parents)] if parents else []
    clash = select(artifacts.c.path).where(*_of(project, owner), or_(*blocked, _below(path))).limit(1)
    if (other := tx.execute(clash).scalar()) is not None:
        raise InvalidInput(f"'{path}' and '{other}' cannot both be files", hint="choose another path")
    row = {"project": project, "owner": owner, "path": path, "object": identity, "size": size, "at": at}
    tx.execute(_naming(tx.dialect.name), row)


@lru_cache  # built once: building costs more than running it
def _naming(dialect: str) -> Executable:
    made = insert_for(dialect, artifacts)
    fresh = {name: made.excluded[name] for name in ("object", "size", "at")}
    return made.on_conflict_do_update(index_elements=["project", "owner", "path"], set_=fresh)


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


def _still_encoded(path: str) -> bool:
    return any(
        character == "%"
        and len(path) > place + 2
        and all(c in "0123456789abcdefABCDEF" for c in path[place + 1 : place + 3])
        for place, character in enumerate(path)
    )
