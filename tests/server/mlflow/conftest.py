"""A real server around the MLflow routes, and the real client set to it."""

from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount, Route
from web_house import listening

from everloop.catalog.context import Context
from everloop.catalog.engine import Catalog
from everloop.catalog.governance import access
from everloop.core.clock import SystemClock
from everloop.core.settings import Settings
from everloop.models.webhooks.reach import Reach
from everloop.server.app import build_app
from everloop.server.auth import Authenticator, Limit, login_routes
from everloop.server.mlflow import mlflow_routes, workspace_of
from everloop.store import DirectoryStore
from everloop.workspace.initial import initialise
from everloop.workspace.opened import Workspace
from everloop.workspace.operations import load_operations


@dataclass
class Running:
    """A server, its address and what is behind it."""

    url: str
    catalog: Catalog
    store: DirectoryStore
    home: Path


@contextmanager
def serving(home, url, *, host="127.0.0.1", **more):
    """Serve the routes on a free port; `host` is the bind address that the authenticator believes in.

    `more` goes to each context.
    """
    home.mkdir(parents=True, exist_ok=True)
    catalog, store, clock = Catalog.open(url), DirectoryStore(home / "objects"), SystemClock()
    auth = Authenticator(catalog, clock, host=host, limit=Limit(failures=5))

    def open_context(request):
        project = workspace_of(request, "default")
        return Context(auth.actor(request, project), project, clock, catalog, store, home=home, **more)

    app = Starlette(routes=[*login_routes(auth), *mlflow_routes(open_context)])
    try:
        with listening(app) as address:
            yield Running(address, catalog, store, home)
    finally:
        catalog.close()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The whole server, and method and path of each of its routes."""
    load_operations()
    folder = tmp_path_factory.mktemp("whole")
    settings = Settings(home=folder / ".everloop", project="default")
    initialise(settings, "ada", "solo", folder)
    with closing(Workspace.open(settings)) as workspace:
        app = build_app(workspace)
        with listening(app) as address:
            yield address, tuple(_routes(app.routes))


def _routes(routes, before=""):
    for route in routes:
        path = before + getattr(route, "path", "")
        if isinstance(route, Mount):
            yield from _routes(getattr(route.app, "routes", [Route("/x", print)]), path)
        elif isinstance(route, Route):
            yield from ((method, path) for method in sorted((route.methods or {"GET"}) - {"HEAD"}))


@pytest.fixture(scope="session")
def served(tmp_path_factory):
    """One server over SQLite for all stories; each story uses names of its own."""
    home = tmp_path_factory.mktemp("served")
    with serving(home, f"sqlite:///{home / 'catalog.db'}") as running:
        yield running


@pytest.fixture
def bare(tmp_path):
    """A server of one test, of which that test may take something away."""
    with serving(tmp_path / "bare", f"sqlite:///{tmp_path / 'bare.db'}") as running:
        yield running


@pytest.fixture(scope="session")
def guarded(tmp_path_factory):
    """A server that believes that it listens to the world, and one user of each kind."""
    home, now = tmp_path_factory.mktemp("guarded"), SystemClock().wall()
    with serving(home, f"sqlite:///{home / 'catalog.db'}", host="0.0.0.0") as running:
        with running.catalog.write() as tx:
            for name, roles in (("vera", ["viewer"]), ("carl", ["contributor"]), ("nobody", [])):
                access.create_user(tx, name, kind="person", roles=roles, actor="ada", at=now)
        yield running


@pytest.fixture(scope="module")
def hooked(tmp_path_factory, signing_key):
    """A server with a key, whose webhooks may lead to this machine; one admin."""
    home, ports = tmp_path_factory.mktemp("hooked"), {"reach": Reach(("http",), private=True)}
    with serving(home, f"sqlite:///{home / 'catalog.db'}", key=signing_key, ports=ports) as running:
        with running.catalog.write() as tx:
            access.create_user(tx, "root", kind="person", roles=["admin", "contributor"], actor="ada", at=0)
        yield running


@pytest.fixture
def served_by_postgresql(tmp_path, postgresql_url):
    """A server of its own over PostgreSQL."""
    with serving(tmp_path, postgresql_url) as running:
        yield running
