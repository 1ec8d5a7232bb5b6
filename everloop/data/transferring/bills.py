"""The bill of a version, and what is checked when it arrives."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from everloop.catalog import facts, placements, versions
from everloop.catalog.context import Context
from everloop.catalog.versions import VersionRow
from everloop.core.canonical import canonical_json
from everloop.core.errors import CorruptObject, DataError, EverloopError, InvalidInput, NotFound
from everloop.core.ids import checked_id, checked_name
from everloop.core.ports import Blobs
from everloop.core.version import Version
from everloop.data.codec import manifest_of
from everloop.data.content.files import layered_file, local_object, local_part, rows_of
from everloop.data.content.layers import outline
from everloop.data.content.logical import digest
from everloop.data.failures import full_disk_is_storage_full

FORM = 1


@dataclass(frozen=True, slots=True)
class Bill:
    """All that belongs to a version."""

    name: str
    version: str
    """Its id."""
    manifest: Mapping[str, Any]
    placed: Mapping[str, str]
    """The object of every part, by its logical id."""
    rests: Mapping[str, str]
    """The base of every object that is layers."""

    @property
    def objects(self) -> Iterator[str]:
        """What must be in a store for the version to be read from it."""
        files = placements.objects_of(self.manifest)
        return iter(dict.fromkeys([*files, *self.rests.values(), *self.placed.values()]))

    def encode(self) -> bytes:
        """The object."""
        return canonical_json(
            {
                "bill": FORM,
                "name": self.name,
                "version": self.version,
                "manifest": self.manifest,
                "placed": dict(self.placed),
                "rests": dict(self.rests),
            }
        )

    @classmethod
    def decode(cls, content: bytes) -> "Bill":
        """Read an object that `encode` made; raises `DataError` for another."""
        try:
            found = json.loads(content)
            if found["bill"] != FORM:
                raise DataError(f"a bill of form {found['bill']!r}", hint="it was written by a newer Everloop: upgrade")
            placed = {checked_id(logical): checked_id(identity) for logical, identity in found["placed"].items()}
            rests = {checked_id(identity): checked_id(base) for identity, base in found["rests"].items()}
            bill = cls(checked_name(found["name"]), checked_id(found["version"]), found["manifest"], placed, rests)
            if bill.version != Version("data", bill.name, bill.manifest).id:
                raise DataError("the bill's manifest is not that of its version", hint="send it again")
            if {part["logical"] for part in bill.manifest["parts"]} != set(placed):
                raise DataError("the bill does not say where each part lies", hint="send it again")
        except (ValueError, KeyError, TypeError, AttributeError, EverloopError) as error:
            if isinstance(error, DataError):
                raise
            raise DataError("the object is no bill of a version", hint="the id that `data push` prints") from error
        return bill


def billed(ctx: Context, row: VersionRow) -> tuple[str, Bill]:
    """The bill of a data version, put into the store; returns its object's id, too. Raises `NotFound`."""
    manifest = manifest_of(ctx, row.id)
    logicals = [part["logical"] for part in manifest["parts"]]
    with ctx.read() as tx:
        placed = placements.resolve(tx, ctx.project, logicals)
    if missing := next((logical for logical in logicals if logical not in placed), None):
        raise NotFound(f"the bytes of part {missing} are not here", hint="they were erased, or never came here")
    rests = {}
    for identity in dict.fromkeys(placed.values()):
        outlined = outline(local_object(ctx.store, identity, ctx.home / "cache"))
        if outlined is not None:
            rests[identity] = outlined[0]
    bill = Bill(row.name, row.id, manifest, placed, rests)
    return ctx.store.put(bill.encode()), bill


def opened(blobs: Blobs, identity: str) -> Bill:
    """The bill in an object of a store; raises `NotFound`, `DataError`."""
    return Bill.decode(blobs.get(identity))


def received(ctx: Context, identity: str, name: str) -> tuple[versions.Numbered, str]:
    """Record the version of a bill whose objects all are in the store, after reading every part that is new here.

    `name` is the dataset's, by which the caller was authorised. Its inputs stay behind: they are versions of another
    workspace. Raises `DataError` for what is no bill, `InvalidInput` for one of another dataset, `CorruptObject` when
    a part has not the content that the version promises, `NotFound` for objects that are not here.
    """
    bill = opened(ctx.store, identity)
    if bill.name != name:
        raise InvalidInput(f"it is the bill of data/{bill.name}, not of data/{name}", hint=f"receive {bill.name!r}")
    with ctx.read() as tx:
        here = placements.resolve(tx, ctx.project, list(bill.placed))
    missing = next((found for found in bill.objects if not ctx.store.has(found)), None)
    if missing is not None:
        raise NotFound(
            f"object {missing} is not here", hint="`everloop data pull` again: it goes on where it broke off"
        )
    rests: dict[str, str] = {}
    with full_disk_is_storage_full():
        for part in bill.manifest["parts"]:
            if part["logical"] not in here:
                _verified(ctx, bill, part, rests)
    version = Version("data", bill.name, bill.manifest)
    with ctx.write() as tx:
        placements.put(tx, ctx.project, bill.placed)
        placements.rest(tx, ctx.project, rests)
        numbered = versions.put(tx, ctx.project, version, actor=ctx.actor.name, at=ctx.now())
        if numbered.new:
            payload = {"version": version.id, "number": numbered.number, "bill": identity}
            facts.append(tx, ctx.project, ctx.fact("data.received", version.key, payload))
    return numbered, version.id


def _verified(ctx: Context, bill: Bill, part: Mapping[str, Any], rests: dict[str, str]) -> None:
    """Read a part as a reader would, and compare what it holds; its base is what its own header says."""
    identity, cache = bill.placed[part["logical"]], ctx.home / "cache"
    path = local_object(ctx.store, identity, cache)
    if layered_file(path):
        outlined = outline(path)
        assert outlined is not None
        if not ctx.store.has(outlined[0]):
            raise NotFound(f"object {outlined[0]}, which a part rests on, is not here", hint="send the version again")
        rests[identity] = outlined[0]
    found = digest(rows_of(local_part(ctx.store, identity, cache, bill.manifest)))
    if found.logical != part["logical"]:
        raise CorruptObject(f"object {identity} does not hold part {part['logical']}", hint="send the version again")
