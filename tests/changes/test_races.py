"""Several people at once, in threads and in processes, on both databases."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from everloop.catalog import refs, versions
from everloop.core.errors import Conflict, EverloopError, PolicyRefused

AT_ONCE = 4

MERGER = """
import sys
from pathlib import Path
from everloop.catalog.context import Actor, Context
from everloop.catalog.engine import Catalog
from everloop.changes import merging, proposing
from everloop.core.clock import SystemClock
from everloop.core.errors import EverloopError
from everloop.store import DirectoryStore

url, home, *numbers = sys.argv[1:]
actor = Actor.of("bob", grants=["* */*@*"])
ctx = Context(actor, "flights", SystemClock(), Catalog.open(url), DirectoryStore(Path(home) / "objects"))
done = []
for number in map(int, numbers):
    try:
        merging.merge(ctx, proposing.Numbered(number=number))
    except EverloopError:
        continue
    done.append(number)
print(*done)
ctx.catalog.close()
"""


@pytest.fixture
def world(make_world, catalog):
    return make_world(catalog, "team")


def together(*acts):
    """Run acts at the same time; the errors of the tree come back as values."""

    def one(act):
        try:
            return act()
        except EverloopError as error:
            return error

    with ThreadPoolExecutor(len(acts)) as pool:
        return list(pool.map(one, acts))


def approved(world, key):
    change = world.proposal("ada", **{key: world.version(key.replace("__", "/"))})
    world.approve("bob", change.number)
    return change.number


def check_line(world, merges):
    """Production's log is one line from genesis to now, with one move a merge."""
    with world.root.read() as tx:
        moves = list(reversed(refs.log(tx, "flights", "env/production")))
        assert [m.old for m in moves[1:]] == [m.new for m in moves[:-1]]
        assert len(moves) == 1 + merges
        head = versions.get(tx, "flights", moves[-1].new)
        assert head.manifest["parents"][0] == (moves[-1].old)


def test_unrelated_merges_at_once_all_get_through(world):
    numbers = [approved(world, f"source__s{i}") for i in range(2 * AT_ONCE)]
    results = together(*(lambda n=n: world.merge("bob", n) for n in numbers))
    assert [r.state for r in results] == ["merged"] * len(numbers)
    assert {f"source/s{i}" for i in range(2 * AT_ONCE)} <= world.entries().keys()
    check_line(world, len(numbers))


def test_of_changes_to_one_key_one_gets_through(world):
    numbers = [approved(world, "source__same") for _ in range(AT_ONCE)]
    results = together(*(lambda n=n: world.merge("bob", n) for n in numbers))
    assert sum(not isinstance(r, EverloopError) for r in results) == 1
    assert all(isinstance(r, PolicyRefused) for r in results if isinstance(r, EverloopError))
    check_line(world, 1)


def test_one_change_merges_once_or_is_closed(world):
    number = approved(world, "source__same")
    acts = [lambda: world.merge("bob", number)] * AT_ONCE + [lambda: world.close("ada", number)] * 2
    results = together(*acts)
    assert sum(not isinstance(r, EverloopError) for r in results) == 1
    assert all(isinstance(r, Conflict) for r in results if isinstance(r, EverloopError))
    state = world.show(number).state
    assert ("source/same" in world.entries()) is (state == "merged")


def test_numbers_of_proposals_at_once_have_no_gap(world):
    sandboxes = [world.sandbox("ada") for _ in range(AT_ONCE)]
    for i, sandbox in enumerate(sandboxes):
        world.commit("ada", sandbox, **{f"source__s{i}": world.version(f"source/s{i}")})
    found = together(*(lambda s=s: world.propose("ada", s) for s in sandboxes))
    assert sorted(c.number for c in found) == list(range(1, AT_ONCE + 1))


def test_commits_at_once_lose_nothing(world):
    sandbox = world.sandbox("ada")
    made = [world.version(f"source/s{i}") for i in range(AT_ONCE)]
    results = together(
        *(lambda i=i: world.commit("ada", sandbox, **{f"source__s{i}": made[i]}) for i in range(AT_ONCE))
    )
    assert not [r for r in results if isinstance(r, EverloopError)]
    assert set(made) <= set(results[-1].entries.values()) | set(world.entries(sandbox).values())
    assert set(made) <= set(world.entries(sandbox).values())


def test_rollback_against_merges(world):
    world.merge("bob", approved(world, "source__first"))
    numbers = [approved(world, f"source__s{i}") for i in range(AT_ONCE)]
    acts = [lambda n=n: world.merge("bob", n) for n in numbers] + [lambda: world.rollback("bob")]
    results = together(*acts)
    merged = [r for r in results[:-1] if not isinstance(r, EverloopError)]
    assert len(merged) == AT_ONCE
    with world.root.read() as tx:
        moves = refs.log(tx, "flights", "env/production")
    assert [m.old for m in moves[:-1]] == [m.new for m in moves[1:]]


def test_processes_merge_each_change_once(world, tmp_path):
    numbers = [str(approved(world, f"source__s{i % 4}")) for i in range(8)]
    command = [sys.executable, "-c", MERGER, world.root.catalog.url, str(tmp_path), *numbers]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    done = [p.communicate(timeout=60)[0].split() for p in running]
    assert all(p.returncode == 0 for p in running)
    merged = sorted(n for of_process in done for n in of_process)
    assert len(merged) == len(set(merged)) == 4  # two changes to each of four keys
    check_line(world, 4)
