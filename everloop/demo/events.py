"""What happens in a month, in the order in which it becomes known: facts, questions, answers."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import polars as pl

from everloop.core.clock import HOUR, SECOND, Micros
from everloop.demo.arrivals import Arrivals
from everloop.project import Project

BLOCK: Micros = 12 * HOUR
"""Facts are pushed in blocks, ahead of the questions in them: a fact counts once it is known, not before."""
_SEED = 2013


@dataclass(frozen=True, slots=True)
class Question:
    """A request at scheduled departure, and what later turned out."""

    at: Micros
    row: dict[str, Any]
    late: int | None
    """None for a flight that never arrived: it gets no label."""
    landed: Micros | None


@dataclass(frozen=True, slots=True)
class Block:
    """Half a day: facts by dataset, and the questions asked in them, by time."""

    start: Micros
    facts: dict[str, list[dict[str, Any]]]
    questions: list[Question]


class Month:
    """One month of the year, made from the project's own definitions of its datasets."""

    def __init__(self, project: Project, arrivals: Arrivals, month: int, questions: int) -> None:
        """Compute the month's events; `questions` flights are asked about, drawn at random with a fixed seed.

        Facts are those that become known from the month's first minute on: also of flights of the month before that
        were then in the air. They were in that month's file, but nobody could know them yet.
        """
        flights = arrivals.flights.filter(pl.col("month") == month).lazy()
        airborne = arrivals.flights.filter(pl.col("month").is_between(month - 1, month)).lazy()
        weather = arrivals.weather.filter(pl.col("month").is_between(month - 1, month)).lazy()
        airports = arrivals.airports.lazy()
        made = {name: project.tables[name].function for name in ("departures", "takeoffs", "landings", "weather")}  # type: ignore[union-attr]
        self.facts = {
            "takeoffs": _timed(made["takeoffs"](airborne, airports), "known_at", month_start(month)),
            "landings": _timed(made["landings"](airborne, airports), "landed_at", month_start(month)),
            "weather": _timed(made["weather"](weather), "known_at", month_start(month)),
        }
        departures: pl.DataFrame = made["departures"](flights, airports).collect()
        self.asked = departures.sample(min(questions, departures.height), seed=_SEED + month).sort("scheduled_at")
        self.flights = departures.height

    @property
    def events(self) -> int:
        """How many facts the month brings."""
        return sum(table.height for table in self.facts.values())

    def blocks(self) -> Iterator[Block]:
        """The month in blocks, oldest first; every fact and every question is in one."""
        questions = [_question(row) for row in self.asked.iter_rows(named=True)]
        facts = {name: table.partition_by("block", as_dict=True) for name, table in self.facts.items()}
        starts = sorted({key[0] for parts in facts.values() for key in parts} | {q.at // BLOCK for q in questions})
        waiting = iter(questions)
        held = next(waiting, None)
        for start in starts:
            due = []
            while held is not None and held.at // BLOCK <= start:
                due.append(held)
                held = next(waiting, None)
            known = {name: _rows(parts[(start,)]) for name, parts in facts.items() if (start,) in parts}
            yield Block(start * BLOCK, known, due)


def month_start(month: int) -> Micros:
    """Midnight in New York on the first of a month of 2013."""
    return int(datetime(2013, month, 1, tzinfo=ZoneInfo("America/New_York")).timestamp() * SECOND)


def _timed(table: pl.LazyFrame, known: str, since: Micros) -> pl.DataFrame:
    """A dataset's rows with times as microseconds, by the block in which each becomes known, `since` then."""
    schema = table.collect_schema()
    times = [name for name, dtype in schema.items() if isinstance(dtype, pl.Datetime)]
    whole = table.with_columns(pl.col(times).dt.epoch("us"))
    return whole.filter(pl.col(known) >= since).with_columns(block=pl.col(known) // BLOCK).sort(known).collect()


def _rows(table: pl.DataFrame) -> list[dict[str, Any]]:
    return table.drop("block").to_dicts()


def _question(row: dict[str, Any]) -> Question:
    asked = {name: row[name] for name in ("origin", "dest", "carrier", "tailnum", "distance", "sched_hour", "weekday")}
    landed = row["landed_at"]
    return Question(_micros(row["scheduled_at"]), asked, row["late"], None if landed is None else _micros(landed))


def _micros(moment: Any) -> Micros:
    return int(moment.timestamp() * 1_000_000)
