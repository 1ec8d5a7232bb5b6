"""Rewriting the database: nothing that was deleted is left in SQLite's files; PostgreSQL says what it keeps."""

from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from everloop.catalog import facts
from everloop.catalog.facts import Fact
from everloop.catalog.governance.scrubbing import scrub
from everloop.catalog.tables.core import facts as rows

KEY = "customer-4711-x"


@pytest.mark.parametrize("left", [0, 200], ids=["empty", "others"])
def test_what_was_deleted_is_gone_from_the_files(catalog, tmp_path, left):
    with catalog.write() as tx:
        for number in range(100):
            facts.append(tx, "p", Fact("a.b", f"{KEY} {number % 3}", "ada", 1, {}, recorded=1))
        for number in range(left):
            facts.append(tx, "p", Fact("a.b", f"other {number % 3}", "ada", 1, {}, recorded=1))
    if catalog.dialect == "postgresql":
        assert files_of_postgresql(catalog, analyse=True)  # tables, and what the planner samples of their values
    with catalog.write() as tx:
        tx.execute(rows.delete().where(rows.c.subject.startswith(KEY)))
    said = scrub(catalog)
    if catalog.dialect == "sqlite":
        assert said == ""
        assert not [p for p in tmp_path.glob("catalog.db*") if KEY.encode() in p.read_bytes()]
    else:
        assert "write-ahead log" in said
        assert files_of_postgresql(catalog) == []
    with catalog.write() as tx:
        facts.append(tx, "p", Fact("a.b", "c", "ada", 1, {}, recorded=1))


def files_of_postgresql(catalog, *, analyse=False):
    """The files of the database that hold the key; its write-ahead log is in none of them."""
    engine = create_engine(catalog.url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        if analyse:
            connection.execute(text("ANALYZE"))
        connection.execute(text("CHECKPOINT"))
        home = Path(connection.execute(text("SHOW data_directory")).scalar_one())
        number = connection.execute(text("SELECT oid FROM pg_database WHERE datname = current_database()")).scalar_one()
    engine.dispose()
    files = (home / "base" / str(number)).iterdir()
    return [path.name for path in files if path.is_file() and KEY.encode() in path.read_bytes()]
