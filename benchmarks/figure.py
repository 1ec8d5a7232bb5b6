"""One figure of a benchmark, as the one JSON object that its line is.

    {"name", "unit", "ours", "peer", "theirs", "floor", "ratio", "target", "met"}

Whatever is measured is a cost (CPU seconds, seconds, bytes, shares) unless `more_is_better` is said. `ratio` is how
many times more the peer takes; a target of `times` is one of the ratio, a target of `limit` one of ours. A figure
without a target is told only.
"""

import json
import resource
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

Record = dict[str, Any]


def figure(
    name: str,
    unit: str,
    ours: float,
    *,
    limit: float | None = None,
    times: float | None = None,
    more_is_better: bool = False,
    peer: str | None = None,
    theirs: float | None = None,
    floor: float | None = None,
    **more: Any,
) -> Record:
    """One line. `floor` is the least that anything can take which does the work; `more` is told beside."""
    ratio = None if theirs is None or not ours else theirs / ours
    met = True
    if times is not None:
        met = ratio is not None and ratio >= times
    elif limit is not None:
        met = ours >= limit if more_is_better else ours <= limit
    numbers = {"theirs": theirs, "floor": floor, "ratio": ratio}
    found = {"name": name, "unit": unit, "ours": round(ours, 4), "peer": peer}
    found |= {key: None if value is None else round(value, 4) for key, value in numbers.items()}
    return found | {"target": times if times is not None else limit, "met": met} | more


def cpu(work: Callable[[], Any], who: int = resource.RUSAGE_SELF) -> float:
    """CPU seconds (user and system, all threads) of this process, or of its children, for a piece of work."""
    before = resource.getrusage(who)
    work()
    after = resource.getrusage(who)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def command(words: Sequence[str | Path], folder: Path | None = None) -> tuple[float, str]:
    """CPU seconds of a command that must succeed, and what it printed."""
    told = []

    def run() -> None:
        line = [str(word) for word in words]
        told.append(subprocess.run(line, cwd=folder, check=True, stdout=subprocess.PIPE, text=True).stdout)

    return cpu(run, resource.RUSAGE_CHILDREN), told[0]


def tell(records: Iterable[Record]) -> bool:
    """Print figures as they come; whether all met their targets."""
    met = True
    for record in records:
        print(json.dumps(record), flush=True)
        met &= record["met"]
    return met


def finish(records: Iterable[Record]) -> None:
    """Print figures, and end the process: 1 when a target was missed."""
    sys.exit(0 if tell(records) else 1)
