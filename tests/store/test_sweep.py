"""Sweeping: a state machine against a dictionary of ages, and the race with a put."""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from everloop.core.ids import object_id
from everloop.store import DirectoryStore

GRACE = 1000.0


def age(store, identity, seconds):
    then = time.time() - seconds
    os.utime(store.path(identity), (then, then))


def test_only_what_is_old_and_unwanted_goes(store):
    kept, young, old = (store.put(content) for content in (b"kept", b"young", b"old!"))
    for identity in (kept, old):
        age(store, identity, 2 * GRACE)
    trial = store.sweep({kept}.__contains__, GRACE, dry_run=True)
    assert (trial.removed, trial.bytes, trial.kept, trial.dry_run) == ((old,), 4, 2, True)
    assert store.has(old)
    done = store.sweep({kept}.__contains__, GRACE)
    assert (done.removed, done.bytes, done.kept, done.dry_run) == ((old,), 4, 2, False)
    assert sorted(store.ids()) == sorted([kept, young])


def test_an_object_that_is_put_again_while_the_sweep_decides_stays(store):
    identity = store.put(b"x")
    age(store, identity, 2 * GRACE)

    def nobody_wants_it_but_somebody_puts_it_again(_identity):
        store.put(b"x")
        return False

    swept = store.sweep(nobody_wants_it_but_somebody_puts_it_again, GRACE)
    assert (swept.removed, swept.kept) == ((), 1)
    assert store.get(identity) == b"x"


def test_foreign_files_are_left_alone(store):
    store.put(b"x")
    stranger = store.root / "ab" / "readme.txt"
    stranger.parent.mkdir(exist_ok=True)
    stranger.write_text("hello")
    os.utime(stranger, (1, 1))
    store.sweep(lambda _: False, GRACE)
    assert stranger.exists()


WRITER = """
import os, random, sys, time
from everloop.store import DirectoryStore

store, until, rounds = DirectoryStore(sys.argv[1]), time.monotonic() + 2, 0
while time.monotonic() < until:
    content = b"%d %d" % (os.getpid(), random.randrange(8))
    identity = store.put(content)  # new, or renewed while the sweep looks at it
    assert store.get(identity) == content
    os.utime(store.path(identity), (1, 1))  # from now on it may go
    rounds += 1
print(rounds)
"""


def test_what_other_processes_put_while_a_sweep_runs_is_there(store):
    command = [sys.executable, "-c", WRITER, str(store.root)]
    writers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    removed = 0
    while any(writer.poll() is None for writer in writers):
        removed += len(store.sweep(lambda _: False, GRACE).removed)
    rounds = [int(writer.communicate()[0] or 0) for writer in writers]
    assert [writer.returncode for writer in writers] == [0, 0]
    assert min(rounds) > 20
    assert removed > 20


class SweepAgainstADictionary(RuleBasedStateMachine):
    """Whatever was put, wanted, aged and swept: exactly the old and unwanted objects are gone."""

    contents = st.sampled_from([b"a", b"b", b"c", b"d"])

    def __init__(self):
        super().__init__()
        self._folder = tempfile.TemporaryDirectory()
        self.store = DirectoryStore(Path(self._folder.name))
        self.old = {}  # content -> whether it is older than the grace period
        self.wanted = set()

    def teardown(self):
        self._folder.cleanup()

    @rule(content=contents)
    def put(self, content):
        self.store.put(content)
        self.old[content] = False

    @rule(content=contents)
    def want(self, content):
        self.wanted ^= {content}

    @rule(content=contents)
    def grow_old(self, content):
        if content in self.old:
            age(self.store, object_id(content), 2 * GRACE)
            self.old[content] = True

    @rule(dry_run=st.booleans())
    def sweep(self, dry_run):
        wanted = {object_id(content) for content in self.wanted}
        swept = self.store.sweep(wanted.__contains__, GRACE, dry_run=dry_run)
        doomed = {content for content, old in self.old.items() if old and content not in self.wanted}
        assert set(swept.removed) == {object_id(content) for content in doomed}
        assert swept.kept == len(self.old) - len(doomed)
        if not dry_run:
            for content in doomed:
                del self.old[content]

    @invariant()
    def exactly_these_are_here(self):
        assert set(self.store.ids()) == {object_id(content) for content in self.old}


SweepAgainstADictionary.TestCase.settings = settings(max_examples=30, stateful_step_count=20, deadline=None)
TestSweepAgainstADictionary = SweepAgainstADictionary.TestCase
