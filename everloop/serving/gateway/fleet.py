"""What serves now: live routes with their workers, swapped as a whole when a new table arrives.

A new table first starts and warms what it needs; then one assignment makes it live; then what is no longer
named drains and ends. A revision that cannot become ready leaves its endpoint as it was.
"""

import asyncio
import time
from bisect import bisect_right
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any

import msgspec
import orjson

from everloop.core.coherence import walk
from everloop.core.errors import EverloopError, InvalidInput, NotFound
from everloop.core.signing import VerifyKey
from everloop.serving import table as tables
from everloop.serving.columns import Layout, Outputs
from everloop.serving.distributed.linking import Cluster
from everloop.serving.gateway.crew import Crew, Size
from everloop.serving.gateway.crew import told as crew_told
from everloop.serving.gateway.inline.within import crew_for
from everloop.serving.gateway.starting.shared import Shared
from everloop.serving.gateway.stats import Counters, NodeCounters, ShadowCounters
from everloop.serving.graph.fusing import fused, running
from everloop.serving.graph.nodes import numbered
from everloop.serving.graph.running import prepared
from everloop.serving.graph.shapes import ShownBy, outputs_of
from everloop.serving.table import PLACES, Instead, Part, Revision, Route, Table

_READY_SECONDS = 60.0
_WEIGH_SECONDS = 1.0
_POLL_SECONDS = 0.2
_EXPLAINER_IDLE = 300.0


@dataclass(slots=True)
class Live:
    """One live revision: its workers, its counters, and its graph with those of each node."""

    revision: Revision
    workers: dict[str, Crew]
    counters: Counters
    nodes: dict[int, NodeCounters]
    shadowed: ShadowCounters
    endpoint: ShownBy
    """The outputs of another endpoint of the project, by its name."""
    explainer: Any = None
    """Who explains its answers, a crew that starts with the first who asks; None where nobody may."""
    graph: dict[str, Any] | None = field(init=False)
    """The numbered graph, where it is more than a line."""
    caller: Layout = field(init=False)
    """The columns that a caller sends."""
    logged: Layout = field(init=False)
    """What is logged of a question: what models are asked with, without what nodes made."""
    logged_raw: msgspec.Raw = field(init=False)
    lenient: bool = field(init=False)
    """Whether it may answer without one of its workers."""

    def __post_init__(self) -> None:
        """Read the entry."""
        whole = self.revision.graph
        fits = whole is not None and self.revision.parts
        self.graph = fused(prepared(numbered(whole)), self.revision.parts)[0] if whole is not None and fits else None
        self.lenient = self.graph is not None and any("soft" in n or "default" in n for n in walk(self.graph))
        self.caller = Layout.from_pairs(self.revision.caller)
        self.logged = Layout.from_pairs(self.revision.inputs)
        self.logged_raw = msgspec.Raw(msgspec.msgpack.encode(self.logged.pairs()))

    @property
    def process(self) -> Crew:
        """The worker of the model; of a graph, the first."""
        return next(iter(self.workers.values()))

    @property
    def shown(self) -> Outputs:
        """The outputs that a caller sees; empty until all workers were warm once. Raises `InvalidInput`."""
        if self.graph is None:
            return self.process.shown
        return outputs_of(self.graph, lambda key: self.workers[key].shown, self.endpoint)

    @property
    def example(self) -> dict[str, list[Any]]:
        """Columns to show how it is asked; empty when there is no example."""
        return self.revision.example

    @property
    def state(self) -> str:
        """`ready`, `starting`, `failed` or `asleep`: the first of failed, starting, asleep that a worker is."""
        states = {worker.state for worker in self.workers.values()}
        return next((state for state in ("failed", "starting", "asleep") if state in states), "ready")

    @property
    def ready(self) -> bool:
        """Whether it answers at once."""
        return all(worker.ready.is_set() for worker in self.workers.values())

    @property
    def reason(self) -> str:
        """Why it is not ready; empty while it starts."""
        if self.state == "asleep":
            return "its workers sleep; the next question wakes them"
        told = ((key, worker.problem) for key, worker in self.workers.items())
        return "; ".join(f"{key}: {problem}" if key else problem for key, problem in told if problem)

    @property
    def waiting(self) -> int:
        """Requests that wait for its busiest worker."""
        return max(worker.waiting for worker in self.workers.values())

    def wake(self) -> None:
        """Start what sleeps."""
        for worker in self.workers.values():
            worker.wake()

    async def become_ready(self, seconds: float) -> bool:
        """Wait until it answers, or cannot."""
        ready = await asyncio.gather(*(worker.become_ready(seconds) for worker in self.workers.values()))
        return all(ready)


@dataclass(slots=True)
class LiveRoute:
    """One endpoint as it serves now."""

    route: Route
    live: list[Live]
    shadow: Live | None = field(init=False)
    """Who answers copies of questions; callers meet it only when they ask for it."""
    ways: list[Instead] = field(init=False)
    """Ways to answer when the chosen revision did not, in their order."""
    cached: Instead | None = field(init=False)
    """The one among them that keeps answers."""
    said: bytes | None = field(init=False, default=None)
    """What the gateway tells of it, as JSON; None when something changed since."""
    _hash: Any = field(init=False)
    _limits: list[int] = field(init=False)
    _dealt: list[Live] = field(init=False)

    def __post_init__(self) -> None:
        """Prepare the choice of a revision."""
        self.shadow = next((live for live in self.live if live.revision.shadow_ppm), None)
        entering = self.live[0].revision.id if self.live else ""
        self._hash = blake2b(f"{self.route.address} {entering}".encode(), digest_size=8)
        total, self._limits, self._dealt = 0, [], self.live
        for live in self.live:
            total += live.revision.weight * 100
            self._limits.append(total)
        if (split := self.route.split) is not None:
            by_id = {live.revision.id: live for live in self.live}
            self._hash = blake2b(f"{self.route.address} {split.salt}".encode(), digest_size=8)
            self._limits, self._dealt = [upto for upto, _ in split.slots], [by_id[one] for _, one in split.slots]

        ways = self.route.instead or ([Instead("previous")] if self.route.fallback else [])
        self.ways = [way for way in ways if way.kind != "previous" or len(self.live) > 1]
        self.cached = next((way for way in ways if way.kind == "cached"), None)

    def by_id(self, identity: str) -> Live | None:
        """The live revision with this id."""
        return next((live for live in self.live if live.revision.id == identity), None)

    @property
    def champion(self) -> Live:
        """The revision with most of the traffic, of equal ones the last; in an experiment, the one to beat."""
        if (split := self.route.split) is not None:
            return next(live for live in self.live if live.revision.id == split.champion)
        return max(enumerate(self.live), key=lambda pair: (pair[1].revision.weight, pair[0]))[1]

    @property
    def alike(self) -> bool:
        """Whether every live revision takes the same columns from a caller."""
        return all(live.revision.caller == self.live[0].revision.caller for live in self.live)

    @property
    def met(self) -> list[Live]:
        """The revisions that callers may meet without asking for one."""
        if self.route.split is not None:
            return list({id(live): live for live in self._dealt}.values())
        return self.live if len(self.live) == 1 else [live for live in self.live if live.revision.weight]

    def chosen(self, sticky: bytes) -> Live:
        """The revision for a key: always the same one while the weights stay, and only keys that must move do."""
        if len(self.live) == 1:
            return self.live[0]
        hashed = self._hash.copy()
        hashed.update(sticky)
        return self._dealt[bisect_right(self._limits, int.from_bytes(hashed.digest(), "big") % PLACES)]

    def pinned(self, spec: str) -> Live:
        """The revision with this number or id; raises `NotFound`."""
        wanted = self.route.revision(spec).id
        return next(live for live in self.live if live.revision.id == wanted)

    def instead(self, failed: Live, *, warm: bool = False) -> Live | None:
        """Who answers when `failed` did not, if the endpoint has a fallback: the warm revision with most traffic.

        While none is warm, one that starts (unless `warm`).
        """
        if self.route.fallback is None:
            return None
        apart = {way.revision for way in self.route.instead if way.revision}  # the simpler graph has its own turn
        others = [live for live in self.live if live is not failed and live is not self.shadow]
        others = [live for live in others if live.revision.id not in apart]
        able = [live for live in others if not warm or live.ready]
        return max(able, key=lambda live: (live.ready, live.revision.weight), default=None)


class Fleet:
    """The live routes of one gateway."""

    def __init__(self, path: Path, key: VerifyKey, budget: int = 0, cluster: Cluster | None = None) -> None:
        """Serve the table at `path` once `load` is called; `budget`: bytes that workers may take, 0 for no bound.

        With a `cluster` its nodes run what workers would run here.
        """
        self._budget, self._cluster = budget, cluster
        self._shared: dict[str, Shared] = {}
        """Worker processes that several models share, by name."""
        self._path, self._key = path, key
        self._seen: tuple[int, int, int] | None = None
        self._processes: dict[bytes, Crew] = {}
        self._counters: dict[tuple[str, str], tuple[Counters, dict[int, NodeCounters], ShadowCounters]] = {}
        self._awake: set[Any] = set()
        self._users: dict[Any, list[str]] = {}
        """The addresses of those who ask a crew."""
        self._seen_of: dict[Any, tuple[Any, ...]] = {}
        """How crews that were not asleep were when it was told last."""
        self._retiring: set[asyncio.Task[None]] = set()
        self.looked = asyncio.Event()
        """Set once the first table was looked for: before that nobody should be told that an endpoint is not there."""
        self.routes: dict[str, LiveRoute] = {}
        self.table: Table | None = None
        self.problems: dict[str, str] = {}
        """Why a revision of the newest table does not serve, by its id; or the table itself (`table`)."""

    def route(self, address: str) -> LiveRoute:
        """The live route of `project.endpoint`; raises `NotFound`."""
        found = self.routes.get(address)
        if found is None or not found.live:
            raise NotFound(f"there is no endpoint {address[:120]!r}", hint="endpoints are named project.endpoint")
        return found

    async def follow(self) -> None:
        """Adopt every new table, for ever."""
        while True:
            try:
                await self.load()
            except (EverloopError, OSError) as error:
                self.problems = {**self.problems, "table": str(error)}
            self.looked.set()
            await asyncio.sleep(_POLL_SECONDS)

    async def load(self) -> bool:
        """Adopt the table if the file changed; raises `CorruptObject` and goes on with the one before."""
        try:
            status = self._path.stat()
        except FileNotFoundError:
            return False
        seen = (status.st_mtime_ns, status.st_ino, status.st_size)
        if seen == self._seen:
            return False
        self._seen = seen
        # of thousands of endpoints it takes a second, in which requests are answered
        after = self.table.sequence if self.table else -1
        table = await asyncio.to_thread(tables.load, self._path, self._key, after=after)
        await self._adopt(table)
        return True

    def _where(self, size: Size) -> Cluster | Shared | None:
        """Where a part answers, if not in processes of its own."""
        if self._cluster is not None or not size.shared:
            return self._cluster
        return self._shared.setdefault(size.shared, Shared())

    async def _adopt(self, table: Table) -> None:
        revisions = [r for route in table.routes for r in route.revisions]
        first = not self.routes
        starting = []
        for key, (part, size) in _wanted(table).items():
            if key in self._processes:
                self._processes[key].size = size
                continue
            process = self._processes[key] = crew_for(part, size, self._awake, self._where(size))
            if size.awaited and (
                not first or size.least
            ):  # what may sleep, sleeps until it is asked; a newcomer must show that it can
                process.wake()
                starting.append(process)
        if first:
            self._swap(table, {})  # nothing served before: requests wait for their worker instead of failing
            self.looked.set()
        for process in starting:
            await process.become_ready(_READY_SECONDS)
        self.problems = {r.id: problem for r in revisions if (problem := self._problem(r, starting))}
        self._swap(table, {} if first else self.problems)
        self._end_unused()

    def _problem(self, revision: Revision, starting: list[Crew]) -> str:
        """Why a revision cannot serve; empty when nothing that was started for it says so."""
        parts = running(revision)
        for name, part in parts.items():
            process = self._processes[_key(part)]
            if process in starting and not process.ready.is_set():
                return f"{name}: {process.problem}".removeprefix(": ") if process.problem else "not warm in time"
        if revision.parts and revision.graph is not None:
            try:
                graph, _ = fused(revision.graph, revision.parts)
                outputs_of(graph, lambda name: self._processes[_key(parts[name])].shown, lambda _: ())
            except InvalidInput as error:
                return error.message
        return ""

    def _swap(self, table: Table, unfit: dict[str, str]) -> None:
        """Make `table` live in one assignment; an endpoint with an unfit revision stays as it was."""
        routes = {}
        for route in table.routes:
            before = self.routes.get(route.address)
            if before is not None and any(r.id in unfit for r in route.revisions):
                routes[route.address] = before
                continue
            if before is not None and before.route == route:
                routes[route.address] = before  # most of thousands: what did not change is not read again
                continue
            routes[route.address] = LiveRoute(route, [self._live(route, revision) for revision in route.revisions])
        self.routes = routes
        self.table = table
        self._users = {}
        for address, live in ((address, live) for address, one in routes.items() for live in one.live):
            for crew in (*live.workers.values(), *([live.explainer] if live.explainer else [])):
                self._users.setdefault(crew, []).append(address)

    def _live(self, route: Route, revision: Revision) -> Live:
        workers = {name: self._processes[_key(part)] for name, part in running(revision).items()}
        counted = (route.address, revision.id)
        if counted not in self._counters:
            nodes = range(sum(1 for _ in walk(revision.graph))) if revision.graph else range(0)
            self._counters[counted] = (Counters(), {number: NodeCounters() for number in nodes}, ShadowCounters())

        def shown(name: str) -> Outputs:
            other = self.routes.get(f"{route.project}.{name}")
            return other.champion.shown if other is not None and other.live else ()

        explainer = self._processes[_key(revision.explainer.part)] if revision.explainer else None
        return Live(revision, workers, *self._counters[counted], shown, explainer)

    def only_of(self, crew: Any, address: str) -> bool:
        """Whether no other endpoint asks this crew."""
        return set(self._users.get(crew, ())) <= {address}

    def _end_unused(self) -> None:
        lives = [live for route in self.routes.values() for live in route.live]
        used = {id(worker) for live in lives for worker in (*live.workers.values(), live.explainer)}
        for key in [key for key, process in self._processes.items() if id(process) not in used]:
            task = asyncio.get_running_loop().create_task(self._processes.pop(key).sleep())
            self._retiring.add(task)
            task.add_done_callback(self._retiring.discard)

    async def tend(self) -> None:
        """Give up on what is late, and keep as many workers as the load and the memory allow, for ever."""
        weighed = 0.0
        while True:
            await asyncio.sleep(0.05)
            now = time.monotonic()
            for process in list(self._awake):  # thousands may sleep
                process.tend(now)
                if process.state == "asleep":
                    self._awake.discard(process)
            if self._budget and now - weighed > _WEIGH_SECONDS / 4:
                weighed = now
                self._make_room(now)

    def _make_room(self, now: float) -> None:
        """End workers that were asked longest ago until the rest fits into the budget; the next question wakes them.

        Where that is not enough, the largest is replaced, if it grew while it worked: another answers meanwhile.
        """
        weights = {key: crew.memory for key, crew in self._processes.items() if crew.memory}
        total = sum(weights[key] for key in weights if self._processes[key].pids)
        total += sum(shared.memory for shared in self._shared.values())
        for key in sorted(weights, key=lambda one: self._processes[one].asked_at):
            crew = self._processes[key]
            if total <= self._budget:
                return
            if not crew.waiting and now - crew.asked_at > _WEIGH_SECONDS and crew.state == "ready":
                total -= weights[key]
                task = asyncio.get_running_loop().create_task(crew.sleep())
                self._retiring.add(task)
                task.add_done_callback(self._retiring.discard)

        if total > self._budget and weights:
            self._processes[max(weights, key=lambda one: weights[one])].relieve()

    async def close(self) -> None:
        """End every worker."""
        await asyncio.gather(*(process.retire() for process in self._processes.values()))
        for shared in self._shared.values():
            shared.close()
        if self._cluster is not None:
            await self._cluster.close()

    @property
    def ready(self) -> bool:
        """Whether every endpoint can answer."""
        return all(route.champion.state in ("ready", "asleep") for route in self.routes.values() if route.live)

    def standing(self) -> dict[str, Any]:
        """Which table is live, and what is wrong with newer ones, as JSON."""
        return {
            "sequence": self.table.sequence if self.table else -1,
            "environment": self.table.environment if self.table else "",
            "problems": dict(self.problems),
        }

    def told(self) -> tuple[bool, list[bytes]]:
        """What is live and what was counted, a member of a JSON object each; whether something changed since."""
        self._look_at_crews()
        changed = [(address, route) for address, route in self.routes.items() if route.said is None]
        for address, route in changed:
            told = {address: {live.revision.id: _told(live) for live in route.live}}
            route.said = orjson.dumps(told)[1:-1]
        return bool(changed), [route.said for route in self.routes.values() if route.said is not None]

    def _look_at_crews(self) -> None:
        """Whoever asks a crew that is not as it was, has changed."""
        now = {
            crew: (crew.state, crew.waiting, crew.restarts, tuple(crew.pids), crew.working, crew.engine, crew.problem)
            for crew in (*self._awake, *self._seen_of)
        }
        for crew in [crew for crew, state in now.items() if state != self._seen_of.get(crew)]:
            for address in self._users.get(crew, ()):
                self.routes[address].said = None
        self._seen_of = {crew: state for crew, state in now.items() if state[0] != "asleep" and crew in self._users}


def _key(part: Part) -> bytes:
    """Names a worker: revisions that hold the same part share it, so that upgrading one part starts that part only."""
    return msgspec.msgpack.encode(part)


def _wanted(table: Table) -> dict[bytes, tuple[Part, Size]]:
    """Every part of a table, and how many workers it may have."""
    wanted: dict[bytes, tuple[Part, Size]] = {}
    for route in table.routes:
        shared = f"{route.project}/{route.shared}" if route.shared else ""
        size = Size(route.least, route.most, route.idle_micros / 1e6, shared=shared)
        for part in (part for revision in route.revisions for part in running(revision).values()):
            _, before = wanted.get(_key(part), (part, size))
            wanted[_key(part)] = part, size.joined(before)
        for part in (revision.explainer.part for revision in route.revisions if revision.explainer):
            wanted[_key(part)] = part, Size(0, 1, _EXPLAINER_IDLE, awaited=False)
    return wanted


def _told(live: Live) -> dict[str, Any]:
    return {
        "number": live.revision.number,
        "weight": live.revision.weight,
        "state": live.state,
        "problem": live.reason if live.state == "failed" else "",
        "pid": next((pid for worker in live.workers.values() for pid in worker.pids), 0),
        "restarts": sum(worker.restarts for worker in live.workers.values()),
        "waiting": live.waiting,
        "workers": {name: crew_told(worker) for name, worker in live.workers.items()},
        **({"shadow": live.shadowed.told()} if live.revision.shadow_ppm or live.shadowed.requests else {}),
        **({"explainer": crew_told(live.explainer)} if live.explainer else {}),
        "nodes": {str(number): counted.told() for number, counted in live.nodes.items()},
        **live.counters.told(),
    }
