"""Evaluation datasets, scorers and webhooks on both databases."""

import pytest

from everloop.catalog import facts
from everloop.catalog.chain import seal
from everloop.catalog.genai import datasets, scorers
from everloop.catalog.genai.rows import Record
from everloop.catalog.operating import webhooks
from everloop.catalog.operating.webhooks import Webhook
from everloop.catalog.tracking import experiments
from everloop.core.errors import Conflict, NotFound


@pytest.fixture
def tx(catalog):
    with catalog.write() as opened:
        experiments.ensure_default(opened, "flights", 1)
        yield opened


def test_datasets_merge_page_and_go(tx):
    made = datasets.create(tx, "flights", "qa", actor="ada", at=1, experiment_ids=["0"], tags={"a": 1})
    given = [Record({"q": number}, expectations={"x": number}) for number in range(5)]
    assert datasets.upsert(tx, "flights", made.id, given, schema=None, by="ada", at=2) == (5, 0)
    again = [Record({"q": 0}, expectations={"y": 1}, tags={"t": "u"})]
    assert datasets.upsert(tx, "flights", made.id, again, schema="{}", by="bob", at=3) == (0, 1)
    first = datasets.records(tx, "flights", made.id, limit=3)
    rest = datasets.records(tx, "flights", made.id, limit=3, token=first.token)
    assert [one.inputs["q"] for one in (*first.rows, *rest.rows)] == [0, 1, 2, 3, 4]
    assert (first.rows[0].expectations, first.rows[0].updated_by) == ({"x": 0, "y": 1}, "bob")
    found = datasets.search(tx, "flights", experiment_ids=["0"], filter_text="tags.a = '1'", order_by=["name DESC"])
    assert [(one.id, one.profile) for one in found.rows] == [(made.id, '{"num_records": 5}')]
    assert datasets.search(tx, "other").rows == ()
    assert datasets.remove_records(tx, "flights", made.id, [first.rows[0].id, "dr-none"], at=4) == 1
    datasets.remove(tx, "flights", made.id)
    with pytest.raises(NotFound):
        datasets.records(tx, "flights", made.id)


def test_a_scorers_numbers_are_never_given_again(tx):
    assert [scorers.register(tx, "flights", "0", "s", text, at=1).number for text in "ab"] == [1, 2]
    scorers.remove(tx, "flights", "0", "s", 2)
    assert scorers.register(tx, "flights", "0", "s", "c", at=1).number == 3
    assert [one.body for one in scorers.versions(tx, "flights", "0", "s")] == ["a", "c"]
    assert [one.body for one in scorers.newest(tx, "flights", ["0", "x"])] == ["c"]
    config = scorers.configure(tx, "flights", "0", "s", rate=0.5, filter_text=None)
    assert scorers.configs(tx, "flights", [config.scorer]) == [config]
    scorers.remove(tx, "flights", "0", "s")
    assert scorers.configs(tx, "flights", [config.scorer]) == []
    with pytest.raises(NotFound):
        scorers.get(tx, "flights", "0", "s")


def test_the_log_is_read_by_one_worker_at_a_time(each_context):
    ctx = each_context
    with ctx.write() as tx:
        hook = Webhook(webhooks.new_id(), "h", "https://x", ("prompt.created",), "ACTIVE", created=1, updated=1)
        webhooks.create(tx, ctx.project, hook)
        facts.append(tx, ctx.project, ctx.fact("registry.prompt.created", "model/m"))
    with ctx.read() as tx:
        assert webhooks.behind(tx) == {}  # not sealed yet
    seal(ctx.catalog, ctx.clock)
    with ctx.read() as tx:
        assert webhooks.behind(tx) == {ctx.project: 0}
        assert [one.id for one in webhooks.listening(tx, ctx.project)["prompt.created"]] == [hook.id]
    with ctx.write() as tx:
        webhooks.advance(tx, ctx.project, old=0, new=1)
    with pytest.raises(Conflict), ctx.write() as tx:
        webhooks.advance(tx, ctx.project, old=0, new=1)
