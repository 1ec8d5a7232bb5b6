"""Refs; one suite over both databases, and a state machine against a dictionary."""

from contextlib import nullcontext

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from everloop.catalog import refs, versions
from everloop.core.errors import Conflict, InvalidInput, NotFound
from everloop.core.version import Version

P = "flights"
VERSIONS = [Version("snapshot", "snapshot", {"n": n}) for n in range(4)]
A, B, C, D = (version.id for version in VERSIONS)


@pytest.fixture
def filled(catalog):
    with catalog.write() as tx:
        versions.put_many(tx, P, VERSIONS, actor="ada", at=0)
    return catalog


def test_a_ref_is_made_moved_and_deleted_only_from_where_it_is(filled):
    with filled.write() as tx:
        assert refs.get(tx, P, "env/x") is None
        refs.move(tx, P, "env/x", old=None, new=A, actor="ada", at=1)
        refs.move(tx, P, "env/x", old=A, new=B, actor="bob", at=2, reason="because", change="change-1")
    for old, new in ((None, C), (A, C), (C, A)):
        with pytest.raises(Conflict) as caught, filled.write() as tx:
            refs.move(tx, P, "env/x", old=old, new=new, actor="eve", at=3)
        assert caught.value.details == {"current": B}
    with pytest.raises(Conflict), filled.write() as tx:
        refs.delete(tx, P, "env/x", old=A, actor="eve", at=3)
    with filled.write() as tx:
        refs.delete(tx, P, "env/x", old=B, actor="ada", at=4)
        assert refs.get(tx, P, "env/x") is None
        moves = refs.log(tx, P, "env/x")
    assert [(m.old, m.new, m.actor, m.at, m.reason, m.change) for m in moves] == [
        (B, None, "ada", 4, "", ""),
        (A, B, "bob", 2, "because", "change-1"),
        (None, A, "ada", 1, "", ""),
    ]


def test_what_was_live_at_a_time(filled):
    with filled.write() as tx:
        refs.move(tx, P, "env/x", old=None, new=A, actor="ada", at=10)
        refs.move(tx, P, "env/x", old=A, new=B, actor="ada", at=20)
        refs.move(tx, P, "env/x", old=B, new=C, actor="ada", at=20)
        refs.delete(tx, P, "env/x", old=C, actor="ada", at=30)
        live = [refs.at(tx, P, "env/x", time) for time in (9, 10, 19, 20, 29, 30, 99)]
        assert live == [None, A, A, C, C, None, None]


def test_a_prefix_lists_only_what_starts_with_it(filled):
    names = [refs.env_ref("a"), refs.env_ref("ab"), refs.head_ref("a", "x"), refs.alias_ref("model", "d", "champion")]
    with filled.write() as tx:
        for name in names:
            refs.move(tx, P, name, old=None, new=A, actor="ada", at=1)
        assert list(refs.all(tx, P)) == sorted(names)
        assert refs.all(tx, P, "env/a") == {"env/a": A, "env/ab": A}
        assert refs.all(tx, P, "ENV/") == refs.all(tx, P, "env/%") == refs.all(tx, "other") == {}


def test_a_ref_points_to_a_version_of_its_project(filled):
    for project, target in ((P, "b3:" + "0" * 64), ("other", A)):
        with pytest.raises(NotFound), filled.write() as tx:
            refs.move(tx, project, "env/x", old=None, new=target, actor="ada", at=1)
    with pytest.raises(InvalidInput), filled.write() as tx:
        refs.move(tx, P, "env/x", old=None, new="delay", actor="ada", at=1)
    with pytest.raises(InvalidInput), filled.write() as tx:
        refs.move(tx, P, "production", old=None, new=A, actor="ada", at=1)
    with pytest.raises(InvalidInput):
        refs.alias_ref("animal", "cat", "x")


def test_the_log_is_read_in_pages(filled):
    with filled.write() as tx:
        refs.move(tx, P, "env/x", old=None, new=A, actor="ada", at=0)
        for n in range(5):
            refs.move(tx, P, "env/x", old=A if n % 2 == 0 else B, new=B if n % 2 == 0 else A, actor="ada", at=n)
        first = refs.log(tx, P, "env/x", limit=4)
        rest = refs.log(tx, P, "env/x", limit=4, before=first[-1].id)
        assert first + rest == refs.log(tx, P, "env/x")
        assert len(rest) == 2


class RefsAgainstADictionary(RuleBasedStateMachine):
    """Any order of moves, deletions and failures leaves refs, log and history as a dictionary and a list say."""

    catalog = None
    count = iter(range(10**9))

    @initialize()
    def start(self):
        self.project = f"machine-{next(self.count)}"
        self.model, self.moves, self.time = {}, [], 0
        with self.catalog.write() as tx:
            versions.put_many(tx, self.project, VERSIONS, actor="ada", at=0)

    def _act(self, name, old, new):
        self.time += 1
        expected = self.model.get(name) == old
        outcome = nullcontext() if expected else pytest.raises(Conflict)
        with outcome as refused, self.catalog.write() as tx:
            if new is None:
                refs.delete(tx, self.project, name, old=old, actor="ada", at=self.time)
            else:
                refs.move(tx, self.project, name, old=old, new=new, actor="ada", at=self.time)
        if not expected:
            assert refused.value.details["current"] == self.model.get(name)
            return
        self.moves.append((name, old, new, self.time))
        self.model.pop(name, None)
        if new is not None:
            self.model[name] = new

    @rule(name=st.sampled_from(["env/a", "env/b"]), old=st.sampled_from([None, A, B]), new=st.sampled_from([A, B, C]))
    def move(self, name, old, new):
        self._act(name, old, new)

    @rule(name=st.sampled_from(["env/a", "env/b"]), new=st.sampled_from([A, B, C, D]))
    def move_from_where_it_is(self, name, new):
        self._act(name, self.model.get(name), new)

    @rule(name=st.sampled_from(["env/a", "env/b"]), old=st.sampled_from([A, B, C]))
    def delete(self, name, old):
        self._act(name, old, None)

    @rule(new=st.sampled_from([A, B]))
    def a_transaction_that_fails_changes_nothing(self, new):
        def interrupted():
            with self.catalog.write() as tx:
                refs.move(tx, self.project, "env/a", old=self.model.get("env/a"), new=new, actor="eve", at=self.time)
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            interrupted()

    @invariant()
    def refs_and_log_agree(self):
        if not hasattr(self, "project"):
            return
        with self.catalog.read() as tx:
            assert refs.all(tx, self.project) == self.model
            for name in ("env/a", "env/b"):
                log = [(m.name, m.old, m.new, m.at) for m in reversed(refs.log(tx, self.project, name, limit=1000))]
                assert log == [m for m in self.moves if m[0] == name]
                middle = self.time // 2
                then = [new for n, _, new, at in self.moves if n == name and at <= middle]
                assert refs.at(tx, self.project, name, middle) == (then[-1] if then else None)


def test_refs_against_a_dictionary(catalog):
    machine = type("Machine", (RefsAgainstADictionary,), {"catalog": catalog})
    run_state_machine_as_test(machine, settings=settings(max_examples=10, stateful_step_count=15, deadline=None))
