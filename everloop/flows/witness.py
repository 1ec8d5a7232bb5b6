"""What a step reads while it runs that its code does not say: files, folders, environment variables, modules.

Python tells of every file that it opens and every folder that it lists (audit events; see PEP 578), of which those
count that the project's own code asked for. A file that came into being or changed while the step ran is none of its
inputs, and neither is what belongs to the interpreter, to installed packages, to the system, or to hidden files of the
user's home. Files that a library opens in its own compiled code (Polars, Arrow, DuckDB) are not seen: declare those as
sources.
"""

import functools
import os
import stat
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from blake3 import blake3

from everloop.core.errors import DefinitionError
from everloop.flows.identity.source import dump, source

_EVENTS = frozenset({"open", "os.listdir", "os.scandir", "os.mkdir", "sqlite3.connect"})
_SYSTEM = ("/proc/", "/sys/", "/dev/", "/etc/", "/usr/", "/lib", "/var/lib/")
_PLACES = frozenset({"TMPDIR", "TEMP", "TMP"})
"""Where temporary files lie says nothing of what a step makes."""
_WRITING = os.O_WRONLY | os.O_RDWR
_QUOTING = ("/linecache.py", "/tokenize.py")  # sources are read to show lines of them
_PERFORM = str(Path(__file__).with_name("perform.py"))
"""Below it on the stack is whoever runs steps, above it the step."""
_DIGITS = 32
_PIECE = 1 << 20
_MODULES = 20_000

_active: list["Watch"] = []
_state = {"hooked": False}
_turn = threading.Lock()


class Watch:
    """What was read so far: `file:path`, `folder:path`, `environ:NAME`, `module:name` -> digest."""

    def __init__(self, root: Path, aside: tuple[str, ...], known: frozenset[str]) -> None:
        """`aside`: folders that do not count; `known`: environment variables that the recipe holds anyhow."""
        self.root = _real(str(root)) + os.sep
        self.began = time.time()
        self.known = known
        self.aside = (*_everywhere(tuple(sys.path)), *(f"{one}{os.sep}" for one in aside if one))
        self.reads: dict[str, str] = {}
        self._written: set[str] = set()
        self._made: tuple[str, ...] = ()
        # the newest one that is loaded: a set of all of them would be written anew in every forked child
        self._newest = next(reversed(sys.modules))
        self._busy = False

    def saw(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Note one event, when the project's code is behind it."""
        if self._busy or not isinstance(arguments[0], str | bytes | os.PathLike):
            return
        self._busy = True  # what is done here raises events too
        try:
            path = os.path.abspath(os.fsdecode(arguments[0]))  # noqa: PTH100 - a link stays a link
            if event == "os.mkdir":
                self._made += () if os.path.lexists(path) else (path + os.sep,)  # it is told before it is done
            elif event == "open" and _writes(arguments[1], arguments[2]):
                self._written.add(path)
            elif path not in self._written and not self._aside(path):
                self._note(path, folder=event in ("os.listdir", "os.scandir"))
        finally:
            self._busy = False

    def variable(self, name: str, value: str | None, frame: FrameType) -> None:
        """Note that a variable was asked for from `frame`."""
        if name in self.known or name in _PLACES or name.startswith("MLFLOW_"):
            return
        if _asks(frame, self.root) == "itself":
            self.reads[f"environ:{name}"] = text_digest(value)

    def modules(self) -> None:
        """Note the project's modules that were loaded since the beginning."""
        added: list[str] = []
        for name in reversed(sys.modules):
            if name == self._newest or len(added) > _MODULES:
                break
            added.append(name)
        for name in sorted(added):
            file = getattr(sys.modules[name], "__file__", None)
            # a module that a library makes by hand may say a bare name (torch.ops): no file of the folder we are in
            if file and Path(file).exists() and str(Path(file).resolve()).startswith(self.root):
                self.reads[f"module:{name}"] = module_digest(file)

    def _note(self, path: str, *, folder: bool) -> None:
        asked = _asks(sys._getframe(2), self.root)  # noqa: SLF001 - who asks is the question
        if not asked or (folder and asked != "itself"):
            return
        there = self._state(path)
        if there is None:
            if asked == "itself":  # libraries try many places; that the author's own file was missing matters
                self.reads[named("folder" if folder else "file", path, self.root)] = ""
        elif there < self.began:
            kind = "folder" if Path(path).is_dir() else "file"
            self.reads[named(kind, path, self.root)] = digest_of(kind, path)

    def _aside(self, path: str) -> bool:
        if self._made and (path + os.sep).startswith(self._made):  # all that is in a folder that the step made itself
            return True
        if f"{os.sep}.git{os.sep}" in path + os.sep:  # mlflow asks for the commit, of a repository around us too
            return True
        if path.startswith(self.root):
            return path[len(self.root) :].startswith(".everloop") or "__pycache__" in path
        return path.startswith(self.aside)

    def _state(self, path: str) -> float | None:
        try:
            state = Path(path).stat()
        except OSError:
            return None
        return max(state.st_mtime, state.st_ctime) if not stat.S_ISDIR(state.st_mode) else 0.0


class _Environ(os._Environ[str]):  # noqa: SLF001 - there is no other name for it
    """`os.environ` while a step is watched: the same, and it tells who asks for what."""

    def __getitem__(self, key: str) -> str:
        value = None
        try:
            value = super().__getitem__(key)
        finally:
            if not _copied(key):
                for watch in tuple(_active):
                    watch.variable(key, value, sys._getframe(1))  # noqa: SLF001 - who asks is the question
        return value

    def __iter__(self) -> Iterator[str]:
        names = list(super().__iter__())
        _copies.pending = deque(names)  # `{**os.environ}` gives the variables on: nobody read them
        return iter(names)


class _Copies(threading.local):
    """The names that a copy of `os.environ` in this thread will ask for next, in their order."""

    def __init__(self) -> None:
        self.pending: deque[str] = deque()


_copies = _Copies()


def _copied(key: str) -> bool:
    """Whether this is a copy's next value; whoever asks for another name makes no copy, and never did."""
    if _copies.pending and _copies.pending[0] == key:
        _copies.pending.popleft()
        return True
    _copies.pending = deque()
    return False


@contextmanager
def watching(root: Path, aside: tuple[str, ...] = (), known: frozenset[str] = frozenset()) -> Iterator[Watch]:
    """Watch what the project under `root` reads while the block runs, in all threads of this process."""
    watch = Watch(root, aside, known)
    _copies.pending = deque()
    with _turn:
        if not _state["hooked"]:
            sys.addaudithook(_hook)
            _state["hooked"] = True
        if not _active:
            os.environ.__class__ = _Environ
        _active.append(watch)
    try:
        yield watch
    finally:
        with _turn:
            _active.remove(watch)
            if not _active:  # the last one out: watches of several threads overlap in any order
                os.environ.__class__ = os._Environ  # noqa: SLF001
        watch.modules()


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if _active and event in _EVENTS:
        for watch in tuple(_active):
            watch.saw(event, arguments)


def now(reads: Mapping[str, str], root: Path, variables: Mapping[str, str]) -> dict[str, str]:
    """The digests of the same things as they are at present; `variables` are those that the step would see."""
    found: dict[str, str] = {}
    for name in reads:
        kind, _, what = name.partition(":")
        if kind == "environ":
            found[name] = text_digest(variables.get(what))
        elif kind == "module":
            base = what.replace(".", "/")
            files = [root / f"{base}.py", root / base / "__init__.py", root / "src" / f"{base}.py"]
            file = next((one for one in files if one.is_file()), None)
            found[name] = module_digest(str(file)) if file else ""
        else:
            path = what if os.path.isabs(what) else str(root.resolve() / what)  # noqa: PTH117 - it is a text
            found[name] = digest_of(kind, path) if os.path.lexists(path) else ""
    return found


def named(kind: str, path: str, root: str) -> str:
    """How a file or folder is called: in the project by its path there, so that a checkout elsewhere is the same."""
    inside = path.startswith(root) or path + os.sep == root
    return f"{kind}:{path[len(root) :] or '.' if inside else path}"


def digest_of(kind: str, path: str) -> str:
    """The digest of a file's bytes, or of a folder's names; empty when it cannot be read."""
    try:
        if kind == "folder":
            listed = sorted(one.name for one in Path(path).iterdir() if one.name != "__pycache__")
            return blake3("\0".join(listed).encode("utf-8", "surrogateescape")).hexdigest()[:_DIGITS]
        hasher = blake3()
        with Path(path).open("rb") as file:
            while piece := file.read(_PIECE):
                hasher.update(piece)
    except OSError:
        return ""
    return hasher.hexdigest()[:_DIGITS]


def module_digest(file: str) -> str:
    """The digest of what a module means: comments and docstrings do not count."""
    try:
        return blake3(dump(source(file).tree).encode()).hexdigest()[:_DIGITS]
    except DefinitionError:
        return ""


def text_digest(value: str | None) -> str:
    """The digest of a variable's value; empty when it is not set. The value itself is kept nowhere."""
    return "" if value is None else blake3(value.encode("utf-8", "surrogateescape")).hexdigest()[:16]


def undeclared(reads: Mapping[str, str], parts: Mapping[str, str]) -> dict[str, str]:
    """Those of the reads that the closure does not hold; `parts` are the closure's."""
    return {
        name: digest
        for name, digest in reads.items()
        if not (name.startswith("module:") and _holds(parts, name.removeprefix("module:")))
    }


def _holds(parts: Mapping[str, str], module: str) -> bool:
    return any(part in (f"module:{module}", module) or part.startswith((f"{module}:", f"{module}.")) for part in parts)


def _asks(frame: FrameType | None, root: str) -> str:
    """`itself` when the project's code asks, `through` when a library does for it; empty when it has no part in it."""
    first = True
    while frame is not None:
        file = frame.f_code.co_filename
        if file == _PERFORM or file.startswith("<frozen importlib") or file.endswith(_QUOTING):
            return ""
        if file.startswith(root) and "site-packages" not in file:
            return "itself" if first else "through"
        if not file.startswith(_standard()) and not file.startswith("<"):
            first = False
        frame = frame.f_back
    return ""


def _standard() -> tuple[str, ...]:
    return (os.path.dirname(os.__file__) + os.sep, __file__)  # noqa: PTH120 - a beginning of texts


@functools.lru_cache(maxsize=64)
def _real(path: str) -> str:
    return str(Path(path).resolve())


@functools.lru_cache(maxsize=16)
def _everywhere(_path: tuple[str, ...]) -> tuple[str, ...]:
    """What counts in no project, for a module path."""
    return (*_SYSTEM, f"{Path.home()}{os.sep}.", *(f"{one}{os.sep}" for one in _installed() if one))


def _installed() -> tuple[str, ...]:
    here = str(Path(__file__).resolve().parents[1])
    folders = [path for path in sys.path if "site-packages" in path]
    return (sys.prefix, sys.base_prefix, os.path.dirname(os.__file__), here, *folders)  # noqa: PTH120 - texts


def _writes(mode: object, flags: object) -> bool:
    if isinstance(mode, str):
        return bool(set(mode) & set("wax+"))
    return isinstance(flags, int) and bool(flags & _WRITING)
