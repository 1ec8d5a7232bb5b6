"""The recorded environment again: a virtual environment with exactly the packages that a step needs, made by `uv`.

Versions are exact and nothing is resolved, so that with a warm cache it takes a part of a second. Whether the files are
those of the record is not believed but compared: the step's process says which digests it sees.
"""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import everloop
from everloop.core.errors import Unavailable
from everloop.core.ids import manifest_id, short
from everloop.core.version import Version
from everloop.flows.identity import Runtime, runtime
from everloop.flows.identity.runtime import Distribution, thread_environment

_TIMEOUT = 600
_OURS = "everloop"


def differs(needed: Mapping[str, str], here: Runtime, python: str) -> bool:
    """Whether a step's packages (`{name: version and digest}`) or its Python are not those of this process."""
    if here.version.manifest["python"] != python:
        return True
    known = here.distributions
    return any(
        name not in known or f"{known[name].version} {known[name].digest}" != wanted
        for name, wanted in needed.items()
        if not name.startswith("import:")
    )


def lock_of(needed: Collection[str], recorded: Mapping[str, Any]) -> dict[str, str]:
    """`{distribution: version}` of what a process that runs the step needs: the step's packages, and Everloop's own.

    Those that the record does not have come in the version that is installed here.
    """
    here, packages = runtime(), recorded.get("packages", {})
    waiting, found = [*needed, *_own(here)], dict[str, str]()
    while waiting:
        name = waiting.pop()
        if name in found or name == _OURS or name.startswith("import:"):
            continue
        installed = here.distributions.get(name)
        if name in packages:
            found[name] = str(packages[name]["version"])
        elif installed is not None:
            found[name] = installed.version
        if installed is not None and name not in needed:
            waiting.extend(installed.requires)
    return dict(sorted(found.items()))


def rebuild(
    home: Path,
    python: str,
    lock: Mapping[str, str],
    wheels: Path | None = None,
    *,
    digests: Mapping[str, str] | None = None,
) -> Path:
    """The Python of a virtual environment that holds `lock`, made below `home` once; `wheels` is a folder of them.

    `digests` are those that were recorded: a distribution that is installed here in those very files is linked from
    here, so that neither network nor cache is needed for it. Raises `Unavailable` when `uv` is missing, or a package
    or Python of that version cannot be had.
    """
    known = dict(digests or {})
    key = short(manifest_id({"python": python, "lock": dict(lock), "digests": known, "everloop": str(_package())}))

    def fill(fresh: Path) -> None:
        same = python == sys.version.split()[0]
        _uv("venv", "--quiet", "--python", sys.executable if same else python, "--clear", str(fresh))
        there = _linked(fresh, lock, known) if same else frozenset[str]()
        rest = {name: version for name, version in lock.items() if name not in there}
        if rest:
            names = fresh / "requirements.txt"
            names.write_text("".join(f"{name}=={version}\n" for name, version in rest.items()))
            given = ["--find-links", str(wheels)] if wheels else []
            _install(fresh / "bin" / "python", [*given, "--requirement", str(names)])
        _link_ours(fresh)

    return _once(home, key, fill)


def overlay(home: Path, pins: Mapping[str, str]) -> Path:
    """The Python of an environment that is this one, with some packages (`{name: version}`) in other versions.

    Made below `home` once. Raises what `rebuild` raises.
    """
    paths = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    key = short(manifest_id({"python": sys.version, "over": paths, "pins": dict(pins), "everloop": str(_package())}))

    def fill(fresh: Path) -> None:
        _uv("venv", "--quiet", "--python", sys.executable, "--clear", str(fresh))
        _install(fresh / "bin" / "python", [f"{name}=={version}" for name, version in pins.items()])
        _link_ours(fresh)
        (_site(fresh) / "everloop-below.pth").write_text("".join(f"{path}\n" for path in paths))

    return _once(home, key, fill)


def _once(home: Path, key: str, fill: Callable[[Path], None]) -> Path:
    """The Python of the environment `key` below `home`; `fill` makes it in a folder that is whole, or not there."""
    folder = home / "environments" / key
    interpreter = folder / "bin" / "python"
    if interpreter.exists():
        return interpreter
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".new-"))
    try:
        fill(fresh)
        fresh.rename(folder)
    except OSError:
        if not interpreter.exists():  # else somebody was faster, with the same packages: a full folder is in the way
            raise
    finally:
        if fresh.exists():
            shutil.rmtree(fresh, ignore_errors=True)
    return interpreter


def other_files(python: str, wanted: Mapping[str, str]) -> list[str]:
    """Distributions of another interpreter that are not those of a record (`{name: version and digest}`)."""
    known = seen_by(python, 1).distributions
    held = {name: f"{one.version} {one.digest}" for name, one in known.items()}
    return [name for name, one in wanted.items() if not name.startswith("import:") and held.get(name) != one]


def _linked(folder: Path, lock: Mapping[str, str], digests: Mapping[str, str]) -> frozenset[str]:
    """Link into a new environment what is installed here in the recorded files; the names of that."""
    here, site, found = runtime().distributions, _site(folder), set[str]()
    for name in lock:
        one = here.get(name)
        if one is not None and one.version == lock[name] and one.digest == digests.get(name) and _link(one, site):
            found.add(name)
    return frozenset(found)


def _link(one: Distribution, site: Path) -> bool:
    """Every file of a distribution by a hard link (a copy where there is none), compiled ones too.

    False for one that is not installed file by file: it has a link to somewhere else, as editable ones do.
    """
    root, tag = one.folder.parent, sys.implementation.cache_tag
    if (one.folder / "direct_url.json").is_file() or not (one.folder / "RECORD").is_file():
        return False
    for line in (one.folder / "RECORD").read_text(encoding="utf-8").splitlines():
        path = Path(line.rpartition(",")[0].rpartition(",")[0].strip('"'))
        if ".." in path.parts or path.is_absolute() or path.suffix == ".pyc" or not (root / path).is_file():
            continue
        for file in (path, path.parent / "__pycache__" / f"{path.stem}.{tag}.pyc"):
            if (root / file).is_file():
                (site / file).parent.mkdir(parents=True, exist_ok=True)
                try:
                    (site / file).hardlink_to(root / file)
                except FileExistsError:  # a file of two distributions: the first one's is taken, as it is here
                    continue
                except OSError:
                    shutil.copy2(root / file, site / file)
    return True


@lru_cache(maxsize=16)
def seen_by(python: str, threads: int) -> Runtime:
    """The runtime as another interpreter sees itself, for steps of `threads` threads. Raises `Unavailable`."""
    try:
        done = subprocess.run(  # noqa: S603 - an interpreter of ours, a program of ours
            [python, "-P", "-c", _DESCRIBE],
            capture_output=True,
            text=True,
            timeout=_TIMEOUT,
            check=True,
            env={**os.environ, **thread_environment(threads)},
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise Unavailable(f"{python} does not tell what it sees: {error}", hint="remove home/environments") from None
    raw = json.loads(done.stdout)
    known = {
        one["name"]: Distribution(
            one["name"],
            one["version"],
            one["digest"],
            tuple(one["imports"]),
            tuple(one["requires"]),
            Path(one["folder"]),
        )
        for one in raw["distributions"]
    }
    providers = {name: tuple(held) for name, held in raw["providers"].items()}
    return Runtime(Version("runtime", "python", raw["manifest"]), known, providers)


_DESCRIBE = """
import json
from dataclasses import asdict
from everloop.flows.identity import runtime
r = runtime()
known = [{**asdict(d), "folder": str(d.folder)} for d in r.distributions.values()]
print(json.dumps({"manifest": dict(r.version.manifest), "distributions": known, "providers": dict(r.providers)}))
"""


def uv() -> str:
    """Where `uv` is; raises `Unavailable`."""
    beside = Path(sysconfig.get_path("scripts")) / "uv"
    found = str(beside) if beside.exists() else shutil.which("uv")
    if found is None:
        raise Unavailable(
            "uv is not installed, so the recorded environment cannot be made again",
            hint='pip install "everloop[reproduce]", or reproduce with --here, in the environment of this process',
        )
    return found


def _install(python: Path, arguments: Iterable[str]) -> None:
    """From the cache alone when that has everything, which asks nobody; else from wherever packages come from."""
    words = ["pip", "install", "--quiet", "--no-deps", "--python", str(python), *arguments]
    try:
        _uv(*words, "--offline")
    except Unavailable:
        _uv(*words)


def _uv(*arguments: str) -> None:
    try:
        done = subprocess.run(  # noqa: S603 - fixed arguments, names and versions of a record, no shell
            [uv(), *arguments],
            capture_output=True,
            text=True,
            timeout=_TIMEOUT,
            check=False,
            env={**os.environ, "UV_NO_PROGRESS": "1", "UV_LINK_MODE": os.environ.get("UV_LINK_MODE", "hardlink")},
        )
    except subprocess.TimeoutExpired:
        raise Unavailable(f"uv did not end within {_TIMEOUT} s", hint="try again; it goes on where it was") from None
    if done.returncode:
        said = done.stderr.strip().splitlines()
        raise Unavailable(
            f"the recorded environment cannot be made again: {' '.join(said[-3:])[-400:]}",
            hint="mirror the wheels while they can be had (`everloop reproduce --mirror`), or reproduce with --here",
        )


def _package() -> Path:
    return Path(everloop.__file__).resolve().parent


def _link_ours(folder: Path) -> None:
    """Everloop itself is that of this process: it compares, and is a part of the recipe as far as it has a part."""
    site, ours = _site(folder), runtime().distributions.get(_OURS)
    (site / _OURS).symlink_to(_package(), target_is_directory=True)
    if ours is not None:  # what it needs is known in there too
        (site / ours.folder.name).symlink_to(ours.folder.resolve(), target_is_directory=True)


def _site(folder: Path) -> Path:
    """Where packages of a new environment are."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    sites = [*folder.glob("lib/python*/site-packages")]
    return sites[0] if sites else folder / "lib" / version / "site-packages"


def _own(here: Runtime) -> tuple[str, ...]:
    known = here.distributions.get(_OURS)
    return known.requires if known is not None else ()
