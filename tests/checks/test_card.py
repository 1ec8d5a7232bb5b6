"""The card says what is recorded, and says so where nothing is."""

from dataclasses import replace
from html.parser import HTMLParser

import pytest

from everloop.catalog import refs, steps, versions
from everloop.catalog.governance import changes as rows
from everloop.catalog.governance.changes import ApprovalRow, Change
from everloop.catalog.making import uses
from everloop.catalog.making.uses import UseRow
from everloop.catalog.operation import invoke
from everloop.checks.card import Card, Row, Section, provided
from everloop.checks.card_facts import ShowCard, card, show_card
from everloop.checks.record import record_finding
from everloop.checks.request import CheckRequest, Finding
from everloop.core.errors import InvalidInput, NotFound
from everloop.core.snapshot import Snapshot, delta_id
from everloop.core.version import Version

OBJECTIVE = {"name": "on_time", "metric": "roc_auc", "at_least": "0.7", "owner": ""}


class World:
    def __init__(self, ctx):
        self.ctx = ctx
        self.objective = self.put("objective/on_time", OBJECTIVE)
        self.check = self.put("check/good", {"name": "good"})
        self.data = self.put("data/departures", {"rows": 336_776})
        self.frame = self.put("frame/delay", {"rows": 1000}, [("spine", self.data)])
        self.holdout = self.put("frame/delay_holdout", {"rows": 200}, [("spine", self.data)])
        self.trainer = self.put("trainer/delay", {"card": {"intended_purpose": "Warn <b>travellers</b> | early"}})
        self.service = self.put("service/inputs", {"views": {}})
        self.runtime = self.put("runtime/runtime", {"python": "3.12.4"})
        self.code = self.put("code/flights", {"commit": "abc123"})
        manifest = {
            "estimator": "sklearn.Boosting", "digest": "b3:" + "d" * 64, "label": "late", "service": self.service,
            "trainer": self.trainer, "frame": self.frame, "holdout": self.holdout,
            "signature": {"inputs": [{"name": "distance"}, {"name": "load__count"}], "output": "probability"},
            "metrics": {"roc_auc": "0.7312345", "brier": "0.12"},
        }  # fmt: skip
        made = [("frame", self.frame), ("holdout", self.holdout)]
        self.model = self.put("model/delay", manifest, made)
        step = steps.StepRow(
            "b3:" + "e" * 64, "model/delay", self.model, self.code, self.runtime, {"learning_rate": 0.1},
            {"frame": self.frame}, 5, seconds=2.5, cpu_seconds=4.0, peak_memory=2**28, run="run-1",
        )  # fmt: skip
        with ctx.write() as tx:
            steps.record(tx, ctx.project, step)

    def put(self, key, manifest, inputs=()):
        kind, name = key.split("/")
        version = Version(kind, name, manifest, tuple(inputs))
        with self.ctx.write() as tx:
            versions.put(tx, self.ctx.project, version, actor="ada", at=1_000_000)
        return version.id

    def checked(self):
        request = CheckRequest(
            1, "production", "", "b3:" + "1" * 64, "b3:" + "2" * 64, "good", self.check, "f:good", ("delay",),
            {"delay": self.model}, {}, self.objective, OBJECTIVE,
        )  # fmt: skip
        figures = {"roc_auc": "0.7312345", "roc_auc_low": "0.72", "roc_auc_high": "0.74"}
        slices = {"slices": [{"slice": "origin=JFK", "rows": 90, "metric": "roc_auc", "value": "0.69"}]}
        record_finding(self.ctx, request, Finding("passed", "meets it", figures, {"details": slices}))

    def merged(self):
        delta = {"model/delay": (None, self.model)}
        snapshot = Snapshot({"model/delay": self.model}).version()
        change = Change(
            1, "First model", "", "", "production", snapshot.id, snapshot.id, delta, delta_id(delta), "merged",
            ("ada",), "ada", 1, 1, merged_at=2_000_000, merged_by="ada", merge_snapshot=snapshot.id, approvers=("ada",),
        )  # fmt: skip
        later = {"model/delay": (self.model, None)}
        gone = replace(change, number=2, title="Removes it", delta=later, delta_id=delta_id(later), merge_snapshot="x")
        approval = ApprovalRow(0, 1, "ada", frozenset({"approver"}), False, change.delta_id, "p", "e", 2, "")
        with self.ctx.write() as tx:
            versions.put(tx, self.ctx.project, snapshot, actor="ada", at=1)
            rows.create(tx, self.ctx.project, change)
            rows.create(tx, self.ctx.project, gone)
            rows.add_approval(tx, self.ctx.project, approval)
            for name in ("env/production", "env/sandbox/ada/x"):
                refs.move(tx, self.ctx.project, name, old=None, new=snapshot.id, actor="ada", at=3_000_000)


@pytest.fixture
def world(context):
    return World(context)


def test_a_fresh_model_has_a_card_with_gaps(world):
    found = card(world.ctx, "model/delay")
    text = found.markdown()
    assert found.title == "Model card: delay v1"
    assert "NOT PROVIDED by owner" in text
    assert "Known limits and foreseeable harm" in found.missing
    assert "Intended purpose" not in found.missing
    assert "Warn \\<b\\>travellers\\</b\\> \\| early" in text
    for fact in ("336,776", "training frame", "holdout", "abc123", "Python 3.12.4", "learning\\_rate", "0.7312"):
        assert fact in text, fact
    assert "## Where it is live\n\n| environment" in text


def test_what_a_model_took_is_on_it_alone_and_with_what_it_was_made_from(world):
    ctx, model, frame = world.ctx, "b3:" + "e" * 64, "b3:" + "f" * 64
    assert "Compute and cost" not in card(ctx, "model/delay").markdown()
    made = steps.StepRow(frame, "frame/delay", world.frame, world.code, world.runtime, {}, {}, 4)

    def use(recipe, cost, **more):
        whole = {"currency": "EUR", "seconds": 2.0, "cpu_seconds": 3.0, "peak_memory": 2**20, **more}
        return UseRow("any", "ada", 1, 2, recipe=recipe, cost=cost, **whole)

    with ctx.write() as tx:
        steps.record(tx, ctx.project, made)
        uses.record(
            tx,
            ctx.project,
            [
                use(model, 1_500_000, peak_memory=5 * 2**20, gpu_seconds=1.0),
                use(model, 500_000, state="failed"),
                use(frame, 250_000),
                use("b3:another", 9_000_000),
            ],
        )
    found = next(s for s in card(ctx, "model/delay").sections if s.title == "Compute and cost")
    assert found.table == (
        ("this model", "2.0000 EUR", "6.0", "1.0", "4.0", "5", "2"),
        ("with all it was made from", "2.2500 EUR", "9.0", "1.0", "6.0", "5", "3"),
    )


def test_checks_reviews_and_places_are_on_it(world):
    world.checked()
    world.merged()
    found = card(world.ctx, world.model)
    text = found.markdown()
    assert "\\[0.7200, 0.7400\\]" in text
    assert "roc\\_auc ≥ 0.7" in text
    assert "Owner of on_time" in found.missing
    assert "origin=JFK" in text
    assert found.warnings == ("Self-approved by ada for production (solo policy), change #1",)
    review = next(s for s in found.sections if s.title == "Review")
    assert [row[0] for row in review.table] == ["#1 First model"]  # not the change that removes it
    assert review.table[0][4] == "ada (approver)"
    live = next(s for s in found.sections if s.title == "Where it is live")
    assert [row[0] for row in live.table] == ["production"]


class Balanced(HTMLParser):
    def __init__(self):
        super().__init__()
        self.open, self.text = [], ""

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_the_html_is_well_formed_and_escaped(world):
    world.checked()
    world.merged()
    view = invoke(world.ctx, show_card, ShowCard(model="model/delay@1"))
    parser = Balanced()
    parser.feed(view.html)
    assert parser.open == []
    assert "<b>travellers</b>" not in view.html
    assert "Warn <b>travellers</b> | early" in parser.text
    assert view.warnings
    assert view.missing


def test_only_models_have_cards(world):
    with pytest.raises(InvalidInput, match="is a data"):
        card(world.ctx, "data/departures")
    with pytest.raises(NotFound):
        card(world.ctx, "model/fare")


def test_completeness_counts_fields():
    rows_ = (Row("a", "1"), provided("b", "  ", "owner"), provided("c", "x", "owner"))
    made = Card("b3:x", "t", (Section("s", rows_), Section("empty")))
    assert made.completeness == "2 of 3 fields"
    assert "None." in made.markdown()
    assert "<p>None.</p>" in made.html()
