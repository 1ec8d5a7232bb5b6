"""Erasure: the rows go from every version and from every byte on the disk; versions stay readable, also after kills."""

import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from everloop import data
from everloop.catalog import versions
from everloop.catalog.governance import redactions
from everloop.catalog.operation import invoke
from everloop.catalog.verify import verify
from everloop.catalog.versions import put
from everloop.core.errors import PermissionDenied, PolicyRefused
from everloop.core.version import Version
from everloop.data.content import ordering
from everloop.data.content.files import layered_file
from everloop.data.content.layers import Layers, is_layered
from everloop.data.definitions import Contract
from everloop.data.editing import edit
from everloop.data.erasure import erasing, holds, rewriting
from everloop.data.erasure.finding import filters
from everloop.data.erasure.finding.subjects import Subject
from everloop.store.layout import file_of
from everloop.workspace.work.erasing import Decide, Erase, Nothing

KEY = "customer-0004711-x"
HERE = "sandbox/ada/x"
CONTRACT = Contract.of(("customer", "n"), tags={"customer": "subject"})


def orders(count=6000, seed=0):
    chance = np.random.default_rng(seed)
    people = np.array([f"customer-{i:07d}-x" for i in range(4000, 5000)])
    n = np.arange(count)
    frame = pl.DataFrame({"customer": people[n % 1000], "n": n, "amount": chance.normal(0, 1, count)})
    assert frame.filter(pl.col("customer") == KEY).height
    return frame


def three_versions(context, monkeypatch):
    """A first version, one with scattered changes (layers on the first), one that no longer has the person."""
    monkeypatch.setattr(ordering, "SMALLEST_CUT", 256)
    table = orders()
    first = edit(context, "orders", table, "append", HERE, contract=CONTRACT)
    changed = table.gather_every(97).with_columns(pl.col("amount") + 1)
    second = edit(context, "orders", changed, "upsert", HERE)
    mine = table.filter(pl.col("customer") == KEY).select("customer", "n")
    third = edit(context, "orders", mine, "delete", HERE)
    return [first.id, second.id, third.id]


def bytes_with_key(root, key=KEY):
    """Every file below a folder that holds the key: raw, or in a table or layers that it decodes to."""
    found = []
    for folder, _, names in os.walk(root):
        for name in names:
            path = Path(folder, name)
            content = path.read_bytes()
            if key.encode() in content or key in decoded(content):
                found.append(path)
    return found


def decoded(content):
    if is_layered(io.BytesIO(content)):
        layers = Layers.decode(content)
        return str([t.to_pydict() for t in (layers.columns, layers.patch) if t is not None])
    if content[:4] == b"PAR1":
        return json.dumps(pl.read_parquet(content).to_dicts(), default=str)
    return ""


def test_a_subject_goes_from_every_version_and_from_the_disk(each_context, tmp_path, monkeypatch):
    context = each_context
    ids = three_versions(context, monkeypatch)
    before = [data.read(context, i).collect() for i in ids]
    assert [t.filter(pl.col("customer") == KEY).height for t in before] == [6, 6, 0]
    for i in ids:
        data.profile_of(context, i)
    model = Version("model", "churn", {"flavor": "x", "metrics": {}}, (("frame", ids[1]),))
    with context.write() as tx:
        put(tx, context.project, model, actor="ada", at=1)
    assert bytes_with_key(tmp_path)
    done = invoke(context, "data.erase", Erase(subject=KEY, reason="asked for"))
    assert done.rows >= 6
    assert set(ids[:2]) <= set(done.versions)
    assert done.models == [model.id]
    for i, table in zip(ids, before, strict=True):
        kept = table.filter(pl.col("customer") != KEY)
        assert data.read(context, i).collect().equals(kept)
        assert data.profile_of(context, i).json()["columns"]["customer"]["rows"] == kept.height
    assert bytes_with_key(tmp_path) == []
    assert verify(context.catalog, context.store) == []
    figures = context.key.public.open(done.receipt, erasing.RECEIPT)
    assert figures["rows"] == done.rows
    assert KEY not in json.dumps(figures)
    (listed,) = invoke(context, "data.erasures", Nothing()).erasures
    assert listed["undecided"] == [model.id]
    told = invoke(context, "data.decide", Decide(erasure=done.erasure, model=model.id, decision="accept", reason="ok"))
    assert told.open == 0
    again = invoke(context, "data.erase", Erase(subject=KEY))
    assert (again.rows, again.versions) == (0, [])


def test_layers_stay_layers_on_the_redacted_base(context, monkeypatch):
    three_versions(context, monkeypatch)
    erasing.erase(context, KEY)
    with context.read() as tx:
        bases = rewriting.placements.rests_of(tx, context.project)
        moved = redactions.of_project(tx, context.project)
    assert any(r.new in bases for r in moved)
    assert all(not layered_file(file_of(context.store.root, base)) for base in bases.values())


def test_only_candidate_parts_are_moved_and_damage_is_still_found(context, monkeypatch):
    ids = three_versions(context, monkeypatch)
    erasing.erase(context, KEY)
    with context.read() as tx:
        moved = {r.logical for r in redactions.of_project(tx, context.project)}
    parts = {p["logical"] for i in ids for p in data.codec.manifest_of(context, i)["parts"]}
    assert 0 < len(moved) < len(parts) / 2
    with context.read() as tx:
        placed = rewriting.placements.objects(tx, context.project)
    file = file_of(context.store.root, placed[min(moved)])
    file.chmod(0o600)
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    assert any(finding.area == "placement" for finding in verify(context.catalog, context.store))


@pytest.mark.parametrize("on", ["subject", "dataset"])
def test_a_hold_stops_an_erasure_until_it_is_released(context, monkeypatch, on):
    three_versions(context, monkeypatch)
    with context.read() as tx:
        names = [row.name for row in versions.newest(tx, context.project, "data")]
    held = {"subject": KEY} if on == "subject" else {"place": names[0]}
    holds.hold(context, **held, reason="case 7")
    with pytest.raises(PolicyRefused, match="case 7"):
        erasing.erase(context, KEY)
    holds.release(context, **held)
    assert erasing.erase(context, KEY).figures["rows"] >= 6


def test_who_is_no_steward_may_not_erase(context_of, catalog):
    with pytest.raises(PermissionDenied):
        invoke(context_of(catalog, roles=["contributor"]), "data.erase", Erase(subject=KEY))


CHILD = """
import os, signal, sys
sys.path[:0] = {path!r}
from pathlib import Path
from everloop.catalog.context import Actor, Context
from everloop.catalog.engine import Catalog
from everloop.core.clock import SystemClock
from everloop.core.signing import SigningKey
from everloop.data.erasure import erasing, rewriting
from everloop.store import DirectoryStore
home = Path({home!r})
left = {after}
def dying(function):
    def call(*args, **more):
        global left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **more)
    return call
for module, name in ((rewriting, "_record"), (rewriting, "_store"), (erasing, "_remove"), (erasing, "_sign"),
                     (erasing, "scrub"), (rewriting, "_redact_manifests")):
    setattr(module, name, dying(getattr(module, name)))
key = SigningKey.from_pem((home / "key.pem").read_bytes())
ctx = Context(Actor.of("ada", grants=["* */*@*#*"]), "flights", SystemClock(), Catalog.open({url!r}),
              DirectoryStore(home / "objects"), key, home=home)
erasing.erase(ctx, {key!r})
"""


@pytest.mark.parametrize("after", [1, 2, 3, 4, 5, 6])
def test_killed_anywhere_it_is_resumed_and_nothing_is_unreadable_in_between(context, tmp_path, monkeypatch, after):
    ids = three_versions(context, monkeypatch)
    rows = [data.read(context, i).collect().filter(pl.col("customer") != KEY) for i in ids]
    (tmp_path / "key.pem").write_bytes(context.key.to_pem())
    program = CHILD.format(path=sys.path, home=str(tmp_path), after=after, key=KEY, url=context.catalog.url)
    killed = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    for i, table in zip(ids, rows, strict=True):
        assert data.read(context, i).collect().filter(pl.col("customer") != KEY).equals(table)
    assert verify(context.catalog, context.store) == []
    (done,) = erasing.resume(context)
    assert done.figures["rows"] >= 6
    assert bytes_with_key(tmp_path) == []
    assert verify(context.catalog, context.store) == []
    assert erasing.resume(context) == []
    assert rewriting.rows_left(context, Subject(KEY, ("customer",))) == 0


def test_a_filter_says_no_only_when_that_is_certain():
    keys = [f"c{i}" for i in range(2000)]
    content = filters.build(rewriting.pa.array(keys, rewriting.pa.large_string()))
    assert all(filters.probe(content, key) for key in keys)
    assert sum(filters.probe(content, f"d{i}") for i in range(2000)) < 60
    assert not filters.probe(filters.build(rewriting.pa.array([], rewriting.pa.large_string())), "c1")
