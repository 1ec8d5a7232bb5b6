"""Persons in free text, by presidio (extra `sensitive`), on this machine alone.

Names are found by a language model that is installed for spaCy, a package of its own (`python -m spacy download
en_core_web_sm`, or one from a package index). Without one, presidio's patterns still find addresses, cards and numbers
with check digits; whoever asks is told that names were not looked for. Nothing is fetched: presidio asks for no model,
and the list of domain suffixes is the one that its library brings.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from importlib.util import find_spec
from typing import Any

from everloop.core.errors import InvalidInput

_LEAST_SCORE = 0.6
_SKIPPED = frozenset({"DATE_TIME", "URL", "NRP", "LOCATION", "ORGANIZATION"})
"""What nearly every text holds, and what names nobody."""
PATTERNS = "patterns only: names of persons were not looked for, for spaCy has no model"


def kinds(texts: Sequence[str], *, language: str = "en") -> Mapping[str, int]:
    """How many of the texts name somebody or something personal, by presidio's kind. Raises `InvalidInput`."""
    _installed()
    found: Counter[str] = Counter()
    for text in texts:
        results = _engine(language).analyze(text=text, language=language, score_threshold=_LEAST_SCORE)
        found.update({str(one.entity_type) for one in results} - _SKIPPED)
    return found


def reader(language: str = "en") -> str:
    """What reads free text here: the model's name, or `PATTERNS`. Raises `InvalidInput` without presidio."""
    _installed()
    return model(language) or PATTERNS


def model(language: str) -> str:
    """The largest model for a language that is installed for spaCy; empty when there is none."""
    names = sorted(one.name for one in entry_points(group="spacy_models") if one.name.startswith(f"{language}_"))
    order = ("_sm", "_md", "_lg", "_trf")
    return max(names, key=lambda name: next((i for i, size in enumerate(order) if size in name), -1), default="")


def _installed() -> None:
    if find_spec("presidio_analyzer") is None:
        raise InvalidInput(
            "free text is read by presidio, which is not installed", hint="pip install everloop[sensitive]"
        )


@cache
def _engine(language: str) -> Any:
    """Loading a model takes seconds. presidio's own set-up would download one; it is handed what is here instead."""
    presidio, engines = import_module("presidio_analyzer"), import_module("presidio_analyzer.nlp_engine")
    spacy, suffixes = import_module("spacy"), import_module("tldextract")
    suffixes.tldextract.TLD_EXTRACTOR = suffixes.TLDExtract(suffix_list_urls=(), cache_dir=None)
    name = model(language)  # of a size that is there
    engine = engines.SpacyNlpEngine(models=[{"lang_code": language, "model_name": name or "blank"}])
    engine.nlp = {language: spacy.load(name) if name else spacy.blank(language)}
    return presidio.AnalyzerEngine(nlp_engine=engine, supported_languages=[language])
