"""A visit: who looks at which page, how pages ask operations, and what they answer."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response

from everloop.catalog.context import Context
from everloop.catalog.operation import find_operation, invoke
from everloop.core.clock import SECOND
from everloop.core.errors import EverloopError, InvalidInput
from everloop.server.web.charts import Zoom
from everloop.server.web.charts.scale import LARGEST
from everloop.server.web.pages import HEADERS, address, render, shown_time

OpenContext = Callable[[Request, str], Context]
_MOST_ERRORS = 3


@dataclass(frozen=True, slots=True)
class Visit:
    """What a page works with. `form` is what was posted; `refused` why that was not done, for the page to say."""

    ctx: Context
    request: Request
    form: Mapping[str, str] = field(default_factory=dict)
    posted: tuple[tuple[str, str], ...] = ()
    """The same with every value of a field that came more than once."""
    refused: EverloopError | None = None

    def ask(self, name: str, /, **fields: Any) -> Any:
        """Invoke the operation `name`, for whoever visits; raises `InvalidInput` for fields that it does not take."""
        operation = find_operation(name)
        try:
            command = operation.command(**fields)
        except ValidationError as error:
            said = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()[:_MOST_ERRORS]]
            raise InvalidInput("; ".join(said), hint="correct the field and send it again") from error
        return invoke(self.ctx, operation, command)

    def may(self, name: str, /, **fields: Any) -> bool:
        """Whether the visitor may invoke the operation: for what a page offers; the operation checks again."""
        operation = find_operation(name)
        target = operation.on(self.ctx, operation.command(**fields))
        return self.ctx.actor.may(operation.needs, target)

    def part(self, name: str) -> str:
        """A part of the path."""
        return str(self.request.path_params[name])

    def every(self, name: str) -> tuple[str, ...]:
        """Every value of a field that was posted, each once, in their order."""
        return tuple(dict.fromkeys(value for key, value in self.posted if key == name and value))

    def query(self, name: str, default: str = "") -> str:
        """A value of the query."""
        return self.request.query_params.get(name, default)

    def whole(self, name: str, default: int | None = None, *, posted: bool = False) -> int | None:
        """A whole number of the query, or of the form; raises `InvalidInput`."""
        text = self.form.get(name, "") if posted else self.query(name)
        if not text:
            return default
        if not (text.isascii() and text.isdigit() and len(text) < 16):
            where = "the form" if posted else "the address"
            raise InvalidInput(f"{name}={text!r} is no whole number", hint=f"correct {where}")
        return int(text)

    def zoom(self, name: str, *, read: bool = True) -> Zoom:
        """The part of an axis that the value `name` of the query asks for, as `low..high`; raises `InvalidInput`.

        With `read=False` the value is somebody else's to read.
        """
        text = self.query(name) if read else ""
        kept = [(key, value) for key, value in self.request.query_params.multi_items() if key != name]
        whole = self.request.url.path + (f"?{urlencode(kept)}" if kept else "")
        if not text:
            return Zoom(name, None, whole)
        try:
            low, high = map(float, text.split(".."))
        except ValueError:
            low = high = 0.0
        if not (low < high and abs(low) < LARGEST and abs(high) < LARGEST):
            raise InvalidInput(f"{name}={text!r} is no range", hint=f"write {name}=100..200, or leave it away")
        return Zoom(name, (low, high), whole)

    def at(self, *parts: Any, **query: Any) -> str:
        """An address within the project."""
        return address(self.ctx.project, *parts, **query)

    def page(self, template: str, *, title: str, here: str = "", status: int = 200, **values: Any) -> Response:
        """Render `template`; `here` is the section that the page belongs to."""
        refused = self.refused
        shared = {
            "project": self.ctx.project,
            "actor": self.ctx.actor,
            "here": here,
            "title": title,
            "now": self.ctx.now(),
            "replayed": shown_time(self.ctx.now()) if abs(self.ctx.now() - self.ctx.wall()) > 60 * SECOND else "",
            "refused": refused,
            "here_address": self._address(),
        }
        return render(template, {**shared, **values}, status=refused.status if refused else status)

    def _address(self) -> str:
        """Where this page is by GET: a form that was refused is shown below the page it belongs to."""
        url = self.request.url
        return url.path.rpartition("/")[0] if self.refused else url.path + (f"?{url.query}" if url.query else "")

    def go(self, *parts: Any, **query: Any) -> Response:
        """After a form was done: to a page of this project, by GET."""
        return self.go_to(self.at(*parts, **query))

    def go_to(self, whole: str) -> Response:
        """The same for an address that `at` made."""
        return RedirectResponse(whole, 303, headers={"Cache-Control": "no-store"})


def data_answer(body: Any) -> Response:
    """JSON for a module of ours."""
    return JSONResponse(body, headers=HEADERS)
