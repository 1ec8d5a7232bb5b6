"""Executing apart from recording: whatever the function does, there is one finding; evidence pins what was seen."""

import json

import pytest

from everloop.catalog import versions
from everloop.catalog.governance import results
from everloop.checks.definitions import Verdict
from everloop.checks.execute import execute
from everloop.checks.record import RecordResult, record, record_finding, run_check
from everloop.checks.request import CheckRequest, Finding
from everloop.core.errors import DataError, InvalidInput
from everloop.core.version import Version

OBJECTIVE = {"name": "on_time", "metric": "roc_auc", "at_least": "0.7", "owner": "ops"}


def request(**more):
    given = {
        "change": 1,
        "environment": "production",
        "source": "sandbox/ada/x",
        "head": "b3:" + "1" * 64,
        "delta_id": "b3:" + "d" * 64,
        "name": "good",
        "check_id": "",
        "function": "flights:good",
        "parameters": ("delay", "champion", "objective"),
        "subjects": {"delay": "", "champion": "", "objective": ""},
        "heads": {},
        "objective": OBJECTIVE,
    }
    return CheckRequest(**{**given, **more})


def resolve(name, _request):
    return {"delay": "the model", "champion": None}[name]


def test_parameters_come_from_the_resolver_and_the_objective_from_the_request():
    def good(delay, champion, objective):
        assert (delay, champion, objective.bound) == ("the model", None, 0.7)
        return Verdict(True, "good", {"n": 3, "auc": 0.71}, {"why": object})

    found = execute(request(), good, resolve)
    assert (found.state, found.summary, found.figures) == ("passed", "good", {"n": "3", "auc": "0.71"})
    assert Finding.from_json(json.loads(json.dumps(found.to_json()))) == found


def raises(error):
    def check(delay, champion, objective):
        raise error

    return check


def test_user_code_that_raises_is_an_error_without_a_traceback():
    found = execute(request(), raises(ZeroDivisionError("division by zero")), resolve)
    assert (found.state, found.summary) == ("error", "good raised ZeroDivisionError: division by zero")
    assert "Traceback" not in found.summary + found.hint
    assert "Traceback" in found.report["traceback"]
    told = execute(request(), raises(DataError("no label", hint="add one")), resolve)
    assert (told.state, told.summary, told.hint) == ("error", "no label", "add one")


@pytest.mark.parametrize(("answer", "state"), [(True, "passed"), (False, "failed"), (None, "error"), (0.7, "error")])
def test_only_verdicts_and_booleans_are_answers(answer, state):
    assert execute(request(), lambda delay, champion, objective: answer, resolve).state == state


def test_a_resolver_that_fails_is_an_error_of_the_check():
    def missing(name, _request):
        raise DataError(f"no {name}")

    assert execute(request(), lambda delay: True, missing).summary == "no delay"


def put(ctx, key, **manifest):
    kind, name = key.split("/")
    made = Version(kind, name, manifest or {"text": "x"})
    with ctx.write() as tx:
        versions.put(tx, ctx.project, made, actor="ada", at=1)
    return made.id


def test_evidence_pins_subjects_heads_and_report(each_context):
    ctx = each_context
    check, model, data = put(ctx, "check/good"), put(ctx, "model/delay"), put(ctx, "data/departures")
    objective = put(ctx, "objective/on_time", **OBJECTIVE)
    wanted = request(
        check_id=check,
        objective_id=objective,
        subjects={"delay": model, "champion": "", "objective": objective},
        heads={"departures": data},
    )
    view = run_check(ctx, wanted, lambda delay, champion, objective: Verdict(True, "good", {"n": 2}), resolve)
    with ctx.read() as tx:
        row = versions.get(tx, ctx.project, view.evidence)
        edges = {e.role: e.from_id for e in versions.upstream(tx, ctx.project, view.evidence, 1)}
        (result,) = results.of(tx, ctx.project, wanted.delta_id)
    assert row.manifest["figures"] == {"n": "2"}
    assert json.loads(ctx.store.get(row.manifest["report"]))["summary"] == "good"
    assert edges == {
        "check": check,
        "objective": objective,
        "subject:delay": model,
        "subject:objective": objective,
        "data:departures": data,
    }
    assert (result.state, result.subjects, result.heads) == ("passed", wanted.subjects, wanted.heads)
    ctx.clock.wall()
    again = run_check(ctx, wanted, lambda delay, champion, objective: Verdict(True, "good", {"n": 2}), resolve)
    assert again.evidence == view.evidence  # no time in it: the same finding is the same evidence
    other = run_check(ctx, wanted, lambda delay, champion, objective: Verdict(True, "good", {"n": 3}), resolve)
    assert other.evidence != view.evidence


def test_results_of_unknown_checks_are_refused(context):
    with pytest.raises(InvalidInput, match="is no check of this project"):
        record_finding(context, request(check_id="b3:" + "c" * 64), Finding("passed", "x"))
    model = put(context, "model/delay")
    with pytest.raises(InvalidInput, match="is no check"):
        record(
            context,
            RecordResult(environment="production", delta_id="d", name="x", check_id=model, state="passed", summary="x"),
        )
