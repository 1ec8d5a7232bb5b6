"""DuckDB reads open tables: an older release, for which its extensions are packages, in an environment of its own."""

import json
import shutil
import subprocess
import sys

import pytest
from open_tables import four_versions, opened

from everloop import data

PACKAGES = ("duckdb==1.5.5", *(f"duckdb-extension-{name}==1.5.5" for name in ("avro", "iceberg", "delta")))
SCRIPT = """
import json, sys
import duckdb
from duckdb_extensions import import_extension
engine = duckdb.connect()
for name in ("avro", "iceberg", "delta"):
    import_extension(name)
    engine.load_extension(name)
for query in json.loads(sys.argv[1]):
    print(json.dumps(engine.sql(query).fetchone()))
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_duckdb_reads_every_version(context, tmp_path):
    four_versions(context)
    opened(context, "iceberg", tmp_path / "ice", history=9)
    opened(context, "delta", tmp_path / "delta", history=9)
    place = tmp_path / "venv"
    if uv := shutil.which("uv"):
        subprocess.run([uv, "venv", "-q", "--python", sys.executable, str(place)], check=True)
        install = [uv, "pip", "install", "-q", "-p", str(place)]
    else:
        subprocess.run([sys.executable, "-m", "venv", str(place)], check=True)
        install = [str(place / "bin" / "pip"), "install", "-q"]
    subprocess.run([*install, "duckdb-extensions", *PACKAGES], check=True)
    wanted, queries = [], []
    for commit, number in enumerate((1, 2, 3, 4)):
        rows = data.read(context, f"flights@{number}").collect()
        wanted += [[rows.height, rows["id"].sum(), rows["note"].null_count()]] * 2
        told = "select count(*), sum(id)::bigint, count(*) - count(note) from"
        queries.append(f"{told} iceberg_scan('{tmp_path}/ice', snapshot_from_id = {number})")
        queries.append(f"{told} delta_scan('{tmp_path}/delta', version = {commit})")
    ran = [str(place / "bin" / "python"), "-c", SCRIPT, json.dumps(queries)]
    done = subprocess.run(ran, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert [json.loads(line) for line in done.stdout.splitlines()] == wanted
