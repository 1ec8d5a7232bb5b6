"""What is measured, under which names, and how often."""

import os
import subprocess
import sys
import threading
from types import SimpleNamespace

import pytest
from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor

from everloop.core.errors import Unavailable
from everloop.flows.observation import sampling
from everloop.flows.observation.gpu import Gpus, open_gpus
from everloop.flows.observation.sampling import Sampler

BUSY = "import time\ndata = bytearray(60_000_000)\nuntil = time.monotonic() + 60\nwhile time.monotonic() < until: pass"
PARENT = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {BUSY!r}])"


class Taken:
    def __init__(self, enough=1, failures=0):
        self.samples, self.enough, self.failures = [], enough, failures
        self.came, self.writes = threading.Event(), 0

    def __call__(self, samples):
        self.writes += 1
        if self.failures:
            self.failures -= 1
            raise Unavailable("the catalog is away")
        self.samples += samples
        if len(self.samples) >= self.enough:
            self.came.set()


@pytest.fixture
def parent():
    process = subprocess.Popen([sys.executable, "-c", PARENT], start_new_session=True)
    yield process
    os.killpg(process.pid, 9)
    process.wait()


def test_the_machines_measures_have_the_names_of_the_ordinary_client():
    taken = Taken()
    Sampler(taken, lambda: 7).finish()
    theirs = {}
    for monitor in (CPUMonitor(), DiskMonitor(), NetworkMonitor()):
        monitor.collect_metrics()
        theirs |= monitor.aggregate_metrics()
    (sample,) = taken.samples
    assert set(sample.values) == {f"system/{name}" for name in theirs}
    for name in ("system_memory_usage_megabytes", "disk_usage_megabytes", "disk_usage_percentage"):
        assert sample.values[f"system/{name}"] == pytest.approx(theirs[name], rel=0.2)


def test_the_process_and_what_it_started_are_measured_together(parent):
    taken = Taken(enough=8)
    sampler = Sampler(taken, lambda: 7, interval=0.2)
    sampler.start(parent.pid)
    assert taken.came.wait(60)
    sampler.finish()
    assert [sample.step for sample in taken.samples] == list(range(len(taken.samples)))
    # the parent waits; its child spins and holds 60 MB
    assert max(sample.values.get("system/process_cpu_percentage", 0) for sample in taken.samples) > 10
    assert max(sample.values.get("system/process_memory_megabytes", 0) for sample in taken.samples) > 60
    assert taken.writes < len(taken.samples)


def test_a_step_that_is_shorter_than_the_interval_is_measured_once_by_its_totals():
    taken = Taken()
    sampler = Sampler(taken, lambda: 7)
    sampler.start(os.getpid())
    sampler.finish(2.0, 1.0, 50_000_000)
    (sample,) = taken.samples
    assert sample.values["system/process_cpu_percentage"] == 50
    assert sample.values["system/process_memory_megabytes"] == 50
    assert [thread.name for thread in threading.enumerate() if thread.name == "sampler"] == []


def test_long_runs_are_thinned_as_they_grow(monkeypatch):
    waited = []

    class Over:
        def wait(self, seconds):
            waited.append(seconds)
            return sum(waited) > 86_400

        def set(self):
            pass

    monkeypatch.setattr(sampling, "open_gpus", lambda: (_ for _ in ()).throw(AssertionError))
    sampler = Sampler(lambda samples: None, lambda: 7)
    monkeypatch.setattr(sampler, "_over", Over())
    monkeypatch.setattr(sampler, "_sample", lambda: setattr(sampler, "_taken", sampler._taken + 1))
    sampler._loop()
    assert waited[0] == 5
    assert len(waited) < 1_800
    assert waited == sorted(waited)


def test_a_catalog_that_is_away_costs_no_samples():
    taken = Taken(enough=3, failures=2)
    sampler = Sampler(taken, lambda: 7, interval=0.05)
    sampler.start(os.getpid())
    assert taken.came.wait(60)
    sampler.finish()
    assert [sample.step for sample in taken.samples] == list(range(len(taken.samples)))


class NotTold(Exception):
    pass


def first_only(value):
    """An answer of the first GPU that the second does not give."""

    def answer(handle):
        if handle:
            raise NotTold
        return value

    return answer


DRIVER = SimpleNamespace(
    NVMLError=NotTold,
    nvmlDeviceGetCount=lambda: 2,
    nvmlDeviceGetHandleByIndex=lambda index: index,
    nvmlDeviceGetMemoryInfo=lambda _handle: SimpleNamespace(used=20_000_000, total=80_000_000),
    nvmlDeviceGetUtilizationRates=lambda handle: SimpleNamespace(gpu=40 + handle),
    nvmlDeviceGetPowerUsage=first_only(150_000),
    nvmlDeviceGetEnforcedPowerLimit=lambda _handle: 600_000,
    nvmlDeviceGetComputeRunningProcesses=first_only(
        [SimpleNamespace(pid=pid, usedGpuMemory=pid * 1_000_000) for pid in (7, 8, 9)]
    ),
)
"""Two GPUs as NVIDIA's library would tell of them; the second tells neither power nor processes."""


def test_gpus_are_told_by_the_names_of_the_ordinary_client():
    found = Gpus(DRIVER).read([7, 9, 11])
    assert found == {
        "system/gpu_0_memory_usage_percentage": 25,
        "system/gpu_0_memory_usage_megabytes": 20,
        "system/gpu_0_utilization_percentage": 40,
        "system/gpu_0_power_usage_watts": 150,
        "system/gpu_0_power_usage_percentage": 25,
        "system/gpu_0_process_memory_megabytes": 16,
        "system/gpu_1_memory_usage_percentage": 25,
        "system/gpu_1_memory_usage_megabytes": 20,
        "system/gpu_1_utilization_percentage": 41,
    }


@pytest.mark.gpu
@pytest.mark.skipif(not len(open_gpus()), reason="this machine has no GPU")
def test_a_real_gpu_tells_of_itself():
    found = open_gpus().read([os.getpid()])
    assert 0 <= found["system/gpu_0_utilization_percentage"] <= 100
    assert 0 < found["system/gpu_0_memory_usage_percentage"] <= 100


def test_without_driver_or_library_there_are_none(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert open_gpus().read([os.getpid()]) == {}
