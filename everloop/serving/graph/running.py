"""Answering with a graph: each node in its place, with its time limit, retries and default.

Columns are one-dimensional arrays or lists, all of one length. A switch asks each branch for its own rows only. The
revision was chosen before the graph is entered, and every node is of it.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

import numpy as np

from everloop.core.coherence import walk
from everloop.core.errors import EverloopError, InvalidInput, StepFailed, Unavailable
from everloop.serving.columns import unpack_answer
from everloop.serving.fusing.derived import PREFIX, nulls_apart
from everloop.serving.fusing.steps import TOOK
from everloop.serving.gateway.stats import NodeCounters
from everloop.serving.gateway.workers import StepFailedBehind
from everloop.serving.graph.conditions import Condition, there
from everloop.serving.graph.nodes import literal
from everloop.serving.graph.planning import key_of
from everloop.serving.tracing.recording import Trace

Array = np.ndarray[Any, Any]
Outputs = dict[str, Array]
Ask = Callable[[str, bytes, int, float], Awaitable[Any]]


@dataclass
class Run:
    """One request on its way through a graph."""

    workers: Mapping[str, Any]
    """By the name of the part (`planning.key_of`)."""
    counters: Mapping[int, NodeCounters]
    nullable: Mapping[str, Sequence[str]]
    """Columns that may be null though their datatype cannot say it, by part."""
    deadline: float
    sticky: bytes
    look_up: Callable[[Mapping[str, Any], int], Awaitable[Mapping[str, Any]]]
    call: Callable[[str, Mapping[str, Any], int, float], Awaitable[Outputs]]
    path: dict[str, str] = field(default_factory=dict)
    """What happened that the caller should know: shares taken, defaults, steps left out."""
    trace: Trace | None = None
    revision: str = ""
    _told: dict[int, tuple[int, int]] = field(default_factory=dict)
    """Of fused steps that workers report: their rows and microseconds, until they are counted."""
    _inner: dict[int, int] = field(default_factory=dict)
    """By the number of a model: the microseconds of the fused steps before it."""
    _blamed: dict[int, int] = field(default_factory=dict)
    """By the number of a model that did not answer: the fused step that failed before it."""

    async def run(self, node: Mapping[str, Any], columns: Mapping[str, Any], rows: int) -> Outputs:
        """The outputs of a node under its policy; raises what its last try raised."""
        if self.trace is None:
            return await self._run(node, columns, rows)
        told = {"everloop.node": node["number"], "everloop.revision": self.revision, "everloop.rows": rows}
        with self.trace.inside(said(node), told):
            return await self._run(node, columns, rows)

    async def _run(self, node: Mapping[str, Any], columns: Mapping[str, Any], rows: int) -> Outputs:
        counted = self.counters[node["number"]]
        started = time.monotonic()
        tries = 1 + node.get("retries", 0)
        for left in range(tries - 1, -1, -1):
            try:
                answer = await self._in_time(node, columns, rows)
            except InvalidInput:
                raise
            except EverloopError as error:
                if left and time.monotonic() < self.deadline:
                    counted.retries += 1
                    continue
                self.counters[self._blamed.pop(node["number"], node["number"])].failed()
                return self._instead(node, rows, error)
            finally:
                inner = self._count(node)
            counted.answered(rows, max(int((time.monotonic() - started) * 1e6) - inner, 0))
            return answer
        raise AssertionError

    def _count(self, node: Mapping[str, Any]) -> int:
        """Count the fused steps that are done with this node; the microseconds that are theirs and not a model's."""
        for number in node.get("counts", ()):
            if (told := self._told.pop(number, None)) is not None:
                self.counters[number].answered(*told)
        return self._inner.pop(node["number"], 0)

    async def _in_time(self, node: Mapping[str, Any], columns: Mapping[str, Any], rows: int) -> Outputs:
        limit = node.get("timeout_micros")
        if limit is None:
            return await self._once(node, columns, rows)
        try:
            async with asyncio.timeout(limit / 1e6):
                return await self._once(node, columns, rows)
        except TimeoutError:
            raise Unavailable(f"{said(node)} did not answer within {limit / 1000:g} ms") from None

    def _instead(self, node: Mapping[str, Any], rows: int, error: EverloopError) -> Outputs:
        if "default" in node:
            self.counters[node["number"]].defaults += 1
            self.path[said(node)] = "default"
            return {name: filled(literal(value), rows) for name, value in node["default"]}
        if node.get("soft"):
            self.path[said(node)] = "left out"
            return {}
        raise error

    async def _once(self, node: Mapping[str, Any], columns: Mapping[str, Any], rows: int) -> Outputs:
        kind = node["node"]
        if kind == "lookup":
            return dict(await self.look_up(columns, rows))
        inner = {
            "sequence": self._sequence,
            "switch": self._switch,
            "splitter": self._split,
            "ensemble": self._ensemble,
            "call": self._call,
        }.get(kind, self._ask)
        return await inner(node, columns, rows)

    async def _split(self, node: Mapping[str, Any], columns: Mapping[str, Any], rows: int) -> Outputs:
        share = chosen_share(node, self.sticky)
        self.path[said(node)] = share["name"]
        return await self.run(share["node"], columns, rows)

    async def _call(self, node: Mapping[str, Any], columns: Mapping[str, Any], rows: int) -> Outputs:
        sent = {name: there(columns, name) for name, _ in node["columns"]}
        return await self.call(node["endpoint"], sent, rows, self.deadline)

    async def _sequence(self, node: Mapping[str, Any], columns: Mapping[str, Any], rows: int) -> Outputs:
        known = dict(columns)
        last: Outputs = {}
        for inner in node["nodes"]:
            made = await self.run(inner, known, rows)
            known |= made
            if inner["node"] == "model":
                known |= {f"{inner['role']}.{name}": values for name, values in made.items()}
            last = made or last
        return last

    async def _ask(self, node: Mapping[str, Any], columns: Mapping[str, Any], rows: int) -> Outputs:
        key = key_of(node)
        worker = self.workers[key]
        if not worker.ready.is_set():
            worker.wake()
            dispensable = ("soft" in node or "default" in node) and "timeout_micros" not in node
            patience = 0.0 if dispensable else self.deadline - time.monotonic()
            if not await worker.become_ready(patience):
                raise Unavailable(worker.problem or f"{said(node)} did not start in time")
        nullable = self.nullable[key]
        given = nulls_apart(columns, nullable, rows) if nullable else columns
        payload = worker.model_inputs.pack(given, rows)
        before, started = node.get("before", ()), time.monotonic()
        try:
            frame = await worker.ask(payload, rows, self.deadline)
        except StepFailedBehind as error:
            self._note(node, error.took, rows, started)
            if len(error.took) < len(before):
                self._blamed[node["number"]] = before[len(error.took)]["number"]
            raise
        answer = unpack_answer(worker.outputs, frame.payload, rows)
        if before:
            self._note(node, answer[TOOK][0].tolist()[:-1], rows, started)
        return {name: values for name, values in answer.items() if not name.startswith(PREFIX)}

    def _note(self, node: Mapping[str, Any], took: Sequence[int], rows: int, started: float) -> None:
        """Take note of the steps before a model; those of branches of a switch are one, as long as the longest."""
        self._inner[node["number"]] = sum(took)
        for step, micros in zip(node.get("before", ()), took, strict=False):
            known, longest = self._told.get(step["number"], (0, 0))
            self._told[step["number"]] = known + rows, max(longest, micros)
            if self.trace is not None:
                told = {"everloop.node": step["number"], "everloop.revision": self.revision, "everloop.rows": rows}
                self.trace.add(said(step), started, told, ended=started + micros / 1e6)
                started += micros / 1e6

    async def _switch(self, node: Mapping[str, Any], columns: Mapping[str, Any], rows: int) -> Outputs:
        taken = np.full(rows, -1)
        for place, case in enumerate(node["cases"]):
            if (taken >= 0).all():
                break
            held = case["condition"].holds(columns)
            taken[(taken < 0) & held] = place
        branches = [case["node"] for case in node["cases"]]
        if (taken < 0).any():
            if node["otherwise"] is None:
                raise InvalidInput("no case of the switch is for this row", hint="give the switch an otherwise")
            taken[taken < 0] = len(branches)
            branches.append(node["otherwise"])
        places = sorted(set(taken.tolist()))
        if len(places) == 1:
            return await self.run(branches[places[0]], columns, rows)
        masks = [np.flatnonzero(taken == place) for place in places]
        parts = await _together(
            self.run(branches[place], _rows(columns, mask), len(mask))
            for place, mask in zip(places, masks, strict=True)
        )
        return _merged(parts, masks, rows)

    async def _ensemble(self, node: Mapping[str, Any], columns: Mapping[str, Any], rows: int) -> Outputs:
        members = [member["name"] for member in node["members"]]
        answers = await _together(self.run(member["node"], columns, rows) for member in node["members"])
        if node["combine"] == "all":
            named = zip(members, answers, strict=True)
            return {f"{member}.{name}": values for member, answer in named for name, values in answer.items()}
        able = [answer for answer in answers if answer]
        if not able:
            raise StepFailed("no member of the ensemble answered")
        names = [name for name in able[0] if all(name in answer for answer in able)]
        if not names:
            raise StepFailed("the members of the ensemble have no output in common")
        return {name: _combined(node["combine"], [answer[name] for answer in able]) for name in names}


async def _together(runs: Any) -> list[Outputs]:
    """Every answer; the first error ends the others."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(run) for run in runs]
    except* EverloopError as errors:
        first: Any = errors
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
        raise first from None
    return [task.result() for task in tasks]


def said(node: Mapping[str, Any]) -> str:
    """A node as people call it."""
    names = {"model": "model", "lookup": "service", "call": "endpoint", "transform": "name"}
    kind = node["node"]
    return f"{kind} {node[names[kind]]}" if kind in names else f"{kind} {node['number']}"


def chosen_share(node: Mapping[str, Any], sticky: bytes) -> Mapping[str, Any]:
    """The share for a key: always the same one while the shares stay."""
    place = int.from_bytes(blake2b(b"%d " % node["number"] + sticky, digest_size=8).digest(), "big") % 100
    total = 0
    for share in node["shares"]:
        total += share["percent"]
        if place < total:
            return share  # type: ignore[no-any-return]  # a part of a manifest
    raise AssertionError


def prepared(graph: dict[str, Any]) -> dict[str, Any]:
    """A numbered graph with each `condition` of it read, so that no request parses one."""
    for node in walk(graph):
        for case in node["cases"] if node["node"] == "switch" else ():
            case["condition"] = Condition(case["if"])
    return graph


def _rows(columns: Mapping[str, Any], rows: Array) -> dict[str, Any]:
    listed = rows.tolist()
    return {n: v[rows] if isinstance(v, np.ndarray) else [v[row] for row in listed] for n, v in columns.items()}


def _merged(parts: Sequence[Outputs], masks: Sequence[Array], rows: int) -> Outputs:
    names = list(parts[0])
    for part in parts:
        if list(part) != names or any(part[n].shape[1:] != parts[0][n].shape[1:] for n in names):
            raise StepFailed("the branches of a switch differ in their outputs", hint="they must answer alike")
    merged: Outputs = {}
    for name in names:
        dtype = np.result_type(*(part[name].dtype for part in parts))
        merged[name] = np.empty((rows, *parts[0][name].shape[1:]), dtype)
        for part, mask in zip(parts, masks, strict=True):
            merged[name][mask] = part[name]
    return merged


def _combined(combine: str, answers: Sequence[Array]) -> Array:
    if combine == "vote":
        listed = [answer.tolist() for answer in answers]
        votes = [max(dict.fromkeys(row), key=row.count) for row in zip(*listed, strict=True)]
        return np.array(votes, answers[0].dtype)
    if any(answer.dtype.kind not in "biuf" for answer in answers):
        raise StepFailed(f"an ensemble cannot take the {combine} of text", hint='combine by "vote"')
    stacked = np.stack(answers)
    return np.asarray(_COMBINED[combine](stacked, axis=0))


_COMBINED: Mapping[str, Callable[..., Any]] = {"mean": np.mean, "max": np.max, "min": np.min}


def filled(value: Any, rows: int) -> Array:
    """One value for each row."""
    return np.full(rows, value, object if isinstance(value, str) else None)
