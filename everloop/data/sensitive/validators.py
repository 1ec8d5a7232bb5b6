"""Whether a text is a card number, an account, a person's number: forms and check digits, with the source of each.

A form alone says little (many numbers have 16 digits); with a check digit, one in ten or one in ninety-seven passes
by chance, and a column of them nearly never does.
"""

import ipaddress
import re
from collections.abc import Callable, Mapping

_EMAIL = re.compile(
    r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
    r"(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*\.[A-Za-z]{2,63}"
)
_PHONE = re.compile(r"\+[1-9]\d{7,14}")
_IBAN = re.compile(r"[A-Z]{2}\d{2}[A-Z0-9]{11,30}")
_IBAN_LENGTHS = {
    "AD": 24,
    "AE": 23,
    "AL": 28,
    "AT": 20,
    "AZ": 28,
    "BA": 20,
    "BE": 16,
    "BG": 22,
    "BH": 22,
    "BR": 29,
    "BY": 28,
    "CH": 21,
    "CR": 22,
    "CY": 28,
    "CZ": 24,
    "DE": 22,
    "DK": 18,
    "DO": 28,
    "EE": 20,
    "EG": 29,
    "ES": 24,
    "FI": 18,
    "FO": 18,
    "FR": 27,
    "GB": 22,
    "GE": 22,
    "GI": 23,
    "GL": 18,
    "GR": 27,
    "GT": 28,
    "HR": 21,
    "HU": 28,
    "IE": 22,
    "IL": 23,
    "IS": 26,
    "IT": 27,
    "JO": 30,
    "KW": 30,
    "KZ": 20,
    "LB": 28,
    "LI": 21,
    "LT": 20,
    "LU": 20,
    "LV": 21,
    "MC": 27,
    "MD": 24,
    "ME": 22,
    "MK": 19,
    "MR": 27,
    "MT": 31,
    "MU": 30,
    "NL": 18,
    "NO": 15,
    "PK": 24,
    "PL": 28,
    "PS": 29,
    "PT": 25,
    "QA": 29,
    "RO": 24,
    "RS": 22,
    "SA": 24,
    "SE": 24,
    "SI": 19,
    "SK": 24,
    "SM": 27,
    "TN": 24,
    "TR": 26,
    "UA": 29,
    "VG": 24,
    "XK": 20,
}
_CARD = re.compile(
    r"(?:4\d{12}(?:\d{3}){0,2}|5[1-5]\d{14}|2[2-7]\d{14}|3[47]\d{13}|3(?:0[0-5]|[68]\d)\d{11}|6\d{15,18})"
)
_SSN = re.compile(r"(?!000|666|9\d\d)\d{3}-(?!00)\d{2}-(?!0000)\d{4}")
_DNI = re.compile(r"(?P<first>[0-9XYZ])(?P<rest>\d{7})(?P<letter>[A-Z])")
_DNI_LETTERS = "TRWAGMYFPDXBNJZSQVHLCKE"
_CODICE = re.compile(r"[A-Z]{6}\d{2}[ABCDEHLMPRST]\d{2}[A-Z]\d{3}[A-Z]")
_CODICE_ODD = (1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16, 10, 22, 25, 24, 23)
_VERHOEFF_D = (
    *("0123456789", "1234067895", "2340178956", "3401289567", "4012395678"),
    *("5987604321", "6598710432", "7659821043", "8765932104", "9876543210"),
)
_VERHOEFF_P = (
    *("0123456789", "1576283094", "5803796142", "8916043527"),
    *("9453126870", "4286573901", "2793806415", "7046913258"),
)


def email(text: str) -> bool:
    """An e-mail address as HTML forms accept it, with a top-level domain."""
    return len(text) <= 254 and _EMAIL.fullmatch(text) is not None and ".." not in text


def phone(text: str) -> bool:
    """A telephone number in E.164's international form; blanks, dots, dashes and brackets may part it."""
    return _PHONE.fullmatch(re.sub(r"[\s().-]", "", text)) is not None


def ip_address(text: str) -> bool:
    """An IPv4 or IPv6 address that may belong to somebody: not loopback, not unspecified."""
    if "." not in text and ":" not in text:
        return False
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        return False
    return not (found.is_loopback or found.is_unspecified)


def luhn(digits: str) -> bool:
    """The check digit of ISO/IEC 7812-1, annex B."""
    doubled = (int(d) * 2 if i % 2 else int(d) for i, d in enumerate(reversed(digits)))
    return sum(d - 9 if d > 9 else d for d in doubled) % 10 == 0


def card(text: str) -> bool:
    """A payment card's number: a known issuer's range, its length, and Luhn's check digit."""
    digits = _plain(text)
    return _CARD.fullmatch(digits) is not None and luhn(digits)


def iban(text: str) -> bool:
    """An account by ISO 13616: its country's length, and remainder 1 by 97 (ISO 7064)."""
    plain = _plain(text).upper()
    if _IBAN.fullmatch(plain) is None or _IBAN_LENGTHS.get(plain[:2]) != len(plain):
        return False
    return int("".join(str(int(c, 36)) for c in plain[4:] + plain[:4])) % 97 == 1


def us_ssn(text: str) -> bool:
    """A United States social security number, with its dashes: it has no check digit, only ranges never given."""
    return _SSN.fullmatch(text) is not None


def spanish_id(text: str) -> bool:
    """A Spanish DNI or NIE: its letter is the remainder by 23."""
    match = _DNI.fullmatch(_plain(text).upper())
    if match is None:
        return False
    number = {"X": "0", "Y": "1", "Z": "2"}.get(match["first"], match["first"]) + match["rest"]
    return _DNI_LETTERS[int(number) % 23] == match["letter"]


def italian_id(text: str) -> bool:
    """An Italian codice fiscale (without homocody): its last letter checks the others."""
    plain = text.strip().upper()
    if _CODICE.fullmatch(plain) is None:
        return False
    values = [int(c, 36) if c.isdigit() else ord(c) - 65 for c in plain[:15]]
    total = sum(v if i % 2 else _CODICE_ODD[v] for i, v in enumerate(values))
    return total % 26 == ord(plain[15]) - 65


def dutch_id(text: str) -> bool:
    """A Dutch burgerservicenummer of nine digits: the test of eleven."""
    digits = text.strip()
    if len(digits) != 9 or not _digits(digits) or digits == "000000000":
        return False
    return (sum(int(d) * (9 - i) for i, d in enumerate(digits[:8])) - int(digits[8])) % 11 == 0


def french_id(text: str) -> bool:
    """A French NIR of 15 characters: 97 less the remainder by 97; Corsica's 2A and 2B count as 19 and 18."""
    plain = _plain(text).upper()
    if re.fullmatch(r"[12378]\d{4}(?:\d{2}|2[AB])\d{8}", plain) is None:
        return False
    number = int(plain[:13].replace("2A", "19").replace("2B", "18"))
    return 97 - number % 97 == int(plain[13:])


def polish_id(text: str) -> bool:
    """A Polish PESEL: eleven digits, weights 1, 3, 7, 9, a month that exists in one of its five centuries."""
    if len(text) != 11 or not _digits(text) or not (1 <= int(text[2:4]) % 20 <= 12 and 1 <= int(text[4:6]) <= 31):
        return False
    return sum(int(d) * w for d, w in zip(text, (1, 3, 7, 9, 1, 3, 7, 9, 1, 3, 1), strict=True)) % 10 == 0


def brazilian_id(text: str) -> bool:
    """A Brazilian CPF: two check digits by eleven."""
    digits = re.sub(r"[.-]", "", text.strip())
    if len(digits) != 11 or not _digits(digits) or len(set(digits)) == 1:
        return False
    for length in (9, 10):
        rest = sum(int(d) * (length + 1 - i) for i, d in enumerate(digits[:length])) * 10 % 11 % 10
        if rest != int(digits[length]):
            return False
    return True


def british_id(text: str) -> bool:
    """A British NHS number of ten digits, check digit by eleven (the National Insurance number has none)."""
    digits = _plain(text)
    if len(digits) != 10 or not _digits(digits):
        return False
    rest = 11 - sum(int(d) * (10 - i) for i, d in enumerate(digits[:9])) % 11
    return rest % 11 == int(digits[9]) and rest != 10


def indian_id(text: str) -> bool:
    """An Indian Aadhaar number: twelve digits, not from 0 or 1, Verhoeff's check digit (1969)."""
    digits = _plain(text)
    if len(digits) != 12 or not _digits(digits) or digits[0] in "01":
        return False
    found = 0
    for i, d in enumerate(reversed(digits)):
        found = int(_VERHOEFF_D[found][int(_VERHOEFF_P[i % 8][int(d)])])
    return found == 0


def _digits(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _plain(text: str) -> str:
    return re.sub(r"[\s-]", "", text)


VALIDATORS: Mapping[str, Callable[[str], bool]] = {
    "email": email,
    "card": card,
    "iban": iban,
    "phone": phone,
    "ip_address": ip_address,
    "us_ssn": us_ssn,
    "spanish_id": spanish_id,
    "italian_id": italian_id,
    "french_id": french_id,
    "polish_id": polish_id,
    "brazilian_id": brazilian_id,
    "british_nhs": british_id,
    "indian_id": indian_id,
    "dutch_id": dutch_id,
}
"""Detector -> whether a text is one; those that pass least by chance first."""
WEAK = frozenset({"dutch_id", "british_nhs", "polish_id", "brazilian_id", "phone"})
"""Plain digits with one check digit: one number in eleven passes by chance, so nearly all values must."""
