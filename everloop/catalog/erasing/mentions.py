"""Whether a text, a JSON value or some bytes speak of a subject, and what is left of them without it. Pure.

A key is looked for in two ways. Where a value says of what it is (`{"customer": 4711}`), the name of the member must be
that of a column of subjects and its value the key. In free text the key must stand as a word, and only a key that is
telling (`words`) is looked for there: a 7 in a log is nobody.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

ERASED = "[erased]"
"""What takes the place of a key in a text."""
TELLING = 6
"""Characters from which a key is looked for in free text."""


@dataclass(frozen=True, slots=True)
class Mentions:
    """One subject as it may be written."""

    key: str
    columns: tuple[str, ...] = ()
    words: bool = False
    """Whether the key is looked for as a word in free text."""
    forms: tuple[str, ...] = field(init=False, repr=False, compare=False)
    """The key as it is, as JSON writes it, as an address does; each once, the longest first."""
    _word: re.Pattern[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Compile the pattern of the word, in every way in which it may be escaped."""
        escaped = (json.dumps(self.key)[1:-1], json.dumps(self.key, ensure_ascii=False)[1:-1], quote(self.key, safe=""))
        forms = sorted(dict.fromkeys((self.key, *escaped)), key=lambda form: (-len(form), form))
        some = "|".join(map(re.escape, forms))
        object.__setattr__(self, "forms", tuple(forms))
        object.__setattr__(self, "_word", re.compile(rf"(?<![^\W_])(?:{some})(?![^\W_])"))

    def in_text(self, text: str) -> bool:
        """Whether a text speaks of the subject; one that is JSON is read."""
        if not any(form in text for form in self.forms):
            return False
        if self.words and self._word.search(text):
            return True
        return (value := _json(text)) is not None and self.in_value(value)

    def in_value(self, value: Any, name: str = "") -> bool:
        """Whether a JSON value does, `name` being the member that holds it."""
        if isinstance(value, dict):
            return any(self._named(key) or self.in_value(inner, key) for key, inner in value.items())
        if isinstance(value, list):
            return any(self.in_value(inner, name) for inner in value)
        if isinstance(value, bool) or value is None:
            return False
        if name in self.columns and str(value) == self.key:
            return True
        if isinstance(value, str):
            return self.in_text(value)  # JSON within JSON too
        return self.words and str(value) == self.key

    def in_bytes(self, content: bytes) -> bool:
        """Whether bytes of any kind hold the key as a word."""
        if not self.words or not any(form.encode() in content for form in self.forms):
            return False
        return self._word.search(content.decode("utf-8", "replace")) is not None

    def without(self, text: str) -> str:
        """The text without the key: a text that is JSON stays JSON."""
        if not self.in_text(text):
            return text
        if (value := _json(text)) is not None:
            return json.dumps(self.value_without(value), ensure_ascii=False, separators=(",", ":"))
        return self._word.sub(ERASED, text) if self.words else text

    def value_without(self, value: Any, name: str = "") -> Any:
        """The JSON value with `[erased]` in the place of the key."""
        if isinstance(value, dict):
            named = [(ERASED if self._named(key) else key, key, inner) for key, inner in value.items()]
            return {shown: self.value_without(inner, key) for shown, key, inner in named}
        if isinstance(value, list):
            return [self.value_without(inner, name) for inner in value]
        if isinstance(value, bool) or value is None or not self.in_value(value, name):
            return value
        if str(value) == self.key or not isinstance(value, str):
            return ERASED
        return self.without(value)

    def _named(self, name: str) -> bool:
        return self.words and any(form in name for form in self.forms) and self._word.search(name) is not None


def telling(key: str) -> bool:
    """Whether a key is so long that nothing else is written like it by chance."""
    return len(key) >= TELLING


def mentions(key: str, columns: Sequence[str], *, words: bool | None = None) -> Mentions:
    """A subject; without `words` the length of its key decides whether it is looked for in free text."""
    return Mentions(key, tuple(columns), telling(key) if words is None else words)


def _json(text: str) -> Any:
    if text[:1] not in '{["':
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
