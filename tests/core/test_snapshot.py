"""Laws of diff and merge, and a state machine that merges as people do."""

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, rule

from everloop.core.snapshot import apply_delta, delta_id, diff, merge

maps = st.dictionaries(st.sampled_from("abcde"), st.sampled_from("123"), max_size=5)


@given(maps, maps)
def test_a_diff_applied_gives_the_other(old, new):
    delta = diff(old, new)
    assert apply_delta(old, delta) == new
    assert all(before != after for before, after in delta.values())
    assert diff(old, old) == {}
    assert list(delta) == sorted(delta)


@given(maps, maps)
def test_a_delta_back_undoes_it(old, new):
    back = {key: (after, before) for key, (before, after) in diff(old, new).items()}
    assert apply_delta(new, back) == old
    assert back == diff(new, old)


@given(maps, maps)
def test_merging_with_what_did_not_move_takes_the_other(base, side):
    for merged in (merge(base, side, base), merge(base, base, side), merge(base, side, side)):
        assert merged.clean
        assert merged.entries == side


@given(maps, maps, maps)
def test_a_merge_is_symmetric_but_for_conflicts(base, ours, theirs):
    one, other = merge(base, ours, theirs), merge(base, theirs, ours)
    assert one.conflicts == other.conflicts
    for key in set(one.entries) | set(other.entries):
        if key not in one.conflicts:
            assert one.entries.get(key) == other.entries.get(key)


@given(maps, maps, maps)
def test_a_merge_holds_both_deltas_and_nothing_else(base, ours, theirs):
    merged = merge(base, ours, theirs)
    mine, yours = diff(base, ours), diff(base, theirs)
    assert set(merged.conflicts) == {k for k in mine.keys() & yours.keys() if mine[k] != yours[k]}
    for key in set(base) | set(ours) | set(theirs):
        expected = ours.get(key) if key in mine else theirs.get(key)
        assert merged.entries.get(key) == expected
    if merged.clean:
        assert merged.entries == apply_delta(apply_delta(base, mine), yours)


@given(maps, maps)
def test_the_digest_of_a_delta_is_that_of_its_content(old, new):
    delta = diff(old, new)
    assert delta_id(delta) == delta_id(dict(reversed(delta.items())))
    assert (delta_id(delta) == delta_id({})) == (old == new)


class Merging(RuleBasedStateMachine):
    """People branch from a trunk, change keys and merge: a clean merge loses nobody's last word."""

    branches = Bundle("branches")

    @initialize()
    def start(self):
        self.trunk = {}
        self.last_word = {}  # key -> what the trunk must hold

    @rule(target=branches)
    def branch(self):
        return {"base": dict(self.trunk), "own": dict(self.trunk), "merged": False}

    @rule(branch=branches, key=st.sampled_from("abc"), value=st.sampled_from("123") | st.none())
    def change(self, branch, key, value):
        if value is None:
            branch["own"].pop(key, None)
        else:
            branch["own"][key] = value

    @rule(branch=branches)
    def land(self, branch):
        delta = diff(branch["base"], branch["own"])
        moved_meanwhile = diff(branch["base"], self.trunk)
        merged = merge(branch["base"], self.trunk, branch["own"])
        collisions = {k for k in delta if k in moved_meanwhile and moved_meanwhile[k] != delta[k]}
        assert set(merged.conflicts) == collisions
        if not merged.clean:
            return
        self.trunk = dict(merged.entries)
        self.last_word.update({key: new for key, (_, new) in delta.items()})
        assert {k: self.trunk.get(k) for k in self.last_word} == self.last_word
        branch["base"], branch["own"] = dict(self.trunk), dict(self.trunk)


Merging.TestCase.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
TestMerging = Merging.TestCase
