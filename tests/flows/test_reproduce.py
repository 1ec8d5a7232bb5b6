import io
import shutil
import subprocess
import sys

import polars as pl
import pytest

from everloop.catalog import placements, versions
from everloop.core.errors import NotFound, Unavailable
from everloop.core.ids import object_id, short
from everloop.core.version import Version
from everloop.flows.identity import runtime
from everloop.flows.reproduce import Now, _tier, reproduce, within_noise
from everloop.flows.reproducing import environment, wheels
from everloop.flows.reproducing.factors import differing
from everloop.workspace.work.reproducing import other_rows

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


CHANGED = """
import numpy as np
from deep import rules


def measured(scale: float = 1.0):
    return [rules.helper(scale), hash("abc"), os.environ.get("RATE", "none"), os.environ.get("OMP_NUM_THREADS")]


ASSETS = [define(measured)]
"""


@pytest.fixture
def recorded(author, tmp_path, processes, monkeypatch):
    """A step that depends on everything, run in a child; the folder of its code."""
    (tmp_path / "authored" / "deep").mkdir(parents=True)
    (tmp_path / "authored" / "deep" / "rules.py").write_text(
        "def helper(x):\n    return bound() * x\n\n\ndef bound():\n    return 3\n"
    )
    monkeypatch.delitem(sys.modules, "deep", raising=False)
    monkeypatch.delitem(sys.modules, "deep.rules", raising=False)
    project = author(CHANGED)
    return project, project.run("measured", executor=processes).outputs["value/measured"]


def edited(project, tmp_path):
    """The same project with a helper two modules away that says something else."""
    root = shutil.copytree(project.root, tmp_path / "edited")
    (root / "deep" / "rules.py").write_text((root / "deep" / "rules.py").read_text().replace("3", "4"))
    return root


def test_each_thing_that_changes_behind_its_back_is_named(recorded, processes, tmp_path):
    project, identity = recorded
    cases = {
        "code deep.rules:bound changed": Now(root=edited(project, tmp_path)),
        "threads: 1 then, 1/4 now": Now(env={"OMP_NUM_THREADS": "4"}),
        "hash seed: 0 then, 7 now": Now(env={"PYTHONHASHSEED": "7"}),
        "environment variable RATE: not there then": Now(env={"RATE": "0.5"}),
        "parameter scale: 1.0 then, 2.0 now": Now(params={"scale": 2.0}),
    }
    assert again(project, identity, processes).factors == ()
    for factor, now in cases.items():
        verdict = again(project, identity, processes, now=now)
        assert (verdict.tier, verdict.factors) == ("different", (factor,))


def distribution(folder, version, answer):
    """A package as pip leaves it."""
    package, info = folder / "pricing", folder / f"pricing-{version}.dist-info"
    for one in (package, info):
        one.mkdir(parents=True)
    (package / "__init__.py").write_text(f"def price():\n    return {answer}\n")
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: pricing\nVersion: {version}\n")
    (info / "WHEEL").write_text("Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
    digest = object_id((package / "__init__.py").read_bytes())
    (info / "RECORD").write_text(
        f"pricing/__init__.py,sha256={digest},1\npricing-{version}.dist-info/METADATA,,\n"
        f"pricing-{version}.dist-info/WHEEL,,\npricing-{version}.dist-info/RECORD,,\n"
    )
    return folder


def test_another_package_is_named_and_the_recorded_one_comes_back(author, processes, tmp_path, monkeypatch, context):
    first, second = (distribution(tmp_path / f"site{number}", f"{number}.0", number) for number in (1, 2))
    monkeypatch.syspath_prepend(str(first))
    monkeypatch.delitem(sys.modules, "pricing", raising=False)
    project = author("import pricing\n\n\ndef priced():\n    return pricing.price()\n\n\nASSETS = [define(priced)]\n")
    done = project.run("priced", executor=processes, environ=lambda _step, _run: {"PYTHONPATH": str(first)})
    identity = done.outputs["value/priced"]
    assert again(project, identity, processes, now=Now(env={"PYTHONPATH": str(first)})).tier == "bit"
    verdict = again(project, identity, processes, now=Now(env={"PYTHONPATH": str(second)}))
    assert (verdict.tier, verdict.factors) == ("different", ("package pricing: 1.0 then, 2.0 now",))
    kept, count = wheels.mirror(context, ["pricing"])
    assert (count, wheels.mirror(context, ["pricing"])[0]) == (1, kept)
    monkeypatch.setattr(sys, "path", [str(second), *(one for one in sys.path if one != str(first))])
    assert environment.differs({"pricing": "1.0 x"}, runtime(), sys.version.split()[0])
    (tmp_path / "wheels").mkdir()
    assert wheels.fetch(context, {"pricing": "1.0", "other": "1"}, tmp_path / "wheels") == ["pricing"]
    python = environment.rebuild(tmp_path, sys.version.split()[0], {"pricing": "1.0"}, tmp_path / "wheels")
    told = subprocess.run(
        [python, "-c", "import pricing, everloop; print(pricing.price(), everloop.__version__)"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stdout.split()[0] == "1"
    assert environment.rebuild(tmp_path, sys.version.split()[0], {"pricing": "1.0"}) == python  # made once
    with pytest.raises(Unavailable, match="cannot be made again"):
        environment.rebuild(tmp_path, sys.version.split()[0], {"pricing": "9.0"}, tmp_path / "wheels")


def test_rows_that_are_not_those_of_their_id_are_named(author, processes, context):
    project = author(
        "import polars as pl\n\n\ndef table():\n    return pl.DataFrame({'x': [1, 2, 3]})\n\n\n"
        "def total(table: pl.DataFrame):\n    return int(table['x'].sum())\n\n\n"
        "ASSETS = [define(table, kind='data'), define(total)]\n"
    )
    codecs = {**CODECS, "data": "everloop.data.codec:DataCodec"}
    done = project.run("total", executor=processes, codecs=codecs)
    identity = done.outputs["value/total"]
    asked = {"executor": processes, "codecs": codecs, "module": "flow"}
    assert reproduce(context, identity, **asked).tier == "bit"
    with context.read() as tx:
        part = versions.get(tx, context.project, done.outputs["data/table"]).manifest["parts"][0]["logical"]
        old = placements.resolve(tx, context.project, [part])[part]
    buffer = io.BytesIO()
    pl.DataFrame({"x": [1, 2, 4]}).write_parquet(buffer)
    with context.write() as tx:
        placements.replace(tx, context.project, part, old=old, new=context.store.put(buffer.getvalue()))
    verdict = reproduce(
        context, identity, verify=lambda manifest, placed: list(other_rows(context, manifest, placed)), **asked
    )
    assert verdict.tier == "different"
    assert verdict.factors == (f"input table: rows of part {short(part)} are not those that were recorded",)


def test_metrics_within_the_noise_of_seeds():
    again = [{"auc": value} for value in (0.80, 0.81, 0.79, 0.805, 0.795, 0.80)]
    assert within_noise({"auc": 0.81}, again)
    assert not within_noise({"auc": 0.85}, again)
    assert not within_noise({"auc": 0.80}, [{"auc": 0.8}] * 6)  # no noise: what differs is no chance
    assert not within_noise({"auc": 0.80}, again[:2])
    assert not within_noise({}, again)


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
