"""The prediction log: what was written comes back, whatever tore it; a full disk follows the endpoint's policy."""

import resource

import pytest
import serving_models
from hypothesis import given
from hypothesis import strategies as st
from serving_house import folder_of, logged, one_row, revision

from everloop.core.errors import StorageFull
from everloop.serving import log
from everloop.serving.columns import Layout, Output, pack_answer
from everloop.serving.table import Route

LAYOUT = Layout.from_pairs([["x", "FP64"], ["who", "BYTES"]])


def entry(number, rows=1):
    import numpy as np

    answer = {"prediction": np.full(rows, float(number))}
    return log.Entry(
        f"id{number}",
        number,
        number,
        "shop",
        "delay",
        "b3:1",
        rows,
        log.raw(LAYOUT.pairs()),
        LAYOUT.pack({"x": [float(number)] * rows, "who": ["ada"] * rows}, rows),
        log.raw([Output("prediction", "FP64").listed()]),
        pack_answer((Output("prediction", "FP64"),), answer),
        {"who": ["ada"] * rows},
        17,
        "",
        "predict",
    )


def test_what_is_appended_is_read_back(tmp_path):
    appender = log.Appender(tmp_path)
    for number in range(5):
        appender.append(entry(number, rows=number + 1))
    appender.close()
    (path,) = log.segments(tmp_path)
    found = [e for _, _, e in log.read(path.read_bytes())]
    assert [e.id for e in found] == [f"id{n}" for n in range(5)]
    assert found[2].columns()["x"].tolist() == [2.0] * 3
    assert found[2].columns()["who"] == ["ada"] * 3
    assert found[2].answers() == {"prediction": [2.0] * 3}
    assert found[2].row_ids() == ["id2.0", "id2.1", "id2.2"]
    assert found[0].row_ids() == ["id0"]


@given(cut=st.integers(1, 400), flip=st.integers(0, 399) | st.none())
def test_a_torn_or_damaged_end_loses_only_itself(cut, flip):
    frames = [log.frame(entry(n)) for n in range(4)]
    whole = b"".join(frames)
    content = bytearray(whole[: len(whole) - cut % len(frames[-1])])
    if flip is not None and flip % len(frames[0]) + len(frames[0]) * 3 < len(content):
        content[flip % len(frames[0]) + len(frames[0]) * 3] ^= 0xFF
    found = [e.id for _, _, e in log.read(bytes(content))]
    assert found[:3] == ["id0", "id1", "id2"]
    assert len(found) == 4 if bytes(content) == whole else len(found) == 3


def test_segments_rotate_and_a_new_process_opens_another(tmp_path):
    appender = log.Appender(tmp_path, max_bytes=400)
    for number in range(6):
        appender.append(entry(number))
    appender.close()
    later = log.Appender(tmp_path)
    later.append(entry(9))
    later.close()
    paths = log.segments(tmp_path)
    assert len(paths) >= 3
    assert [e.id for p in paths for _, _, e in log.read(p.read_bytes())] == [*(f"id{n}" for n in range(6)), "id9"]


def test_a_write_that_does_not_fit_leaves_whole_frames(tmp_path):
    appender = log.Appender(tmp_path)
    appender.append(entry(1))
    (path,) = log.segments(tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 50, hard))
    try:
        with pytest.raises(StorageFull, match="log"):
            appender.append(entry(2))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    appender.append(entry(3))
    appender.close()
    assert [e.id for p in log.segments(tmp_path) for _, _, e in log.read(p.read_bytes())] == ["id1", "id3"]


@pytest.mark.parametrize("policy", ["refuse", "unlogged"])
def test_on_a_full_disk_the_endpoints_policy_decides(place, policy):
    folder = folder_of(place.home, "m1", serving_models.Constant(1.0))
    place.serve(Route("shop", "delay", [revision(folder, 1)], full_disk=policy))
    gateway = place.gateway().ready()
    first = gateway.predict(one_row())
    size = sum(p.stat().st_size for p in log.segments(place.home / "serving" / "log" / "g0"))
    limits = resource.prlimit(gateway.process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(gateway.process.pid, resource.RLIMIT_FSIZE, (size + 10, limits[1]))
    answer = gateway.predict(one_row())
    if policy == "refuse":
        assert answer.status_code == 503
        assert "log is full" in answer.json()["message"] or "cannot be written" in answer.json()["message"]
    else:
        assert answer.status_code == 200
        assert "prediction_id" not in answer.json()
        assert "everloop-prediction-id" not in answer.headers
    resource.prlimit(gateway.process.pid, resource.RLIMIT_FSIZE, limits)
    last = gateway.predict(one_row())
    assert [e.id for e in logged(place.home)] == [first.json()["prediction_id"], last.json()["prediction_id"]]
    counted = place.until(lambda s: s["endpoints"]["shop.delay"][f"b3:{1:064x}"]["unlogged"])
    assert counted
