"""MLflow's wire: arguments read with its validation texts, and proto2 JSON written as its client reads it."""

import json
import math
import posixpath
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import orjson
from starlette.requests import Request

from everloop.core.clock import Micros
from everloop.core.errors import InvalidInput

_INT64 = 2**63
_MILLI = 1000
_SMALL = 1 << 20
_SEE = " See the API docs for more information about request parameters."
_KEY = re.compile(r"[/\w.\- :]*")
_DOUBLES = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}

CALL_KEY = "idempotency_key"
"""The argument that holds the header `Idempotency-Key`: who sends a call again says so by the same key."""

KEY_LENGTH = 250
_LONGEST_CALL_KEY = 200
_DEEPEST = 64
PARAM_LENGTH = 6000
TAG_LENGTH = 8000


def invalid(name: str, value: Any, why: str = "") -> InvalidInput:
    """MLflow's text for a value that is not right."""
    shown = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    ending = f": {why}" if why else "."
    return InvalidInput(
        f"Invalid value {shown} for parameter '{name}' supplied{ending}{_SEE}", hint=why or "see the API"
    )


def missing(name: str) -> InvalidInput:
    """MLflow's text for a value that is not there."""
    return InvalidInput(f"Missing value for required parameter '{name}'.{_SEE}", hint=f"send {name}")


class Arguments:
    """The arguments of one call: a JSON object, or query parameters, whose values are lists of texts."""

    def __init__(self, values: Mapping[str, Any], at: str = "") -> None:
        """Read from `values`; `at` is where they stand in the whole, for messages."""
        self._values = values
        self._at = at

    @classmethod
    def of_query(cls, pairs: Sequence[tuple[str, str]]) -> "Arguments":
        """The arguments of a GET."""
        gathered: dict[str, Any] = {}
        for name, value in pairs:
            gathered.setdefault(name, []).append(value)
        return cls(gathered)

    def has(self, name: str) -> bool:
        """Whether there is a value that is not null."""
        return self._raw(name) is not None

    def text(self, name: str, default: str | None = None) -> str:
        """A text; without a default it must be there and not be empty."""
        value = self._raw(name)
        if value is None or (value == "" and default is None):
            if default is None:
                raise missing(self._at + name)
            return default
        if not isinstance(value, str):
            raise invalid(self._at + name, value, f"Hint: Value was of type '{type(value).__name__}'.")
        return value

    def integer(self, name: str, default: int | None = None) -> int:
        """An int64, as a number or a text."""
        value = self._raw(name)
        if value is None or value == "":
            if default is None:
                raise missing(self._at + name)
            return default
        try:
            number = int(value) if not isinstance(value, bool) else None
        except (TypeError, ValueError, OverflowError):
            number = None
        if number is None or not -_INT64 <= number < _INT64 or (isinstance(value, float) and value != number):
            raise invalid(self._at + name, value, f"Hint: Value was of type '{type(value).__name__}'.")
        return number

    def moment(self, name: str, default: Micros | None = None) -> Micros:
        """A time, which MLflow writes in milliseconds."""
        if default is not None and self._raw(name) in {None, ""}:
            return default
        number = self.integer(name)
        if abs(number) >= _INT64 // _MILLI:
            raise invalid(self._at + name, number, "the time is beyond the range")
        return number * _MILLI

    def double(self, name: str) -> float:
        """A double; the three that JSON lacks are texts."""
        value = self._raw(name)
        if value is None:
            raise missing(self._at + name)
        if isinstance(value, str) and value in _DOUBLES:
            return _DOUBLES[value]
        try:
            return float("a boolean" if isinstance(value, bool) else value)
        except (TypeError, ValueError, OverflowError):
            raise invalid(self._at + name, value, f"Hint: Value was of type '{type(value).__name__}'.") from None

    def flag(self, name: str) -> bool:
        """A boolean; false when it is not there."""
        value = self._raw(name)
        if value is None or isinstance(value, bool):
            return bool(value)
        if isinstance(value, str) and value.lower() in {"true", "false"}:
            return value.lower() == "true"
        raise invalid(self._at + name, value)

    def choice(self, name: str, numbers: Mapping[int, str], default: str) -> str:
        """An enumeration, by name or number."""
        value = self._raw(name)
        if value is None or value == "":
            return default
        if isinstance(value, int) and value in numbers:
            return numbers[value]
        if isinstance(value, str) and value.isdigit() and int(value) in numbers:
            return numbers[int(value)]
        if value in numbers.values():
            return str(value)
        raise invalid(self._at + name, value, "one of " + ", ".join(numbers.values()))

    def texts(self, name: str) -> list[str]:
        """A list of texts; empty when it is not there."""
        values = self._values.get(name)
        if values is None:
            return []
        if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
            raise invalid(self._at + name, values, f"Hint: Value was of type '{type(values).__name__}'")
        return values

    def part(self, name: str) -> "Arguments":
        """An object within."""
        value = self._raw(name)
        if not isinstance(value, dict):
            raise missing(self._at + name) if value is None else invalid(self._at + name, value)
        return Arguments(value, f"{self._at}{name}.")

    def parts(self, name: str) -> list["Arguments"]:
        """A list of objects; empty when it is not there."""
        values = self._values.get(name)
        if values is None:
            return []
        if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
            raise invalid(self._at + name, values, "a list of objects is expected")
        return [Arguments(value, f"{self._at}{name}[{index}].") for index, value in enumerate(values)]

    def json(self, name: str) -> Any:
        """Any JSON value as it came; None when it is not there."""
        return self._values.get(name)

    def mapping(self, name: str) -> dict[str, str]:
        """An object of texts; empty when it is not there."""
        values = self._values.get(name)
        if values is None:
            return {}
        if not isinstance(values, dict) or not all(isinstance(value, str) for value in values.values()):
            raise invalid(self._at + name, values, "an object of texts is expected")
        return values

    def limit(self, default: int, most: int, name: str = "max_results") -> int:
        """A page's size."""
        number = self.integer(name, default)
        if not 1 <= number <= most:
            raise invalid(name, number, f"it must be at least 1 and at most {most}")
        return number

    def key(self, name: str = "key", *, shown: str = "", noun: str = "") -> str:
        """The name of a metric, parameter or tag; errors call the argument `shown`, and what it names `noun`."""
        value = self.text(name)
        where = self._at + (shown or name)
        if _KEY.fullmatch(value) is None:
            raise invalid(
                where,
                value,
                "Names may only contain alphanumerics, underscores (_), dashes (-), periods (.), spaces ( ), "
                "colon(:) and slashes (/).",
            )
        plain = posixpath.normpath(value)
        if plain != value or plain == "." or plain.startswith(("..", "/")):
            raise invalid(
                where,
                value,
                "Names may be treated as files in certain cases, and must not resolve to other names when treated "
                f"as such. This name would resolve to '{plain}'",
            )
        return bounded(noun or where, value, KEY_LENGTH)

    def tags(self, name: str = "tags", most: int = TAG_LENGTH) -> dict[str, str]:
        """A list of keys and values; a value that is too long is cut, as MLflow does."""
        return {part.key(): part.text("value", "")[:most] for part in self.parts(name)}

    def experiment(self, name: str = "experiment_id") -> str:
        """The id of an experiment; raises `InvalidInput` for what cannot be one."""
        return _experiment(self.text(name))

    def experiments(self, name: str = "experiment_ids") -> list[str]:
        """Ids of experiments."""
        return [_experiment(one) for one in self.texts(name)]

    def run(self) -> str:
        """The run that is meant; old clients say `run_uuid`."""
        return self.text("run_id", self.text("run_uuid", "")) or self.text("run_id")

    def _raw(self, name: str) -> Any:
        value = self._values.get(name)
        if isinstance(value, list) and len(value) == 1 and isinstance(value[0], str):
            return value[0]
        return value


def _experiment(identity: str) -> str:
    if not (identity.isascii() and identity.isdigit()):
        raise InvalidInput(
            f"Invalid experiment ID '{identity}'. Experiment ID must be a valid integer.",
            hint="experiments have numbers",
        )
    return identity


@lru_cache(maxsize=4096)  # a training says the same few, again and again
def plain_key(value: str) -> bool:
    """Whether `Arguments.key` takes it as it is."""
    normal = posixpath.normpath(value) == value != "." and not value.startswith(("..", "/"))
    return 0 < len(value) <= KEY_LENGTH and normal and _KEY.fullmatch(value) is not None


def bounded(name: str, value: str, most: int) -> str:
    """The value, if it is not too long."""
    if len(value) > most:
        raise InvalidInput(
            f"'{name}' exceeds the maximum length of {most} characters", hint=f"shorten it to {most} characters"
        )
    return value


def number(value: float) -> float | str:
    """A double for JSON."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    return value


def millis(at: Micros) -> int:
    """A time for JSON."""
    return at // _MILLI


def pairs(values: Mapping[str, str]) -> list[dict[str, str]]:
    """Texts by key, as MLflow's lists of tags and parameters."""
    return [{"key": key, "value": value} for key, value in values.items()]


def page(name: str, rows: Sequence[Mapping[str, Any]], token: str) -> dict[str, Any]:
    """A page of an answer; no token means that it is the last one."""
    return {name: list(rows), **({"next_page_token": token} if token else {})}


async def read_arguments(request: Request, largest: int) -> dict[str, Any]:
    """The arguments of a call; path parameters count among them. Raises `InvalidInput`."""
    if request.method == "GET":
        return arguments_of(request, b"", largest)
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > largest:
            break
    return arguments_of(request, bytes(body), largest)


async def small_body(request: Request) -> bytes | None:
    """The whole body, if its length is told and small enough to hold before anybody knows who asks; else None.

    Nothing was read then.
    """
    length = request.headers.get("content-length", "0" if request.method == "GET" else "")
    if not (length.isascii() and length.isdigit() and len(length) < 9 and int(length) <= _SMALL):
        return None
    return await request.body()


def arguments_of(request: Request, body: bytes, largest: int) -> dict[str, Any]:
    """The arguments of a call whose body was read; path parameters count among them. Raises `InvalidInput`."""
    if request.method == "GET":
        gathered: dict[str, Any] = {}
        for name, value in request.query_params.multi_items():
            gathered.setdefault(name, []).append(checked_text(value))
        return {**gathered, **request.path_params}
    if len(body) > largest:
        raise InvalidInput(
            f"Batched logging API requests must be at most {largest} bytes, got a request of more.",
            hint="send several smaller requests",
        )
    key = request.headers.get("idempotency-key", "")
    return {**_decoded(body), **request.path_params, **({CALL_KEY: key[:_LONGEST_CALL_KEY]} if key else {})}


async def body_arguments(request: Request, largest: int) -> Arguments:
    """The JSON object that a request carries, alone."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > largest:
            raise InvalidInput(f"the request has more than {largest} bytes", hint="send a smaller one")
    return Arguments(_decoded(bytes(body)))


def checked_text(text: str) -> str:
    """A text that a database can hold; raises `InvalidInput`."""
    if "\x00" in text or (not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text)):
        raise InvalidInput("a text holds a NUL or half a character", hint="send clean Unicode, and bytes as artifacts")
    return text


def _decoded(body: bytes) -> dict[str, Any]:
    if not body.strip():
        return {}
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        try:
            value = json.loads(body)  # NaN and Infinity as bare words, which some clients write
        except (ValueError, RecursionError) as error:
            raise InvalidInput("the request is not JSON", hint=str(error)) from None
    if not isinstance(value, dict):
        raise InvalidInput("the request is not a JSON object", hint="send an object of arguments")
    _check_depth(value)
    if b"\\u" in body or b"\\U" in body:
        _check_texts(value)
    return value


def _check_depth(value: Any) -> None:
    """Refuse what is nested deeper than any message of the protocol: what writes it again would give up."""
    level = [value]
    for _ in range(_DEEPEST):
        inner = [one for part in level for one in (part.values() if type(part) is dict else part)]
        level = [one for one in inner if type(one) is dict or type(one) is list]
        if not level:
            return
    raise InvalidInput(f"the request is nested deeper than {_DEEPEST} levels", hint="send it flatter, or as a text")


def _check_texts(value: Any) -> None:
    """Refuse texts that a database cannot hold."""
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, str):
            checked_text(one)
        elif isinstance(one, list):
            waiting.extend(one)
        elif isinstance(one, Mapping):
            waiting.extend(one.keys())
            waiting.extend(one.values())
