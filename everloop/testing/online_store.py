"""What every `core.ports.OnlineStore` must do. Call `check_online_store(open_store)` from a test."""

from collections.abc import Callable, Iterator

from everloop.core.ports import OnlineStore

Open = Callable[[], OnlineStore]
"""Opens the store; opened again after the last one was closed, it must find what was written."""
ONE, TWO = "project/one", "project/two"


def check_online_store(open_store: Open, close: Callable[[OnlineStore], None]) -> None:
    """Run every check on fresh spaces; raises `AssertionError` at the first broken promise."""
    store = open_store()
    for check in (check_reads, check_replaces, check_spaces, check_watermark, check_sizes, check_failed_write):
        store.drop(ONE)
        store.drop(TWO)
        check(store)
    close(store)
    again = open_store()
    check_kept(again)
    again.drop(ONE)
    close(again)


def check_reads(store: OnlineStore) -> None:
    """Values come in the order of the keys, also twice, and None for what is not there."""
    store.write(ONE, [(b"a", b"1"), (b"b", b"2")])
    assert store.read(ONE, [b"b", b"x", b"a", b"b"]) == [b"2", None, b"1", b"2"]
    assert store.read(ONE, []) == []


def check_replaces(store: OnlineStore) -> None:
    """A write replaces; of one key twice the last counts; an empty value removes the key."""
    store.write(ONE, [(b"a", b"1"), (b"a", b"2")])
    store.write(ONE, [(b"b", b"3")])
    assert store.read(ONE, [b"a", b"b"]) == [b"2", b"3"]
    store.write(ONE, [(b"a", b"")])
    assert store.read(ONE, [b"a", b"b"]) == [None, b"3"]


def check_spaces(store: OnlineStore) -> None:
    """Spaces do not see each other; dropping one leaves the other, and dropping nothing is no error."""
    store.write(ONE, [(b"a", b"1")])
    store.write(TWO, [(b"a", b"2")])
    store.set_watermark(TWO, 7)
    store.drop(ONE)
    store.drop(ONE)
    assert store.read(ONE, [b"a"]) == [None]
    assert store.read(TWO, [b"a"]) == [b"2"]
    assert store.watermark(TWO) == 7


def check_watermark(store: OnlineStore) -> None:
    """None at first; any time after, before 1970 too; gone with its space."""
    assert store.watermark(ONE) is None
    for at in (0, -5, 2**62):
        store.set_watermark(ONE, at)
        assert store.watermark(ONE) == at
    store.drop(ONE)
    assert store.watermark(ONE) is None


def check_sizes(store: OnlineStore) -> None:
    """Keys and values are any bytes: zeros, 400-byte keys, values of a few megabytes."""
    items = [(b"\0", b"\0\0"), (b"\xff" * 400, b"x"), (b"large", bytes(4_000_000))]
    store.write(ONE, items)
    assert store.read(ONE, [key for key, _ in items]) == [value for _, value in items]


def check_failed_write(store: OnlineStore) -> None:
    """A write whose items break off changes nothing."""

    def broken() -> Iterator[tuple[bytes, bytes]]:
        yield b"a", b"new"
        raise RuntimeError("the caller's items broke off")

    store.write(ONE, [(b"a", b"old")])
    try:
        store.write(ONE, broken())
    except RuntimeError:
        assert store.read(ONE, [b"a"]) == [b"old"]
    else:
        raise AssertionError("the caller's error was swallowed")
    store.set_watermark(ONE, 3)


def check_kept(store: OnlineStore) -> None:
    """After closing and opening again everything is there."""
    assert store.read(ONE, [b"a"]) == [b"old"]
    assert store.watermark(ONE) == 3
