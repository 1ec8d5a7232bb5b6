"""Steps that ran; one suite over both databases."""

from dataclasses import replace

from everloop.catalog import steps
from everloop.catalog.steps import StepRow

P = "flights"
ROW = StepRow(
    recipe="r1", step="frame/x", output="v1", code="c1", runtime="e1", params={"rate": 0.1}, inputs={"a": "v0"}, at=5,
    digest="d", seconds=1.5, cpu_seconds=1.25, peak_memory=1 << 40, run="run-1",
)  # fmt: skip


def test_a_recipe_finds_its_latest_success(catalog):
    with catalog.write() as tx:
        assert steps.lookup(tx, P, "r1") is None
        steps.record(tx, P, replace(ROW, status="failed", output=None))
        assert steps.lookup(tx, P, "r1") is None
        steps.record(tx, P, ROW)
        steps.record_many(tx, P, [replace(ROW, output="v2"), replace(ROW, output="v2", cached=True, run="run-2")])
        steps.record_many(tx, P, [])
        found = steps.lookup(tx, P, "r1")
        assert steps.lookup(tx, "other", "r1") is None
        assert steps.of_output(tx, P, "v1") == [ROW]
        assert [row.cached for row in steps.of_output(tx, P, "v2")] == [False]
        assert [(row.status, row.output) for row in steps.of_run(tx, P, "run-1")] == [
            ("failed", None), ("done", "v1"), ("done", "v2"),
        ]  # fmt: skip
    assert found == replace(ROW, output="v2")
