"""GPUs by NVIDIA's management library; the only module that knows it. Without library, driver or GPU there are none."""

from collections.abc import Collection
from contextlib import suppress
from importlib import import_module
from types import ModuleType
from typing import Any


class Gpus:
    """The GPUs of this machine, under the names that mlflow's client gives their measures."""

    def __init__(self, library: ModuleType | None) -> None:
        """Use the library, initialised; None: there is no GPU."""
        self._library = library
        self._handles: list[Any] = []
        if library is not None:
            self._handles = [library.nvmlDeviceGetHandleByIndex(i) for i in range(library.nvmlDeviceGetCount())]

    def __len__(self) -> int:
        """How many there are."""
        return len(self._handles)

    def read(self, pids: Collection[int]) -> dict[str, float]:
        """What each does now: memory, utilisation, power, and the memory that the processes `pids` hold of it.

        What a GPU does not tell (power in some, processes inside a container) is left out.
        """
        found: dict[str, float] = {}
        for place, handle in enumerate(self._handles):
            self._one(f"system/gpu_{place}", handle, set(pids), found)
        return found

    def _one(self, name: str, handle: Any, pids: set[int], found: dict[str, float]) -> None:
        library: Any = self._library
        with suppress(library.NVMLError):
            memory = library.nvmlDeviceGetMemoryInfo(handle)
            found[f"{name}_memory_usage_percentage"] = memory.used / memory.total * 100
            found[f"{name}_memory_usage_megabytes"] = memory.used / 1e6
        with suppress(library.NVMLError):
            found[f"{name}_utilization_percentage"] = float(library.nvmlDeviceGetUtilizationRates(handle).gpu)
        with suppress(library.NVMLError):
            watts = library.nvmlDeviceGetPowerUsage(handle) / 1000
            found[f"{name}_power_usage_watts"] = watts
            limit = library.nvmlDeviceGetEnforcedPowerLimit(handle) / 1000
            found[f"{name}_power_usage_percentage"] = watts / limit * 100
        with suppress(library.NVMLError):
            held = [
                process.usedGpuMemory or 0
                for process in library.nvmlDeviceGetComputeRunningProcesses(handle)
                if process.pid in pids
            ]
            if held:
                found[f"{name}_process_memory_megabytes"] = sum(held) / 1e6


def open_gpus() -> Gpus:
    """The GPUs of this machine; loading the library takes some milliseconds, so ask once."""
    try:
        library = import_module("pynvml")
    except ImportError:  # the extra `gpu` is not installed
        return Gpus(None)
    try:
        library.nvmlInit()
        return Gpus(library)
    except library.NVMLError:  # no driver here
        return Gpus(None)
