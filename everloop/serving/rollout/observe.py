"""What the gateways of a workspace say, read from their files.

They write them twice a second while something changes, and else mark that they live by the file's time.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from everloop.core.clock import SECOND, Micros
from everloop.serving.rollout.state import Counts, Observed

_SHADOW = " as a shadow"
FRESH: Micros = 5 * SECOND
"""A gateway that has said nothing for so long does not run."""


def gateways(home: Path, wall: Micros) -> list[dict[str, Any]]:
    """What each running gateway said last, by name."""
    told = []
    for path in sorted((home / "serving" / "stats").glob("[!.]*.json")):
        try:
            if wall - path.stat().st_mtime_ns // 1000 < FRESH:
                told.append(json.loads(path.read_bytes()))
        except (OSError, ValueError):
            continue
    return told


def counts_of(said: Mapping[str, Any]) -> Counts:
    """The counters of one revision, as a gateway wrote them."""
    latency = {int(bucket): count for bucket, count in said["latency"].items()}
    return Counts(said["requests"], said["errors"], latency, said.get("differ", 0))


class Observer:
    """Adds up what gateways count, across their restarts. Keep one as long as the process lives."""

    def __init__(self) -> None:
        """Nothing is counted yet."""
        self._last: dict[tuple[str, str, str], tuple[str, Counts]] = {}
        self._totals: dict[tuple[str, str], Counts] = {}
        self._told: list[dict[str, Any]] = []

    def look(self, home: Path, wall: Micros) -> None:
        """Read the gateways' files."""
        self._told = gateways(home, wall)
        for said in self._told:
            for address, revisions in said["endpoints"].items():
                for revision, its in revisions.items():
                    self._add(said, address, revision, counts_of(its))
                    if "shadow" in its:
                        self._add(said, address, revision + _SHADOW, counts_of(its["shadow"]))

    def _add(self, said: Mapping[str, Any], address: str, revision: str, now: Counts) -> None:
        key = (said["gateway"], address, revision)
        started, before = self._last.get(key, ("", Counts()))
        added = now.since(before if started == said["started"] else Counts())
        self._last[key] = (said["started"], now)
        total = self._totals.get((address, revision), Counts())
        self._totals[address, revision] = total.plus(added)

    def observed(self, address: str) -> Observed:
        """What is known of one endpoint."""
        problems: dict[str, str] = {}
        ready: set[str] | None = None
        for said in self._told:
            problems.update({r: why for r, why in said["problems"].items() if r != "table"})
            live = said["endpoints"].get(address, {})
            problems.update({r: its["problem"] for r, its in live.items() if its["state"] == "failed"})
            warm = {revision for revision, its in live.items() if its["state"] in ("ready", "asleep")}
            ready = warm if ready is None else ready & warm
        counts = {revision: total for (at, revision), total in self._totals.items() if at == address}
        shadows = {r.removesuffix(_SHADOW): total for r, total in counts.items() if r.endswith(_SHADOW)}
        return Observed(frozenset(ready or ()), problems, counts, shadows)
