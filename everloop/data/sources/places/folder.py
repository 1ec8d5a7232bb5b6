"""Files of the local disk."""

import glob
import re
from dataclasses import dataclass
from pathlib import Path

from everloop.core.errors import DataError, NotFound
from everloop.data.sources.places.place import Found, Here

_MAGIC = re.compile(r"[*?\[]")


@dataclass(frozen=True, slots=True)
class Folder:
    """Files that match a glob relative to `root` (an absolute pattern stays one)."""

    root: Path
    pattern: str

    def listed(self) -> list[Found]:
        """Path, size, inode and times of change of every file; raises `NotFound`, and `DataError` for a way out."""
        pattern = str(self.root / self.pattern)
        found = sorted(Path(p) for p in glob.glob(pattern, recursive=True))  # noqa: PTH207 - Path.glob refuses absolute ones
        matching = [path for path in found if path.is_file()]
        if not matching:
            raise NotFound(f"no file matches {self.pattern!r}", hint=f"looked in {self.root}")
        folder = self._folder().resolve()
        return [self._found(path, folder) for path in matching]

    def fetched(self, found: Found, folder: Path) -> Here:  # noqa: ARG002 - a place elsewhere needs the folder
        """The file itself."""
        return Here(self.root / found.name, str(self.root / found.name))

    def _folder(self) -> Path:
        """The folder that the pattern names before its first wildcard."""
        steps = (self.root / self.pattern).parts
        fixed = next((i for i, step in enumerate(steps) if _MAGIC.search(step)), len(steps) - 1)
        return Path(*steps[:fixed])

    def _found(self, path: Path, folder: Path) -> Found:
        if not path.resolve().is_relative_to(folder):
            raise DataError(
                f"{path} is a symbolic link out of its folder", hint="name the file where it is, or copy it into it"
            )
        s = path.stat()
        name = str(path.relative_to(self.root) if path.is_relative_to(self.root) else path)
        return Found(name, s.st_size, (str(s.st_ino), str(s.st_mtime_ns), str(s.st_ctime_ns)))
