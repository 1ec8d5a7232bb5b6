"""A ranked index over documents, in memory: BM25 over fields of different weight, with beginnings of words.

It is the same on both databases, needs no table of its own, and is made again when the catalogue changed. S. Robertson,
H. Zaragoza: The Probabilistic Relevance Framework (2009).
"""

import math
import re
import threading
from bisect import bisect_left
from collections import Counter, OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from everloop.catalog import versions
from everloop.catalog.engine import Tx
from everloop.catalog.governance import annotations
from everloop.data.catalogue.documents import Document, documents

_WEIGHTS = {"name": 8.0, "labels": 4.0, "tags": 4.0, "owner": 4.0, "columns": 3.0, "description": 2.0, "about": 1.0}
_SATURATION, _LENGTH = 1.2, 0.6
_PREFIX = 0.7
"""What the beginning of a word counts against the whole word."""
_WORD = re.compile(r"[^\W_]+")
_KEPT = 8


@dataclass(frozen=True, slots=True)
class Hit:
    """A document that was found, how well it fits, and in which of its fields."""

    document: Document
    score: float
    fields: tuple[str, ...]


def words_of(text: str) -> list[str]:
    """The words of a text: parts of `snake_case`, `camelCase` and `a.b/c` too, each in lower case."""
    parted = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", text)
    return [word.lower() for word in _WORD.findall(parted)]


class Index:
    """Documents by their words; never changes once made."""

    def __init__(self, found: Iterable[Document]) -> None:
        """Read every word of every document."""
        self.documents: Sequence[Document] = tuple(found)
        self._postings: dict[str, dict[int, dict[str, float]]] = {}
        lengths = []
        for at, document in enumerate(self.documents):
            length = 0.0
            for field, texts in _fields(document).items():
                counts = Counter(word for text in texts for word in words_of(text))
                length += sum(counts.values())
                for word, count in counts.items():
                    weighted = self._postings.setdefault(word, {}).setdefault(at, {})
                    weighted[field] = count * _WEIGHTS[field]
            lengths.append(length)
        self._lengths = lengths
        self._mean = sum(lengths) / len(lengths) if lengths else 1.0
        self._words = sorted(self._postings)

    def search(self, query: str) -> list[Hit]:
        """Documents that hold every word of the query, or a word that begins with it; the best first."""
        scores: dict[int, float] = {}
        where: dict[int, set[str]] = {}
        left: set[int] | None = None
        for word in dict.fromkeys(words_of(query)):
            found = self._of_word(word)
            left = set(found) if left is None else left & set(found)
            for at, (score, fields) in found.items():
                scores[at] = scores.get(at, 0.0) + score
                where.setdefault(at, set()).update(fields)
        hits = [Hit(self.documents[at], scores[at], tuple(sorted(where[at]))) for at in left or ()]
        return sorted(hits, key=lambda hit: (-hit.score, hit.document.kind != "data", hit.document.key))

    def _of_word(self, word: str) -> dict[int, tuple[float, set[str]]]:
        best: dict[int, tuple[float, set[str]]] = {}
        for term in self._beginning(word):
            postings = self._postings[term]
            rarity = math.log(1 + (len(self.documents) - len(postings) + 0.5) / (len(postings) + 0.5))
            for at, fields in postings.items():
                weight = sum(fields.values())
                shape = _SATURATION * (1 - _LENGTH + _LENGTH * self._lengths[at] / self._mean)
                score = rarity * weight * (_SATURATION + 1) / (weight + shape) * (1.0 if term == word else _PREFIX)
                if at not in best or score > best[at][0]:
                    best[at] = (score, best.get(at, (0.0, set()))[1] | set(fields))
        return best

    def _beginning(self, word: str) -> Iterable[str]:
        at = bisect_left(self._words, word)
        while at < len(self._words) and self._words[at].startswith(word):
            yield self._words[at]
            at += 1


def _fields(document: Document) -> dict[str, list[str]]:
    columns = document.columns
    return {
        "name": [document.name],
        "labels": list(document.labels),
        "tags": list(document.tags),
        "owner": [document.owner],
        "columns": [column.name for column in columns],
        "description": [document.description, *(column.description for column in columns)],
        "about": [document.about, document.kind],
    }


_lock = threading.Lock()
_indexes: "OrderedDict[tuple[str, str], tuple[object, Index]]" = OrderedDict()


def index_of(tx: Tx, project: str, place: str) -> Index:
    """The index of a project as this transaction sees it; `place` names the catalog. Kept until something changes."""
    stamp = (annotations.stamp(tx, project), versions.stamp(tx, project))
    with _lock:
        kept = _indexes.get((place, project))
        if kept is not None and kept[0] == stamp:
            _indexes.move_to_end((place, project))
            return kept[1]
    made = Index(documents(tx, project))
    with _lock:
        _indexes[place, project] = (stamp, made)
        while len(_indexes) > _KEPT:
            _indexes.popitem(last=False)
    return made
