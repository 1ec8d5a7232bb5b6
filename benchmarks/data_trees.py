"""Folders of files against DVC: 20,000 files of 1 to 9 kB, and one big file that is edited.

Run by `data.py`. Two ways of measuring, for both sides alike: inside a process that has loaded its libraries
(`Repo.add` against `capture`), which has the goals, and whole commands with all that they load. DVC copies into its
cache and back (`cache.type copy`), as we do: a link into a store is not safe from later edits.
"""

import json
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from blake3 import blake3

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


@dataclass(frozen=True)
class Row:
    """One comparison of costs (seconds, bytes): the ratio is how many times more the peer takes."""

    name: str
    unit: str
    ours: float
    peer: str
    theirs: float | None
    """None where there is only a limit, `target`, that our cost must stay below."""
    floor: float | None
    """What anything must take that does the least: for example copying and hashing."""
    target: float

    def record(self) -> dict[str, Any]:
        """One line."""
        rounded = {name: None if (v := getattr(self, name)) is None else round(v, 4) for name in ("theirs", "floor")}
        ratio = None if self.theirs is None else round(self.theirs / self.ours, 2)
        met = self.ours <= self.target if ratio is None else ratio >= self.target
        found = {"name": self.name, "unit": self.unit, "ours": round(self.ours, 4), "peer": self.peer, **rounded}
        return found | {"ratio": ratio, "target": self.target, "met": met}


def cpu_of(who: int, work: Callable[[], Any]) -> tuple[float, Any]:
    """CPU seconds (user and system) of this process or of its children for some work, and what it returned."""
    before = resource.getrusage(who)
    result = work()
    after = resource.getrusage(who)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, result


def own_cpu(work: Callable[[], Any]) -> tuple[float, Any]:
    """The same of this process."""
    return cpu_of(resource.RUSAGE_SELF, work)


def command_cpu(words: Sequence[str | Path], folder: Path) -> tuple[float, str]:
    """CPU seconds of a command, and what it printed."""
    line = [str(word) for word in words]
    seconds, ended = cpu_of(
        resource.RUSAGE_CHILDREN,
        lambda: subprocess.run(line, cwd=folder, check=True, stdout=subprocess.PIPE, text=True),
    )
    return seconds, ended.stdout


def make(folder: Path, files: int) -> None:
    """Small files in a hundred folders, nothing in them to compress."""
    chance = np.random.default_rng(0)
    for i in range(100):
        (folder / f"d{i:02d}").mkdir(parents=True)
    for i in range(files):
        (folder / f"d{i % 100:02d}" / f"f{i:05d}.jpg").write_bytes(chance.bytes(int(chance.integers(1000, 9000))))


def copy_and_hash(folder: Path, target: Path) -> None:
    """The least: every file copied and its bytes hashed."""
    shutil.copytree(folder, target)
    for file in target.rglob("*.jpg"):
        blake3(file.read_bytes()).digest()
    shutil.rmtree(target)


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
    found["capture"] = min(own_cpu(lambda one=one: capture(one, source, root=place))[0] for one in fresh)
    ctx = fresh[0]
    made = capture(ctx, source, root=place)
    found["again"] = min(own_cpu(lambda: capture(ctx, source, root=place))[0] for _ in range(3))
    found["checkout"] = min(own_cpu(lambda n=n: checkout(ctx, made.id, place / f"out{n}"))[0] for n in range(3))
    found["status"] = min(own_cpu(lambda: status(place / "out0", now=ctx.clock.wall() * 1000))[0] for _ in range(3))
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
    yield "big", own_cpu(lambda: capture(ctx, source, root=place))[0]
    before = sum(ctx.store.size(identity) for identity in ctx.store.ids())
    file.write_bytes(content[: 32 << 20] + b"inserted" + content[32 << 20 :])
    capture(ctx, source, root=place)
    yield "edit", (sum(ctx.store.size(identity) for identity in ctx.store.ids()) - before) / len(content)
    yield "big floor", own_cpu(lambda: (shutil.copyfile(file, place / "copy"), blake3(file.read_bytes()).digest()))[0]


def ours_commands(place: Path) -> dict[str, float]:
    """Our CPU seconds, as commands in a project's folder."""
    for name in ("images", "warm"):
        shutil.copytree(place / name, place / "project" / name)
    place /= "project"
    lines = ["import everloop as el", 'project = el.Project("bench")']
    lines += [f'{name} = project.source("{name}", el.Folder("{name}/**"))' for name in ("warm", "images")]
    (place / "project.py").write_text("\n".join(lines) + "\n")

    def everloop(*words: str | Path) -> float:
        return command_cpu([EVERLOOP, "--project", "bench", *words], place)[0]

    everloop("init")
    everloop("run", "warm")
    found = {"capture": everloop("run", "images"), "again": everloop("run", "images")}
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
            return command_cpu([python.with_name("dvc"), *words], folder)[0]

        dvc("init", "-q")
        dvc("config", "core.analytics", "false")
        dvc("config", "cache.type", "copy")
        return folder, dvc

    folder, _ = repository("inside")
    _, told = command_cpu([python, "-c", THEIRS], folder)
    folder, dvc = repository("commands")
    found = {"capture": dvc("add", "-q", "images"), "again": dvc("add", "-q", "images")}
    found["status"] = min(dvc("status", "-q") for _ in range(3))
    shutil.rmtree(folder / "images")
    found["checkout"] = dvc("checkout", "-q")
    return json.loads(told.splitlines()[-1]), found


def figures(quick: bool, peers: Path) -> Iterator[dict[str, Any]]:
    """Every figure of folders."""
    with tempfile.TemporaryDirectory() as folder:
        yield from (row.record() for row in rows(Path(folder), peers, 5_000 if quick else FILES))


def rows(place: Path, python: Path, files: int) -> Iterator[Row]:
    """Every comparison of folders."""
    make(place / "images", files)
    make(place / "warm", 100)
    unit = "CPU seconds"
    floor = min(own_cpu(lambda: copy_and_hash(place / "images", place / "copied"))[0] for _ in range(2))
    inside, commands = ours_inside(place), ours_commands(place)
    peer_inside, peer_commands = theirs(place, python)
    goals = {"capture": 8.0, "checkout": 4.0, "status": 20.0}
    for way, mine, other in (("inside a process", inside, peer_inside), ("as a command", commands, peer_commands)):
        for what, goal in goals.items():
            least = floor if what == "capture" else None
            target = goal if mine is inside else 1.0
            yield Row(f"{what} of {files} files, {way}", unit, mine[what], "dvc", other[what], least, target)
        name = f"unchanged capture of {files} files, {way}"
        if mine is inside:
            yield Row(name, unit, mine["again"], "", None, None, 0.5 * files / FILES)
        yield Row(f"{name}, to the peer", unit, mine["again"], "dvc", other["again"], None, 1)
    least = inside["big floor"]
    yield Row("capture of a 64 MB file", unit, inside["big"], "copy and hash", least, least, 0.1)
    yield Row("8 bytes put into a 64 MB file", "new bytes, share of it", inside["edit"], "", None, None, 0.03)
