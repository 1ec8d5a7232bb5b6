"""Erasing from the prediction log: the subject's rows are blank, everybody else's read as before, positions hold."""

import msgspec
import numpy as np
import pytest

from everloop.catalog.operating import predictions
from everloop.catalog.operating.predictions import Label
from everloop.serving import ingest, log
from everloop.serving.columns import Column, Layout, Output, pack_answer
from everloop.serving.erasure.segments import PredictionLog

LAYOUT = Layout((Column("x", "FP64"), Column("who", "BYTES")))
OUT = (Output("prediction", "FP64"), Output("kind", "BYTES"))


def entry(number, people):
    answer = {"prediction": column([float(number)] * len(people)), "kind": column(["a"] * len(people))}
    inputs = LAYOUT.pack({"x": [1.5] * len(people), "who": list(people)}, len(people))
    return log.Entry(
        f"id{number}", number, number, "flights", "delay", "b3:1", len(people), log.raw(LAYOUT.pairs()), inputs,
        log.raw([o.listed() for o in OUT]), pack_answer(OUT, answer), {"who": list(people)}, 17, "", "predict",
    )  # fmt: skip


def column(values):
    return np.array(values, dtype=object if isinstance(values[0], str) else float)


def test_a_subject_goes_from_old_and_open_segments_and_from_rows_and_labels(context, tmp_path):
    folder = tmp_path / "serving" / "log" / "g1"
    for people in (["ann-4711", "bob"], ["carl"]):
        appender = log.Appender(folder)
        appender.append(entry(1 if len(people) == 2 else 2, people))
        appender.append(entry(3 if len(people) == 2 else 4, ["ann-4711"]))
    assert ingest.ingest(context.catalog, tmp_path) == 5
    with context.write() as tx:
        labels = [Label("id1.0", 1.0, 5), Label("id1.1", 2.0, 5)]
        predictions.add_labels(tx, "flights", labels, actor="ada", recorded=5)
    assert PredictionLog(context).erase("ann-4711") == 3
    for path in log.segments(folder):
        assert b"ann-4711" not in path.read_bytes()
    first = [e for _, _, e in log.read(log.segments(folder)[0].read_bytes())]
    assert first[0].columns()["who"][1] == "bob"
    assert first[0].columns()["x"].tolist() == [0.0, 1.5]
    assert first[0].answers()["prediction"] == [0.0, 1.0]
    with context.read() as tx:
        assert {p.id for p in predictions.newest(tx, "flights", "delay")} == {"id1.1", "id2"}
        assert set(predictions.labels_of(tx, "flights", ["id1.0", "id1.1"])) == {"id1.1"}
        for row in predictions.newest(tx, "flights", "delay"):
            path = folder / f"{row.segment:012d}.seg"
            assert next(log.read(path.read_bytes(), row.position))[2].id == row.id.partition(".")[0]
    appender.append(entry(5, ["ann-4711", "dora"]))
    PredictionLog(context).erase("ann-4711")  # before it was ingested
    appender.close()
    assert ingest.ingest(context.catalog, tmp_path) == 1
    assert PredictionLog(context).erase("nobody") >= 0


def test_what_shadows_answered_goes_too(context, tmp_path):
    real, shadow = (log.Appender(tmp_path / "serving" / place / "g1") for place in ("log", "shadow"))
    for number, people in ((1, ["ann-4711", "bob"]), (2, ["carl"])):
        asked = entry(number, people)
        real.append(asked)
        said = {"prediction": column([42.0 + i for i in range(len(people))]), "kind": column(["secret"] * len(people))}
        nothing = log.raw([])
        shadow.append(
            log.Entry(
                asked.id, 9, 9, "flights", "delay", "b3:2", len(people), nothing, b"",
                log.raw([o.listed() for o in OUT]), pack_answer(OUT, said), {}, 5, "", "shadow",
            )
        )  # fmt: skip
    shadow.close()
    ingest.ingest(context.catalog, tmp_path)
    PredictionLog(context).erase("ann-4711")
    decoded = {}
    for path in (tmp_path / "serving").rglob("*.seg"):  # everything that is on the disk
        content = path.read_bytes()
        assert b"ann-4711" not in content
        decoded[path.parts[-3]] = [e.answers() for _, _, e in log.read(content)]
    assert [a["prediction"] for a in decoded["shadow"]] == [[0.0, 43.0], [42.0]]
    assert [a["kind"] for a in decoded["shadow"]] == [["\0" * 6, "secret"], ["secret"]]
    assert PredictionLog(context).erase("ann-4711") == 0  # again is nothing


def test_cut_off_before_the_catalog_a_row_without_keys_is_known_when_it_is_resumed(context, tmp_path, monkeypatch):
    appender = log.Appender(tmp_path / "serving" / "log" / "g1")
    for number, people in ((1, ["ann-4711"]), (2, ["bob"])):
        appender.append(msgspec.structs.replace(entry(number, people), keys={}))
    appender.close()
    assert ingest.ingest(context.catalog, tmp_path) == 2
    with context.write() as tx:
        predictions.add_labels(tx, "flights", [Label("id1", 1.0, 5), Label("id2", 2.0, 5)], actor="ada", recorded=5)
    with monkeypatch.context() as cut:
        cut.setattr(predictions, "erase", _interrupted)
        with pytest.raises(KeyboardInterrupt):
            PredictionLog(context, ["who"]).erase("ann-4711")
    assert not any(b"ann-4711" in path.read_bytes() for path in tmp_path.rglob("*.seg"))
    assert PredictionLog(context, ["who"]).erase("ann-4711") == 0  # nothing is left to blank
    with context.read() as tx:
        assert {p.id for p in predictions.newest(tx, "flights", "delay")} == {"id2"}
        assert set(predictions.labels_of(tx, "flights", ["id1", "id2"])) == {"id2"}
    assert not list((tmp_path / "serving" / "erasing").iterdir())


def _interrupted(*_):
    raise KeyboardInterrupt
