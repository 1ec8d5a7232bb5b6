"""What guardrails and experiments are judged on: answers from the prediction log, feedback and labels from the catalog.

Samples are in the order of time from where a revision began to answer, and end growing at 20,000 rows: a bound that
holds at all times may stop looking, but not leave out the beginning.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from everloop.catalog.context import Context
from everloop.catalog.operating import feedback, predictions
from everloop.catalog.operating.predictions import PredictionRow
from everloop.core.clock import DAY, SECOND, Micros
from everloop.core.errors import NotFound
from everloop.serving import segments
from everloop.serving.rollout.judging import ALPHA, Finding, Sample, answer_of, judge, loss
from everloop.serving.rollout.sequential import Sums

MOST = 20_000
_BEFORE: Micros = 7 * DAY
"""How far back a champion's rows are taken from, where it got none beside the new revision."""
_LOOK: Micros = SECOND
Answer = float | str


@dataclass(slots=True)
class Evidence:
    """What one controller decoded already, and its last findings with the time to look again."""

    answers: dict[str, dict[str, Answer | None]] = field(default_factory=dict)
    """By revision and prediction."""
    looked: dict[tuple[str, str, str], tuple[Micros, tuple[Finding, ...]]] = field(default_factory=dict)

    def findings(
        self, ctx: Context, endpoint: str, pair: tuple[str, str], guards: Sequence[Mapping[str, Any]], entered: Micros
    ) -> tuple[Finding, ...]:
        """Every guardrail of a revision against the champion (`pair`), once a second, from when it got traffic."""
        if not guards:
            return ()
        wall, key = ctx.wall(), (ctx.project, endpoint, pair[0])
        last = self.looked.get(key)
        if last is None or wall >= last[0]:
            until = ctx.now()
            found = []
            for guard in guards:
                its = self.sample(ctx, endpoint, pair[0], guard, entered)
                champion = self.sample(ctx, endpoint, pair[1], guard, entered)
                if champion.rows < guard["least"]:
                    champion = self.sample(ctx, endpoint, pair[1], guard, entered - _BEFORE, newest=True)
                found.append(judge(guard, its, champion, (entered, until), ALPHA / len(guards)))
            last = self.looked[key] = (self.again(ctx, wall), tuple(found))
        return last[1]

    @staticmethod
    def again(ctx: Context, began: Micros) -> Micros:
        """When to look again: in a second, or later when looking is slow, so that it takes a twentieth of the time."""
        now = ctx.wall()
        return now + max(_LOOK, (now - began) * 20)

    def forget(self, revisions: Sequence[str]) -> None:
        """Let go of what was decoded of these."""
        for revision in revisions:
            self.answers.pop(revision, None)

    def sample(
        self,
        ctx: Context,
        endpoint: str,
        revision: str,
        guard: Mapping[str, Any],
        start: Micros,
        *,
        newest: bool = False,
    ) -> Sample:
        """The values that a guardrail, or an experiment's metric, is about; of the newest rows instead of the first."""
        with ctx.read() as tx:
            if guard["guard"] == "business":
                metric = guard["metric"]
                pushed = feedback.pushed(tx, ctx.project, endpoint, metric, revision=revision, start=start)
                count, total, squares, named = feedback.of_revision(
                    tx, ctx.project, metric, revision=revision, start=start
                )
                return Sample(tuple(named), (), Sums(count, total, squares).plus(Sums(*pushed)))
            rows = predictions.of_revision(tx, ctx.project, revision, start, MOST, newest=newest)
            ids = [row.id for row in rows]
            labels = predictions.labels_of(tx, ctx.project, ids) if guard["guard"] == "quality" else {}
        answers = self._answered(
            ctx, revision, rows if guard["guard"] == "drift" else [r for r in rows if r.id in labels]
        )
        if guard["guard"] == "drift":
            texts = any(isinstance(answer, str) for answer in answers.values())
            alike = {i: str(a) if texts else a for i, a in answers.items() if a is not None}
            return Sample(tuple(alike), tuple(alike.values()))
        judged = {i: loss(guard["metric"], a, labels[i].value) for i, a in answers.items() if a is not None}
        known = {identity: value for identity, value in judged.items() if value is not None}
        return Sample(tuple(known), tuple(known.values()))

    def _answered(self, ctx: Context, revision: str, rows: Sequence[PredictionRow]) -> dict[str, Answer | None]:
        """One answer for each row; None where it is no number and no text, or its log is gone."""
        known = self.answers.setdefault(revision, {})
        new = sorted((r for r in rows if r.id not in known), key=lambda r: (r.gateway, r.segment, r.position, r.row))
        decoded: tuple[Any, list[list[Any]]] | None = None
        found = segments.entries(ctx.home, new)
        for index, place in enumerate(new):
            try:
                row, entry = next(found)
            except NotFound:  # its segment was removed by a rule
                known[place.id], found = None, segments.entries(ctx.home, new[index + 1 :])
                continue
            if decoded is None or decoded[0] is not entry:
                decoded = (entry, list(segments.answers_of(entry).values()))
            known[row.id] = answer_of([values[row.row] for values in decoded[1]])
        return {row.id: known[row.id] for row in rows}
