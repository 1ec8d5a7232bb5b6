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
from collections.abc import Collection, Iterable, Mapping
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


def rebuild(home: Path, python: str, lock: Mapping[str, str], wheels: Path | None = None) -> Path:
    """The Python of a virtual environment that holds `lock`, made below `home` once; `wheels` is a folder of them.

    Raises `Unavailable` when `uv` is missing, or a package or Python of that version cannot be had.
    """
    key = short(manifest_id({"python": python, "lock": dict(lock), "everloop": str(_package())}))
    folder = home / "environments" / key
    interpreter = folder / "bin" / "python"
    if interpreter.exists():
        return interpreter
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".new-"))
    try:
        base = sys.executable if python == sys.version.split()[0] else python
        _uv("venv", "--quiet", "--python", base, "--clear", str(fresh))
        names = fresh / "requirements.txt"
        names.write_text("".join(f"{name}=={version}\n" for name, version in lock.items()))
        given = ["--find-links", str(wheels)] if wheels else []
        _install(fresh / "bin" / "python", [*given, "--requirement", str(names)])
        _link_ours(fresh)
        fresh.rename(folder)
    except FileExistsError:  # somebody else was faster, with the same packages
        pass
    finally:
        if fresh.exists():
            shutil.rmtree(fresh, ignore_errors=True)
    return interpreter


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
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    sites = [*folder.glob("lib/python*/site-packages")] or [folder / "lib" / version / "site-packages"]
    (sites[0] / "everloop").symlink_to(_package(), target_is_directory=True)


def _own(here: Runtime) -> tuple[str, ...]:
    known = here.distributions.get(_OURS)
    return known.requires if known is not None else ()
