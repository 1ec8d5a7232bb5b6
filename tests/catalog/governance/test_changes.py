from contextlib import suppress
from dataclasses import replace

import pytest

from everloop.catalog.governance import changes as rows
from everloop.catalog.governance import results
from everloop.catalog.governance.changes import ApprovalRow, Change, Comment, EnvironmentRow
from everloop.catalog.governance.results import Result
from everloop.core.errors import Conflict, NotFound

DELTA = {"model/delay": (None, "b3:new"), "view/load": ("b3:old", None)}


def change(number, **more):
    given = {
        "title": "t",
        "description": "",
        "source": "sandbox/ada/x",
        "target": "production",
        "base": "b",
        "head": "h",
    }
    given |= {"delta": DELTA, "delta_id": "d", "state": "open", "authors": ("ada", "bob"), "actor": "ada", "at": 5}
    return Change(number=number, updated=5, **{**given, **more})


def test_a_change_comes_back_as_it_was_written(catalog):
    with catalog.write() as tx:
        rows.create(tx, "p", change(rows.take_number(tx, "p")))
    with catalog.read() as tx:
        assert rows.get(tx, "p", 1) == change(1)
        with pytest.raises(NotFound, match="no change #1"):
            rows.get(tx, "other", 1)


def test_numbers_count_up_in_each_project_and_roll_back(catalog):
    with catalog.write() as tx:
        assert [rows.take_number(tx, "p") for _ in range(3)] == [1, 2, 3]
        assert rows.take_number(tx, "other") == 1
    with suppress(ZeroDivisionError), catalog.write() as tx:
        rows.take_number(tx, "p")
        raise ZeroDivisionError
    with catalog.write() as tx:
        assert rows.take_number(tx, "p") == 4


def test_replacing_compares_state_delta_and_head(catalog):
    merged = change(1, state="merged", merged_at=7, merged_by="bob", merge_snapshot="s", approvers=("bob",))
    with catalog.write() as tx:
        rows.create(tx, "p", change(1))
        rows.replace(tx, "p", change(1), merged)
    with catalog.read() as tx:
        assert rows.get(tx, "p", 1) == merged
        assert rows.by_merge(tx, "p", "s") == merged
        assert rows.by_merge(tx, "p", "") is rows.by_merge(tx, "p", "x") is None
    for stale in (change(1), replace(merged, delta_id="e"), replace(merged, head="i")):
        with pytest.raises(Conflict, match="changed meanwhile"), catalog.write() as tx:
            rows.replace(tx, "p", stale, merged)


def test_finding_pages_backwards(catalog):
    with catalog.write() as tx:
        for n in range(1, 6):
            rows.create(tx, "p", change(n, target="staging" if n % 2 else "production", delta={}))
        rows.create(tx, "p", change(6, state="closed"))
    with catalog.read() as tx:
        assert [c.number for c in rows.find(tx, "p", limit=2)] == [6, 5]
        assert [c.number for c in rows.find(tx, "p", limit=2, before=5)] == [4, 3]
        assert [c.number for c in rows.find(tx, "p", state="open", target="staging")] == [5, 3, 1]
        assert [c.number for c in rows.touching(tx, "p", "b3:new")] == [6]
        assert rows.touching(tx, "p", "b3:%") == []


def test_approvals_comments_and_environments(catalog):
    approval = ApprovalRow(0, 1, "bob", frozenset({"approver", "deployer"}), False, "d", "p", "e", 9, "fine")
    with catalog.write() as tx:
        rows.create(tx, "p", change(1))
        identity = rows.add_approval(tx, "p", approval)
        rows.add_comment(tx, "p", Comment(0, 1, "bob", 9, "why?"))
        for base in ("production", "staging"):
            rows.add_environment(tx, "p", EnvironmentRow("sandbox/ada/x", base, "s", "ada", 9))
    with catalog.read() as tx:
        assert rows.approvals_of(tx, "p", 1) == [replace(approval, id=identity)]
        assert [c.text for c in rows.comments_of(tx, "p", 1)] == ["why?"]
        assert rows.environment(tx, "p", "sandbox/ada/x").base == "production"
        assert rows.environment(tx, "other", "sandbox/ada/x") is None
        assert list(rows.environment_rows(tx, "p")) == ["sandbox/ada/x"]
    with pytest.raises(Conflict), catalog.write() as tx:
        rows.add_approval(tx, "p", replace(approval, number=9))


def test_results_are_found_by_delta_and_by_evidence(catalog):
    first = Result("c", "o", "good", "d", "production", {"delay": "m"}, {"rows": "x"}, "e1", "failed", "no", "ada", 5)
    second = replace(first, evidence="e2", state="passed", figures={"auc": "0.7"})
    with catalog.write() as tx:
        ids = [results.record(tx, "p", r) for r in (first, second)]
    with catalog.read() as tx:
        assert results.of(tx, "p", "d") == [replace(second, id=ids[1]), replace(first, id=ids[0])]
        assert results.of(tx, "other", "d") == []
        assert [r.evidence for r in results.of_evidence(tx, "p", {"e1"})] == ["e1"]
