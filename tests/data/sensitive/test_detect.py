"""Columns of personal data are found, others are not: precision and recall, validators."""

import random
import socket
from datetime import date, timedelta
from importlib.util import find_spec

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from everloop.core.errors import InvalidInput
from everloop.data.sensitive import freetext
from everloop.data.sensitive.detect import detect, detect_column, named
from everloop.data.sensitive.validators import VALIDATORS, email, iban, luhn

KNOWN = {
    "card": ("4111 1111 1111 1111", "5500000000000004", "378282246310005", "6011111111111117"),
    "iban": ("DE89 3704 0044 0532 0130 00", "GB82WEST12345698765432", "FR1420041010050500013M02606"),
    "email": ("ada@example.org", "a.b+c@mail.example.co.uk"),
    "phone": ("+49 30 901820", "+1 (212) 555-0100"),
    "ip_address": ("192.168.4.1", "2001:db8::1"),
    "us_ssn": ("123-45-6789",),
    "spanish_id": ("12345678Z", "X1234567L"),
    "italian_id": ("RSSMRA85T10A562S",),
    "french_id": ("255081416802538",),
    "polish_id": ("44051401359",),
    "brazilian_id": ("111.444.777-35",),
    "british_nhs": ("943 476 5919",),
    "indian_id": ("234123412346",),
    "dutch_id": ("111222333",),
}


@pytest.mark.parametrize("kind", sorted(VALIDATORS))
def test_validators_pass_known_numbers_and_refuse_one_digit_more_or_less_right(kind):
    for text in KNOWN[kind]:
        assert VALIDATORS[kind](text), text
        assert not VALIDATORS[kind](text + "!")
    assert not VALIDATORS[kind]("")
    assert not VALIDATORS[kind]("hello")


@pytest.mark.parametrize("kind", ["card", "iban", "spanish_id", "french_id", "polish_id", "british_nhs", "indian_id"])
def test_a_check_digit_sees_every_single_wrong_digit(kind):
    text = "".join(KNOWN[kind][0].split())
    digits = [i for i, c in enumerate(text) if c.isdigit() and i > (4 if kind == "card" else 0)]
    for at in digits:
        for other in set("0123456789") - {text[at]}:
            assert not VALIDATORS[kind](text[:at] + other + text[at + 1 :])


@given(st.text(max_size=60))
def test_no_text_breaks_a_validator(text):
    assert {type(validator(text)) for validator in VALIDATORS.values()} == {bool}


def _card(rng):
    digits = "4" + "".join(rng.choice("0123456789") for _ in range(14))
    return next(digits + d for d in "0123456789" if luhn(digits + d))


def _iban(rng):
    account = "".join(rng.choice("0123456789") for _ in range(18))
    return next(f"DE{c:02d}{account}" for c in range(2, 99) if iban(f"DE{c:02d}{account}"))


def _bsn(rng):
    while True:
        digits = f"{rng.randrange(10**8, 10**9)}"
        if VALIDATORS["dutch_id"](digits):
            return digits


PERSONAL = {
    "contact": lambda r: f"{r.choice('abcdef')}{r.randrange(10**6)}@example.org",
    "pan": _card,
    "account": _iban,
    "mobile": lambda r: f"+4915{r.randrange(10**8, 10**9)}",
    "peer": lambda r: f"10.{r.randrange(256)}.{r.randrange(256)}.{r.randrange(256)}",
    "bsn": _bsn,
    "social": lambda r: f"{r.randrange(100, 600)}-{r.randrange(10, 99)}-{r.randrange(1000, 9999)}",
    "first_name": lambda r: r.choice(["Ada", "Bob", "Eve", "Mallory", "Trent"]),
    "birthDate": lambda r: str(date(1950, 1, 1) + timedelta(days=r.randrange(20_000))),
    "customer_id": lambda r: r.randrange(10**6),
    "Diagnosis Code": lambda r: f"I{r.randrange(100)}",
}
HARMLESS = {
    "order_number": lambda r: r.randrange(10**8, 10**9),
    "ean": lambda r: f"{r.randrange(10**12, 10**13)}",
    "amount": lambda r: round(r.gauss(100, 20), 2),
    "quantity": lambda r: r.randrange(1, 9),
    "at": lambda r: str(date(2026, 1, 1) + timedelta(days=r.randrange(300))),
    "carrier": lambda r: r.choice(["AA", "UA", "DL"]),
    "product_name": lambda r: r.choice(["lamp", "desk", "chair", "shelf", "rug", "bed"]),
    "tenDigits": lambda r: f"{r.randrange(10**9, 10**10)}",
    "micros": lambda r: r.randrange(10**15, 10**16),
    "version": lambda r: f"{r.randrange(9)}.{r.randrange(20)}.{r.randrange(20)}",
    "url": lambda r: f"https://example.org/{r.randrange(10**6)}",
    "note": lambda r: f"see ticket {r.randrange(1000)}, ask support@example.org" if r.random() < 0.1 else "fine",
    "is_active": lambda r: r.random() < 0.5,
    "hash": lambda r: f"{r.getrandbits(128):032x}",
    "digits16": lambda r: f"{r.randrange(4 * 10**15, 5 * 10**15)}",
}


def test_precision_and_recall_over_seeded_tables():
    hits = misses = alarms = 0
    for seed in range(10):
        rng = random.Random(seed)
        rows = rng.choice([30, 200, 400])
        columns = {n: [make(rng) for _ in range(rows)] for n, make in (PERSONAL | HARMLESS).items()}
        for name in ("contact", "pan", "account"):  # some are broken, some are missing
            columns[name][::9] = ["broken"] * len(columns[name][::9])
            columns[name][1::10] = [None] * len(columns[name][1::10])
        found = {one.column for one in detect(pl.DataFrame(columns))}
        hits += len(found & set(PERSONAL))
        misses += len(set(PERSONAL) - found)
        alarms += len(found - set(PERSONAL))
    precision, recall = hits / (hits + alarms), hits / (hits + misses)
    assert (precision, recall) == (1.0, 1.0)


def test_what_is_found_tells_no_value():
    found = detect_column("contact", pl.Series([f"a{i}@example.org" for i in range(20)] + ["x"] * 3))
    assert (found.kind, found.tag, found.by, found.looked_at, found.passed) == ("email", "personal", "values", 21, 20)
    assert "example.org" not in str(found)


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        ("DateOfBirth", ("birth_date", "personal")),
        ("dob", ("birth_date", "personal")),
        ("user-id", ("person_key", "pseudonymous")),
        ("religion", ("belief", "special")),
        ("trace", None),
        ("namespace", None),
        ("race_time", None),
        ("description", None),
    ],
)
def test_names_hint(column, expected):
    assert named(column) == expected


def test_a_name_that_its_type_contradicts_hints_at_nothing():
    assert detect_column("dob", pl.Series([0.5, 0.25])) is None
    assert detect_column("dob", pl.Series([1, 2])) is None
    assert detect_column("dob", pl.Series([1956, 1990])).kind == "birth_date"


def test_long_addresses_are_none():
    assert not email("a" * 250 + "@example.org")


def test_free_text_needs_presidio(monkeypatch):
    monkeypatch.setattr(freetext, "find_spec", lambda _name: None)
    with pytest.raises(InvalidInput, match="presidio"):
        freetext.kinds(["Ada Lovelace called"])
    assert detect_column("note", pl.Series(["Ada Lovelace called from London about her ticket today"])) is None


NOTES = [
    "Maria Gonzalez called from her office about the parcel that never came, again",
    "Please write to maria@example.org before Friday, she said on the telephone",
    "The card 4111 1111 1111 1111 was charged twice for the same order, it seems",
    "The parcel was heavy and came late, and nobody was at home to take it, again",
]


@pytest.mark.skipif(find_spec("presidio_analyzer") is None, reason="the extra `sensitive` is not installed")
@pytest.mark.parametrize("with_model", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_presidio_reads_free_text_and_asks_nothing_of_the_network(monkeypatch, with_model):
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_args, **_more: pytest.fail("it asked the network"))
    if not with_model:
        monkeypatch.setattr(freetext, "model", lambda _language: "")
    elif not freetext.model("en"):
        pytest.skip("spaCy has no model here")
    freetext._engine.cache_clear()
    found = freetext.kinds(NOTES)
    assert (found["EMAIL_ADDRESS"], found["CREDIT_CARD"]) == (1, 1)
    assert ("PERSON" in found) == with_model
    assert (freetext.reader() == freetext.PATTERNS) != with_model
    column = detect_column("note", pl.Series(NOTES), text=True)
    assert (column.tag, column.by, column.looked_at) == ("personal", "text", 4)
    assert detect_column("note", pl.Series(NOTES[3:] * 2), text=True) is None
    freetext._engine.cache_clear()
