"""The migrated schema is the declared one, on both databases."""

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from everloop.catalog import migrations
from everloop.catalog.tables import REVISION, metadata


def test_the_migrated_schema_is_the_declared_one(catalog):
    with catalog.write() as tx:
        context = MigrationContext.configure(tx, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, metadata) == []


def test_the_revision_that_opening_compares_with_is_the_newest_script(catalog):
    with catalog.write() as tx:
        assert migrations.head(tx) == REVISION


# users act in many projects, and a gateway's log holds predictions of many
WORKSPACE_WIDE = {"users", "user_roles", "tokens", "login_codes", "sessions", "log_segments"}


def test_every_row_belongs_to_a_project_by_its_key_or_by_the_row_it_hangs_on():
    def has_project(table):
        return "project" in table.c or any(has_project(key.column.table) for key in table.foreign_keys)

    without = {table.name for table in metadata.sorted_tables if not has_project(table)}
    assert without - WORKSPACE_WIDE == set()
