"""The operations of an import: who may write what, what a second writer meets, numbers and guarded names."""

import subprocess
import sys
from contextlib import closing

import pytest

from everloop.catalog import refs, versions
from everloop.catalog.context import Actor
from everloop.catalog.operation import operations
from everloop.catalog.tracking import experiments, logged, registered, registry, runs
from everloop.catalog.tracking.rows import Point
from everloop.core.errors import Conflict, InvalidInput, PermissionDenied
from everloop.core.snapshot import Snapshot
from everloop.models.importing.copying import Plan
from everloop.models.importing.importing import import_from
from everloop.models.importing.operations import NAME_FILE, NameFile
from everloop.models.importing.report import Report
from everloop.models.importing.targets import Here
from everloop.models.importing.values import (
    End,
    ImportedExperiment,
    ImportedFile,
    ImportedModel,
    ImportedName,
    ImportedRun,
    ImportedVersion,
    Param,
    Tag,
    Unmapped,
    identity_of,
)

RUN, MODEL = "a" * 32, "m-" + "b" * 32


class Kept:
    """A source in memory: two runs, a logged model, a registered name."""

    kind, label = "mlflow", "memory"

    def __init__(self, folder, **name):
        self.folder, self.name = folder, name

    def experiments(self, _selection):
        yield ImportedExperiment("1", "nets")

    def runs(self, _experiment, _selection):
        for identity in (RUN, "c" * 32):
            yield ImportedRun(identity, identity, f"run {identity[0]}", 5, self._contents, stamp="one")

    def _contents(self):
        yield Param("lr", "0.1")
        for step in range(20):
            yield Point("loss", 1 / (step + 1), 10 + step, step)
            if step == 10:
                yield from self._files()
        yield Tag("colour", "blue")
        yield End("FINISHED", 99)

    def models(self, _experiment):
        yield ImportedModel(MODEL, "net", "", RUN, "LOGGED_MODEL_READY", 7, {}, {}, (), self._files)

    def _files(self):
        for name in ("one.txt", "two.txt"):
            path = self.folder / name
            path.write_text(name)
            yield ImportedFile(f"files/{name}", lambda path=path: path.open("rb"), 7)

    def names(self):
        wanted = self.name.get("numbers", (1, 2, 5))
        stage = self.name.get("stage", "None")
        made = tuple(
            ImportedVersion(one, 8, "", stage, f"models:/{MODEL}", RUN, MODEL, MODEL, "", {}) for one in wanted
        )
        yield ImportedName("classifier", 8, "", {}, made, self.name.get("aliases", {"best": wanted[-1]}))

    def close(self):
        pass


class Stopped(BaseException):
    """Stands for the end of the process between two operations."""


class Ending:
    """A target that ends the process at its n-th call, before or after the operation."""

    def __init__(self, target, calls, *, after, end=None):
        self.target, self.left, self.after, self.end = target, calls, after, end or self.stop

    def stop(self):
        raise Stopped

    def call(self, name, /, **fields):
        return self._through(lambda: self.target.call(name, **fields))

    def upload(self, *given):
        return self._through(lambda: self.target.upload(*given))

    def _through(self, act):
        self.left -= 1
        if self.left == 0 and not self.after:
            self.end()
        answer = act()
        if self.left == 0:
            self.end()
        return answer


def bring(house, source, target=None):
    with closing(source):
        return import_from(source, target or Here(house.ctx), Plan(), lambda *_: None).json()


def standing(house):
    """All that an import made, registry too."""
    with house.ctx.read() as tx:
        found = registered.search_versions(tx, house.ctx.project).rows
    return house.everything(), house.files(MODEL), [(one.number, one.aliases, one.run) for one in found]


def test_whenever_it_is_stopped_the_next_import_completes_it(house, tmp_path):
    assert bring(house, Kept(tmp_path))["imported"]["points"] == 40
    whole = standing(house)
    calls, ended = 0, False
    while not ended:
        calls += 1
        other = house.beside(f"stopped{calls}")
        try:
            bring(other, Kept(tmp_path), Ending(Here(other.ctx), calls, after=calls % 2 == 0))
            ended = True
        except Stopped:
            bring(other, Kept(tmp_path))
        assert standing(other) == whole
    assert calls > 10
    assert bring(other, Kept(tmp_path))["imported"]["runs unchanged"] == 2


def test_a_process_that_is_killed_leaves_nothing_that_the_next_import_minds(house, tmp_path):
    script = f"""
import os, signal, sys
sys.path.insert(0, {str(tmp_path.parent)!r})
from pathlib import Path
from importlib.util import module_from_spec, spec_from_file_location
def load(name, path):
    spec = spec_from_file_location(name, path); module = module_from_spec(spec)
    sys.modules[name] = module; spec.loader.exec_module(module); return module
house = load("house", {str(__file__).replace("test_operations", "conftest")!r}).House(Path({str(tmp_path / "house")!r}))
tests = load("tests", {__file__!r})
end = lambda: os.kill(os.getpid(), signal.SIGKILL)
tests.bring(house, tests.Kept(Path({str(tmp_path)!r})), tests.Ending(tests.Here(house.ctx), 7, after=True, end=end))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False, timeout=120)
    assert done.returncode == -9, done.stderr.decode()
    assert [run.tags["everloop.import.state"] for run in house.runs().values()] == ["copying"]
    report = bring(house, Kept(tmp_path))
    assert report["imported"]["runs"] == report["imported"]["runs completed"] == 1
    assert {run.status for run in house.runs().values()} == {"FINISHED"}
    assert all(len(house.series(run, "loss")) == 20 for run in house.runs().values())
    assert set(house.files(MODEL)) == {"files/one.txt", "files/two.txt"}


def test_numbers_stay_and_those_of_deleted_versions_are_used_up(house, tmp_path):
    bring(house, Kept(tmp_path))
    with house.ctx.read() as tx:
        found = registered.search_versions(tx, "default").rows
        assert sorted(one.number for one in found) == [1, 2, 5]
        assert registered.get(tx, "default", "classifier").aliases == {"best": 5}
        assert [row.number for row in versions.history(tx, "default", "model", "classifier")] == [5, 4, 3, 2, 1]
    again = bring(house, Kept(tmp_path))["imported"]
    assert (again["versions there"], again["aliases there"]) == (3, 1)


def test_a_number_that_was_given_already_stays_whose_it_is(house, tmp_path, reasons):
    with house.ctx.write() as tx:
        model = registry.register(tx, "default", "classifier", actor="ada", at=1)
        registry.create_version(tx, "default", model, source="s3://mine", actor="ada", at=1)
        registry.set_alias(tx, "default", "classifier", "best", 1, actor="ada", at=1)
    report = bring(house, Kept(tmp_path))
    with house.ctx.read() as tx:
        assert registered.version(tx, "default", "classifier", 1).source == "s3://mine"
        assert sorted(one.number for one in registered.search_versions(tx, "default").rows) == [1, 2, 3, 5]
        assert registered.get(tx, "default", "classifier").aliases == {"best": 1}
    assert ("number", "it is version 2 here, since its number was given already") in reasons(report)
    assert any(kind == "alias" and "points to version 1 here" in reason for kind, reason in reasons(report))
    assert bring(house, Kept(tmp_path))["imported"]["versions there"] == 3


def test_a_gap_of_millions_is_not_filled(house, tmp_path):
    bring(house, Kept(tmp_path, numbers=(1, 9_000_000)))
    with house.ctx.read() as tx:
        assert [row.number for row in versions.history(tx, "default", "model", "classifier")] == [2, 1]


def test_what_a_policy_guards_does_not_move(house, tmp_path, reasons):
    with house.ctx.write() as tx:
        snapshot = Snapshot({}).version()
        versions.put(tx, "default", snapshot, actor="ada", at=4)
        refs.move(tx, "default", refs.env_ref("production"), old=None, new=snapshot.id, actor="ada", at=4)
    report = bring(house, Kept(tmp_path, stage="Production", aliases={"champion": 1, "best": 2}))
    with house.ctx.read() as tx:
        model = registered.get(tx, "default", "classifier")
        assert model.aliases == {"best": 2}
        assert {one.stage for one in registered.search_versions(tx, "default").rows} == {"None"}
    told = reasons(report)
    assert told["stage", "Production is guarded by a policy here: it moves by a change"] == 3
    assert any(kind == "alias" and "moves by changes only" in reason for kind, reason in told)


def test_a_viewer_imports_nothing(house, tmp_path):
    viewer = house.ctx.as_actor(Actor.of("vera", "viewer"))
    with pytest.raises(PermissionDenied):
        bring(house, Kept(tmp_path), Here(viewer))
    assert not house.runs()
    assert [fact.actor for fact in house.facts("audit.denied")] == ["vera"]


def test_a_step_of_a_flow_may_not_write_into_others_imports(house, tmp_path):
    bring(house, Kept(tmp_path))
    step = Here(house.ctx.as_actor(Actor("step", "task", grants=Actor.of("x", grants=[f"run.write run/{RUN}"]).grants)))
    with pytest.raises(PermissionDenied):
        step.call("imports.close", run="c" * 32)
    with pytest.raises(PermissionDenied):
        step.call("imports.name", name="classifier")
    with house.ctx.write() as tx:
        other = logged.create(tx, "default", experiment="1", at=1, run="c" * 32)
    forged = {"experiment": "1", "run": RUN, "created": 1, "kind": "mlflow", "source": "x"}
    with pytest.raises(PermissionDenied):  # whose model it is counts, not whose the caller says it is
        step.call("imports.logged", model=other.id, **forged)


def test_only_a_run_that_is_open_for_import_is_written(house, tmp_path):
    bring(house, Kept(tmp_path))
    here = Here(house.ctx)
    with house.ctx.write() as tx:
        runs.create(tx, "default", experiment="1", actor="eve", at=5, identity="d" * 32)
    for run in (RUN, "d" * 32):
        for name in ("imports.write", "imports.close"):
            with pytest.raises(Conflict):
                here.call(name, run=run)
    about = {"experiment": "1", "name": "", "start": 1, "kind": "mlflow", "source": "x", "source_id": "other"}
    for run in (RUN, "d" * 32):
        assert here.call("imports.open", run=run, **about).state == "taken"


def test_nobody_names_an_object_over_http(house):
    assert NAME_FILE.name not in operations()
    with house.ctx.write() as tx:
        experiments.ensure_default(tx, "default", 1)
        runs.create(tx, "default", experiment="0", actor="ada", at=5, identity=RUN)
    for path in ("../x", "/x", "a\\b", "%2e%2e/x", "a//b"):
        with pytest.raises(InvalidInput):
            NAME_FILE.function(house.ctx, NameFile(owner=RUN, path=path, object="b3:" + "0" * 64, size=1))


def test_a_report_keeps_a_few_names_of_each_reason():
    report = Report("mlflow", "x")
    for number in range(9):
        report.lose(Unmapped("file", f"f{number}", "gone"))
    (told,) = report.lost
    assert (told["count"], told["names"]) == (9, ["f0", "f1", "f2", "f3", "f4"])


def test_identities_are_the_same_each_time_and_differ_by_every_part():
    assert identity_of("wandb", "a", "b", "c") == identity_of("wandb", "a", "b", "c")
    assert len({identity_of("wandb", "a", "b"), identity_of("wandb", "ab", ""), identity_of("neptune", "a", "b")}) == 3
