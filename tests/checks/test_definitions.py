import json
import subprocess
import sys

import pytest

from everloop.checks import CheckDef, ObjectiveDef, Verdict
from everloop.core.canonical import canonical_json
from everloop.core.errors import DefinitionError, InvalidInput


def holds(delay, champion, holdout, objective, margin=0.1):
    return Verdict(True, "fine")


def test_an_objective_has_one_bound():
    objective = ObjectiveDef("on_time", "roc_auc", at_least=0.7, owner="ops")
    assert (str(objective), objective.holds(0.7), objective.holds(0.69)) == ("roc_auc ≥ 0.7", True, False)
    assert not objective.holds(float("nan"))
    assert ObjectiveDef("cost", "log_loss", at_most=0.5).holds(0.5)
    with pytest.raises(DefinitionError, match=r"flights.py:3: objective 'x' needs either"):
        ObjectiveDef("x", "roc_auc", place="flights.py:3")
    with pytest.raises(DefinitionError, match="needs either"):
        ObjectiveDef("x", "roc_auc", at_least=0.1, at_most=0.2)
    with pytest.raises(DefinitionError, match="bound nan"):
        ObjectiveDef("x", "roc_auc", at_least=float("nan"))


@pytest.mark.parametrize("bounds", [{"at_least": 0.7}, {"at_most": 1e-7}, {"at_least": -3}])
def test_an_objective_survives_its_manifest(bounds):
    objective = ObjectiveDef("on_time", "roc_auc", owner="ops", **bounds)
    canonical_json(objective.manifest())
    assert ObjectiveDef.from_manifest(objective.manifest()) == objective


def test_a_broken_bound_is_refused():
    with pytest.raises(InvalidInput, match="at_least of objective x is 'much'"):
        ObjectiveDef.from_manifest({"name": "x", "metric": "rmse", "at_least": "much"})


def test_a_check_says_what_it_looks_at():
    check = CheckDef("holds", holds, ObjectiveDef("o", "rmse", at_most=1), ["production", "staging"])
    assert check.parameters == ("delay", "champion", "holdout", "objective")
    manifest = check.manifest("b3:code")
    canonical_json(manifest)
    assert manifest["blocks"] == ["production", "staging"]
    assert manifest["code"] == "b3:code"
    assert manifest["function"].endswith(":holds")


def test_wrong_checks_are_refused_at_once():
    with pytest.raises(DefinitionError, match="asks for its objective"):
        CheckDef("holds", holds)
    with pytest.raises(DefinitionError, match="cannot block 'sandbox/ada/x'"):
        CheckDef("x", lambda delay: True, blocks=["sandbox/ada/x"])
    with pytest.raises(DefinitionError, match="names nothing"):
        CheckDef("x", lambda *models: True)


def test_verdicts_combine():
    good, bad = Verdict(True, "a", {"x": 1}), Verdict(False, "b", {"y": 2})
    both = good & bad
    assert not both
    assert both.summary == "b"
    assert both.figures == {"x": 1, "y": 2}
    assert (good & good).summary == "a; a"


def test_definitions_load_nothing_heavy():
    code = "import everloop.checks, sys, json; print(json.dumps(sorted(sys.modules)))"
    loaded = json.loads(subprocess.check_output([sys.executable, "-c", code]))
    assert not {"numpy", "polars", "sqlalchemy", "scipy", "pyarrow", "mlflow"} & set(loaded)
