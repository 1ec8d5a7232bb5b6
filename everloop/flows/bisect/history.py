"""The commits between two sides of one git history, each as the code version that a build of it would record.

They are read in a worktree of their own: the user's files, index and branch are not touched, and no hook runs.
"""

import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from everloop.catalog import versions
from everloop.catalog.context import Context
from everloop.catalog.making import flows
from everloop.core.errors import InvalidInput
from everloop.core.version import Version
from everloop.flows.bisect.settings import Sides
from everloop.flows.identity import project_tree
from everloop.flows.identity.tree import git

NAME = "bisect"
"""Of the versions that a bisection makes."""
MOST = 5000
"""Commits; of a longer history the builds are walked."""
_QUIET = ("-c", "core.hooksPath=/dev/null", "-c", "advice.detachedHead=false")


@dataclass(frozen=True, slots=True)
class Place:
    """Where the history is: the project's folder, and globs of the files in it that are data."""

    root: Path
    leave_out: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Commits:
    """The way from the good code to the bad one: at each place the code as it is after that step."""

    labels: tuple[str, ...]
    """What came in between: a commit with its subject and author, or what was not committed."""
    _at: tuple[str, ...]
    """Before the first, and after each of them: a code version (its id), or a commit."""
    _walk: "_Walk"

    def code(self, place: int) -> str | None:
        """The code version after `place` steps (0: the good side's); None when that commit holds no project here."""
        found = self._at[place]
        return found if found.startswith("b3:") else self._walk.version(found)


@contextmanager
def between(ctx: Context, sides: Sides, place: Place) -> Iterator[Commits | None]:
    """The commits from the good side to the bad one, on the line of first parents, that touch the project's folder.

    None where the two were not built from commits of one line of this repository. What either side held beside its
    commit is a step of its own. A history that leads back (the bad side is the older one) is walked back.
    """
    ends = [_commit_of(ctx, side.code) for side in (sides.good, sides.bad)]
    listed = _listed(place.root, *ends) if all(ends) else None
    if not listed:  # of one commit only what is not committed differs: files say more
        yield None
        return
    folder = Path(tempfile.mkdtemp(prefix="everloop-bisect-"))
    walk = _Walk(ctx, place, folder / "tree")
    try:
        git(place.root, *_QUIET, "worktree", "add", "--quiet", "--detach", "--no-checkout", str(walk.folder), "HEAD")
        yield _whole(ctx, sides, walk, ends, listed)
    finally:
        git(place.root, "worktree", "remove", "--force", str(walk.folder))
        shutil.rmtree(folder, ignore_errors=True)
        git(place.root, "worktree", "prune")


@dataclass(frozen=True, slots=True)
class _Walk:
    """A worktree that goes from commit to commit."""

    ctx: Context
    place: Place
    folder: Path
    beside: dict[str, str] = field(default_factory=dict)
    """Files (by their objects) that both sides held and no commit does: without them nothing between might run."""
    _known: dict[str, Mapping[str, str] | None] = field(default_factory=dict)

    def files(self, commit: str) -> Mapping[str, str] | None:
        """The project's files as committed; None where they cannot be a project's code."""
        if commit not in self._known:
            self._known[commit] = self._read(commit)
        return self._known[commit]

    def version(self, commit: str) -> str | None:
        files = self.files(commit)
        return None if files is None else put_new(self.ctx, Version("code", NAME, {"files": {**self.beside, **files}}))

    def _read(self, commit: str) -> Mapping[str, str] | None:
        git(self.folder, *_QUIET, "checkout", "--quiet", "--force", "--detach", commit)
        root = self.folder / git(self.place.root, "rev-parse", "--show-prefix").strip()
        if git(self.folder, "rev-parse", "HEAD").strip() != commit or not root.is_dir():
            return None
        try:
            found: Mapping[str, str] = project_tree(root, self.ctx.store, NAME, self.place.leave_out).version.manifest[
                "files"
            ]
        except InvalidInput:  # a file that is too large for code: nobody could have built this commit
            return None
        return found


def put_new(ctx: Context, version: Version) -> str:
    """Keep a version that a bisection made, unless it is there under a name of its own."""
    with ctx.read() as tx:
        there = versions.manifests(tx, ctx.project, [version.id])
    if not there:
        with ctx.write() as tx:
            versions.put(tx, ctx.project, version, actor=ctx.actor.name, at=ctx.now())
    return version.id


def _commit_of(ctx: Context, code: str) -> str:
    """The commit that was checked out when a code version was built; empty where nobody knows."""
    with ctx.read() as tx:
        known = flows.asked(tx, ctx.project, code)
    return next((str(one["commit"]) for one in known if one.get("code") == code and one.get("commit")), "")


def _listed(root: Path, good: str, bad: str) -> list[tuple[str, str]] | None:
    """(commit, label) from after the good commit to the bad one; None when neither comes from the other."""
    held = [git(root, "rev-parse", "--verify", "--quiet", f"{one}^{{commit}}").strip() for one in (good, bad)]
    if held != [good, bad]:
        return None
    base = git(root, "merge-base", good, bad).strip()
    if base not in (good, bad):
        return None
    older, newer = (good, bad) if base == good else (bad, good)
    told = git(root, "log", "--first-parent", "--reverse", "--format=%H%x00%an%x00%s", f"{older}..{newer}", "--", ".")
    rows = [line.split("\0") for line in told.splitlines()]
    if len(rows) > MOST:
        return None
    labels = [(commit, f"commit {commit[:10]} {subject} ({author})") for commit, author, subject in rows]
    if base == good:
        return labels
    before = [bad, *(commit for commit, _ in labels)]  # walked back: each step takes one commit away
    return [(before[n], f"without {label}") for n, (_, label) in reversed(list(enumerate(labels)))]


def _whole(
    ctx: Context, sides: Sides, walk: _Walk, ends: Sequence[str], listed: Sequence[tuple[str, str]]
) -> Commits | None:
    with ctx.read() as tx:
        known = versions.manifests(tx, ctx.project, [sides.good.code, sides.bad.code])
    held = [_code(known[side.code]["files"], walk.place.leave_out) for side in (sides.good, sides.bad)]
    committed = [walk.files(one) or {} for one in ends]
    both = {path: one for path, one in held[0].items() if held[1].get(path) == one}
    walk.beside.update({path: one for path, one in both.items() if not any(path in files for files in committed)})
    clean = [ours == {**walk.beside, **files} for ours, files in zip(held, committed, strict=True)]
    at, labels = [sides.good.code], list[str]()
    if not clean[0]:
        labels.append(f"what was not committed at {ends[0][:10]}")
        at.append(ends[0])
    for commit, label in listed:
        labels.append(label)
        at.append(commit)
    if clean[1]:
        at[-1] = sides.bad.code
    else:
        labels.append(f"what was not committed on {ends[1][:10]}")
        at.append(sides.bad.code)
    return Commits(tuple(labels), tuple(at), walk)


def _code(files: Mapping[str, str], patterns: Sequence[str]) -> dict[str, str]:
    """The files of a code version, data files aside."""
    return {path: one for path, one in files.items() if not any(fnmatchcase(path, pattern) for pattern in patterns)}
