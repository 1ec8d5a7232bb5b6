"""The migrated schema is the declared one, on both databases."""

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, text

from everloop.catalog import migrations
from everloop.catalog.engine import Catalog
from everloop.catalog.tables import REVISION, metadata

# SQLAlchemy cannot read such an index of SQLite; that it is there, and used, is tested by query plans
pytestmark = [
    pytest.mark.filterwarnings("ignore:Skipped unsupported reflection of expression-based index"),
    pytest.mark.filterwarnings("ignore:autogenerate skipping metadata-specified expression-based index"),
]


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_catalog_url(request, tmp_path):
    """A database without tables, on each kind in turn."""
    if request.param == "postgresql":
        return request.getfixturevalue("empty_postgresql_url")
    return f"sqlite:///{tmp_path / 'old.db'}"


def test_the_migrated_schema_is_the_declared_one(catalog):
    with catalog.write() as tx:
        context = MigrationContext.configure(tx, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, metadata) == []


def test_the_revision_that_opening_compares_with_is_the_newest_script(catalog):
    with catalog.write() as tx:
        assert migrations.head(tx) == REVISION


# users act in many projects, and a gateway's log holds predictions of many
WORKSPACE_WIDE = {"users", "user_grants", "user_roles", "tokens", "login_codes", "sessions", "log_segments"}


def test_every_row_belongs_to_a_project_by_its_key_or_by_the_row_it_hangs_on():
    def has_project(table):
        return "project" in table.c or any(has_project(key.column.table) for key in table.foreign_keys)

    without = {table.name for table in metadata.sorted_tables if not has_project(table)}
    assert without - WORKSPACE_WIDE == set()


def test_a_catalog_of_the_first_revision_with_rows_in_it_is_brought_up_to_date(empty_catalog_url):
    engine = create_engine(empty_catalog_url.replace("postgresql://", "postgresql+psycopg://", 1))
    with engine.begin() as connection:
        command.upgrade(migrations.config_of(connection), "0001")
        connection.execute(
            text("INSERT INTO experiments VALUES ('flights', 1, 'delays', 'mlflow-artifacts:/1', 'active', 1, 1)")
        )
        connection.execute(
            text(
                "INSERT INTO runs (project, id, experiment, name, status, actor, stage, start, artifact_uri) "
                "VALUES ('flights', 'a', 1, 'a', 'RUNNING', 'ada', 'active', 1, '')"
            )
        )
        connection.execute(
            text("INSERT INTO metric_series (run, key, step, at, value, nan) VALUES (1, 'auc', 0, 0, 0.5, 0)")
        )
    engine.dispose()
    catalog = Catalog.open(empty_catalog_url)
    with catalog.read() as tx:
        assert migrations.head(tx) == REVISION == tx.execute(text("SELECT version_num FROM alembic_version")).scalar()
        assert tx.execute(text("SELECT name FROM experiments")).scalars().all() == ["delays"]
        assert tx.execute(text("SELECT project, experiment FROM metric_series")).all() == [("flights", 1)]
        context = MigrationContext.configure(tx, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []
    catalog.close()
