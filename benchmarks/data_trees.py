"""Folders of files against DVC: 20,000 files of 1 to 9 kB, and one big file that is edited.

Run by `data.py`. Two ways of measuring, for both sides alike: inside a process that has loaded its libraries
(`Repo.add` against `capture`), which has the goals, and whole commands with all that they load. DVC copies into its
cache and back (`cache.type copy`), as we do: a link into a store is not safe from later edits.
"""

import json
import math
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from blake3 import blake3
from figure import Record, command, cpu, figure

from everloop.catalog.context import Actor, Context
from everloop.catalog.engine import Catalog
from everloop.core.clock import SystemClock
from everloop.data import Folder, SourceDef
from everloop.data.capturing import capture
from everloop.data.trees.checkout import checkout
from everloop.data.trees.status import status
from everloop.store import open_store

EVERLOOP = Path(sys.executable).with_name("everloop")
FILES = 20_000
THEIRS = """
import json, resource, shutil, sys
from dvc.repo import Repo
def cpu(work):
    a = resource.getrusage(resource.RUSAGE_SELF); work(); b = resource.getrusage(resource.RUSAGE_SELF)
    return b.ru_utime + b.ru_stime - a.ru_utime - a.ru_stime
def fresh(): return Repo(".")
repo = fresh(); repo.add("warm")
found = {}
repo = fresh(); found["capture"] = cpu(lambda: repo.add("images"))
repo = fresh(); found["again"] = min(cpu(lambda: fresh().add("images")) for _ in range(2))
found["status"] = min(cpu(lambda: fresh().status()) for _ in range(3))
def checkout():
    shutil.rmtree("images")
    repo = fresh()
    return cpu(lambda: repo.checkout())
found["checkout"] = min(checkout() for _ in range(3))
print(json.dumps(found))
"""


def make(folder: Path, files: int) -> None:
    """Small files in a hundred folders, nothing in them to compress."""
    chance = np.random.default_rng(0)
    for i in range(100):
        (folder / f"d{i:02d}").mkdir(parents=True)
    for i in range(files):
        (folder / f"d{i % 100:02d}" / f"f{i:05d}.jpg").write_bytes(chance.bytes(int(chance.integers(1000, 9000))))


def least(place: Path) -> dict[str, float]:
    """The least that anything must take which does the work: copying files, and hashing them; asking what they are."""
    source, target = place / "images", place / "copied"

    def hashed() -> None:
        for file in target.rglob("*.jpg"):
            blake3(file.read_bytes()).digest()

    found: dict[str, float] = {"checkout": math.inf, "hash": math.inf}
    for _ in range(2):
        found["checkout"] = min(found["checkout"], cpu(lambda: shutil.copytree(source, target)))
        found["hash"] = min(found["hash"], cpu(hashed))
        shutil.rmtree(target)
    asked = ["find", source, "-printf", "%s %T@ %C@ %i %P\\0"]
    found["status"] = min(command(asked)[0] for _ in range(3))
    return found | {"capture": found["checkout"] + found["hash"]}


def workspace(home: Path, root: Path) -> Context:
    """A workspace that has captured one small folder: what counts is the work, not the first use of the libraries."""
    home.mkdir()
    ctx = Context(
        Actor.of("bench"),
        "bench",
        SystemClock(),
        Catalog.open(home / "catalog.db"),
        open_store(str(home / "objects")),
        home=home,
    )
    capture(ctx, SourceDef("warm", Folder("warm/**")), root=root)
    return ctx


def ours_inside(place: Path) -> dict[str, float]:
    """Our CPU seconds, inside a process."""
    source = SourceDef("images", Folder("images/**"))
    found = {}
    fresh = [workspace(place / f"home{n}", place) for n in range(3)]
    found["capture"] = min(cpu(lambda one=one: capture(one, source, root=place)) for one in fresh)
    ctx = fresh[0]
    made = capture(ctx, source, root=place)
    found["again"] = min(cpu(lambda: capture(ctx, source, root=place)) for _ in range(3))
    found["checkout"] = min(cpu(lambda n=n: checkout(ctx, made.id, place / f"out{n}")) for n in range(3))
    found["status"] = min(cpu(lambda: status(place / "out0", now=ctx.clock.wall() * 1000)) for _ in range(3))
    assert status(place / "out0", now=ctx.clock.wall() * 1000).clean
    edits = dict(big_edits(ctx, place))
    ctx.catalog.close()
    return found | edits


def big_edits(ctx: Context, place: Path) -> Iterator[tuple[str, float]]:
    """New bytes for some bytes put into the middle of a big file, as a share of it."""
    source, file = SourceDef("big", Folder("big/**")), place / "big" / "x.bin"
    file.parent.mkdir()
    content = np.random.default_rng(1).bytes(64 << 20)
    file.write_bytes(content)
    yield "big", cpu(lambda: capture(ctx, source, root=place))
    before = sum(ctx.store.size(identity) for identity in ctx.store.ids())
    file.write_bytes(content[: 32 << 20] + b"inserted" + content[32 << 20 :])
    capture(ctx, source, root=place)
    yield "edit", (sum(ctx.store.size(identity) for identity in ctx.store.ids()) - before) / len(content)
    yield "big floor", cpu(lambda: (shutil.copyfile(file, place / "copy"), blake3(file.read_bytes()).digest()))


def ours_commands(place: Path) -> dict[str, float]:
    """Our CPU seconds, as commands in a project's folder."""
    for name in ("images", "warm"):
        shutil.copytree(place / name, place / "project" / name)
    place /= "project"
    lines = ["import everloop as el", 'project = el.Project("bench")']
    lines += [f'{name} = project.source("{name}", el.Folder("{name}/**"))' for name in ("warm", "images")]
    (place / "project.py").write_text("\n".join(lines) + "\n")

    def everloop(*words: str | Path) -> float:
        return command([EVERLOOP, "--project", "bench", *words], place)[0]

    everloop("init")
    everloop("run", "warm")
    found = {n: everloop("run", "images") for n in ("capture", "again")}
    found["checkout"] = everloop("data", "checkout", "images@1", "out2")
    found["status"] = min(everloop("data", "status", "out2") for _ in range(3))
    return found


def theirs(place: Path, python: Path) -> tuple[dict[str, float], dict[str, float]]:
    """DVC's CPU seconds inside a process, and as commands, in two repositories of their own."""

    def repository(name: str) -> tuple[Path, Callable[..., float]]:
        folder = place / name
        folder.mkdir()
        shutil.copytree(place / "images", folder / "images")
        shutil.copytree(place / "warm", folder / "warm")
        subprocess.run(["git", "init", "-q"], cwd=folder, check=True)

        def dvc(*words: str) -> float:
            return command([python.with_name("dvc"), *words], folder)[0]

        dvc("init", "-q")
        dvc("config", "core.analytics", "false")
        dvc("config", "cache.type", "copy")
        return folder, dvc

    folder, _ = repository("inside")
    _, told = command([python, "-c", THEIRS], folder)
    folder, dvc = repository("commands")
    found = {"capture": dvc("add", "-q", "images"), "again": dvc("add", "-q", "images")}
    found["status"] = min(dvc("status", "-q") for _ in range(3))
    shutil.rmtree(folder / "images")
    found["checkout"] = dvc("checkout", "-q")
    return json.loads(told.splitlines()[-1]), found


def figures(quick: bool, peers: Path) -> Iterator[Record]:
    """Every figure of folders."""
    with tempfile.TemporaryDirectory() as folder:
        yield from compared(Path(folder), peers, 4_000 if quick else FILES)


def compared(place: Path, python: Path, files: int) -> Iterator[Record]:
    """Every comparison of folders. The goals are of the work; whole commands are told beside, with all they load."""
    make(place / "images", files)
    make(place / "warm", 100)
    unit, floor = "CPU seconds", least(place)
    inside, commands = ours_inside(place), ours_commands(place)
    peer_inside, peer_commands = theirs(place, python)
    goals = {"capture": 8.0, "checkout": 4.0, "status": 20.0}
    for way, mine, other in (("inside a process", inside, peer_inside), ("as a command", commands, peer_commands)):
        for what, goal in goals.items():
            name, times = f"{what} of {files} files, {way}", goal if mine is inside else None
            yield figure(name, unit, mine[what], times=times, peer="dvc", theirs=other[what], floor=floor[what])
        name = f"unchanged capture of {files} files, {way}"
        if mine is inside:
            yield figure(name, unit, mine["again"], limit=0.5 * files / FILES, floor=floor["status"])
        yield figure(f"{name}, to the peer", unit, mine["again"], peer="dvc", theirs=other["again"])
    name = "capture of a 64 MB file, to copy and hash"
    yield figure(name, "times", inside["big"] / inside["big floor"], limit=10, floor=1)
    yield figure("8 bytes put into a 64 MB file", "new bytes, share of it", inside["edit"], limit=0.03)
