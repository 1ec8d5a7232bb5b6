"""A snapshot: the flat map `kind/name -> version id` of definitions, with parents; its diff and merge."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from everloop.core.ids import manifest_id
from everloop.core.version import Version

Delta = dict[str, tuple[str | None, str | None]]
"""`{key: (old id or None, new id or None)}`, never with old == new."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Definitions that belong together. Parents make history; the first is the line it continues."""

    entries: Mapping[str, str]
    parents: tuple[str, ...] = ()
    message: str = ""
    authors: tuple[str, ...] = ()
    id: str = field(init=False)

    def __post_init__(self) -> None:
        """Compute the id from the content."""
        object.__setattr__(self, "id", self.version().id)

    def version(self) -> Version:
        """The version that stores this snapshot."""
        manifest = {
            "entries": dict(self.entries),
            "parents": list(self.parents),
            "message": self.message,
            "authors": sorted(set(self.authors)),
        }
        return Version("snapshot", "snapshot", manifest)

    @classmethod
    def from_manifest(cls, manifest: Mapping[str, object]) -> "Snapshot":
        """Rebuild the snapshot that `version()` stored."""
        entries, parents, authors = manifest["entries"], manifest["parents"], manifest["authors"]
        assert isinstance(entries, Mapping)
        assert isinstance(parents, list)
        assert isinstance(authors, list)
        return cls(dict(entries), tuple(parents), str(manifest["message"]), tuple(authors))


def diff(old: Mapping[str, str], new: Mapping[str, str]) -> Delta:
    """What turns `old` into `new`, in key order."""
    keys = sorted(old.keys() | new.keys())
    return {k: (old.get(k), new.get(k)) for k in keys if old.get(k) != new.get(k)}


def apply_delta(entries: Mapping[str, str], delta: Mapping[str, tuple[str | None, str | None]]) -> dict[str, str]:
    """`entries` with every key of `delta` set to its new id, or removed."""
    result = dict(entries)
    for key, (_, new) in delta.items():
        if new is None:
            result.pop(key, None)
        else:
            result[key] = new
    return result


def delta_id(delta: Mapping[str, tuple[str | None, str | None]]) -> str:
    """The digest that an approval binds to."""
    return manifest_id({key: list(pair) for key, pair in delta.items()})


@dataclass(frozen=True, slots=True)
class Merge:
    """The outcome of a three-way merge: the merged entries, and the keys that both sides changed apart."""

    entries: Mapping[str, str]
    conflicts: tuple[str, ...]

    @property
    def clean(self) -> bool:
        """Whether nothing conflicts."""
        return not self.conflicts


def merge(base: Mapping[str, str], ours: Mapping[str, str], theirs: Mapping[str, str]) -> Merge:
    """Three-way merge of flat maps: a key takes the side that moved it; both moved apart is a conflict.

    On a conflict the entry keeps our value. The merge is symmetric in `ours` and `theirs` but for that.
    """
    entries: dict[str, str] = {}
    conflicts: list[str] = []
    for key in sorted(base.keys() | ours.keys() | theirs.keys()):
        before, mine, yours = base.get(key), ours.get(key), theirs.get(key)
        if mine not in (before, yours) and yours != before:
            conflicts.append(key)
        chosen = yours if mine == before else mine
        if chosen is not None:
            entries[key] = chosen
    return Merge(entries, tuple(conflicts))
