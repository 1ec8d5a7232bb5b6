"""The operations of live feeds: what may be pushed, how feeds stand, start and pause."""

from typing import Any

from everloop import data
from everloop.catalog import refs, versions
from everloop.catalog.context import Context
from everloop.catalog.operating import feeds
from everloop.catalog.operation import Answer, Command, operation
from everloop.core.errors import InvalidInput, NotFound
from everloop.core.grants import Target
from everloop.core.ids import manifest_id
from everloop.data.streams.inbox import InboxWriter, inbox, waiting
from everloop.data.streams.origins import DEAD, FEEDS, JSON_LINES, LONGEST_LETTER, Push, feed_of


class OfFeed(Command):
    """A feed by the name of its source, in an environment."""

    name: str
    environment: str = "production"


class Replay(OfFeed):
    """Which dead letters come again."""

    reason: str = ""
    """Only those whose reason has this in it."""


class Replayed(Answer):
    """What was sent again. What is refused again is another dead letter."""

    letters: int
    cut: int
    """Letters whose text was too long to be kept whole: these were not."""


class AllFeeds(Command):
    """All feeds of the project."""


class Accepting(Answer):
    """What a push must know."""

    backlog: int
    """Bytes that may wait."""


class FeedView(Answer):
    """How a feed stands."""

    name: str
    environment: str
    kind: str
    state: str
    rows: int
    dead: int
    duplicates: int
    rate: float
    """Rows a second, over the newest commits."""
    delay: float
    """Seconds from the arrival of the oldest event of the newest commit to its version."""
    waiting: int
    """What is not committed: bytes of a push, else messages at the newest commit."""
    committed: int
    """Wall time of the newest commit; 0 before the first."""
    error: str
    recent: list[list[int]]
    """The newest commits: wall time, rows, dead letters, microseconds of delay."""


class FeedList(Answer):
    """Feeds by environment and name."""

    feeds: list[FeedView]


def _on(_ctx: Context, cmd: Any) -> Target:
    return Target("data", cmd.name, cmd.environment)


def _manifest(ctx: Context, cmd: OfFeed) -> dict[str, Any]:
    """The origin of the definition that the environment holds, else of the newest."""
    with ctx.read() as tx:
        held = refs.get(tx, ctx.project, refs.env_ref(cmd.environment))
        if held is None:  # of a misspelt one, events would be taken and nobody would find them
            raise NotFound(f"there is no environment {cmd.environment!r}", hint="`everloop env list` shows them")
        entries = versions.get(tx, ctx.project, held).manifest["entries"]
        row = versions.find(tx, ctx.project, entries.get(f"source/{cmd.name}", f"source/{cmd.name}"))
    origin = dict(row.manifest["origin"])
    if origin["type"] not in FEEDS:
        raise InvalidInput(f"source/{cmd.name} is no feed", hint="its origin would be Push, RedisStream or Kafka")
    return origin


@operation("feeds.accept", needs="feed.push", on=_on, audit="denied", reads=True)
def accept(ctx: Context, cmd: OfFeed) -> Accepting:
    """Whether events may be pushed to a feed, and how many bytes of them may wait."""
    origin = feed_of(_manifest(ctx, cmd))
    if not isinstance(origin, Push):
        raise InvalidInput(f"the feed {cmd.name} reads a broker", hint="send its events there")
    return Accepting(backlog=origin.backlog)


@operation("feeds.replay", needs="feed.push", on=_on)
def replay(ctx: Context, cmd: Replay) -> Replayed:
    """Send the dead letters of a pushed feed again, after what refused them was mended; the same ones count once."""
    if not isinstance(feed_of(_manifest(ctx, cmd)), Push):
        raise InvalidInput(f"the feed {cmd.name} reads a broker", hint="send the events of its dead letters there")
    with ctx.read() as tx:
        head = refs.get(tx, ctx.project, refs.head_ref(cmd.environment, cmd.name + DEAD))
    if head is None:
        return Replayed(letters=0, cut=0)
    found = data.read(ctx, head).select("reason", "event").collect().to_dicts()
    events = [one["event"] for one in found if cmd.reason in one["reason"]]
    whole = [event for event in events if event and len(event) < LONGEST_LETTER]
    if whole:
        key = manifest_id({"replay": head, "reason": cmd.reason})
        header = {"at": ctx.wall(), "media": JSON_LINES, "encoding": "", "key": key, "actor": ctx.actor.name}
        writer = InboxWriter(inbox(ctx.home, ctx.project, cmd.environment, cmd.name))
        try:
            writer.append(header, "\n".join(whole).encode())
        finally:
            writer.close()
    return Replayed(letters=len(whole), cut=len(events) - len(whole))


@operation("feeds.start", needs="data.capture", on=_on)
def start(ctx: Context, cmd: OfFeed) -> FeedView:
    """Have a worker read a feed, from where it was left."""
    _manifest(ctx, cmd)
    with ctx.write() as tx:
        feeds.start(tx, ctx.project, cmd.environment, cmd.name)
    return show(ctx, cmd)


@operation("feeds.pause", needs="data.capture", on=_on)
def pause(ctx: Context, cmd: OfFeed) -> FeedView:
    """Stop reading a feed; what arrives waits for its start."""
    with ctx.write() as tx:
        feeds.pause(tx, ctx.project, cmd.environment, cmd.name)
    return show(ctx, cmd)


@operation("feeds.show", needs="read", on=_on, audit="denied", reads=True)
def show(ctx: Context, cmd: OfFeed) -> FeedView:
    """How one feed stands: rate, delay, what waits, dead letters."""
    with ctx.read() as tx:
        feed = feeds.get(tx, ctx.project, cmd.environment, cmd.name)
    return _view(ctx, feed)


@operation("feeds.list", needs="read", audit="denied", reads=True)
def list_feeds(ctx: Context, _cmd: AllFeeds) -> FeedList:
    """How all feeds of the project stand."""
    with ctx.read() as tx:
        found = feeds.all_feeds(tx, ctx.project)
    return FeedList(feeds=[_view(ctx, feed) for feed in found])


def _view(ctx: Context, feed: feeds.Feed) -> FeedView:
    try:
        kind = str(_manifest(ctx, OfFeed(name=feed.name, environment=feed.environment))["type"])
    except (NotFound, InvalidInput):
        kind = "unknown"
    held = feed.waiting
    if kind == "push":
        read = sum(int(end) for end in feed.position.values())
        held = max(0, waiting(inbox(ctx.home, ctx.project, feed.environment, feed.name)) - read)
    recent = feed.recent
    seconds = (recent[-1][0] - recent[0][0]) / 1e6 if len(recent) > 1 else 0.0
    return FeedView(
        name=feed.name,
        environment=feed.environment,
        kind=kind,
        state=feed.state,
        rows=feed.rows,
        dead=feed.dead,
        duplicates=feed.duplicates,
        rate=sum(entry[1] for entry in recent[1:]) / seconds if seconds else 0.0,
        delay=recent[-1][3] / 1e6 if recent else 0.0,
        waiting=held,
        committed=feed.committed,
        error=feed.error,
        recent=[list(entry) for entry in recent],
    )
