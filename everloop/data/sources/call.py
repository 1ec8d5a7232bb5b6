"""The table that a function of the project returns."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import import_module
from typing import Any

import pyarrow as pa

from everloop.core.canonical import canonical_json
from everloop.core.clock import SECOND, Micros
from everloop.core.errors import DataError, EverloopError, InvalidInput
from everloop.data.codec import table_batches
from everloop.data.definitions import Call


@dataclass(frozen=True, slots=True)
class CallSource:
    """A function to call at event time `now`."""

    call: Call
    now: Micros

    def state(self) -> Mapping[str, Any]:
        """What the state function answers; empty (always call) without one. Raises `InvalidInput`."""
        if not self.call.state:
            return {}
        answer = self._called(str(self.call.state))
        try:
            canonical_json(answer)
        except EverloopError as error:
            raise InvalidInput(f"{self.call.state} answers {answer!r}", hint="answer small JSON, no floats") from error
        return {"state": answer}

    def read(self) -> Iterator[pa.RecordBatch]:
        """Record batches of the table; raises `DataError` when the function raises or returns no table."""
        schema, batches = table_batches(self._called(str(self.call.function)), str(self.call.function))
        yield pa.RecordBatch.from_pylist([], schema=schema)
        yield from batches

    def _called(self, reference: str) -> Any:
        function = _found(reference)
        arguments = dict(self.call.arguments)
        if "now" in inspect.signature(function).parameters and "now" not in arguments:
            arguments["now"] = datetime.fromtimestamp(self.now // SECOND, UTC).replace(microsecond=self.now % SECOND)
        try:
            return function(**arguments)
        except EverloopError:
            raise
        except Exception as error:  # the author's code may raise anything
            raise DataError(
                f"{reference} raised {type(error).__name__}: {error}", hint="call it in a Python session to see where"
            ) from error


def _found(reference: str) -> Callable[..., Any]:
    module, _, name = reference.partition(":")
    try:
        found: Any = import_module(module)
        for piece in name.split("."):
            found = getattr(found, piece)
    except (ImportError, AttributeError) as error:
        raise InvalidInput(f"{reference} cannot be imported: {error}", hint="run it in the project's folder") from error
    if not callable(found):
        raise InvalidInput(f"{reference} is no function")
    return found  # type: ignore[no-any-return]
