"""What an author says about a live feed. Pure values, no engine is loaded."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from everloop.core.clock import parse_duration
from everloop.core.errors import InvalidInput
from everloop.core.ids import checked_name

ROUTABLE = frozenset({"not_null", "between", "one_of", "matches", "ordered"})
"""Expectations about single rows: on a feed, a row that breaks a blocking one becomes a dead letter."""
JSON_LINES, ARROW = "application/x-ndjson", "application/vnd.apache.arrow.stream"
DEAD = ".dead"
"""What the dataset of a feed's dead letters is called, behind the feed's name."""
LONGEST_LETTER = 10_000
"""Characters of an event that its dead letter keeps."""
_LONGEST_CUT = 60_000_000

DEAD = ".dead"
"""What the dataset of a source's dead letters is called, behind the source's name."""


@dataclass(frozen=True, slots=True)
class Push:
    """Events that are sent to `POST /feeds/<project>/<name>`, in batches of JSON lines or as an Arrow IPC stream.

    `columns` names every column with its logical type (`int64`, `string`, `timestamp[us,UTC]`): what does not fit
    becomes a dead letter. `id` names the columns that tell events apart, together with the source's key: of events that
    come twice the first counts, as far back as the newest `remember` events. `arrived` names a column that is added,
    with the time at which an event arrived. A version is cut `every` so often, or when `rows` are there. When more than
    `backlog` bytes wait, senders are told to come back later.
    """

    columns: Mapping[str, str]
    id: str | Sequence[str] = ()
    every: str = "2s"
    rows: int = 100_000
    arrived: str = ""
    remember: int = 2_000_000
    backlog: int = 256 << 20

    def __post_init__(self) -> None:
        """Check and complete it; raises `InvalidInput`."""
        _settle(self)
        if self.backlog < 1:
            raise InvalidInput(f"a backlog of {self.backlog} bytes takes nothing", hint="say, backlog=256 << 20")

    def manifest(self) -> dict[str, Any]:
        """All that was said."""
        return {"type": "push", **_settings(self), "backlog": self.backlog}


@dataclass(frozen=True, slots=True)
class RedisStream:
    """The entries of a Redis stream, read as a consumer group; `binding` holds the server's URL.

    With `field` an entry holds one JSON object, in that field; without, its fields are the columns.
    The other settings are those of `Push`.
    """

    binding: str
    stream: str
    group: str
    columns: Mapping[str, str]
    field: str = ""
    id: str | Sequence[str] = ()
    every: str = "2s"
    rows: int = 20_000
    arrived: str = ""
    remember: int = 2_000_000
    claim: str = "30s"
    """Entries that a consumer took so long ago and never acknowledged are taken from it: it died."""

    def __post_init__(self) -> None:
        """Check and complete it; raises `InvalidInput`."""
        checked_name(self.binding)
        if not self.stream or not self.group:
            raise InvalidInput("RedisStream needs a stream and a group", hint='RedisStream("queue", "clicks", "ml", …)')
        _duration("claim", self.claim)
        _settle(self)

    def manifest(self) -> dict[str, Any]:
        """All that was said; of the binding its name."""
        place = {"binding": self.binding, "stream": self.stream, "group": self.group, "field": self.field}
        return {"type": "redis", **place, **_settings(self), "claim": self.claim}


@dataclass(frozen=True, slots=True)
class Kafka:
    """The messages of a Kafka topic, each one JSON object; `binding` holds its servers: `host:9092,host:9092`.

    A binding may be a mapping of librdkafka's settings, with `bootstrap.servers` among them (and credentials).
    The other settings are those of `Push`. Needs the extra `kafka`.
    """

    binding: str
    topic: str
    group: str
    columns: Mapping[str, str]
    id: str | Sequence[str] = ()
    every: str = "2s"
    rows: int = 100_000
    arrived: str = ""
    remember: int = 2_000_000

    def __post_init__(self) -> None:
        """Check and complete it; raises `InvalidInput`."""
        checked_name(self.binding)
        if not self.topic or not self.group:
            raise InvalidInput("Kafka needs a topic and a group", hint='Kafka("queue", "clicks", "ml", …)')
        _settle(self)

    def manifest(self) -> dict[str, Any]:
        """All that was said; of the binding its name."""
        place = {"binding": self.binding, "topic": self.topic, "group": self.group}
        return {"type": "kafka", **place, **_settings(self)}


Feed = Push | RedisStream | Kafka
FEEDS: Mapping[str, type[Push | RedisStream | Kafka]] = {"push": Push, "redis": RedisStream, "kafka": Kafka}
"""Live origins by the type that their manifests have."""


def refuse_unroutable(name: str, expectations: Sequence[Any]) -> None:
    """Raise `InvalidInput` for a blocking expectation that no single row can break: a feed does not stand still."""
    wrong = next((e for e in expectations if e.severity == "block" and e.kind not in ROUTABLE), None)
    if wrong is not None:
        raise InvalidInput(
            f"{wrong} cannot block the feed {name!r}, for it is not about single rows",
            hint='give it severity="warn"; what tells events apart is said by id=',
        )


def _settle(feed: Feed) -> None:
    identity = (feed.id,) if isinstance(feed.id, str) and feed.id else tuple(feed.id)
    object.__setattr__(feed, "id", identity)
    object.__setattr__(feed, "columns", dict(feed.columns))
    if not feed.columns or not all(isinstance(k, str) and k and isinstance(v, str) for k, v in feed.columns.items()):
        raise InvalidInput("a feed names its columns with their types", hint='columns={"user": "int64"}')
    missing = [name for name in identity if name not in feed.columns]
    if missing:
        raise InvalidInput(f"a feed has no column {missing[0]!r}, which its id names")
    if feed.arrived in feed.columns:
        raise InvalidInput(f"the column {feed.arrived!r} comes with the events", hint="arrived= names a further one")
    if _duration("every", feed.every) > _LONGEST_CUT:
        raise InvalidInput(f"every={feed.every!r} is too long", hint="a minute at most, 2s by default")
    if feed.rows < 1 or feed.remember < 0:
        raise InvalidInput("rows and remember are numbers of events", hint="rows=100_000, remember=2_000_000")


def _duration(what: str, text: str) -> int:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise InvalidInput(f"{what}: {error}", hint="say, 2s or 500ms") from error


def _settings(feed: Feed) -> dict[str, Any]:
    return {
        "columns": [[name, type_] for name, type_ in feed.columns.items()],
        "id": list(feed.id),
        "every": feed.every,
        "rows": feed.rows,
        "arrived": feed.arrived,
        "remember": feed.remember,
    }


def feed_of(manifest: Mapping[str, Any]) -> Feed:
    """The origin that a manifest wrote."""
    fields = {k: v for k, v in manifest.items() if k != "type"}
    return FEEDS[manifest["type"]](**{**fields, "columns": dict(manifest["columns"])})
