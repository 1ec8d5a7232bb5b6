"""A real server over a filled workspace, and a real browser in front of it."""

import socket
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest
import uvicorn

from everloop.server.app import build_app

sys.path.insert(0, str(Path(__file__).parent))

import page_world

CHROMIUM = Path("/usr/bin/chromium")


@contextmanager
def running(workspace):
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    app = build_app(workspace)
    server = uvicorn.Server(
        uvicorn.Config(
            app, lifespan="off", log_level="error", timeout_keep_alive=3600, ws="none", timeout_graceful_shutdown=3
        )
    )
    app.state.stopping = lambda: server.should_exit
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    while not server.started:
        thread.join(0.01)
        assert thread.is_alive()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(20)
        listener.close()
    assert not thread.is_alive(), "the server did not stop"


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    made = page_world.make_world(tmp_path_factory.mktemp("pages"))
    yield made
    made.workspace.close()


@pytest.fixture(scope="session")
def site(world):
    with running(world.workspace) as url:
        yield url


@pytest.fixture(scope="session")
def serve():
    return running


@pytest.fixture(scope="module")
def browser():
    # closed with its module: while Playwright is open, its event loop counts as running in this thread for every test
    if not CHROMIUM.is_file():
        pytest.skip("there is no chromium at /usr/bin/chromium: install Debian's package")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox", "--disable-gpu"])
        yield opened
        opened.close()


@pytest.fixture
def visitor(browser, world, site):
    """Make browser contexts: signed in as somebody, or as nobody."""
    made = []

    def make(person="", **options):
        context = browser.new_context(base_url=site, **options)
        if person:
            secret = world.session(person)
            context.add_cookies([{"name": "everloop_session", "value": secret, "url": site}])
        made.append(context)
        return context

    yield make
    for context in made:
        context.close()


@pytest.fixture
def http(world, site):
    """Plain HTTP clients, of somebody or of nobody."""
    made = []

    def make(person="", **options):
        cookies = {"everloop_session": world.session(person)} if person else {}
        # the first page with data waits for a child that loads its engines
        client = httpx2.Client(base_url=site, cookies=cookies, **{"timeout": 60, **options})
        made.append(client)
        return client

    yield make
    for client in made:
        client.close()
