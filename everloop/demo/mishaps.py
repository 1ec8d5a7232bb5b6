"""Two things that go wrong: a feature in the wrong unit, and a model that needs a file which is not part of it."""

import polars as pl

from everloop.core.clock import MINUTE, SECOND, Micros
from everloop.demo.events import Question
from everloop.demo.replay import Played, Player
from everloop.demo.turn import Turn, try_call

_SECONDS = (
    'return left.select(*FLIGHT, "departed_at", "tailnum", "dep_delay", known_at=known)',
    'return left.select(*FLIGHT, "departed_at", "tailnum", pl.col("dep_delay") * 60, known_at=known)',
)
_WIDER = ('el.expect.between("dep_delay", -120, 1800)', 'el.expect.between("dep_delay", -7200, 108_000)')

_FRAGILE = (
    "project = el.Project(",
    '''class Corrected:
    """A model whose answers are corrected by a table; the table lies beside the code, not in the model."""

    def __init__(self, model, table):
        self.model, self.table, self.classes_ = model, table, model.classes_
        self.n_features_in_ = model.n_features_in_

    def predict(self, rows):
        return self.model.predict(rows)

    def predict_proba(self, rows):
        with open(self.table) as file:
            return self.model.predict_proba(rows) * float(file.read())


project = el.Project(''',
)


def wrong_unit(turn: Turn) -> None:
    """Ada turns minutes into seconds in one dataset and widens the contract that was in the way; review stops it."""
    teller = turn.teller
    building = teller.doing("Ada builds with departure delays in seconds")
    with turn.variant("seconds", _SECONDS, _WIDER) as (project, origin), building:
        built = turn.build(
            "sandbox/ada/seconds", project=project, origin=origin, message="Delays in seconds", params={"max_iter": 40}
        )
    with teller.doing("checks"):
        change = turn.propose(built.environment, "Finer delays")
    turn.tell(change)
    refusal = try_call(turn.grace, "changes.merge", number=change.number)
    teller.say(
        f"merging is refused: [yellow]{refusal.message}[/]"
        if refusal
        else "[red]it was merged: the checks did not see it[/]"
    )
    if refusal:
        turn.ada.call("changes.close", number=change.number)
    teller.note("a feature in the wrong unit", "refused" if refusal else "NOT refused")


def broken_revision(turn: Turn, player: Player, asked: pl.DataFrame, now: Micros) -> Played:
    """A model that passes every check needs a file on Ada's disk; she tidies up; the canary fails and goes back."""
    teller = turn.teller
    table = turn.stage.folder / "correction.txt"
    table.write_text("1.0", encoding="utf-8")
    wrapped = ("return model.fit(", "return Corrected(model.fit(")
    closed = ('frame["late"].to_numpy())', f'frame["late"].to_numpy()), {str(table)!r})')
    building = teller.doing("Ada builds a model that reads a file beside it")
    with turn.variant("corrected", _FRAGILE, wrapped, closed) as (project, origin), building:
        built = turn.build("sandbox/ada/corrected", project=project, origin=origin, message="Corrected answers")
    with teller.doing("checks"):
        change = turn.propose(built.environment, "Corrected answers")
    turn.tell(change)
    turn.land(change)
    with teller.doing("canary starts"):
        canary = turn.settled("canary")
    teller.say(f"canary at {min(r.weight for r in canary.revisions)} %; now Ada tidies up, and the file is gone")
    table.unlink()
    questions = [_soon(row, now + 10 * MINUTE + i * SECOND) for i, row in enumerate(asked.iter_rows(named=True))]
    with teller.doing(f"{len(questions)} requests"):
        played = player.ask(questions)
    reverted = turn.settled("reverted")
    teller.say(f"[yellow]reverted by itself[/]: {reverted.reason}")
    teller.say(f"{played.failed} of {played.asked} callers saw an error: the previous revision answered for it")
    back = turn.grace.call("environments.rollback", environment="production", reason="the canary failed")
    teller.say(f"production is back at snapshot {back.number}")
    teller.note("a broken revision", f"reverted in its canary, {played.failed} of {played.asked} callers saw an error")
    return played


def _soon(row: dict[str, object], at: Micros) -> Question:
    names = ("origin", "dest", "carrier", "tailnum", "distance", "sched_hour", "weekday")
    return Question(at, {name: row[name] for name in names}, None, None)
