"""Control groups of the kernel, where this process may make some: limits that hold a step with all that it starts.

Version 2 and version 1 are both known. A group lies below the one that this process is in, and goes when its step has
ended. Where none can be made (no Linux, no right, controllers that are not given on) there is no group, and what holds
a step is the limit of its own process and the watch over its memory (`limits`).
"""

import itertools
import os
import signal
import time
from contextlib import suppress
from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")
_PERIOD = 100_000
"""Microseconds over which cores are counted."""
_LEAVING = 2.0
"""Seconds for which a group may still hold processes that are ending."""
_numbers = itertools.count()


class Group:
    """One group: the folder of each controller, and which files of it say what."""

    def __init__(self, folders: dict[str, Path], *, unified: bool) -> None:
        """Of folders that were made."""
        self._folders, self._unified = folders, unified

    @property
    def holds(self) -> frozenset[str]:
        """`memory`, `cpu`: what is held to its limit."""
        return frozenset(self._folders)

    @property
    def files(self) -> list[str]:
        """Where a process writes `0` to join it, with all that it starts from then on."""
        return [str(folder / "cgroup.procs") for folder in set(self._folders.values())]

    def take(self, pid: int) -> None:
        """Put a process into it; what it starts from then on is in it too. Raises `OSError`."""
        for folder in set(self._folders.values()):
            (folder / "cgroup.procs").write_text(str(pid))

    def killed(self) -> bool:
        """Whether the kernel ended something in it for its memory."""
        folder = self._folders.get("memory")
        name = "memory.events" if self._unified else "memory.oom_control"
        return folder is not None and _told(folder / name, "oom_kill") > 0

    def peak(self) -> int:
        """The most bytes that it held at once; 0 where that is not told."""
        folder = self._folders.get("memory")
        name = "memory.peak" if self._unified else "memory.max_usage_in_bytes"
        return _number(folder / name) if folder is not None else 0

    def throttled(self) -> int:
        """In how many periods it wanted more cores than it has."""
        folder = self._folders.get("cpu")
        return _told(folder / "cpu.stat", "nr_throttled") if folder is not None else 0

    def remove(self) -> None:
        """End what is left in it, in groups and sessions of its own too, and take it away."""
        for folder in set(self._folders.values()):
            for pid in _text(folder / "cgroup.procs").split():
                with suppress(OSError):
                    os.kill(int(pid), signal.SIGKILL)
        until = time.monotonic() + _LEAVING
        for folder in set(self._folders.values()):
            while True:
                try:
                    folder.rmdir()
                except FileNotFoundError:
                    break
                except OSError:
                    if time.monotonic() >= until:
                        break
                    time.sleep(0.01)
                else:
                    break


def make(memory: int | None, cores: float | None, root: Path = _ROOT) -> Group | None:
    """A group with so much memory (bytes) and so many cores, of whichever the kernel lets us hold; None for neither."""
    name = f"everloop-{os.getpid()}-{next(_numbers)}"
    wanted: dict[str, dict[str, str]] = {}
    if memory is not None:
        wanted["memory"] = {"2": f"memory.max={memory}", "1": f"memory.limit_in_bytes={memory}"}
    if cores is not None:
        quota = max(1_000, round(cores * _PERIOD))
        wanted["cpu"] = {"2": f"cpu.max={quota} {_PERIOD}", "1": f"cpu.cfs_quota_us={quota}"}
    own = _own()
    if not wanted or not own:
        return None
    if (root / "cgroup.controllers").is_file():
        return _unified(root / own.get("", "/").lstrip("/"), name, wanted)
    folders: dict[str, Path] = {}
    for controller, said in wanted.items():
        folder = _made(root / controller / own.get(controller, "/").lstrip("/") / name, [said["1"]])
        if folder is not None:
            folders[controller] = folder
    return Group(folders, unified=False) if folders else None


def _unified(parent: Path, name: str, wanted: dict[str, dict[str, str]]) -> Group | None:
    """In version 2 a controller must have been given on to the groups below ours, which is tried."""
    given = _text(parent / "cgroup.subtree_control").split()
    for controller in wanted.keys() - set(given):
        with suppress(OSError):  # a group that has processes itself may not give on
            (parent / "cgroup.subtree_control").write_text(f"+{controller}")
    given = _text(parent / "cgroup.subtree_control").split()
    held = [controller for controller in wanted if controller in given]
    folder = _made(parent / name, [wanted[controller]["2"] for controller in held]) if held else None
    if folder is None:
        return None
    with suppress(OSError):  # else what has no memory any more goes to the disk
        (folder / "memory.swap.max").write_text("0")
    return Group(dict.fromkeys(held, folder), unified=True)


def _made(folder: Path, values: list[str]) -> Path | None:
    try:
        folder.mkdir()
    except OSError:
        return None
    try:
        for value in values:
            file, _, content = value.partition("=")
            (folder / file).write_text(content)
    except OSError:
        with suppress(OSError):
            folder.rmdir()
        return None
    return folder


def _own() -> dict[str, str]:
    """The group that this process is in, by controller; version 2's by the empty name."""
    found: dict[str, str] = {}
    for line in _text(Path("/proc/self/cgroup")).splitlines():
        _, _, rest = line.partition(":")
        names, _, path = rest.partition(":")
        found.update(dict.fromkeys(names.split(","), path))
    return found


def _told(file: Path, name: str) -> int:
    for line in _text(file).splitlines():
        key, _, value = line.partition(" ")
        if key == name and value.strip().isdigit():
            return int(value)
    return 0


def _number(file: Path) -> int:
    text = _text(file).strip()
    return int(text) if text.isdigit() else 0


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        return ""
