"""What every `core.ports.OnlineStore` must do. Call `check_online_store(open_store)` from a test."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

from everloop.core.ports import OnlineStore

Open = Callable[[], OnlineStore]
"""Opens the store; opened again after the last one was closed, it must find what was written."""
ONE, TWO = "project/one", "project/two"


def check_online_store(open_store: Open, close: Callable[[OnlineStore], None]) -> None:
    """Run every check on fresh spaces; raises `AssertionError` at the first broken promise."""
    store = open_store()
    for check in CHECKS:
        store.drop(ONE)
        store.drop(TWO)
        check(store)
    close(store)
    again = open_store()
    check_kept(again)
    again.drop(ONE)
    close(again)


def check_reads(store: OnlineStore) -> None:
    """Values come in the order of the keys, also twice, of several spaces at once, and None for what is not there."""
    store.write(ONE, [(b"a", b"1"), (b"b", b"2")])
    store.write(TWO, [(b"a", b"3")])
    assert store.read([(ONE, [b"b", b"x", b"a", b"b"])]) == [[b"2", None, b"1", b"2"]]
    assert store.read([(TWO, [b"a"]), (ONE, []), (ONE, [b"a"])]) == [[b"3"], [], [b"1"]]
    assert store.read([]) == []


def check_replaces(store: OnlineStore) -> None:
    """A write replaces; of one key twice the last counts; an empty value removes the key."""
    store.write(ONE, [(b"a", b"1"), (b"a", b"2")])
    store.write(ONE, [(b"b", b"3")])
    store.write(ONE, [])
    assert store.read([(ONE, [b"a", b"b"])]) == [[b"2", b"3"]]
    store.write(ONE, [(b"a", b"")])
    assert store.read([(ONE, [b"a", b"b"])]) == [[None, b"3"]]


def check_spaces(store: OnlineStore) -> None:
    """Spaces do not see each other; dropping one leaves the other, and dropping nothing is no error."""
    store.write(ONE, [(b"a", b"1")])
    store.write(TWO, [(b"a", b"2")])
    store.drop(ONE)
    store.drop(ONE)
    assert store.read([(ONE, [b"a"]), (TWO, [b"a"])]) == [[None], [b"2"]]


def check_sizes(store: OnlineStore) -> None:
    """Keys and values are any bytes: zeros, 400-byte keys, values of a few megabytes; a write may hold many."""
    items = [(b"\0", b"\0\0"), (b"\xff" * 400, b"x"), (b"large", bytes(4_000_000))]
    items += [(b"%d" % number, b"%d" % number) for number in range(30_000)]
    store.write(ONE, items)
    assert store.read([(ONE, [key for key, _ in items])]) == [[value for _, value in items]]


def check_failed_write(store: OnlineStore) -> None:
    """A write whose items break off changes nothing."""

    def broken() -> Iterator[tuple[bytes, bytes]]:
        yield b"a", b"new"
        raise RuntimeError("the caller's items broke off")

    store.write(ONE, [(b"a", b"old")])
    try:
        store.write(ONE, broken())
    except RuntimeError:
        assert store.read([(ONE, [b"a"])]) == [[b"old"]]
    else:
        raise AssertionError("the caller's error was swallowed")


def check_acts(store: OnlineStore) -> None:
    """An act sees its own writes; it happens wholly, in all spaces, or not at all."""
    store.write(ONE, [(b"a", b"old"), (b"gone", b"1")])

    def whole() -> str:
        store.write(ONE, [(b"a", b"new"), (b"gone", b"")])
        store.write(TWO, [(b"a", b"too")])
        assert store.read([(ONE, [b"a", b"gone"]), (TWO, [b"a"])]) == [[b"new", None], [b"too"]]
        return "done"

    def broken() -> None:
        store.write(ONE, [(b"a", b"newer")])
        raise RuntimeError("the act broke off")

    assert store.atomically(whole) == "done"
    try:
        store.atomically(broken)
    except RuntimeError:
        assert store.read([(ONE, [b"a", b"gone"]), (TWO, [b"a"])]) == [[b"new", None], [b"too"]]
    else:
        raise AssertionError("the act's error was swallowed")


def check_contention(store: OnlineStore) -> None:
    """Acts of several threads lose nothing, small ones and ones of many keys."""
    many = [b"k%d" % number for number in range(200)]

    def add() -> None:
        (counts,) = store.read([(ONE, many)])
        store.write(ONE, [(key, b"%d" % (int(count or 0) + 1)) for key, count in zip(many, counts, strict=True)])

    def work() -> None:
        for _ in range(10):
            store.atomically(add)

    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(work) for _ in range(4)]:
            done.result()
    assert store.read([(ONE, many)]) == [[b"40"] * len(many)]


def check_forgets(store: OnlineStore) -> None:
    """Of the named spaces, the keys that are wanted go, and no others."""
    for space in (ONE, TWO):
        store.write(space, [(b"key %d" % number, b"1") for number in range(3000)])
    assert store.forget([ONE], lambda key: key == b"key 7") == 1
    assert store.forget([ONE, "project/none"], lambda key: key == b"key 7") == 0
    assert store.read([(ONE, [b"key 7", b"key 8"]), (TWO, [b"key 7"])]) == [[None, b"1"], [b"1"]]


def check_kept(store: OnlineStore) -> None:
    """After closing and opening again everything is there."""
    assert store.read([(ONE, [b"a"])]) == [[b"old"]]


CHECKS = (
    check_reads,
    check_replaces,
    check_spaces,
    check_sizes,
    check_acts,
    check_contention,
    check_forgets,
    check_failed_write,
)
"""The last one leaves what `check_kept` finds again."""
