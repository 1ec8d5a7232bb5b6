"""Which reader reads which kind of source; each is loaded only when it is asked for."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from everloop.core.errors import InvalidInput
from everloop.models.importing.values import Source

_READERS: Mapping[str, tuple[str, str]] = {
    "mlflow": ("everloop.models.importing.sources.mlflow", "open_mlflow"),
    "tensorboard": ("everloop.models.importing.sources.tensorboard", "open_tensorboard"),
    "wandb": ("everloop.models.importing.sources.wandb", "open_wandb"),
    "neptune": ("everloop.models.importing.sources.neptune", "open_neptune"),
}
KINDS = tuple(_READERS)


@dataclass(frozen=True, slots=True)
class Origin:
    """A source, as people name it."""

    kind: str
    place: str
    """A folder, or for `mlflow` also the address of a server or database."""
    artifacts: tuple[str, ...] = ()
    """`mlflow`: where artifacts may be read that no server proxies. `neptune`: the folder of files."""
    name: str = ""
    """`tensorboard`: the experiment that the runs go to; by default the folder's name."""
    scale: int = 1
    """`neptune`: what a decimal step is multiplied by."""


def open_source(origin: Origin) -> Source:
    """Open a source for reading; raises `InvalidInput`, `NotFound`, `Unavailable`."""
    if origin.kind not in _READERS:
        raise InvalidInput(f"{origin.kind!r} cannot be imported", hint="one of " + ", ".join(KINDS))
    module, name = _READERS[origin.kind]
    opening: Any = getattr(import_module(module), name)
    folder = Path(origin.place).expanduser()
    if origin.kind == "mlflow":
        source: Source = opening(origin.place, origin.artifacts)
    elif origin.kind == "tensorboard":
        source = opening(folder, origin.name)
    elif origin.kind == "neptune":
        files = Path(origin.artifacts[0]).expanduser() if origin.artifacts else None
        source = opening(folder, files=files, scale=origin.scale)
    else:
        source = opening(folder)
    return source
