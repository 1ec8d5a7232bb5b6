"""The project's files as a `code` version: the working tree as it is, uncommitted and untracked files too.

`.gitignore` is honoured through git where there is git; else hidden folders, caches and environments are left
out. The commit and the diff are kept beside the version, for people: they are not part of its identity.
"""

import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from weakref import WeakKeyDictionary

from everloop.core.errors import InvalidInput
from everloop.core.ports import Blobs
from everloop.core.version import Version

LARGEST = 5_000_000
"""Bytes; a larger file is data, not code."""

_GOOD = 600.0
"""Seconds after which a file is put again though it is unchanged, so that no sweep takes it for forgotten."""
_TICK = 2_000_000_000
"""Nanoseconds within which two edits may get the same time, on the coarsest file systems."""
_LEFT_OUT = frozenset({"__pycache__", "node_modules", "build", "dist", "venv", "env", "site-packages", "mlruns"})


@dataclass(frozen=True, slots=True)
class Tree:
    """A recorded working tree."""

    version: Version
    commit: str
    """The commit checked out; empty without git."""
    diff: str
    """`git diff HEAD`, at most 1 MB of it; empty when clean or without git. Untracked files are in `version`."""


_Seen = dict[str, tuple[tuple[int, int, int], str, float]]
"""Files by path: how they were found, their object, and when it was put."""


class TreeReader:
    """Reads working trees into a store; remembers unchanged files, so that a second look costs one `stat` each."""

    def __init__(self, blobs: Blobs, seen: _Seen | None = None) -> None:
        """Store files into `blobs`, of which those of `seen` are there."""
        self._blobs = blobs
        self._seen: _Seen = {} if seen is None else seen

    def read(self, root: Path, name: str = "project", leave_out: Sequence[str] = ()) -> Tree:
        """Record the tree under `root` as version `code/<name>`; raises `InvalidInput` for a file over 5 MB.

        `leave_out` are globs, relative to the root, of files that are data: sources read and version those.
        """
        root = root.resolve()
        inside_git = _in_git(root) and git(root, "rev-parse", "--is-inside-work-tree").strip() == "true"
        files: dict[str, str] = {}
        for path in sorted(_tracked(root) if inside_git else _walked(root)):
            if any(fnmatchcase(path, pattern) for pattern in leave_out):
                continue
            identity = self._file(root, path)
            if identity is not None:
                files[path] = identity
        commit = git(root, "rev-parse", "--verify", "--quiet", "HEAD").strip() if inside_git else ""
        diff = git(root, "diff", "--no-ext-diff", "HEAD", "--", ".")[:1_000_000] if commit else ""
        return Tree(Version("code", name, {"files": files}), commit, diff)

    def _file(self, root: Path, path: str) -> str | None:
        whole = root / path
        try:
            state = whole.lstat()
        except FileNotFoundError:  # deleted, and git still lists it
            return None
        if not whole.is_file() or whole.is_symlink():
            return None
        if state.st_size > LARGEST:
            raise InvalidInput(
                f"{whole} has {state.st_size / 1e6:.1f} MB: a project's code holds no file over 5 MB",
                hint="list it in .gitignore and read it as a source, so that it is versioned as data",
            )
        stamp = (state.st_mtime_ns, state.st_size, state.st_ino)
        known = self._seen.get(str(whole))
        if known is not None and known[0] == stamp and time.monotonic() - known[2] < _GOOD:
            return known[1]
        settled = time.time_ns() - state.st_mtime_ns > _TICK
        identity = self._blobs.put(whole.read_bytes())
        if settled:  # else another edit could leave the same time
            self._seen[str(whole)] = (stamp, identity, time.monotonic())
        return identity


_seen: WeakKeyDictionary[Blobs, _Seen] = WeakKeyDictionary()


def project_tree(root: Path, blobs: Blobs, name: str = "project", leave_out: Sequence[str] = ()) -> Tree:
    """Record the working tree under `root`; what one process recorded in one store is remembered."""
    return TreeReader(blobs, _seen.setdefault(blobs, {})).read(root, name, leave_out)


def _in_git(root: Path) -> bool:
    """Whether git could know of this folder: asking it costs a process, looking for its folder next to nothing."""
    if any(name in os.environ for name in ("GIT_DIR", "GIT_WORK_TREE")):
        return True
    return any((folder / ".git").exists() for folder in (root, *root.parents))


def _tracked(root: Path) -> list[str]:
    listed = git(root, "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", ".")
    return [path for path in listed.split("\0") if path and not _hidden_state(path)]


def _hidden_state(path: str) -> bool:
    return path.split("/", 1)[0] == ".everloop"


def _walked(root: Path) -> Iterator[str]:
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(f for f in folders if not f.startswith(".") and f not in _LEFT_OUT)
        folders[:] = [f for f in folders if not (Path(folder) / f / "pyvenv.cfg").exists()]
        for file in files:
            if not file.startswith(".") and not file.endswith((".pyc", ".pyo")):
                yield (Path(folder) / file).relative_to(root).as_posix()


def git(root: Path, *arguments: str) -> str:
    """What git prints, asked of a folder; empty when there is no git, no repository, or it fails."""
    try:
        done = subprocess.run(  # noqa: S603 - fixed arguments; git is looked up on the path as everybody's is
            ["git", "-C", str(root), *arguments],  # noqa: S607 - see above
            capture_output=True,
            timeout=60,
            check=False,
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"},
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode("utf-8", "surrogateescape") if done.returncode == 0 else ""
