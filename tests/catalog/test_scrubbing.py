"""Rewriting the database: nothing that was deleted is left in SQLite's files; PostgreSQL says what it keeps."""

from everloop.catalog import facts
from everloop.catalog.facts import Fact
from everloop.catalog.governance.scrubbing import scrub
from everloop.catalog.tables.core import facts as rows


def test_what_was_deleted_is_gone_from_the_files(catalog, tmp_path):
    with catalog.write() as tx:
        facts.append(tx, "p", Fact("a.b", "customer-4711-x" * 50, "ada", 1, {}, recorded=1))
    with catalog.write() as tx:
        tx.execute(rows.delete())
    said = scrub(catalog)
    if catalog.dialect == "sqlite":
        assert said == ""
        assert not [p for p in tmp_path.glob("catalog.db*") if b"customer-4711-x" in p.read_bytes()]
    else:
        assert "write-ahead log" in said
    with catalog.write() as tx:
        facts.append(tx, "p", Fact("a.b", "c", "ada", 1, {}, recorded=1))
