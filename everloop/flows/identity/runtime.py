"""The runtime as a version: installed distributions by content, Python, platform, CPU features, BLAS, threads.

A distribution's digest covers what pip recorded about its code (`RECORD`), less what differs between two
installations of the same files: scripts with a path in their first line, compiled caches, installer notes.
"""

import functools
import os
import platform
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from everloop.core.ids import object_id
from everloop.core.version import Version

THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "POLARS_MAX_THREADS",
)
"""What numeric libraries read, once, when they load."""

_REQUIREMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True, slots=True)
class Distribution:
    """One installed distribution."""

    name: str
    version: str
    digest: str
    imports: tuple[str, ...]
    """Top-level names that it provides."""
    requires: tuple[str, ...]
    """Normalised names that it needs, extras aside."""
    folder: Path
    """Its metadata."""


@dataclass(frozen=True, slots=True)
class Runtime:
    """A recorded runtime; `version` is what the catalog keeps."""

    version: Version
    distributions: Mapping[str, Distribution]
    providers: Mapping[str, tuple[str, ...]]
    """Which distributions provide a top-level import name."""

    def restricted(self, packages: Iterable[str]) -> dict[str, str]:
        """`{distribution: version and digest}` of what `packages` (import names) need, transitively, for a recipe.

        A package that nothing provides (a folder on the module path) is named without a digest.
        """
        found: dict[str, str] = {}
        waiting: list[str] = []
        for package in packages:
            provided = self.providers.get(package, ())
            waiting.extend(provided)
            if not provided:
                found[f"import:{package}"] = "unknown"
        while waiting:
            name = waiting.pop()
            distribution = self.distributions.get(name)
            if distribution is None or name in found:
                continue
            found[name] = f"{distribution.version} {distribution.digest}"
            waiting.extend(distribution.requires)
        return found

    def requirements(self, packages: Iterable[str]) -> list[str]:
        """`name==version` lines of what `packages` (import names) need directly, sorted."""
        names = {name for package in packages for name in self.providers.get(package, ())}
        return sorted(f"{name}=={self.distributions[name].version}" for name in names)


def thread_environment(threads: int) -> dict[str, str]:
    """The variables that hold every numeric library to `threads` threads."""
    return dict.fromkeys(THREAD_VARIABLES, str(max(1, threads)))


def runtime(threads: int | None = None) -> Runtime:
    """Describe this interpreter's runtime for steps of `threads` threads (None: as this process is set).

    The first call reads the installed metadata (tens of milliseconds), later ones only look whether a folder changed.
    """
    folders = tuple((path, _modified(path)) for path in dict.fromkeys(sys.path) if Path(path or ".").is_dir())
    if threads is None:
        limits = tuple((name, os.environ.get(name, "")) for name in THREAD_VARIABLES)
    else:
        limits = tuple(thread_environment(threads).items())
    return _runtime(folders, limits)


@functools.lru_cache(maxsize=32)
def _runtime(folders: tuple[tuple[str, int], ...], limits: tuple[tuple[str, str], ...]) -> Runtime:
    distributions = _installed(folders)
    providers: dict[str, tuple[str, ...]] = {}
    for distribution in distributions.values():
        for name in distribution.imports:
            providers[name] = (*providers.get(name, ()), distribution.name)
    manifest = {
        "packages": {d.name: {"version": d.version, "digest": d.digest} for d in distributions.values()},
        **host(),
        "threads": {name: value for name, value in limits if value},
    }
    return Runtime(Version("runtime", "python", manifest), distributions, providers)


@functools.cache
def host() -> dict[str, object]:
    """Python, platform and CPU, as they decide what arithmetic gives."""
    return {
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "platform": sys.platform,
        "machine": platform.machine(),
        "libc": " ".join(platform.libc_ver()).strip(),
        "cpu": _cpu_features(),
        "blas": _blas(),
    }


@functools.lru_cache(maxsize=4)
def _installed(folders: tuple[tuple[str, int], ...]) -> dict[str, Distribution]:
    found: dict[str, Distribution] = {}
    for folder, _ in folders:
        if (Path(folder).resolve().parent / "__init__.py").exists():  # what a package carries inside it, as Ray does
            continue
        for entry in sorted(Path(folder or ".").glob("*.dist-info")):
            distribution = _read(entry)
            found.setdefault(distribution.name, distribution)  # the first on the path is the one that is imported
    return dict(sorted(found.items()))


def _read(folder: Path) -> Distribution:
    name, _, version = folder.name.removesuffix(".dist-info").partition("-")
    lines, imports = [], set()
    for line in _text(folder / "RECORD").splitlines():
        path = line.partition(",")[0].strip('"')
        top, slash, _ = path.partition("/")
        if top == ".." or not path or path.endswith(".pyc") or top.endswith((".dist-info", ".data")):
            continue
        lines.append(line)
        if slash:
            imports.add(top)
        elif path.endswith((".py", ".so", ".pyd")):
            imports.add(path.partition(".")[0])
    requires = tuple(_requirements(_text(folder / "METADATA")))
    digest = object_id("\n".join(sorted(lines)).encode())
    return Distribution(_normal(name), version, digest, tuple(sorted(imports)), requires, folder)


def _requirements(metadata: str) -> Iterable[str]:
    for line in metadata.partition("\n\n")[0].splitlines():
        if line.startswith("Requires-Dist:") and "extra ==" not in line:
            match = _REQUIREMENT.search(line, len("Requires-Dist:"))
            if match:
                yield _normal(match.group())


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _modified(path: str) -> int:
    try:
        return Path(path or ".").stat().st_mtime_ns
    except OSError:
        return 0


def _cpu_features() -> list[str]:
    """The CPU's instruction sets, by which numeric libraries choose their kernels; empty where they are hidden."""
    for line in _text(Path("/proc/cpuinfo")).splitlines():
        if line.startswith(("flags", "Features")):
            return sorted(line.partition(":")[2].split())
    return []


def _blas() -> str:
    """Name and version of the BLAS that numpy was built with, read from its own record without importing it."""
    for folder in sys.path:
        text = _text(Path(folder or ".") / "numpy" / "__config__.py")
        match = re.search(r'"blas":\s*\{\s*"name":\s*"([^"]*)".*?"version":\s*"([^"]*)"', text, re.DOTALL)
        if match:
            return f"{match[1]} {match[2]}"
    return ""
