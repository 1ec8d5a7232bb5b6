"""What the model workers of endpoints use: CPU time and memory over time, read off their processes on this machine."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import psutil

from everloop.catalog.making.uses import UseRow
from everloop.core.clock import SECOND, Micros
from everloop.core.ports import Use
from everloop.flows.compute.profiles import Profile

ProfileOf = Callable[[str, str], Profile | None]
"""(project, endpoint) -> the profile that the endpoint is paid by."""


@dataclass(slots=True)
class _Stretch:
    """What an endpoint used since its last row."""

    began: Micros
    worked: float = 0.0
    """Seconds that its workers lived, all together."""
    cpu_seconds: float = 0.0
    peak_memory: int = 0


@dataclass(slots=True)
class Workers:
    """Looks at every worker that gateways name; `rows` takes what came together."""

    _seen: dict[tuple[int, float], float] = field(default_factory=dict)
    """CPU seconds of each process, which is its id and its start."""
    _open: dict[tuple[str, str], _Stretch] = field(default_factory=dict)
    _at: Micros = 0

    def look(self, told: Sequence[Mapping[str, Any]], wall: Micros) -> None:
        """Take note of what each worker used since the last look; one that several endpoints share is shared out.

        `told` is what each gateway of this machine says last.
        """
        passed = (wall - self._at) / SECOND if self._at else 0.0
        since, self._at = self._at, wall
        whose = _whose(told)
        memory: dict[tuple[str, str], float] = {}
        alive: dict[tuple[int, float], float] = {}
        for pid, endpoints in whose.items():
            found = _process(pid)
            if found is None:
                continue
            born, cpu, held = found
            alive[pid, born] = cpu
            before = self._seen.get((pid, born), 0.0 if since and born * SECOND >= since else cpu)
            for key in endpoints:
                stretch = self._open.setdefault(key, _Stretch(wall))
                stretch.cpu_seconds += (cpu - before) / len(endpoints)
                stretch.worked += passed / len(endpoints)
                memory[key] = memory.get(key, 0.0) + held / len(endpoints)
        self._seen = alive
        for key, held_now in memory.items():
            self._open[key].peak_memory = max(self._open[key].peak_memory, round(held_now))

    def rows(self, wall: Micros, profile_of: ProfileOf) -> dict[str, list[UseRow]]:
        """What was used since the last time, by project; nothing of endpoints without workers meanwhile."""
        found: dict[str, list[UseRow]] = {}
        for (project, name), one in sorted(self._open.items()):
            if one.worked or one.cpu_seconds:
                found.setdefault(project, []).append(_row(name, one, wall, profile_of(project, name)))
        self._open.clear()
        return found


def _row(name: str, one: _Stretch, wall: Micros, profile: Profile | None) -> UseRow:
    price = profile.price if profile is not None else None
    use = Use(one.worked, one.cpu_seconds, one.peak_memory)
    return UseRow(
        name,
        "",
        one.began,
        wall,
        kind="endpoint",
        environment="production",
        profile=profile.name if profile is not None else "",
        price=price.json() if price is not None else {},
        currency=price.currency if price is not None else "",
        cost=price.cost(use) if price is not None else 0,
        seconds=one.worked,
        cpu_seconds=one.cpu_seconds,
        peak_memory=one.peak_memory,
    )


def _whose(told: Sequence[Mapping[str, Any]]) -> dict[int, set[tuple[str, str]]]:
    """(project, endpoint) of each worker's process on this machine."""
    found: dict[int, set[tuple[str, str]]] = {}
    for said in told:
        for address, revisions in said["endpoints"].items():
            project, _, name = address.partition(".")
            for its in revisions.values():
                for pid in _pids(its):
                    found.setdefault(pid, set()).add((project, name))
    return found


def _pids(revision: Mapping[str, Any]) -> list[int]:
    return [int(pid) for crew in revision.get("workers", {}).values() for pid in crew.get("pids", ())]


def _process(pid: int) -> tuple[float, float, int] | None:
    """Start, CPU seconds and memory of a process; None for one that is gone, or is ours."""
    if pid == os.getpid():
        return None
    try:
        process = psutil.Process(pid)
        with process.oneshot():
            times = process.cpu_times()
            spent = times.user + times.system + times.children_user + times.children_system
            return process.create_time(), spent, process.memory_info().rss
    except psutil.Error:
        return None
