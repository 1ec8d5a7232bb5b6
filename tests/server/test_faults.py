"""What nobody foresaw: whoever asked gets one form of error with an id and no internals, the log has the rest."""

from contextlib import contextmanager

import httpx2
import pytest
from starlette.responses import StreamingResponse
from starlette.routing import Mount, Route
from web_house import listening

from everloop.core.settings import Settings
from everloop.server.app import build_app
from everloop.server.rest import rest_app
from everloop.workspace.initial import initialise
from everloop.workspace.opened import Workspace
from everloop.workspace.operations import load_operations

SECRET = "the password is swordfish"


@contextmanager
def serving(app):
    with listening(app, lifespan="off", log_level="critical") as address, httpx2.Client(base_url=address) as http:
        yield http


@pytest.fixture(scope="module")
def http(tmp_path_factory):
    """The whole application, with routes in it that fail."""
    load_operations()

    async def broken(_request):
        raise ZeroDivisionError(SECRET)

    async def halfway(_request):
        async def pieces():
            yield b"begun"
            raise ZeroDivisionError(SECRET)

        return StreamingResponse(pieces())

    def nobody(_request, _project):
        raise ZeroDivisionError(SECRET)

    place = tmp_path_factory.mktemp("faults") / "home"
    settings = Settings(home=place, project="shop")
    initialise(settings, "ada", "team", place.parent)
    with Workspace.open(settings) as workspace:
        app = build_app(workspace)
        fail = [Route("/broken", broken), Route("/halfway", halfway), Route("/api/2.0/broken", broken)]
        app.router.routes[:0] = [*fail, Mount("/rest/v2", rest_app(nobody))]
        with serving(app) as http:
            yield http


@pytest.mark.parametrize(
    ("path", "accept", "kind"),
    [
        ("/broken", "*/*", "application/problem+json"),
        ("/broken", "text/html,*/*", "text/html"),
        ("/api/2.0/broken", "*/*", "application/json"),
        ("/rest/v2/shop/tasks.list", "*/*", "application/problem+json"),
    ],
)
def test_a_fault_is_told_by_an_id_that_the_log_names(http, capsys, path, accept, kind):
    answer = http.request("POST" if "rest" in path else "GET", path, headers={"accept": accept})
    assert answer.status_code == 500
    assert answer.headers["content-type"].startswith(kind)
    logged = capsys.readouterr().err
    identity = next(word for word in logged.replace(":", " ").split() if word.startswith("fault-"))
    assert identity in answer.text
    assert f"{path}\nTraceback" in logged
    assert logged.count(SECRET) == 1
    for internal in (SECRET, "ZeroDivisionError", "Traceback", ".py"):
        assert internal not in answer.text


def test_an_answer_that_was_begun_is_cut_off(http):
    with pytest.raises(httpx2.RemoteProtocolError):
        http.get("/halfway")
