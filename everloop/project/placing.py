"""Where in the author's code a definition stands: messages begin with that place."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import TypeVar

from everloop.core.errors import DefinitionError, InvalidInput
from everloop.features.transforms.places import root_of

_OURS = str(Path(__file__).parent.parent)


def root_of_caller() -> Path | None:
    """Where the module of the nearest caller outside of this package was imported from."""
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 - as below
    while frame is not None and is_ours(frame.f_code.co_filename):
        frame = frame.f_back
    if frame is None or not Path(frame.f_code.co_filename).is_file():
        return None
    return root_of(str(frame.f_globals.get("__name__", "")), frame.f_code.co_filename)


V = TypeVar("V")


def at_caller(make: Callable[[], V]) -> V:
    """Run `make`; what it refuses is said with the author's file and line in front."""
    try:
        return make()
    except InvalidInput as error:
        here = place()
        message = error.message if error.message.startswith(here) else f"{here}: {error.message}"
        raise DefinitionError(message, hint=error.hint) from error


def place() -> str:
    """`file:line` of the nearest caller outside of this package (the demo's project counts as outside)."""
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 - the documented way to the caller
    while frame is not None:
        name = frame.f_code.co_filename
        if not is_ours(name):
            return f"{name}:{frame.f_lineno}"
        frame = frame.f_back
    return "?"


def is_ours(file: str) -> bool:
    """Whether a file is of the platform."""
    return file.startswith(_OURS) and "/demo/project/" not in file
