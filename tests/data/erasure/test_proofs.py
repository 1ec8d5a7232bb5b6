"""Proofs about subjects of a frame: they hold for every key, offline, and nothing else can be made to hold."""

import copy
import json
import subprocess
import sys

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from everloop.catalog import versions
from everloop.core.errors import CorruptObject
from everloop.core.signing import SigningKey
from everloop.core.version import Version
from everloop.data.definitions import Contract
from everloop.data.editing import edit
from everloop.data.erasure import committing, erasing, proofs

SALT = b"7" * 32
ABOUT = {"model": "b3:" + "1" * 64, "frame": "b3:" + "2" * 64, "redacted": []}
KEY = SigningKey.generate()


def hashes(subjects):
    return [proofs.subject_hash(SALT, subject) for subject in subjects]


def proof_of(commitment, subjects, key):
    return proofs.prove(commitment, hashes(subjects), *hashes([key]))


@given(subjects=st.sets(st.text(min_size=1, max_size=6), max_size=40), key=st.text(min_size=1, max_size=6))
def test_every_subject_is_shown_to_be_in_or_out(subjects, key):
    commitment = proofs.commit(KEY, SALT, hashes(subjects), ABOUT)
    for wanted in [key, *sorted(subjects)[:3]]:
        proof = json.loads(json.dumps(proof_of(commitment, sorted(subjects), wanted)))
        found = proofs.check(proof, wanted, KEY.public)
        assert found.read == (wanted in subjects)
        assert (found.subjects, found.frame) == (len(subjects), ABOUT["frame"])


def test_what_was_tampered_with_or_is_about_another_does_not_hold():
    subjects = [f"person-{i}" for i in range(100)]
    commitment = proofs.commit(KEY, SALT, hashes(subjects), ABOUT)
    inside = proof_of(commitment, subjects, "person-7")
    outside = proof_of(commitment, subjects, "nobody-here")
    assert "person-7" not in json.dumps(inside)
    for proof, key in ((inside, "person-8"), (inside, "nobody-here"), (outside, "person-7")):
        with pytest.raises(CorruptObject):
            proofs.check(proof, key, KEY.public)
    with pytest.raises(CorruptObject):
        proofs.check(inside, "person-7", SigningKey.generate().public)
    for change in ("leaf", "path", "index"):
        forged = copy.deepcopy(outside)
        shown = forged["shown"][0]
        shown[change] = {"leaf": "00" * 32, "path": shown["path"][1:], "index": shown["index"] - 1}[change]
        with pytest.raises(CorruptObject):
            proofs.check(forged, "nobody-here", KEY.public)
    gap = copy.deepcopy(inside)  # neighbours that are none: the tree without the leaf between them was never signed
    leaves = proofs._sorted(hashes(subjects))
    levels = proofs.tree_of(hashes(subjects))
    at = leaves.index(proofs.subject_hash(SALT, "person-7"))
    gap["shown"] = [{"index": i, "leaf": leaves[i].hex(), "path": proofs._path(levels, i)} for i in (at - 1, at + 1)]
    with pytest.raises(CorruptObject):
        proofs.check(gap, "person-7", KEY.public)


def test_a_model_answers_for_its_frame_before_and_after_an_erasure(each_context):
    context = each_context
    table = pl.DataFrame({"customer": [f"c{i}" for i in range(50)], "n": range(50), "label": [0, 1] * 25})
    contract = Contract.of(("customer", "n"), tags={"customer": "subject"})
    frame = edit(context, "churn_frame", table, "append", "sandbox/ada/x", contract=contract).id
    models = [
        Version("model", "churn", {"flavor": "x", "frame": frame, "n": str(n)}, (("frame", frame),)) for n in range(2)
    ]
    with context.write() as tx:
        versions.put_many(tx, context.project, models, actor="ada", at=1)
    early, late = (model.id for model in models)
    said = committing.proof(context, early, "c7")
    assert proofs.check(said, "c7", context.key.public).read
    assert not proofs.check(committing.proof(context, early, "c99"), "c99", context.key.public).read
    receipt = erasing.erase(context, "c7")
    assert receipt.figures["models"] == sorted([early, late])
    assert proofs.check(committing.proof(context, early, "c7"), "c7", context.key.public).redacted == ()
    found = proofs.check(committing.proof(context, late, "c7"), "c7", context.key.public)
    assert (found.read, found.redacted) == (False, (receipt.erasure,))


ALONE = """
import json, sys
from pathlib import Path
from everloop.core.signing import VerifyKey
from everloop.data.erasure import proofs
proof, key, subject = sys.argv[1:]
answer = proofs.check(json.loads(Path(proof).read_text()), subject, VerifyKey.from_pem(Path(key).read_bytes()))
loaded = [name for name in ("sqlalchemy", "pyarrow", "polars", "obstore") if name in sys.modules]
print(json.dumps([answer.read, answer.model, loaded]))
"""


def test_a_proof_is_checked_by_a_process_that_has_the_file_and_the_public_key_alone(context, tmp_path):
    table = pl.DataFrame({"customer": [f"c{i}" for i in range(9)], "n": range(9)})
    contract = Contract.of(("customer", "n"), tags={"customer": "subject"})
    frame = edit(context, "churn_frame", table, "append", "sandbox/ada/x", contract=contract).id
    model = Version("model", "churn", {"flavor": "x", "frame": frame}, (("frame", frame),))
    with context.write() as tx:
        versions.put(tx, context.project, model, actor="ada", at=1)
    alone = tmp_path / "alone"
    alone.mkdir()
    (alone / "verify.pem").write_bytes(context.key.public.to_pem())

    def asked(about, subject, **changed):
        said = {**committing.proof(context, model.id, about), **changed}
        (alone / "proof.json").write_text(json.dumps(said))
        words = [sys.executable, "-I", "-c", ALONE, "proof.json", "verify.pem", subject]
        return subprocess.run(words, cwd=alone, env={}, check=False, capture_output=True, text=True)

    for subject, read in (("c7", True), ("c77", False)):
        assert json.loads(asked(subject, subject).stdout) == [read, model.id, []]
    for wrong in (asked("c7", "c8"), asked("c77", "c77", shown=[])):
        assert wrong.returncode == 1
        assert "CorruptObject" in wrong.stderr
