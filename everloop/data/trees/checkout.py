"""Checkout: a version's files in a folder. Only what differs is written; what people changed there is not lost.

Files are written through folders that are opened one below the other and never through links, so nothing is written
outside. A note in the folder (`status.NOTE`) says which version it holds; it is marked unfinished while files are
written, so that a checkout that was killed is completed by doing it again.
"""

import errno
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from blake3 import blake3

from everloop.catalog import versions
from everloop.catalog.context import Context
from everloop.core.errors import Conflict, CorruptObject, DataError, EverloopError, NotFound, StorageFull, Unavailable
from everloop.core.ids import fresh_id
from everloop.data.trees import stamps
from everloop.data.trees.packing.packs import LIST
from everloop.data.trees.paths import clashes
from everloop.data.trees.reading import Run, Tree, open_tree
from everloop.data.trees.scanning import COARSE, STAMP, Listing, look, stamp_of
from everloop.data.trees.stamps import Stamps
from everloop.data.trees.status import NOTE, digest_file

WORKERS = 4
"""Threads that write files: reading and hashing go on while others wait for the disk."""
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
Stamp = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class CheckedOut:
    """What a checkout did."""

    version: str
    name: str
    number: int
    written: int
    kept: int
    removed: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done in a folder."""

    write: Sequence[int]
    """Rows of the version whose files are new or differ."""
    keep: dict[int, Stamp]
    remove: Sequence[str]
    mine: Sequence[str]
    """Files that people made or changed, and that would be lost."""


def checkout(ctx: Context, version: str, folder: Path, *, force: bool = False) -> CheckedOut:
    """Make `folder` hold the files of a version. What lies there besides and is not in the way stays.

    Raises `Conflict` when files that people changed would be lost (unless `force`), `DataError` for paths that the
    disk takes for one, `NotFound`, `CorruptObject`, `StorageFull`.
    """
    tree = open_tree(ctx, version)
    with ctx.read() as tx:
        number = next((n for key, n in versions.known_as(tx, ctx.project, version) if key == f"data/{tree.name}"), 0)
    with _disk(folder):
        folder.mkdir(parents=True, exist_ok=True)
        _check_disk(folder, tree)
        note = stamps.load(folder / NOTE) or stamps.empty()
        listing = look(folder, taken=ctx.clock.wall() * 1000).without(NOTE)
        plan = _plan(tree, note, listing, _unfinished(ctx, note))
        if plan.mine and not force:
            raise Conflict(
                f"{len(plan.mine)} changed files in {folder} would be lost: {', '.join(plan.mine[:5])}",
                hint="move them away, or say --force",
            )
        about = {"version": version, "name": tree.name, "number": number, "project": ctx.project}
        if plan.write or plan.remove:
            replace(note, more={**about, "unfinished": version}).save(folder / NOTE)
        made = _work(folder, tree, plan, listing.taken - COARSE)
        found = np.array([made[row] if row in made else plan.keep[row] for row in range(len(tree))], STAMP)
        Stamps(tree.paths, found, tree.digests, listing.taken, about).save(folder / NOTE)
    size = sum(tree.sizes[row] for row in made)
    return CheckedOut(version, tree.name, number, len(made), len(plan.keep), len(plan.remove), size)


def _unfinished(ctx: Context, note: Stamps) -> frozenset[str]:
    """The files that a checkout which was stopped may have left half written."""
    if not note.more.get("unfinished"):
        return frozenset()
    with suppress(EverloopError):
        return frozenset(open_tree(ctx, note.more["unfinished"]).paths)
    return frozenset()


def _plan(tree: Tree, note: Stamps, listing: Listing, ours: frozenset[str]) -> Plan:
    rows = note.known(listing).tolist()
    write, keep, mine, remove = [], {}, [], []
    here = {path: i for i, path in enumerate(listing.paths)}
    before = {path: row for row, path in enumerate(note.paths)}
    for row, path in enumerate(tree.paths):
        i = here.get(path)
        if i is None:
            write.append(row)
            continue
        known = note.digests[rows[i]].tobytes() if rows[i] >= 0 else None
        digest = known or (digest_file(listing.file(path)) if listing.stamps["size"][i] >= 0 else None)
        if digest == tree.digest(row):
            keep[row] = tuple(listing.stamps[i].tolist())
            continue
        write.append(row)
        untouched = known is not None or path in ours or _is_noted(note, before.get(path), digest)
        mine += [] if untouched else [path]
    for path, row in before.items():
        if path in tree or path not in here:
            continue
        i = here[path]
        remove.append(path)
        if rows[i] < 0 and not _is_noted(note, row, digest_file(listing.file(path))):
            mine.append(path)
    return Plan(write, keep, remove, mine)


def _is_noted(note: Stamps, row: int | None, digest: bytes | None) -> bool:
    """Whether a file still has the content with which it was checked out."""
    return row is not None and digest is not None and note.digests[row].tobytes() == digest


def _check_disk(folder: Path, tree: Tree) -> None:
    pair = next(iter(clashes(tree.paths)), None)
    if pair is not None and ignores_case(folder):
        raise DataError(
            f"{pair[0]} and {pair[1]} are one file on this disk", hint="check out on a disk that tells case apart"
        )


def ignores_case(folder: Path) -> bool:
    """Whether names that differ in case only are one file there."""
    probe = folder / f".everloop-{fresh_id('Case')}"
    probe.touch()
    try:
        return (folder / probe.name.lower()).exists()
    finally:
        probe.unlink()


def _work(folder: Path, tree: Tree, plan: Plan, at: int) -> dict[int, Stamp]:
    """Remove and write; returns the stamps of written files by row.

    They get the time `at`, a little before now: whatever is written to one later then shows in its stamp, even within
    the same tick of the disk's clock, so that the status need not read them again.
    """
    root = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for path in plan.remove:
            _remove(root, path)
        places = tree.places
        small = [row for row in plan.write if places.kind[row] != LIST]
        small.sort(key=lambda row: (places.pack[row], places.offset[row]))
        big = [row for row in plan.write if places.kind[row] == LIST]
        made: dict[int, Stamp] = {}
        with ThreadPoolExecutor(WORKERS) as pool:
            jobs = [pool.submit(_write_big, root, tree, row, at) for row in big]
            jobs += [pool.submit(_write_run, root, tree, run, at) for run in tree.runs(small, 1 << 20)]
            try:
                for job in jobs:
                    made.update(job.result())
            finally:
                pool.shutdown(cancel_futures=True)
        return made
    finally:
        os.close(root)


def _write_run(root: int, tree: Tree, run: Run, at: int) -> dict[int, Stamp]:
    made: dict[int, Stamp] = {}
    token = f".{fresh_id('checkout')}"  # one for all: it costs a call of the system
    inside, descriptor = None, -1
    try:
        for row, content in tree.run(run):
            above, _, name = tree.paths[row].rpartition("/")
            if above != inside:
                if descriptor >= 0:
                    os.close(descriptor)
                    descriptor = -1  # a number that is closed twice may be another thread's by then
                descriptor, inside = open_folder(root, above), above
            made[row] = _write(descriptor, name, f"{token}-{row}", (content,), at)
    finally:
        if descriptor >= 0:
            os.close(descriptor)
    return made


def _write_big(root: int, tree: Tree, row: int, at: int) -> dict[int, Stamp]:
    hasher = blake3()

    def pieces() -> Iterator[bytes]:
        for chunk in tree.chunks(row):
            hasher.update(chunk)
            yield chunk
        if hasher.digest() != tree.digest(row):
            raise CorruptObject(
                f"the chunks of {tree.paths[row]} do not make it up", hint="restore a copy of the packs"
            )

    above, _, name = tree.paths[row].rpartition("/")
    token = f".{fresh_id('checkout')}"
    descriptor = open_folder(root, above)
    try:
        return {row: _write(descriptor, name, f"{token}-{row}", pieces(), at)}
    finally:
        os.close(descriptor)


def _write(folder: int, name: str, temporary: str, pieces: Iterable[bytes], at: int) -> Stamp:
    """Write a file whole or not at all, over what has its name."""
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666, dir_fd=folder)
    placed = False
    try:
        for piece in pieces:
            left = memoryview(piece)
            while left:
                left = left[os.write(descriptor, left) :]
        os.utime(descriptor, ns=(at, at))
        os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
        placed = True
        return stamp_of(os.fstat(descriptor))
    finally:
        os.close(descriptor)
        if not placed:
            with suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=folder)


def open_folder(root: int, path: str) -> int:
    """Open a folder below another, made where it is missing; `Conflict` where a file or a link is in the way."""
    descriptor = os.dup(root)
    for name in path.split("/") if path else ():
        try:
            with suppress(FileExistsError):
                os.mkdir(name, dir_fd=descriptor)
            below = os.open(name, _FOLDER, dir_fd=descriptor)
        except NotADirectoryError as error:
            raise _in_the_way(path) from error
        except OSError as error:
            raise (_in_the_way(path) if error.errno == errno.ELOOP else error) from error
        finally:
            os.close(descriptor)
        descriptor = below
    return descriptor


def _remove(root: int, path: str) -> None:
    above, _, name = path.rpartition("/")
    with suppress(FileNotFoundError, NotFound):
        descriptor = open_folder(root, above)
        try:
            os.unlink(name, dir_fd=descriptor)
        finally:
            os.close(descriptor)
    while above:
        above, _, name = above.rpartition("/")
        try:
            descriptor = open_folder(root, above)
            try:
                os.rmdir(name, dir_fd=descriptor)
            finally:
                os.close(descriptor)
        except OSError:
            return  # it holds something


def _in_the_way(path: str) -> Conflict:
    return Conflict(f"{path} is no folder there, but a file or a link", hint="move it away, then check out again")


@contextmanager
def _disk(folder: Path) -> Iterator[None]:
    """Turn the disk's errors in the block into errors of the tree."""
    try:
        yield
    except EverloopError:
        raise
    except OSError as error:
        if error.errno in _FULL:
            raise StorageFull(f"no space is left for {folder}", hint="free some space, then check out again") from error
        if isinstance(error, FileExistsError | NotADirectoryError | IsADirectoryError):
            raise Conflict(f"{folder}: {error.filename or 'something'} is in the way", hint="move it away") from error
        raise Unavailable(f"{folder} cannot be written: {error.strerror}", hint="check the folder") from error
