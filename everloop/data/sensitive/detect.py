"""Which columns of a table hold personal data: by their values first, by their names where values do not tell.

Up to `MOST` distinct values of a column are looked at. A column is of a kind when nearly all of them pass its
validator, so that a few broken values do not hide it and chance does not make it one. What was found says which
share of how many values passed; the values themselves are never kept.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import polars as pl

from everloop.data.sensitive import freetext
from everloop.data.sensitive.carrying import PERSONAL, PSEUDONYMOUS, SPECIAL
from everloop.data.sensitive.validators import VALIDATORS, WEAK

MOST = 5_000
"""Distinct values of a column that are looked at."""
_FEWEST = 5
_SHARE, _WEAK_SHARE = 0.6, 0.97
_BY_CHANCE = 1e-6
_TEXT_LENGTH = 40
_TEXTS = 200
_WORDS: tuple[tuple[str, str, str], ...] = (
    ("birth_date", PERSONAL, r"dob|birth_?da(y|te)|date_?of_?birth|born(_(on|at))?|geburtsdatum|birth_?year"),
    ("name", PERSONAL, r"(first|last|middle|full|given|family|sur|maiden|nick)_?name|(user|customer|patient)_?name"),
    ("address", PERSONAL, r"(street|home|postal|billing|shipping)_?(address|name)|address(_?line)?_?\d?|house_?number"),
    ("location", PERSONAL, r"(home|user|gps)_?(lat|lon|latitude|longitude)"),
    (
        "national_id",
        PERSONAL,
        r"ssn|social_?security(_?(no|number))?|passport(_?(no|number))?|national_?id|tax_?id|nino",
    ),
    ("email", PERSONAL, r"e_?mail(_?address)?|.*_e_?mail"),
    ("phone", PERSONAL, r"(tele)?phone(_?(no|number))?|mobile(_?(no|number))?|.*_phone"),
    ("ip_address", PERSONAL, r"ip(_?addr(ess)?)?|client_?ip|remote_?ip"),
    ("device", PSEUDONYMOUS, r"device_?id|cookie(_?id)?|idfa|gaid|imei|mac_?address|session_?id|user_?agent"),
    ("person_key", PSEUDONYMOUS, r"(user|customer|patient|person|member|employee|subscriber)_?(id|key|no|number)"),
    ("health", SPECIAL, r"diagnos(is|es)(_?code)?|icd_?\d*(_?code)?|disease|medication|blood_?type|disabilit(y|ies)"),
    ("belief", SPECIAL, r"religio(n|us)|faith|denomination|political_?(party|view)s?|trade_?union"),
    ("origin", SPECIAL, r"race|ethnic(ity|_?group|_?origin)|sexual_?orientation"),
)
_NAMES = tuple((kind, tag, re.compile(pattern)) for kind, tag, pattern in _WORDS)


@dataclass(frozen=True, slots=True)
class Found:
    """What a column seems to hold."""

    column: str
    kind: str
    """The detector: `email`, `iban`, `birth_date`, ..."""
    tag: str
    by: Literal["values", "name", "text"]
    confidence: float
    """Between 0 and 1: the share of values that passed; 0.5 where only the name says so."""
    looked_at: int
    passed: int


def detect(sample: pl.DataFrame, *, text: bool = False) -> tuple[Found, ...]:
    """Look at every column of a sample. With `text` also into free text, by presidio (extra `sensitive`)."""
    return tuple(found for name in sample.columns if (found := detect_column(name, sample[name], text=text)))


def detect_column(name: str, values: pl.Series, *, text: bool = False) -> Found | None:
    """What one column seems to hold; None when nothing speaks for personal data."""
    texts = _texts(values)
    by_name = named(name)
    found = _by_values(name, texts, hint=by_name[0] if by_name else "")
    if found is None and by_name is not None and _fits(by_name[0], values):
        found = Found(name, by_name[0], by_name[1], "name", 0.5, len(texts), 0)
    if found is None and text and texts and sum(map(len, texts)) / len(texts) >= _TEXT_LENGTH:
        kinds = freetext.kinds(texts[:_TEXTS])
        if kinds:
            kind, passed = max(kinds.items(), key=lambda pair: pair[1])
            found = Found(name, f"text:{kind}", PERSONAL, "text", passed / min(len(texts), _TEXTS), len(texts), passed)
    return found


def named(column: str) -> tuple[str, str] | None:
    """The kind and tag that a column's name hints at."""
    plain = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", column).lower()
    plain = re.sub(r"[^a-z0-9]+", "_", plain).strip("_")
    return next(((kind, tag) for kind, tag, pattern in _NAMES if pattern.fullmatch(plain)), None)


def _texts(values: pl.Series) -> list[str]:
    """Distinct values as text: of texts, and of whole numbers, which may be somebody's number."""
    if values.dtype.is_integer() or values.dtype in {pl.String, pl.Categorical}:
        distinct = values.drop_nulls().unique(maintain_order=True).head(MOST).cast(pl.String)
        return [one.strip() for one in distinct.to_list() if one.strip()]
    return []


def _by_values(name: str, texts: Sequence[str], *, hint: str) -> Found | None:
    if len(texts) < _FEWEST:
        return None
    for kind, validator in VALIDATORS.items():
        passed = sum(map(validator, texts))
        share = passed / len(texts)
        if share < (_WEAK_SHARE if kind in WEAK else _SHARE):
            continue
        if kind in WEAK and _chance(passed) > _BY_CHANCE and hint not in {kind, "national_id"}:
            continue
        return Found(name, kind, PERSONAL, "values", round(share, 4), len(texts), passed)
    return None


def _chance(passed: int) -> float:
    """How probable it is that so many plain numbers pass a check digit by chance (one in ten each)."""
    return math.pow(0.1, min(passed, 300))


def _fits(kind: str, values: pl.Series) -> bool:
    """Whether a name's hint can be true of values of this type."""
    if values.null_count() == len(values):
        return True
    dtype = values.dtype
    if kind == "birth_date":
        return dtype.is_temporal() or dtype == pl.String or (dtype.is_integer() and _years(values))
    if kind == "location":
        return dtype.is_numeric()
    if kind in {"name", "address", "email", "ip_address", "belief", "origin"}:
        return dtype in {pl.String, pl.Categorical} or dtype.is_integer()
    return not dtype.is_float() and dtype != pl.Boolean


def _years(values: pl.Series) -> bool:
    plain = values.drop_nulls()
    return bool(((plain >= 1900) & (plain <= 2100)).all() or (plain > 19_000_000).all())


def summary(found: Sequence[Found]) -> Mapping[str, str]:
    """Column -> tag."""
    return {one.column: one.tag for one in found}
