"""The story of `everloop demo`, chapter by chapter. Nothing in it is scripted to succeed: it tells what it measures."""

from pathlib import Path
from typing import Any

from everloop.core.clock import DAY, HOUR, Micros, iso
from everloop.core.ids import short
from everloop.demo.arrivals import Arrivals
from everloop.demo.events import Month, month_start
from everloop.demo.mishaps import broken_revision, wrong_unit
from everloop.demo.replay import Played, Player
from everloop.demo.stage import ADA, Stage, day
from everloop.demo.telling import Teller
from everloop.demo.turn import Turn
from everloop.workspace.operations import load_operations
from everloop.workspace.work.reproducing import reproduce_version

QUESTIONS = 2_000
"""Requests a month."""
FIRST, LAST = 5, 12
MISHAPS_BEFORE = 8
"""Before this month's replay a bad change is proposed, and a broken revision is let through."""


def tell(folder: Path, port: int, *, last: int = LAST, questions: int = QUESTIONS, stay: bool = False) -> None:
    """Tell the whole story in `folder`. `last` ends the year earlier; `stay` keeps the pages up until Ctrl-C.

    Raises `EverloopError` when a part of it does not work; what was made so far stays in the folder.
    """
    load_operations()
    teller = Teller()
    teller.chapter("A workspace", "A team's policy: nobody approves what they made. Ada builds, Grace reviews.")
    arrivals = Arrivals(folder)
    with teller.doing("starting server, worker and gateway"):
        stage = Stage(folder, port)
    with stage:
        year = Year(stage, teller, arrivals)
        year.first_model()
        for month in range(FIRST, last + 1):
            if month == MISHAPS_BEFORE:
                year.mishaps()
            year.month(month, questions)
        year.rewind()
        year.trace()
        year.repeat()
        _finish(stage, teller, folder, stay)


class Year:
    """What happens in 2013."""

    def __init__(self, stage: Stage, teller: Teller, arrivals: Arrivals) -> None:
        """Sign in; nothing has happened yet."""
        self.stage, self.teller, self.arrivals = stage, teller, arrivals
        self.turn = Turn(stage, teller)
        self.player = Player(stage, self.turn.ada)
        self.merged: list[tuple[Micros, int]] = []
        self.last = ""
        self.asked = self.failed = self.facts = 0

    def first_model(self) -> None:
        """January to April: capture, features, training, checks, approval, rollout."""
        teller, turn = self.teller, self.turn
        teller.chapter(
            "1. January to April",
            "Capture what arrived, join features as they were known then, train, check, have it approved, roll out.",
        )
        delivered = self.arrivals.deliver(range(1, 5))
        self.stage.set_time(month_start(5))
        teller.say(f"{delivered:,} flights and their weather arrived as files")
        with teller.doing("capture, datasets, point-in-time frame, training in a child process"):
            built = turn.build("sandbox/ada/first", message="First model")
        for done in built.results.steps:
            if done.step.startswith(("frame/delay_rows", "model/")):
                teller.say(f"{done.step} = {short(done.output)} in {done.seconds:.1f} s")
        with teller.doing("production's data by its standing grant, features online"):
            self._fresh_data()
        with teller.doing("checks, in the worker"):
            change = turn.propose("sandbox/ada/first", "First model of delays")
        turn.tell(change)
        turn.land(change)
        with teller.doing("rollout"):
            live = turn.settled("live", "settled")
        self.turn.ada.call("features.materialize", environment="production")
        self.merged.append((self.stage.workspace.clock.now(), change.number))
        teller.say(f"endpoint [bold]flights.delay[/] is {live.phase}, revision {short(live.serving)}")
        teller.note("first model, AUC on the holdout", _metric(self.turn, "roc_auc"))

    def month(self, month: int, questions: int) -> None:
        """Replay a month; then let the monitors look, and do what they lead to."""
        teller = self.teller
        name = iso(month_start(month))[:7]
        teller.chapter(
            f"2. {name} is replayed", "Every event feeds the online features when it is known; labels come at landing."
        )
        self.arrivals.deliver([month])
        events = Month(self.turn.project, self.arrivals, month, questions)
        with teller.doing("replay"):
            played = self.player.play(list(events.blocks()))
        self._count(played)
        teller.say(
            f"{played.facts:,} facts, {played.asked:,} requests, {played.failed} failed, {played.labels:,} labels"
        )
        with teller.doing("monitors, and the month's data by its standing grant"):
            looking = self.turn.ada.call("tasks.enqueue", kind="watch.tick", payload={"environment": "production"})
            self._fresh_data()
            ticked = self.stage.task_done(self.turn.ada, looking.id)
        self._tell_windows(ticked)
        self._act(ticked)

    def mishaps(self) -> None:
        """A bad change is refused; a broken revision is taken back during its canary."""
        self.teller.chapter("4. Two mishaps", "One that review must stop, one that only traffic shows.")
        wrong_unit(self.turn)
        month = Month(self.turn.project, self.arrivals, MISHAPS_BEFORE, 900)
        self.player.feed(month, until=self.stage.workspace.clock.now() + HOUR)
        played = broken_revision(self.turn, self.player, month.asked, self.stage.workspace.clock.now())
        self._count(played)

    def rewind(self) -> None:
        """Production goes back with one command; what was live when is a query."""
        teller, grace = self.teller, self.turn.grace
        sealed = self.turn.run_task("predictions.seal", {})
        teller.say(f"the year's predictions are sealed into {len(sealed['delay'])} dataset versions")
        self._compare()
        teller.chapter(
            "5. Going back", "An environment is a pointer: rolling back is one compare-and-swap, and history answers."
        )
        before = grace.call("environments.show", environment="production")
        back = grace.call("environments.rollback", environment="production", reason="shown in the demo")
        teller.say(f"back: production went from snapshot {before.number} to {back.number} ({back.message!r})")
        again = grace.call("environments.rollback", environment="production", to=before.snapshot, reason="and forward")
        teller.say(f"and forward again: snapshot {again.number} ({again.message!r})")
        for at, _number in self.merged[:3]:
            live = grace.call("environments.live_at", environment="production", time=iso(at + DAY))
            model = next((label for key, label in _by_key(live).items() if key == "model/delay"), "none")
            teller.say(f"live on {day(at + DAY)}: {model}, approved by {', '.join(live.approvers) or 'nobody'}")

    def trace(self) -> None:
        """One prediction, back to its rows, code, environment and approver."""
        self.teller.chapter("6. Tracing one answer", "From a prediction's id to everything that it came from.")
        traced = self.turn.ada.call("predictions.trace", id=self.last)
        said = traced.prediction
        self.teller.say(f"prediction {said.id}: asked {said.at}, answered {said.answer}, label {said.label}")
        for origin in traced.origins:
            self.teller.say(f"  {origin.role}: {origin.label} ({short(origin.id)})")
        people = f"authors {', '.join(traced.authors)}, approved by {', '.join(traced.approvers)}"
        self.teller.say(f"  let in by change #{traced.change}, {people}")

    def repeat(self) -> None:
        """The live model's recipe, run again in a clean process."""
        self.teller.chapter(
            "7. The same again?", "The live model's recipe in a clean process: do the bytes come out the same?"
        )
        live = self.turn.ada.call("environments.show", environment="production").entries["model/delay"]
        with self.teller.doing("training again"):
            verdict = reproduce_version(self.stage.context(ADA), live)
        self.teller.say(
            f"tier [bold]{verdict.tier}[/] in {verdict.seconds:.1f} s" + "".join(f"; {f}" for f in verdict.factors)
        )
        self.teller.note("reproduced model", verdict.tier)

    def _fresh_data(self) -> None:
        for name, rows in self.turn.refresh().items():
            if name == "departures":
                self.teller.say(f"production's head of departures: {rows:,} rows")

    def _count(self, played: Played) -> None:
        self.asked += played.asked
        self.failed += played.failed
        self.facts += played.facts
        self.last = played.last or self.last
        self.teller.figures[:] = [f for f in self.teller.figures if not f[0].startswith("replayed")]
        self.teller.note("replayed requests, failed", f"{self.asked:,}, {self.failed}")
        self.teller.note("replayed facts into online features", f"{self.facts:,}")

    def _compare(self) -> None:
        """What was served all year must be what batch computes, bit for bit."""
        with self.teller.doing("a sample of what was served, computed again in batch"):
            wanted = {"environment": "production", "start": month_start(FIRST), "sample": 2000}
            compared = self.turn.run_task("features.parity", wanted)["delay"]
        self.teller.say(f"replay parity: {compared['summary']}")
        values, different = int(compared["values"]), int(compared["different"])
        equal = 100 * (values - different) / values if values else 0.0
        self.teller.note("replay parity", f"{equal:.4g} % of {values:,} served values equal batch")

    def _tell_windows(self, ticked: dict[str, Any]) -> None:
        self.teller.say(f"{len(ticked['evaluated'])} windows evaluated")
        for alarm in self.turn.ada.call("alarms.list").alarms:
            self.teller.say(f"[yellow]alarm[/] ({alarm.state}): {alarm.title}")
        for reason in ticked["blocked"]:
            self.teller.say(f"[yellow]retraining held back[/]: {reason}")

    def _act(self, ticked: dict[str, Any]) -> None:
        """Retraining that fired: wait for its change, review it, merge it or close it."""
        for reason in ticked["fired"]:
            teller, turn = self.teller, self.turn
            teller.chapter(
                "3. Retraining", f"Fired by: {reason}. The worker builds in a sandbox of its own and opens a change."
            )
            task = next(t for t in turn.ada.call("tasks.list").tasks if t.kind == "flow.retrain")
            with teller.doing("retraining, in the worker"):
                result = self.stage.task_done(turn.ada, task.id)
            if result["change"] is None:
                teller.say(f"no change: {result['reason']}")
                continue
            change = turn.checked(result["change"])
            turn.tell(change)
            if all(check.state == "passed" for check in change.checks):
                turn.land(change)
                with teller.doing("canary starts"):
                    turn.settled("canary")
                self.merged.append((self.stage.workspace.clock.now(), change.number))
                teller.note(
                    f"retrained in {day(self.stage.workspace.clock.now())[:7]}, AUC on the holdout",
                    _metric(turn, "roc_auc"),
                )
            else:
                turn.ada.call("changes.close", number=change.number)
                teller.say(f"change #{change.number} is closed: the challenger did not hold")


def _finish(stage: Stage, teller: Teller, folder: Path, stay: bool) -> None:
    stage.measure()
    for name, peak in sorted(stage.peak.items(), key=lambda pair: -pair[1])[:5]:
        teller.note(f"peak memory of {name}", f"{peak / 1e6:.0f} MB")
    teller.note("the whole story took", f"{teller.seconds:.0f} s")
    command = f"cd {folder} && EVERLOOP_PROJECT=flights EVERLOOP_MODULE=flights everloop up --replay --user {ADA}"
    teller.end(f"Look at what it made: [bold]{command}[/]\nthen open the sign-in link that it prints.")
    if stay:
        teller.say(f"the pages are at {stage.url} until Ctrl-C")
        _until_interrupted(stage)


def _until_interrupted(stage: Stage) -> None:
    process = stage.running
    if process is not None:
        try:
            process.wait()
        except KeyboardInterrupt:
            return


def _metric(turn: Turn, name: str) -> str:
    listed = turn.ada.call("models.show", model="delay")
    return str(listed.metrics.get(name, "-"))[:6]


def _by_key(live: Any) -> dict[str, str]:
    return {key: live.labels.get(identity, identity) for key, identity in live.entries.items()}
