"""One person in every place that a workspace has: afterwards the key is in no file, however it is packed.

The same workspace is erased once more for every eraser, with that one taken away: then the key is found again, where
that eraser should have looked. So a test that cannot fail would show.
"""

import base64
import gzip
import io
import json
import shutil
import struct
import zipfile
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from everloop import data
from everloop.catalog import chain, facts, refs, versions
from everloop.catalog.context import Actor, Context
from everloop.catalog.engine import Catalog
from everloop.catalog.genai import datasets, spans, traces
from everloop.catalog.genai.rows import Assessment, Record, Span, Trace
from everloop.catalog.operation import invoke
from everloop.catalog.tracking import artifacts, runs
from everloop.catalog.tracking.experiments import ensure_default
from everloop.catalog.verify import verify
from everloop.core.clock import SystemClock
from everloop.core.errors import NotFound
from everloop.core.ports import Line
from everloop.core.snapshot import Snapshot
from everloop.core.version import Version
from everloop.data.content.layers import Layers, is_layered
from everloop.data.definitions import Contract, Folder, SourceDef
from everloop.data.editing import edit
from everloop.data.erasure import catalogued, erasing, folders, rewriting
from everloop.data.erasure.elsewhere.inboxes import Inboxes
from everloop.data.erasure.elsewhere.leftovers import Leftovers
from everloop.data.erasure.elsewhere.objects import LoggedFiles, Traces
from everloop.data.streams import inbox
from everloop.data.streams.consuming import Consumer
from everloop.data.streams.origins import ARROW, JSON_LINES, Push
from everloop.features.operations import online_store
from everloop.models import console
from everloop.serving import ingest, log
from everloop.serving.columns import Column, Layout, Output, pack_answer
from everloop.serving.erasure.segments import PredictionLog
from everloop.store import DirectoryStore
from everloop.workspace.work.erasing import Erase
from everloop.workspace.work.places import OnlineFeatures

KEY = "customer-0004711-x"
OTHER = "customer-0004712-x"
HERE = "sandbox/ada/x"
AT = 1_772_000_000_000_000


def found_in(root):
    """Files below a folder that hold the key, with what is packed in them; decoded without the code that erases."""
    files = (path for path in root.rglob("*") if path.is_file())
    return sorted(str(path.relative_to(root)) for path in files if holds(path.read_bytes()))


def holds(content):
    return KEY.encode() in content or any(holds(inner) for inner in unpacked(content))


def unpacked(content):
    if is_layered(io.BytesIO(content)):
        layers = Layers.decode(content)
        yield from (str(t.to_pylist()).encode() for t in (layers.columns, layers.patch) if t is not None)
    elif content[:4] == b"PAR1":
        yield str(pl.read_parquet(content).to_dicts()).encode()
    elif content[:2] == b"\x1f\x8b":
        yield gzip.decompress(content)
    elif content[:4] == b"PK\x03\x04":
        archive = zipfile.ZipFile(io.BytesIO(content))
        yield from map(archive.read, archive.namelist())
    elif content[:4] == b"EVF1":
        yield from map(in_frame, content.split(b"EVF1")[1:])
    elif b'"payload"' in content[:2000]:
        yield base64.b64decode(json.loads(content)["payload"])


def in_frame(frame):
    told, sent = struct.unpack_from("<II", frame)
    body = frame[12 + told : 12 + told + sent]
    if b"arrow" in frame[12 : 12 + told]:
        return str(pa.ipc.open_stream(io.BytesIO(body)).read_all().to_pylist()).encode()
    return body


class Built:
    """Puts one person into every place."""

    def __init__(self, ctx):
        self.ctx = ctx
        for name in ("tables", "feeds", "folder", "runs", "traces", "files", "log", "online", "leftovers"):
            getattr(self, name)()

    def put(self, *made):
        with self.ctx.write() as tx:
            for version in made:
                versions.put(tx, self.ctx.project, version, actor="ada", at=1)

    def tables(self):
        people = [f"customer-{i:07d}-x" for i in range(4711, 4741)]
        frame = pl.DataFrame({"customer": people * 40, "n": np.arange(1200), "note": ["fine"] * 1200})
        contract = Contract.of(("customer", "n"), tags={"customer": "subject", "note": "mentions"})
        first = edit(self.ctx, "orders", frame, "append", HERE, contract=contract)
        spoken = frame.head(3).with_columns(note=pl.lit(f"ask {KEY}, please"))
        second = edit(self.ctx, "orders", spoken, "upsert", HERE)
        for made in (first, second):
            data.profile_of(self.ctx, made.id)
            data.read(self.ctx, made.id).collect()
        # a version's manifest, a fact's payload, a comment: they say the key in words
        self.put(Version("value", "asked", {"about": {"customer": KEY}}))
        with self.ctx.write() as tx:
            told = self.ctx.fact("data.checked", "data/orders", {"failing": [{"customer": KEY}]})
            facts.append(tx, self.ctx.project, told)
        chain.seal(self.ctx.catalog, self.ctx.clock)

    def feeds(self):
        columns = {"customer": "string", "amount": "float64"}
        source = SourceDef("clicks", Push(columns=columns), tags={"customer": "subject"})
        self.put(source.version())
        writer = inbox.InboxWriter(inbox.inbox(self.ctx.home, self.ctx.project, HERE, "clicks"))
        sent = [{"customer": person, "amount": 1.5} for person in (KEY, OTHER)]
        dead = {"customer": KEY, "amount": "much"}

        def send(body, media=JSON_LINES, encoding=""):
            writer.append({"at": AT, "key": f"ada/{KEY}/{len(body)}", "media": media, "encoding": encoding}, body)

        send("\n".join(json.dumps(one) for one in [*sent, dead]).encode())
        writer.close()
        consumer = Consumer(self.ctx, HERE, "clicks")
        assert [made.rows for made in consumer.drain()] == [2]
        consumer.close()
        rows = b"\n".join(json.dumps(one).encode() for one in sent)
        for finished in (True, False):
            send(rows)
            send(gzip.compress(rows), encoding="gzip")
            sink = io.BytesIO()
            table = pa.Table.from_pylist(sent)
            with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as stream:
                stream.write_table(table)
            send(sink.getvalue(), media=ARROW)
            if finished:
                writer.close()
        self.writer = writer

    def folder(self):
        root = self.ctx.home.parent / "project"
        big = bytearray(np.random.default_rng(1).bytes(3 << 20))
        big[1_500_000 : 1_500_000 + len(KEY) + 2] = f" {KEY} ".encode()
        for path, content in {
            f"people/{KEY}/photo.png": b"\x89PNG by its path",
            "faces/1.png": b"\x89PNG by the index table",
            "faces/2.png": b"\x89PNG of somebody else",
            "letters/1.txt": f"Dear {KEY}, thank you".encode(),
            "letters/2.txt": f"Dear {OTHER}, thank you".encode(),
            "scans/big.bin": bytes(big),
        }.items():
            file = root / "files" / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        self.images = data.capture(self.ctx, SourceDef("images", Folder("files/**")), root=root).id
        named = pl.DataFrame({"customer": [KEY, OTHER], "path": ["faces/1.png", "faces/2.png"]})
        edit(self.ctx, "faces", named, "append", HERE, contract=Contract.of(("path",), tags={"customer": "subject"}))

    def runs(self):
        ctx = self.ctx
        with ctx.write() as tx:
            ensure_default(tx, ctx.project, 1)
            self.run = runs.create(
                tx, ctx.project, experiment="0", actor="ada", at=1, name=f"fit {KEY}", tags={"for": KEY, "n": "7"}
            )
            runs.log_params(tx, self.run, [("customer", KEY), ("depth", "7")])
            box = io.BytesIO()
            with zipfile.ZipFile(box, "w", zipfile.ZIP_DEFLATED) as archive:
                archive.writestr("a/rows.csv", f"customer\n{KEY}\n")
            table = io.BytesIO()
            pl.DataFrame({"customer": [KEY, OTHER], "p": [0.1, 0.2]}).write_parquet(table)
            for path, content in {
                "rows.csv": f"customer,p\n{KEY},0.1\n{OTHER},0.2\n".encode(),
                "table.json": json.dumps({"columns": ["customer", "p"], "data": [[KEY, 1], [OTHER, 2]]}).encode(),
                "rows.parquet": table.getvalue(),
                "box.zip": box.getvalue(),
                "log.gz": gzip.compress(KEY.encode()),
                f"plots/{KEY}.svg": b"<svg/>",
                "page.html": f"<p>{KEY}</p>".encode(),
            }.items():
                put = {"identity": ctx.store.put(content), "size": len(content), "at": 1}
                artifacts.put(tx, ctx.project, self.run.id, path, **put)
        console.append(ctx, self.run.id, [Line(1, "out", f"fitting {KEY}"), Line(2, "out", "done")])

    def traces(self):
        ctx = self.ctx
        body = json.dumps({"attributes": {"inputs": {"customer": KEY}}})
        large = ctx.store.put(json.dumps({"customer": KEY, "text": "x" * 20_000}).encode())
        plain = [Span(f"tr-{i:032x}", f"{i:016x}", "", "ask", "LLM", "OK", 1000, 2000, "{}") for i in range(1, 6)]
        told = [replace(plain[0], body=body), replace(plain[1], object=large), *plain[2:]]
        with ctx.write() as tx:
            spans.record(tx, ctx.project, "0", told)
            traces.put_tags(tx, traces.number_of(tx, ctx.project, plain[2].trace), {"user": KEY})
            said = Assessment("right", "feedback", True, rationale=f"{KEY} agreed")
            traces.state(tx, ctx.project, Trace(plain[3].trace, "0", 1, assessments=(said,)), at=1)
            made = datasets.create(tx, ctx.project, "asked", actor="ada", at=1)
            asked = [Record({"customer": KEY}, outputs="Ada Lovelace"), Record({"customer": OTHER})]
            datasets.upsert(tx, ctx.project, made.id, asked, schema=None, by="ada", at=1)
            self.kept, self.asked = plain[4].trace, made.id

    def files(self):
        store = self.ctx.store
        report = store.put(json.dumps({"worst": [{"customer": KEY}], "rows": 2}).encode())
        example = store.put(json.dumps({"customer": [KEY, OTHER], "x": [1, 2]}).encode())
        self.report = Version("evidence", "worst", {"report": report})
        self.model = Version("model", "churn", {"flavor": "x", "files": {"example.json": example}})
        self.put(self.report, self.model)

    def log(self):
        layout = Layout((Column("customer", "BYTES"), Column("x", "FP64")))
        out = (Output("prediction", "FP64"),)
        appender = log.Appender(self.ctx.home / "serving" / "log" / "g1")
        for number, keys in enumerate(({"customer": [KEY, OTHER]}, {"order": ["o-1", "o-2"]})):
            inputs = layout.pack({"customer": [KEY, OTHER], "x": [1.0, 2.0]}, 2)
            answer = pack_answer(out, {"prediction": np.array([1.0, 2.0])})
            appender.append(
                log.Entry(
                    f"id{number}", AT, AT, self.ctx.project, "churn", "b3:1", 2, log.raw(layout.pairs()), inputs,
                    log.raw([o.listed() for o in out]), answer, keys, 17, "", "predict",
                )
            )  # fmt: skip
        appender.close()
        ingest.ingest(self.ctx.catalog, self.ctx.home)

    def online(self):
        view = Version("view", "spend", {"entity": ["customer"]}, ())
        snapshot = Snapshot({}).version()
        self.put(view, snapshot)
        with self.ctx.write() as tx:
            name = refs.env_ref("production")
            refs.move(tx, self.ctx.project, name, old=None, new=snapshot.id, actor="ada", at=1)
        state = [(b"ss" + KEY.encode(), b"state"), (b"ss" + OTHER.encode(), b"another")]
        online_store(self.ctx, "production").write(f"{self.ctx.project}/production/{view.id}", state)

    def leftovers(self):
        for name, content in {
            "scratch/sort-1/run.parquet": None,
            "tmp/upload-1": f"customer,{KEY}".encode(),
            "cache/old.object": KEY.encode(),
            "objects/tmp/half": KEY.encode(),
            "serving/models/abc/example.json": json.dumps({"customer": [KEY, OTHER], "x": [1, 2]}).encode(),
        }.items():
            file = self.ctx.home / name
            file.parent.mkdir(parents=True, exist_ok=True)
            if content is None:
                pl.DataFrame({"customer": [KEY]}).write_parquet(file)
            else:
                file.write_bytes(content)


@pytest.fixture(scope="module")
def full(tmp_path_factory, signing_key):
    """A workspace with the person in every place; tests take copies."""
    root = tmp_path_factory.mktemp("everywhere")
    with opened(root, signing_key) as ctx:
        built = Built(ctx)
        built.writer.close()
    return root, built


@contextmanager
def opened(root, key):
    home = root / "home"
    home.mkdir(exist_ok=True)
    catalog = Catalog.open(home / "catalog.db")
    actor = Actor.of("ada", grants=["* */*@*#*"])
    yield Context(actor, "flights", SystemClock(), catalog, DirectoryStore(home / "objects"), key, home=home)
    catalog.close()


@pytest.fixture
def copied(full, tmp_path, signing_key):
    shutil.copytree(full[0] / "home", tmp_path / "home")
    with opened(tmp_path, signing_key) as ctx:
        yield ctx, full[1]


def test_afterwards_the_key_is_nowhere_and_everybody_else_is_where_they_were(copied):
    ctx, built = copied
    before = found_in(ctx.home)
    assert {path.split("/")[0] for path in before} >= {
        "catalog.db", "objects", "feeds", "serving", "online", "scratch", "tmp", "cache", "trees",
    }  # fmt: skip
    done = invoke(ctx, "data.erase", Erase(subject=KEY, reason="request 88"))
    assert found_in(ctx.home) == []
    assert verify(ctx.catalog, ctx.store) == []
    assert done.left == []
    assert done.files == 4
    assert {place for place, count in done.elsewhere.items() if not count} == {
        # there are none here: test_brokers.py, opening/test_keeping.py, serving/test_fallbacks.py
        "streams", "tables opened to other engines", "cached answers",
    }  # fmt: skip
    reads_of_others(ctx, built)


def reads_of_others(ctx, built):
    with ctx.read() as tx:
        run = runs.get(tx, ctx.project, built.run.id)
        listed = {one.path: one.object for one in artifacts.tree(tx, ctx.project, run.id)}
        assert (run.params, run.name) == ({"customer": "[erased]", "depth": "7"}, "fit [erased]")
        assert traces.get(tx, ctx.project, built.kept).spans == 1
        with pytest.raises(NotFound):
            traces.get(tx, ctx.project, f"tr-{1:032x}")
        asked = datasets.records(tx, ctx.project, built.asked).rows
        assert [record.inputs for record in asked] == [{"customer": OTHER}]
        model = versions.get(tx, ctx.project, built.model.id).manifest
    assert sorted(listed) == ["page.html", "rows.csv", "rows.parquet", "table.json"]
    assert ctx.store.get(listed["rows.csv"]) == f"customer,p\n{OTHER},0.2\n".encode()
    assert pl.read_parquet(ctx.store.get(listed["rows.parquet"])).to_dicts() == [{"customer": OTHER, "p": 0.2}]
    assert json.loads(ctx.store.get(listed["table.json"]))["data"] == [[OTHER, 2]]
    assert json.loads(ctx.store.get(model["files"]["example.json"])) == {"customer": [OTHER], "x": [2]}
    shown = console.read_console(ctx, console.ReadConsole(run=run.id)).lines
    assert [line.text for line in shown] == ["fitting [erased]", "done"]
    tree = data.trees.open_tree(ctx, built.images)
    assert [(path, content[:4]) for path, content in tree.items()] == [
        ("faces/2.png", b"\x89PNG"),
        ("letters/2.txt", b"Dear"),
    ]
    consumer = Consumer(ctx, HERE, "clicks")
    (made,) = consumer.drain()
    consumer.close()
    assert made.rows == 6  # of the other one, from lines, gzip and Arrow, twice
    assert set(data.read(ctx, made.id).collect()["customer"]) == {OTHER}


TAKEN = {
    "tables": (rewriting, "rewrite", "objects/"),
    "ends of parts": (rewriting, "_redact_manifests", "catalog.db"),
    "packs": (folders, "erase", "objects/"),
    "what captures remember": (folders, "forget", "trees/"),
    "catalog": (catalogued, "erase", "catalog.db"),
    "free pages": (erasing, "scrub", "catalog.db", ""),
    "inboxes": (Inboxes, "erase", "feeds/"),
    "traces": (Traces, "erase", "objects/"),
    "files": (LoggedFiles, "erase", "objects/"),
    "old objects": (erasing, "_remove", "objects/", []),
    "prediction log": (PredictionLog, "erase", "serving/log"),
    "online": (OnlineFeatures, "erase", "online/"),
    "leftovers": (Leftovers, "erase", "scratch/"),
}


@pytest.mark.parametrize("name", TAKEN)
def test_without_one_eraser_the_key_is_found_where_it_would_have_looked(copied, monkeypatch, name):
    ctx, _ = copied
    owner, function, place, *said = TAKEN[name]
    monkeypatch.setattr(owner, function, lambda *_args, **_more: said[0] if said else 0)
    invoke(ctx, "data.erase", Erase(subject=KEY, reason="request 88"))
    assert any(path.startswith(place) for path in found_in(ctx.home))
