"""What a gateway tells of itself: written when something changed, else only marked."""

import os
import time

import serving_models
from serving_house import Place, folder_of, one_row, revision

from everloop.serving.rollout.observe import FRESH, gateways
from everloop.serving.table import Route

FIRST = f"b3:{1:064x}"


def marked(path, after):
    """The file once it was marked again, after that time."""
    end = time.monotonic() + 30
    while time.monotonic() < end:
        status = path.stat()
        if status.st_mtime_ns > after:
            return status
        time.sleep(0.02)
    raise AssertionError("it was never marked")


def test_while_nothing_changes_the_file_is_only_marked(tmp_path):
    place = Place(tmp_path)
    quiet = revision(folder_of(tmp_path, "m1", serving_models.Constant(1.0)), 1)
    place.serve(Route("shop", "delay", [quiet]), Route("shop", "other", [quiet], least=0))
    gateway = place.gateway().ready()
    try:
        place.until(lambda s: s["endpoints"]["shop.delay"][FIRST]["state"] == "ready")
        path = tmp_path / "serving" / "stats" / "g0.json"
        marked(path, marked(path, time.time_ns()).st_mtime_ns)  # what became warm was told
        before, content = path.stat(), path.read_bytes()
        after = marked(path, before.st_mtime_ns)
        assert after.st_ino == before.st_ino
        assert path.read_bytes() == content
        for _ in range(3):
            assert gateway.predict(one_row()).status_code == 200
        its = place.until(lambda s: s["endpoints"]["shop.delay"][FIRST]["requests"] == 3)["endpoints"]
        assert its["shop.other"][FIRST]["requests"] == 0
        assert gateway.predict(one_row(), **{"content-encoding": "identity"}).status_code == 200
        assert gateway.predict({**one_row(), "distance": "x"}).status_code == 400
        place.until(lambda s: s["endpoints"]["shop.delay"][FIRST]["refused"] == 1)
        pid = place.stats()["endpoints"]["shop.delay"][FIRST]["pid"]
        os.kill(pid, 9)
        place.until(lambda s: s["endpoints"]["shop.delay"][FIRST]["restarts"] == 1)
        place.until(lambda s: s["endpoints"]["shop.delay"][FIRST]["state"] == "ready")
        now = time.time_ns() // 1000
        assert [said["gateway"] for said in gateways(tmp_path, now)] == ["g0"]
        assert gateways(tmp_path, now + 2 * FRESH) == []
    finally:
        place.close()
    assert gateways(tmp_path, time.time_ns() // 1000) == []
