"""Wheels kept in the object store, so that a package that is withdrawn cannot break a reproduction.

They are packed from what is installed: the files that a distribution's `RECORD` names, in its order, without times, so
that the same installation gives the same bytes.
"""

import io
import zipfile
from collections.abc import Iterable
from pathlib import Path

from everloop.catalog import versions
from everloop.catalog.context import Context
from everloop.core.errors import InvalidInput
from everloop.core.version import Version
from everloop.flows.identity import runtime
from everloop.flows.identity.runtime import Distribution

NAME = "wheels"
_EPOCH = (1980, 1, 1, 0, 0, 0)
_MOST = 50


def mirror(ctx: Context, names: Iterable[str]) -> tuple[str, int]:
    """Keep the wheels of these installed distributions; returns the version that holds them, and how many there are."""
    here, files, known = runtime(), dict[str, str](), dict[str, dict[str, str]]()
    for name in sorted(set(names)):
        found = here.distributions.get(name)
        packed = pack(found) if found is not None else None
        if found is None or packed is None:
            continue
        file, content = packed
        files[file] = ctx.store.put(content)
        known[name] = {"version": found.version, "digest": found.digest, "file": file}
    if not files:
        raise InvalidInput("none of these packages is installed from a wheel", hint="name installed distributions")
    version = Version("runtime", NAME, {"files": files, "wheels": known})
    with ctx.write() as tx:
        versions.put(tx, ctx.project, version, actor=ctx.actor.name, at=ctx.now())
    return version.id, len(files)


def fetch(ctx: Context, wanted: dict[str, str], folder: Path) -> list[str]:
    """Write the kept wheels of `wanted` (`{name: version}`) into a folder; returns the names that were there."""
    with ctx.read() as tx:
        kept = versions.history(tx, ctx.project, "runtime", NAME, limit=_MOST)
    found: list[str] = []
    for name, version in wanted.items():
        for row in kept:
            one = row.manifest["wheels"].get(name)
            if one is not None and one["version"] == version:
                (folder / one["file"]).write_bytes(ctx.store.get(row.manifest["files"][one["file"]]))
                found.append(name)
                break
    return found


def pack(distribution: Distribution) -> tuple[str, bytes] | None:
    """File name and bytes of a wheel of an installed distribution; None for one that is linked (editable), or gone."""
    info = distribution.folder
    if not (info / "WHEEL").is_file() or _editable(info):
        return None
    tag = next(
        (
            line.partition(":")[2].strip()
            for line in (info / "WHEEL").read_text().splitlines()
            if line.startswith("Tag:")
        ),
        "py3-none-any",
    )
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as wheel:
        for line in (info / "RECORD").read_text(encoding="utf-8").splitlines():
            path = line.partition(",")[0].strip('"')
            top = path.partition("/")[0]
            file = info.parent / path
            if top == ".." or path.endswith(".pyc") or not file.is_file() or _installers(path):
                continue
            entry = zipfile.ZipInfo(path, _EPOCH)
            entry.external_attr = (file.stat().st_mode & 0o777) << 16
            wheel.writestr(entry, file.read_bytes())
    return f"{distribution.name.replace('-', '_')}-{distribution.version}-{tag}.whl", buffer.getvalue()


def _installers(path: str) -> bool:
    """Notes that whoever installed it wrote beside it."""
    return path.endswith((".dist-info/INSTALLER", ".dist-info/REQUESTED", ".dist-info/direct_url.json"))


def _editable(info: Path) -> bool:
    direct = info / "direct_url.json"
    return direct.is_file() and '"editable"' in direct.read_text(encoding="utf-8", errors="replace")
