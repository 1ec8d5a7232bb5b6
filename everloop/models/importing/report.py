"""What an import did: counts of what came over, and what did not, by kind and reason."""

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from everloop.models.importing.values import Unmapped

_EXAMPLES = 5


@dataclass(slots=True)
class Report:
    """Grows while an import runs; `json` is what programs get."""

    kind: str
    source: str
    dry_run: bool = False
    counts: Counter[str] = field(default_factory=Counter)
    """Runs by what happened to them, points, files, bytes, models, versions, aliases."""
    _unmapped: Counter[tuple[str, str]] = field(default_factory=Counter)
    _examples: dict[tuple[str, str], list[str]] = field(default_factory=lambda: defaultdict(list))

    def count(self, what: str, number: int = 1) -> None:
        """Add to one of the counts."""
        self.counts[what] += number

    def lose(self, what: Unmapped) -> None:
        """Note something that was not brought over; a few names of each kind and reason are kept."""
        place = (what.kind, what.reason)
        self._unmapped[place] += 1
        examples = self._examples[place]
        if len(examples) < _EXAMPLES and what.name not in examples:
            examples.append(what.name)

    @property
    def lost(self) -> list[dict[str, Any]]:
        """What was not brought over: kind, reason, how many, some names."""
        return [
            {"kind": kind, "reason": reason, "count": count, "names": self._examples[kind, reason]}
            for (kind, reason), count in sorted(self._unmapped.items())
        ]

    def json(self) -> Mapping[str, Any]:
        """The whole report."""
        return {
            "kind": self.kind,
            "source": self.source,
            "dry_run": self.dry_run,
            "imported": dict(sorted(self.counts.items())),
            "unmapped": self.lost,
        }
