"""Refs: named pointers to versions, moved by compare-and-swap, each move logged.

`env/<environment>` points to a snapshot, `head/<environment>/<dataset>` to the newest rows of a dataset there, and
`alias/<kind>/<name>/<alias>` to a version; `opened/<table>/<number>` to one that other engines read. Rolling back is a
move, and "what was live at noon" reads the log.
"""

from dataclasses import dataclass

from sqlalchemy import bindparam, insert, select, update
from sqlalchemy import delete as delete_from
from sqlalchemy.exc import IntegrityError

from everloop.catalog.engine import Tx, insert_into
from everloop.catalog.tables.core import ref_log, refs
from everloop.core.clock import Micros
from everloop.core.errors import Conflict, InvalidInput, NotFound
from everloop.core.ids import checked_id, short
from everloop.core.version import split_key

_PLACES = ("env/", "head/", "alias/", "opened/")

# Built once: building a statement costs more than running it.
_HERE = (refs.c.project == bindparam("p"), refs.c.name == bindparam("n"))
_GET = select(refs.c.target).where(*_HERE)
_SWAP = update(refs).where(*_HERE, refs.c.target == bindparam("o")).values(target=bindparam("new"))
_DELETE = delete_from(refs).where(*_HERE, refs.c.target == bindparam("o"))
_LOG = insert(ref_log)


@dataclass(frozen=True, slots=True)
class Move:
    """One entry of a ref's log; `old` is None when it was made, `new` when it was deleted."""

    id: int
    name: str
    old: str | None
    new: str | None
    actor: str
    at: Micros
    reason: str
    change: str


def env_ref(environment: str) -> str:
    """The ref that says which snapshot an environment holds."""
    return f"env/{environment}"


def head_ref(environment: str, dataset: str) -> str:
    """The ref that says which rows a dataset has in an environment."""
    return f"head/{environment}/{dataset}"


def alias_ref(kind: str, name: str, alias: str) -> str:
    """The ref behind an alias of a name (`model`, `delay`, `champion`)."""
    split_key(f"{kind}/{name}")
    return f"alias/{kind}/{name}/{alias}"


def opened_ref(table: str, number: int) -> str:
    """The ref that keeps a version which a table of another format shows."""
    return f"opened/{table}/{number}"


def get(tx: Tx, project: str, name: str) -> str | None:
    """What the ref points to; None when there is no such ref."""
    return tx.execute(_GET, {"p": project, "n": name}).scalar()


def move(
    tx: Tx,
    project: str,
    name: str,
    *,
    old: str | None,
    new: str,
    actor: str,
    at: Micros,
    reason: str = "",
    change: str = "",
) -> None:
    """Point the ref to `new` if it is at `old` now (None: if it does not exist), and log it.

    Raises `Conflict` when it is somewhere else, with `details["current"]`, and `NotFound` when the project has no
    version `new`.
    """
    checked_id(new)
    if not name.startswith(_PLACES):
        raise InvalidInput(f"{name!r} cannot be a ref", hint="use env_ref, head_ref or alias_ref")
    try:
        if old is None:
            made = insert_into(tx, refs).on_conflict_do_nothing()
            done = tx.execute(made, {"project": project, "name": name, "target": new})
        else:
            done = tx.execute(_SWAP, {"p": project, "n": name, "o": old, "new": new})
    except IntegrityError as error:
        raise NotFound(
            f"no version {new} in project {project}", hint="put the version before pointing to it"
        ) from error
    if done.rowcount != 1:
        raise _moved_meanwhile(tx, project, name, old)
    _log(tx, project, name, old=old, new=new, actor=actor, at=at, reason=reason, change=change)


def delete(tx: Tx, project: str, name: str, *, old: str, actor: str, at: Micros, reason: str = "") -> None:
    """Remove the ref if it is at `old`; its log stays. Raises `Conflict`."""
    done = tx.execute(_DELETE, {"p": project, "n": name, "o": old})
    if done.rowcount != 1:
        raise _moved_meanwhile(tx, project, name, old)
    _log(tx, project, name, old=old, new=None, actor=actor, at=at, reason=reason, change="")


def all(tx: Tx, project: str, prefix: str = "") -> dict[str, str]:  # noqa: A001 - read as refs.all
    """Every ref whose name starts with `prefix`, and what it points to, by name."""
    query = select(refs.c.name, refs.c.target).where(refs.c.project == project)
    if prefix:
        query = query.where(refs.c.name >= prefix, refs.c.name < prefix + "\U0010ffff")
    return {row.name: row.target for row in tx.execute(query.order_by(refs.c.name))}


def projects(tx: Tx) -> list[str]:
    """Every project that has an environment, by name."""
    query = select(refs.c.project).where(refs.c.name == env_ref("production")).order_by(refs.c.project)
    return [row.project for row in tx.execute(query)]


def log(tx: Tx, project: str, name: str, limit: int = 50, before: int | None = None) -> list[Move]:
    """The moves of a ref, newest first; `before` is the `id` of the entry to go on from."""
    query = select(ref_log).where(ref_log.c.project == project, ref_log.c.name == name)
    if before is not None:
        query = query.where(ref_log.c.id < before)
    found = tx.execute(query.order_by(ref_log.c.id.desc()).limit(limit))
    return [Move(r.id, r.name, r.old, r.new, r.actor, r.at, r.reason, r.change) for r in found]


def at(tx: Tx, project: str, name: str, time: Micros) -> str | None:
    """What the ref pointed to at that event time; None when it did not exist then."""
    query = select(ref_log.c.new).where(ref_log.c.project == project, ref_log.c.name == name, ref_log.c.at <= time)
    return tx.execute(query.order_by(ref_log.c.at.desc(), ref_log.c.id.desc()).limit(1)).scalar()


def _moved_meanwhile(tx: Tx, project: str, name: str, old: str | None) -> Conflict:
    current = get(tx, project, name)
    now, expected = (short(i) if i else "nowhere" for i in (current, old))
    return Conflict(
        f"{name} is at {now}, not at {expected}: it moved meanwhile",
        hint="look at what it holds now, and try again",
        current=current,
    )


def _log(tx: Tx, project: str, name: str, **values: object) -> None:
    tx.execute(_LOG, {"project": project, "name": name, **values})
