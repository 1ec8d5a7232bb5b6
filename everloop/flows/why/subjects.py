"""What people call things: versions, environments at a time, aliases, predictions."""

from dataclasses import dataclass

from everloop.catalog import refs, versions
from everloop.catalog.engine import Tx
from everloop.catalog.operating import predictions
from everloop.catalog.versions import VersionRow
from everloop.core.clock import parse_time
from everloop.core.errors import InvalidInput, NotFound
from everloop.core.version import KINDS


@dataclass(frozen=True, slots=True)
class Subject:
    """A version that somebody asks about, and where it was found."""

    row: VersionRow
    label: str
    environment: str = ""
    """The environment whose snapshot it is; its data heads count then, too."""


def subject(tx: Tx, project: str, spec: str) -> Subject:
    """What `spec` means; raises `NotFound`, `InvalidInput`.

    An environment (`production`, `production@2024-03-01T12:00:00Z`), a prediction's id, an alias
    (`model/delay:champion`), or a version as `versions.find` reads it.
    """
    environment, _, time = spec.removeprefix("env/").partition("@")
    if environment.partition("/")[0] not in KINDS or spec.startswith("env/"):
        found = _environment(tx, project, environment, time)
        if found is not None:
            row = versions.get(tx, project, found)
            return Subject(row, f"{environment}{f' at {time}' if time else ''}", "" if time else environment)
    key, colon, alias = spec.partition(":")
    if colon and "/" in key and "@" not in spec:
        kind, _, name = key.partition("/")
        target = refs.get(tx, project, refs.alias_ref(kind, name, alias))
        if target is None:
            raise NotFound(f"{key} has no alias {alias!r}", hint="`everloop models show` lists them")
        return Subject(versions.get(tx, project, target), spec)
    try:
        row = versions.find(tx, project, spec)
    except (NotFound, InvalidInput):
        made_by = _revision(tx, project, spec)
        if made_by is None:
            raise
        return Subject(made_by, f"the revision that answered {spec}")
    return Subject(row, f"{row.key} v{row.number}")


def _environment(tx: Tx, project: str, name: str, time: str) -> str | None:
    if not time:
        return refs.get(tx, project, refs.env_ref(name))
    try:
        at = parse_time(time)
    except ValueError:
        return None
    return refs.at(tx, project, refs.env_ref(name), at)


def _revision(tx: Tx, project: str, spec: str) -> VersionRow | None:
    try:
        row = predictions.get(tx, project, spec)
    except (NotFound, InvalidInput):
        return None
    return versions.get(tx, project, row.revision)
