import pytest

from everloop.catalog import versions
from everloop.core.errors import NotFound
from everloop.core.version import Version
from everloop.flows.reproduce import _tier, differing, reproduce

CODECS = {"value": "everloop.flows.value:codec", "model": "everloop.models.codec:codec"}
TEXT = """
import random
import numpy as np


def same(scale: float = 2.0):
    return {"x": [random.random() * scale, float(np.random.random())], "hash": hash("abc")}


def after(same):
    return len(same)


def drifting():
    import time
    return time.time_ns()


ASSETS = [define(same), define(after), define(drifting)]
"""


def again(project, identity, processes, **more):
    return reproduce(project.ctx, identity, executor=processes, codecs=CODECS, module="flow", **more)


def test_the_record_is_enough_to_make_the_same_bytes(author, processes):
    project = author(TEXT)
    done = project.run("after", executor=processes, params={"same": {"scale": 3.0}})
    (project.root / "flow.py").write_text("this is not what was recorded")
    for key in ("value/same", "value/after"):
        verdict = again(project, done.outputs[key], processes)
        assert (verdict.tier, verdict.factors, verdict.again) == ("bit", (), done.outputs[key])
        assert verdict.same


def test_what_depends_on_time_is_different_and_says_so(author, processes):
    project = author(TEXT)
    done = project.run("drifting", executor=processes)
    verdict = again(project, done.outputs["value/drifting"], processes)
    assert verdict.tier == "different"
    assert "something unseen (time" in verdict.factors[0]


@pytest.mark.parametrize(
    ("difference", "tier"), [(0.0, "functional"), (1e-9, "numeric"), (0.5, "different"), (None, "different")]
)
def test_tiers_by_what_the_two_answer(difference, tier):
    found, measured = _tier("b3:1", {"digest": "x"}, "b3:2", {"digest": "y"}, lambda _old, _new: difference)
    assert (found, measured) == (tier, difference)
    assert _tier("b3:1", {"digest": "x"}, "b3:2", {"digest": "x"}, None) == ("canonical", None)


def test_what_no_step_made_cannot_be_reproduced(author, processes):
    project = author(TEXT)
    done = project.run("same", executor=processes)
    with pytest.raises(NotFound, match="no recorded step made"):
        again(project, done.code, processes)


def test_factors_name_what_changed(context):
    old = {"python": "3.11.7", "cpu": ["avx2"], "threads": {"OMP_NUM_THREADS": "1"}}
    packages = {"numpy": {"version": "2.0", "digest": "a"}, "gone": {"version": "1", "digest": "b"}}
    same = {"numpy": {"version": "2.0", "digest": "c"}}
    assert differing({**old, "packages": packages}, {**old, "packages": packages}) == []
    found = differing(
        {**old, "packages": packages},
        {"python": "3.12.0", "cpu": ["avx2", "amx"], "threads": {"OMP_NUM_THREADS": "2"}, "packages": same},
    )
    assert found[0] == "python: 3.11.7 then, 3.12.0 now"
    assert "CPU features: amx" in found
    assert "package gone: gone" in found
    assert "package numpy: other files under the same version 2.0" in found


MODEL = """
import polars as pl


def frame():
    rows = np.random.default_rng(0).normal(size=(300, 3))
    return pl.DataFrame({"a": rows[:, 0], "b": rows[:, 1], "late": (rows[:, 2] + rows[:, 0] > 0).astype("int8")})


def holdout(frame):
    return frame.head(50)


def delay(frame: pl.DataFrame, max_iter: int = 5):
    from sklearn.ensemble import HistGradientBoostingClassifier

    model = HistGradientBoostingClassifier(max_iter=max_iter)
    return model.fit(frame.drop("late").to_numpy(), frame["late"].to_numpy())


from dataclasses import replace
model = define(
    delay, kind="model", runner="everloop.models.training:train",
    facts={"columns": ["a", "b"], "label": "late", "output": "probability", "service": "inputs"},
)
ASSETS = [define(frame), define(holdout), replace(model, upstream={**model.upstream, "holdout": "holdout"})]
"""


def test_a_model_trained_in_a_child_is_reproduced(author, processes, context):
    project = author("import numpy as np\n" + MODEL)
    version = Version("service", "inputs", {"views": {}})
    with context.write() as tx:
        versions.put(tx, context.project, version, actor="ada", at=0)
    done = project.run("delay", executor=processes, codecs=CODECS, bound={"model/delay": {"service_id": version.id}})
    with context.read() as tx:
        row = versions.get(tx, context.project, done.outputs["model/delay"])
        roles = {edge.role for edge in versions.upstream(tx, context.project, row.id, depth=1)}
    assert row.manifest["service"] == version.id
    assert row.manifest["frame"] == done.outputs["value/frame"]
    assert row.manifest["holdout"] == done.outputs["value/holdout"]
    assert float(row.manifest["metrics"]["roc_auc"]) > 0.8
    assert roles == {"frame", "holdout", "service", "code", "runtime"}
    verdict = again(project, row.id, processes)
    assert (verdict.tier, verdict.factors) == ("bit", ())
