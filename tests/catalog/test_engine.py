"""Opening a catalog, its transactions, and what a failing database looks like from outside."""

import sqlite3
import subprocess
import sys
import threading

import pytest
from sqlalchemy import text

from everloop.catalog import facts, refs
from everloop.catalog.engine import Catalog
from everloop.catalog.facts import Fact
from everloop.core.errors import Conflict, CorruptObject, EverloopError, InvalidInput, StorageFull, Unavailable

FACT = Fact("a.b", "s", "ada", 1)


def count(catalog):
    with catalog.read() as tx:
        return facts.unsealed(tx)


def test_a_write_commits_when_it_ends_and_rolls_back_when_it_raises(catalog):
    with catalog.write() as tx:
        facts.append(tx, "p", FACT)

    def fail_half_way():
        with catalog.write() as tx:
            facts.append(tx, "p", FACT)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_half_way()
    assert count(catalog) == 1


def test_a_read_cannot_write(catalog):
    with pytest.raises(EverloopError), catalog.read() as tx:
        facts.append(tx, "p", FACT)
    assert count(catalog) == 0


def test_a_read_sees_one_state(catalog):
    with catalog.read() as tx:
        before = facts.unsealed(tx)
        with catalog.write() as other:
            facts.append(other, "p", FACT)
        assert facts.unsealed(tx) == before
    assert count(catalog) == before + 1


def test_opening_again_finds_what_was_written_and_loads_no_alembic(catalog, catalog_url):
    with catalog.write() as tx:
        facts.append(tx, "p", FACT)
    program = (
        "import sys; from everloop.catalog.engine import Catalog; from everloop.catalog import facts\n"
        "c = Catalog.open(sys.argv[1])\n"
        "with c.read() as tx: print(facts.unsealed(tx), 'alembic' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program, catalog_url], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1", "False"]


def test_importing_the_catalog_loads_no_sqlalchemy():
    program = "import sys, everloop.catalog; print('sqlalchemy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_processes_that_start_at_once_migrate_once(tmp_path, empty_postgresql_url):
    program = "import sys; from everloop.catalog.engine import Catalog; Catalog.open(sys.argv[1]).close()"
    for url in (f"sqlite:///{tmp_path / 'new' / 'catalog.db'}", empty_postgresql_url):
        starts = [subprocess.Popen([sys.executable, "-c", program, url], stderr=subprocess.PIPE) for _ in range(3)]
        assert [(p.wait(), p.communicate()[1]) for p in starts] == [(0, b"")] * 3
        opened = Catalog.open(url)
        assert count(opened) == 0
        opened.close()


def test_a_catalog_of_a_newer_version_is_refused(catalog, catalog_url):
    with catalog.write() as tx:
        tx.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(Conflict, match="does not know") as caught:
        Catalog.open(catalog_url)
    assert "upgrade" in caught.value.hint


@pytest.mark.parametrize("url", ["mysql://h/d", "sqlite://", "sqlite:///:memory:", "://"])
def test_urls_of_no_use_are_refused(url):
    with pytest.raises(InvalidInput) as caught:
        Catalog.open(url)
    assert caught.value.hint


def test_a_database_that_is_not_there_is_unavailable_and_its_password_stays_secret():
    with pytest.raises(Unavailable) as caught:
        Catalog.open("postgresql://ada:geheim@127.0.0.1:1/everloop")
    assert caught.value.hint
    assert "geheim" not in str(caught.value.problem())


def test_a_wrong_database_name_is_unavailable(postgresql_url):
    with pytest.raises(Unavailable):
        Catalog.open(postgresql_url.replace("/test_", "/absent_"))


def test_a_folder_that_cannot_be_made_is_unavailable(tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(Unavailable) as caught:
        Catalog.open(tmp_path / "file" / "catalog.db")
    assert caught.value.hint


def test_a_file_that_is_no_database_is_corrupt(tmp_path):
    (tmp_path / "catalog.db").write_bytes(b"not a database, but long enough to have a header" * 100)
    with pytest.raises(CorruptObject):
        Catalog.open(tmp_path / "catalog.db")


def test_a_full_disk_is_storage_full_and_leaves_nothing(tmp_path):
    catalog = Catalog.open(tmp_path / "catalog.db")
    with catalog.write() as tx:
        pages = tx.execute(text("PRAGMA page_count")).scalar()
        tx.execute(text(f"PRAGMA max_page_count = {pages + 1}"))
    with pytest.raises(StorageFull) as caught, catalog.write() as tx:
        facts.append_many(tx, "p", [Fact("a.b", "s", "ada", n, {"text": "x" * 1000}) for n in range(100)])
    assert caught.value.hint
    assert count(catalog) == 0
    catalog.close()


def test_a_locked_file_is_unavailable(tmp_path, monkeypatch):
    monkeypatch.setattr("everloop.catalog.engine.BUSY_SECONDS", 0.1)
    catalog = Catalog.open(tmp_path / "catalog.db")
    other = sqlite3.connect(tmp_path / "catalog.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(Unavailable, match="locked"), catalog.write():
        pass
    other.close()
    with catalog.write() as tx:
        facts.append(tx, "p", FACT)
    catalog.close()


def test_a_write_within_a_write_of_one_thread_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr("everloop.catalog.engine.BUSY_SECONDS", 0.1)
    catalog = Catalog.open(tmp_path / "catalog.db")
    with catalog.write(), pytest.raises(Unavailable) as caught, catalog.write():
        pass
    assert "nested" in caught.value.hint
    catalog.close()


def test_threads_write_without_losing_anything(catalog):
    def work(n):
        for _ in range(10):
            with catalog.write() as tx:
                facts.append(tx, f"p{n}", FACT)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert count(catalog) == 60


def test_a_deadlock_says_that_it_may_be_run_again(postgresql_url):
    catalog = Catalog.open(postgresql_url)
    meet, broken = threading.Barrier(2), []

    def lock(tx, project):
        tx.execute(text("SELECT pg_advisory_xact_lock(:n)"), {"n": project})

    def work(first, second):
        try:
            with catalog.write() as tx:
                lock(tx, first)
                meet.wait(10)
                lock(tx, second)
        except Conflict as error:
            broken.append(error)

    threads = [threading.Thread(target=work, args=pair) for pair in ((1, 2), (2, 1))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    catalog.close()
    assert [error.details for error in broken] == [{"retry": True}]


def test_a_connection_that_the_server_ended_is_replaced(postgresql_url):
    catalog = Catalog.open(postgresql_url)
    with catalog.read() as tx:
        pid = tx.execute(text("SELECT pg_backend_pid()")).scalar()
    killer = Catalog.open(postgresql_url)
    with killer.write() as tx:
        tx.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": pid})
    with catalog.write() as tx:
        facts.append(tx, "p", FACT)
    killer.close()
    catalog.close()


def test_a_forked_child_has_connections_of_its_own(catalog_url):
    program = """
import os, sys
from everloop.catalog import facts
from everloop.catalog.engine import Catalog
c = Catalog.open(sys.argv[1])
def add():
    with c.write() as tx:
        facts.append(tx, "p", facts.Fact("a.b", "s", "ada", 1))
add()
children = []
for _ in range(3):
    if (pid := os.fork()) == 0:
        for _ in range(5):
            add()
        os._exit(0)
    children.append(pid)
add()
assert all(os.waitpid(pid, 0)[1] == 0 for pid in children)
add()
with c.read() as tx:
    print(facts.unsealed(tx))
"""
    done = subprocess.run([sys.executable, "-c", program, catalog_url], capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.stderr) == ("18", "")


def test_text_is_ordered_by_code_point_on_both(catalog):
    from everloop.catalog import versions
    from everloop.core.version import Version

    names = ["B", "a", "_x", "Z-1", "z.1", "Aa"]
    with catalog.write() as tx:
        for name in names:
            versions.put(tx, "p", Version("value", name, {"n": name}), actor="ada", at=1)
        identity = versions.find(tx, "p", "value/a").id
        for name in ("Ω", "z", "Z", "\U0001f600"):
            refs.move(tx, "p", f"env/{name}", old=None, new=identity, actor="ada", at=1)
    with catalog.read() as tx:
        assert versions.names(tx, "p", "value") == sorted(names)
        assert list(refs.all(tx, "p", "env/")) == sorted(f"env/{n}" for n in ("Ω", "z", "Z", "\U0001f600"))
