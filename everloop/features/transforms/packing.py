"""Functions of transforms as files beside a model, and back: what a model worker runs is what the frame was made by.

Project code is pickled by value, so that a worker neither imports the project nor needs its folder. File names are
cut to their last part: the same code gives the same bytes in another checkout.
"""

import base64
import pickle
import sys
from collections import ChainMap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path, PurePath
from types import CodeType, ModuleType
from typing import Any, ClassVar

import cloudpickle
import msgspec

from everloop.core.errors import CorruptObject, DataError
from everloop.features.transforms.definitions import TransformDef
from everloop.features.transforms.places import root_of

FOLDER = "transforms"
CARD, CODE = f"{FOLDER}/card.json", f"{FOLDER}/code.pkl"
"""Paths below a model's folder. `example.json` beside them holds rows of what the transforms and the model read."""
_PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


def pack(transforms: Sequence[TransformDef]) -> dict[str, str]:
    """{path below the model's folder: content in base64}, JSON-ready.

    Raises `DataError` for code that cannot travel.
    """
    functions = {one.name: one.function for one in transforms}
    buffer = BytesIO()
    try:
        with _by_value([f for f in functions.values() if f is not None]):
            _Pickler(buffer).dump(functions)
    except Exception as error:
        raise DataError(
            f"the code of {', '.join(functions)} cannot be packed: {type(error).__name__}: {error}",
            hint="keep open files, locks and connections out of what a transform refers to",
        ) from error
    card = {"python": _PYTHON, "transforms": [one.manifest() for one in transforms]}
    content = {CARD: msgspec.json.encode(card), CODE: buffer.getvalue()}
    return {path: base64.b64encode(data).decode() for path, data in content.items()}


def load(folder: Path) -> list[TransformDef]:
    """The transforms in a model's folder, ready to run; empty when it has none. This runs the author's code.

    Raises `CorruptObject` when they do not load, such as under another Python.
    """
    if not (folder / CARD).is_file():
        return []
    card = msgspec.json.decode((folder / CARD).read_bytes())
    if card["python"] != _PYTHON:
        raise CorruptObject(
            f"the transforms of this model were made by Python {card['python']}, this is {_PYTHON}",
            hint="build the model again under this Python",
        )
    try:
        functions = pickle.loads((folder / CODE).read_bytes())  # noqa: S301 - objects of the model's own version
    except Exception as error:
        raise CorruptObject(
            f"the transforms of the model do not load: {type(error).__name__}: {error}",
            hint="they need the packages that the project's module imports",
        ) from error
    return [TransformDef.from_manifest(manifest, functions[manifest["name"]]) for manifest in card["transforms"]]


@contextmanager
def _by_value(functions: Sequence[Callable[..., Any]]) -> Iterator[None]:
    """Pickle the modules of the project by value: a worker has not got them."""
    roots = {root for f in functions if (root := _root(sys.modules.get(f.__module__))) is not None}
    ours = [m for m in list(sys.modules.values()) if _lies_in(m, roots)]
    fresh = [m for m in ours if m.__name__ not in cloudpickle.list_registry_pickle_by_value()]
    for module in fresh:
        cloudpickle.register_pickle_by_value(module)
    try:
        yield
    finally:
        for module in fresh:
            cloudpickle.unregister_pickle_by_value(module)


def _root(module: ModuleType | None) -> Path | None:
    file = getattr(module, "__file__", None)
    return None if module is None or not file else root_of(module.__name__, file)


def _lies_in(module: object, roots: set[Path]) -> bool:
    file = getattr(module, "__file__", None)
    if not isinstance(module, ModuleType) or not isinstance(file, str):
        return False
    if module.__name__.partition(".")[0] in {"everloop", "__main__"}:  # what lies in __main__ goes by value anyway
        return False
    path = Path(file)
    if {"site-packages", "dist-packages"}.intersection(path.parts):
        return False
    return any(path.resolve().is_relative_to(root) for root in roots)


def _code(code: CodeType) -> Any:
    reduce: Any = cloudpickle.Pickler.dispatch_table[CodeType]
    return reduce(code.replace(co_filename=PurePath(code.co_filename).name))


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    """Cloudpickle's, without the folders of this machine."""

    dispatch_table: ClassVar[Any] = ChainMap({CodeType: _code}, cloudpickle.Pickler.dispatch_table)

    def __init__(self, file: BytesIO) -> None:
        super().__init__(file, protocol=5)

    def _function_getnewargs(self, func: Callable[..., Any]) -> Any:
        made = super()._function_getnewargs(func)
        for name in ("__file__", "__path__"):
            made[1].pop(name, None)
        return made
