"""What engines, caches and processes that died left on the disk: files that can be made again, or that nobody needs."""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from everloop.catalog.context import Context
from everloop.catalog.erasing.mentions import Mentions
from everloop.data.erasure.elsewhere.contents import holds, redacted
from everloop.data.erasure.finding.subjects import Subject

_FOLDERS = ("cache", "scratch", "tmp", "serving/models")
"""Folders of a workspace whose files are copies or work."""
_OWN = ("everloop-parts-", "everloop-model-", "everloop-reproduce-", "everloop-ci-", "files-", "sort-")
"""Folders that our processes make where temporary files go."""
_LARGEST = 256 << 20


@dataclass(slots=True)
class Leftovers:
    """`core.ports.Erasable`: caches and temporary files of this machine."""

    ctx: Context
    subject: Subject
    place: str = "caches and temporary files"
    _left: list[str] = field(default_factory=list)

    def erase(self, _key: str) -> int:
        """Remove what speaks of the subject; a file that a process has open stays, and goes when that one ends."""
        count = 0
        opened: frozenset[str] | None = None
        for path in self._files():
            if not self._speaks(path):
                continue
            if any(models in path.parents for models in self._models):
                count += _rewritten(path, self.subject.mentions)  # else its bytes stay, as those of the version do
                continue
            opened = _opened() if opened is None else opened
            if str(path) in opened:
                self._left.append(f"{path.name}: work of a process that runs now, gone when it ends")
                continue
            path.unlink(missing_ok=True)
            count += 1
        return count

    def left(self) -> list[str]:
        """Files of processes that are at work."""
        return self._left

    @property
    def _models(self) -> tuple[Path, ...]:
        return self.ctx.home / "cache" / "models", self.ctx.home / "serving" / "models"

    def _files(self) -> Iterator[Path]:
        roots = [self.ctx.home / name for name in _FOLDERS]
        stores: tuple[Any, ...] = (
            self.ctx.store,
            getattr(self.ctx.store, "cache", None),
        )  # what was being put when a process died
        roots += [Path(place.root) / "tmp" for place in stores if hasattr(place, "root")]
        beside = Path(tempfile.gettempdir())
        roots += [path for path in sorted(beside.iterdir()) if path.name.startswith(_OWN) and _mine(path)]
        for root in roots:
            yield from (path for path in sorted(root.rglob("*")) if path.is_file() and not path.is_symlink())

    def _speaks(self, path: Path) -> bool:
        try:
            if path.stat().st_size > _LARGEST:
                return _in_pieces(path, self.subject.mentions)
            return holds(path.read_bytes(), self.subject.mentions)
        except (FileNotFoundError, PermissionError):
            return False


def _in_pieces(path: Path, mentions: Mentions) -> bool:
    overlap, before = 4 * max(len(form) for form in mentions.forms) + 8, b""
    with path.open("rb") as file:
        while piece := file.read(_LARGEST // 4):
            if mentions.in_bytes(before + piece):
                return True
            before = piece[-overlap:]
    return False


def _rewritten(path: Path, mentions: Mentions) -> bool:
    """A file of a model that was unpacked, and may be loaded again, without the subject; False where that cannot be."""
    left = redacted(path.read_bytes(), path.name, mentions)
    if left is None or holds(left, mentions):
        return False
    half = path.with_suffix(".half")
    half.write_bytes(left)
    half.replace(path)
    return True


def _mine(path: Path) -> bool:
    try:
        return path.is_dir() and path.stat().st_uid == Path("/proc/self").stat().st_uid
    except OSError:
        return False


def _opened() -> frozenset[str]:
    """The files that processes of ours have open."""
    found: set[str] = set()
    for process in psutil.process_iter():
        try:
            found.update(one.path for one in process.open_files())
        except (psutil.Error, OSError):
            continue
    return frozenset(found)
