"""A full disk in the middle of work: one clear error with a hint, nothing half written, and on it goes with room.

Where this machine lets us mount a file system, the disk is really full; everywhere, no file may grow beyond a limit,
and what `write` meets then is what it meets on a full disk.
"""

import resource
import signal
import subprocess
import sys
from contextlib import contextmanager

import pytest
from full_disk import filled, mountable, small_disk
from shop_house import Shop

from everloop.catalog import refs, versions

BUILD, CAPTURE = ("run", "orders"), ("data", "capture", "till")
WAYS = [("limit", CAPTURE), *([("disk", BUILD), ("disk", CAPTURE)] if mountable() else [])]
"""A build under a limit is in test_bad_input; the gateway's log is in serving/test_log."""


@pytest.fixture
def shop(request, tmp_path):
    """A workspace of one day, and `shop.full(left)`: no room but for so many bytes."""
    place = tmp_path / "disk"

    @contextmanager
    def made():
        if request.param == "disk":
            with small_disk(place, 24):
                yield
        else:
            place.mkdir()
            yield

    with made():
        shop = Shop(place / "shop", policy="solo", days=3)
        shop.full = filled if request.param == "disk" else None
        shop.disk = place
        yield shop
        shop.close()


def run(shop, *words, left):
    """The command line with no room but for `left` bytes."""

    def limit():
        if shop.full is None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (left, left))
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    @contextmanager
    def nothing(_place, _left):
        yield

    with (shop.full or nothing)(shop.disk, left):
        return subprocess.run(
            [sys.executable, "-m", "everloop", *words],
            cwd=shop.folder,
            # bytecode that does not fit is cut short by a limit on the size of files, and is no part of what is tested
            env=shop.environ(TMPDIR=str(shop.disk), PYTHONDONTWRITEBYTECODE="1"),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            preexec_fn=limit,
        )


def left_behind(shop):
    with shop.workspace.catalog.read() as tx:
        data = {
            name: versions.history(tx, "shop", "data", name, limit=9) for name in versions.names(tx, "shop", "data")
        }
        heads = refs.all(tx, "shop", "head/")
    temporary = [path.name for path in (shop.home / "objects" / "tmp").glob("*") if path.name != "lock"]
    return data, heads, temporary


@pytest.mark.parametrize(
    ("shop", "words"), WAYS, indirect=["shop"], ids=lambda value: value if isinstance(value, str) else value[0]
)
def test_nothing_is_half_written(shop, words):
    assert shop.cli("run", "outcomes").returncode == 0  # the definitions are known; a new day arrives
    shop.deliver([7, 8])
    before = left_behind(shop)
    done = run(shop, *words, left=4096)
    assert done.returncode == 6, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert "hint:" in done.stderr, done.stderr
    assert "fault of Everloop" not in done.stderr
    assert left_behind(shop) == before
    assert shop.cli("verify").returncode == 0
    again = shop.cli(*words)
    assert again.returncode == 0, again.stderr
