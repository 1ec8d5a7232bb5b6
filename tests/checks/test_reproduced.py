"""Verdicts are signed, written by workers alone, and what a policy asks for decides."""

import json

import pytest

from everloop.catalog import versions
from everloop.catalog.operation import invoke
from everloop.changes.policies import read_policy
from everloop.checks import reproduced
from everloop.checks.reproduced import OfVersion, RecordVerdict
from everloop.core.errors import PermissionDenied, PolicyRefused
from everloop.core.policy import Policy
from everloop.core.version import Version


@pytest.fixture
def model(context):
    made = Version("model", "delay", {"files": {}, "C": "1"})
    with context.write() as tx:
        versions.put(tx, context.project, made, actor="ada", at=1)
    return made.id


def verdict(model, tier):
    return RecordVerdict(version=model, tier=tier, factors=["threads: 1 then, 2 now"], again=model)


def states(context, model, wanted):
    with context.read() as tx:
        return [s.state for s in reproduced.states(tx, context.project, {"model/delay": (None, model)}, wanted)]


def test_a_policy_waits_for_a_near_enough_verdict(context, model, signing_key):
    assert states(context, model, "canonical") == ["missing"]
    assert states(context, model, "") == []
    invoke(context, reproduced.record, verdict(model, "numeric"))
    assert states(context, model, "canonical") == ["failed"]
    assert states(context, model, "numeric") == ["passed"]
    recorded = invoke(context, reproduced.record, verdict(model, "bit"))
    assert states(context, model, "canonical") == ["passed"]
    (newest,) = invoke(context, reproduced.reproduction, OfVersion(version="model/delay")).verdicts
    assert (newest.tier, newest.evidence, newest.statement) == ("bit", recorded.evidence, recorded.statement)
    envelope = json.loads(context.store.get(newest.statement))
    told = signing_key.public.open(envelope, reproduced.STATEMENT)
    assert (told["tier"], told["version"]) == ("bit", model)


def test_nobody_but_a_worker_writes_one(context_of, sqlite_catalog, model):
    for role in ("admin", "approver", "contributor", "deployer"):
        with pytest.raises(PermissionDenied):
            invoke(context_of(sqlite_catalog, name="eve", roles=[role]), reproduced.record, verdict(model, "bit"))
    invoke(context_of(sqlite_catalog, name="w", roles=["worker"]), reproduced.record, verdict(model, "bit"))


def test_a_policy_says_which_tier():
    manifest = Policy("team", reproduced="canonical").manifest()
    assert read_policy(manifest).reproduced == "canonical"
    assert "reproduced" not in Policy("team").manifest()
    for wrong in ("different", "nearly"):
        with pytest.raises(PolicyRefused, match="reproduced"):
            read_policy({**manifest, "reproduced": wrong})
