"""Paths of files within a tree: which are allowed, which a pattern means, which would collide on other disks."""

import re
import unicodedata
from collections.abc import Iterable
from functools import lru_cache
from pathlib import PurePosixPath

from everloop.core.errors import DataError

LONGEST = 4096
"""Bytes of a path within a tree; file systems allow no more, and 255 for each name in it."""
_SHORT = 63
_NAME = r"(?!\.\.?(?:/|\Z))[^/\0\ud800-\udfff]+"
_PLAIN = re.compile(rf"{_NAME}(?:/{_NAME})*\Z")
_WILD = re.compile(r"[*?\[]")


def checked_path(path: str) -> str:
    """`path`, or `DataError` when it could lead out of its folder or cannot be a file's name everywhere we run."""
    if len(path) <= _SHORT and _PLAIN.match(path):
        return path  # nearly all of them
    reason = ""
    if not path or path.startswith("/") or "\0" in path:
        reason = "is no path within a folder"
    elif any(name in ("", ".", "..") for name in path.split("/")):
        reason = "leads through an empty name, '.' or '..'"
    else:
        try:
            encoded = path.encode()
        except UnicodeEncodeError:
            reason = "is not UTF-8"
        else:
            if len(encoded) > LONGEST or (len(encoded) > 255 and any(len(n) > 255 for n in encoded.split(b"/"))):
                reason = "is too long"
    if reason:
        raise DataError(f"the path {path!r} {reason}", hint="rename the file; paths of a tree are relative and plain")
    return path


def clashes(paths: Iterable[str]) -> list[tuple[str, str]]:
    """Pairs of paths that are one file where the disk ignores case or composes accents (macOS, Windows).

    Folders count too: `A/x` and `a/y` would lie in one folder.
    """
    seen: dict[str, str] = {}
    found = []
    for path in paths:
        pieces = path.split("/")
        for depth in range(1, len(pieces) + 1):
            part = "/".join(pieces[:depth])
            first = seen.setdefault(unicodedata.normalize("NFC", part).casefold(), part)
            if first != part:
                found.append((first, part))
                break
    return found


def split_pattern(pattern: str) -> tuple[str, str]:
    """The folder that a pattern begins with, and the rest: `images/**/*.png` is (`images`, `**/*.png`).

    A pattern without a wildcard is a folder, and means all that lies in it.
    """
    names = PurePosixPath(pattern).parts
    fixed = next((i for i, name in enumerate(names) if _WILD.search(name)), len(names))
    rest = "/".join(names[fixed:]) or "**"
    return str(PurePosixPath(*names[:fixed])) if fixed else ".", rest


@lru_cache(maxsize=64)
def matcher(pattern: str) -> re.Pattern[str]:
    """What paths a pattern means: `**` is any number of folders (at the end: any file), the rest as a shell has it.

    Wildcards take no name that begins with a dot unless the pattern has the dot.
    """
    pieces = []
    names = pattern.split("/")
    for i, name in enumerate(names):
        last = i == len(names) - 1
        if name == "**":
            pieces.append(r"(?:[^/.][^/]*/)*" + (r"[^/.][^/]*" if last else ""))
        else:
            pieces.append(_segment(name) + ("" if last else "/"))
    return re.compile("".join(pieces) + r"\Z", re.DOTALL)


def _segment(name: str) -> str:
    out = r"(?!\.)" if _WILD.match(name) else ""
    at = 0
    while at < len(name):
        char = name[at]
        at += 1
        if char == "*":
            out += "[^/]*"
        elif char == "?":
            out += "[^/]"
        elif char == "[" and (end := name.find("]", at + 1)) > 0:
            inner = name[at:end].replace("\\", r"\\")
            out += "(?!/)[" + ("^" + inner[1:] if inner.startswith("!") else inner.replace("^", r"\^", 1)) + "]"
            at = end + 1
        else:
            out += re.escape(char)
    return out
