"""Persons in free text, by presidio (extra `sensitive`), which needs a language model that spaCy can load."""

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from everloop.core.errors import InvalidInput

_LEAST_SCORE = 0.6
_SKIPPED = frozenset({"DATE_TIME", "URL", "NRP"})
"""What nearly every text holds."""


def kinds(texts: Sequence[str], *, language: str = "en") -> Mapping[str, int]:
    """How many of the texts name somebody or something personal, by presidio's kind. Raises `InvalidInput`."""
    if find_spec("presidio_analyzer") is None:
        raise InvalidInput(
            "free text is read by presidio, which is not installed", hint="pip install everloop[sensitive]"
        )
    found: Counter[str] = Counter()
    for text in texts:
        results = _engine().analyze(text=text, language=language, score_threshold=_LEAST_SCORE)
        found.update({str(one.entity_type) for one in results} - _SKIPPED)
    return found


@cache
def _engine() -> Any:
    """Loading its language model takes seconds."""
    return import_module("presidio_analyzer").AnalyzerEngine()
