"""Bad input, wherever it comes from: one clear error with a hint, no traceback, and nothing half written."""

import json
import resource
import signal
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
from shop_house import PROJECT_FILE, Shop, orders_of

from everloop.catalog import refs, versions
from everloop.cli.main import main
from everloop.cli.options import given

TEXT = PROJECT_FILE.read_text()


@pytest.fixture
def shop(tmp_path, monkeypatch):
    """A workspace whose project builds its two datasets in this process."""
    made = Shop(tmp_path / "shop", policy="solo", days=1)
    monkeypatch.chdir(made.folder)
    monkeypatch.setenv("LOGNAME", "ada")
    monkeypatch.setenv("EVERLOOP_PROJECT", "shop")
    monkeypatch.setenv("EVERLOOP_MODULE", "shop")
    given.clear()
    yield made
    given.clear()
    made.close()
    sys.modules.pop("shop", None)


def left(shop):
    """What a failed command must not add to: versions of data, heads, snapshots, temporary files."""
    with shop.workspace.catalog.read() as tx:
        data = {
            name: versions.history(tx, "shop", "data", name, limit=100) for name in versions.names(tx, "shop", "data")
        }
        pointers = refs.all(tx, "shop", "")
    temporary = [p for p in (shop.home / "objects" / "tmp").glob("*") if p.name != "lock"]
    return data, pointers, temporary


def everloop(capsys, *words):
    """The command line in this process: exit code, standard output, standard error."""
    sys.modules.pop("shop", None)
    capsys.readouterr()
    code = main(list(words))
    told = capsys.readouterr()
    return code, told.out, told.err


def refused(capsys, shop, *words, code, says, captured=False):
    """The command ends with `code`, says `says` and a hint on few lines, and leaves nothing behind.

    `captured`: the source itself was good, and is kept.
    """
    before = left(shop)
    found, out, err = everloop(capsys, *words)
    assert "Traceback" not in out + err
    assert says in err, err
    assert found == code, (found, err)
    assert "error:" in err
    assert "hint:" in err, err
    assert "fault of Everloop" not in err, err
    assert len(err.strip().splitlines()) <= 3, err
    after = left(shop)
    # a sandbox that was made for a build may stay: it holds what its base holds
    kept = {name: to for name, to in after[1].items() if name in before[1] or not name.startswith("env/sandbox/")}
    data = {name: rows for name, rows in after[0].items() if not (captured and name == "till")}
    kept = {name: to for name, to in kept.items() if not (captured and name.endswith("/till"))}
    assert (data, kept, after[2]) == before
    code_again, out, _ = everloop(capsys, *words, "--json")
    assert code_again == code
    told = json.loads(out)
    assert told["detail"]
    assert told["hint"]


def day_file(shop):
    return shop.folder / "data" / "till" / "000.csv"


def test_a_broken_parquet_file(shop, capsys):
    good = shop.folder / "data" / "till"
    (good / "000.csv").unlink()
    (good / "000.parquet").write_bytes(b"PAR1 this is not one PAR1")
    write(shop, TEXT.replace("*.csv", "*.parquet"))
    refused(capsys, shop, "run", "orders", code=2, says="000.parquet")


def test_a_truncated_parquet_file(shop, capsys):
    data = shop.folder / "data" / "till"
    (data / "000.csv").unlink()
    orders_of(0).write_parquet(data / "000.parquet")
    whole = (data / "000.parquet").read_bytes()
    (data / "000.parquet").write_bytes(whole[: len(whole) // 2])
    write(shop, TEXT.replace("*.csv", "*.parquet"))
    refused(capsys, shop, "run", "orders", code=2, says="000.parquet")


def test_a_ragged_line(shop, capsys):
    lines = day_file(shop).read_text().splitlines()
    day_file(shop).write_text("\n".join([*lines[:5], lines[5] + ",surplus,surplus", *lines[6:]]))
    refused(capsys, shop, "run", "orders", code=2, says="000.csv")


def test_a_missing_column(shop, capsys):
    pl.read_csv(day_file(shop)).drop("amount").write_csv(day_file(shop))
    refused(capsys, shop, "run", "orders", code=2, says="amount", captured=True)


def test_a_missing_key_column(shop, capsys):
    pl.read_csv(day_file(shop)).drop("number").write_csv(day_file(shop))
    refused(capsys, shop, "run", "orders", code=2, says="number")


def test_no_files_at_all(shop, capsys):
    day_file(shop).unlink()
    refused(capsys, shop, "run", "orders", code=4, says="data/till/*.csv")


def test_rows_that_break_the_contract(shop, capsys):
    pl.read_csv(day_file(shop)).with_columns(amount=-1.0).write_csv(day_file(shop))
    found, _, err = everloop(capsys, "run", "orders")
    assert found == 5, err
    assert "amount" in err
    assert set(refs_of(shop, "head/")) == {"head/sandbox/ada/main/till"}


def sql_text(query="select * from till", binding="warehouse"):
    return TEXT.replace('el.Files("data/till/*.csv")', f'el.SQL("{binding}", "{query}")')


def test_an_unbound_binding(shop, capsys):
    write(shop, sql_text())
    refused(capsys, shop, "run", "orders", code=2, says="warehouse")


def test_a_binding_of_one_sandbox(shop, capsys):
    words = ["bind", "online_store", "redis://localhost:6379/0", "--environment", "sandbox/ada/main"]
    refused(capsys, shop, *words, code=2, says="sandbox")


def test_a_wrong_query(shop, capsys):
    write(shop, sql_text("select a from nowhere"))
    assert main(["bind", "warehouse", f"sqlite:///{shop.folder / 'w.db'}"]) == 0
    refused(capsys, shop, "run", "orders", code=2, says="nowhere")


def test_a_database_that_is_not_there(shop, capsys):
    write(shop, sql_text())
    assert main(["bind", "warehouse", "postgresql://nobody@127.0.0.1:1/none"]) == 0
    refused(capsys, shop, "run", "orders", code=6, says="warehouse")


def test_a_dataset_function_that_raises(shop, capsys):
    write(
        shop,
        TEXT.replace(
            'return till.select("number", "at", "place", "amount"',
            'raise ZeroDivisionError("oh")\n    return till.select("number", "at", "place", "amount"',
        ),
    )
    refused(capsys, shop, "run", "orders", code=1, says="ZeroDivisionError: oh", captured=True)


def test_a_model_that_raises_in_training(shop, capsys):
    write(shop, TEXT.replace('mlflow.log_metric("rows", frame.height)', 'raise ValueError("too few")'))
    shop.deliver(range(20))
    found, _, err = everloop(capsys, "run", "comeback")
    assert found == 1, err  # not ours, and nothing that other words would change
    assert "ValueError: too few" in err
    assert "hint:" in err
    assert "Traceback" not in err
    assert "model/comeback" not in str(refs_of(shop, "env/"))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("import nothing_of_this_name\n", "nothing_of_this_name"),
        ("def broken(:\n", "shop.py"),
        ("x = 1\n", "project"),
        (TEXT.replace("def outcomes(till:", "def outcomes(tilll:"), "till"),
        (TEXT + TEXT[TEXT.index("till = project") : TEXT.index("@project.dataset")], "till"),
    ],
    ids=["import", "syntax", "none", "unknown", "twice"],
)
def test_a_project_that_does_not_import(shop, capsys, text, says):
    write(shop, text)
    refused(capsys, shop, "run", code=2, says=says)


def test_a_project_that_is_not_there(shop, capsys):
    (shop.folder / "shop.py").unlink()
    refused(capsys, shop, "run", code=2, says="shop")


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["run", "no_such_asset"], 2, "no_such_asset"),
        (["run", "--set", "nonsense"], 2, "nonsense"),
        (["run", "orders", "--on", "production"], 2, "protected"),
        (["propose", "sandbox/ada/none"], 4, "sandbox/ada/none"),
        (["approve", "x"], 2, "is no change"),
        (["approve", "99"], 4, "#99"),
        (["merge", "99"], 4, "#99"),
        (["data", "show", "data/none@7"], 4, "none"),
        (["data", "show", "data/orders@x"], 4, "orders"),
        (["reproduce", "model/none"], 4, "model/none"),
        (["call", "no.such"], 4, "no.such"),
        (["call", "changes.show", "number"], 2, "field=value"),
        (["call", "changes.show", "nr=1"], 2, "number"),
        (["env", "show", "nowhere"], 4, "nowhere"),
        (["env", "live-at", "yesterday"], 2, "yesterday"),
        (["rollback"], 4, "production"),
        (["trace", "nothing"], 4, "nothing"),
        (["lineage", "zzz"], 2, "zzz"),
        (["init", "--policy", "none"], 2, "none"),
        (["--server", "http://127.0.0.1:1", "tasks"], 6, "127.0.0.1:1"),
        (["--home", "nowhere", "tasks"], 4, "nowhere"),
        (["--token", "wrong", "tasks"], 3, "token"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_words_that_mean_nothing(shop, capsys, words, code, says):
    refused(capsys, shop, *words, code=code, says=says)


def test_a_full_disk(shop, capsys):
    """No file may grow beyond a limit: what `write` meets then is what it meets on a full disk."""
    shop.deliver([1, 2])
    before = left(shop)
    done = limited(shop)
    assert done.returncode == 6, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert "hint:" in done.stderr
    after = left(shop)
    assert (after[0], after[2]) == (before[0], before[2])
    assert main(["verify"]) == 0
    assert main(["run", "orders"]) == 0


def limited(shop):
    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    return subprocess.run(
        [sys.executable, "-m", "everloop", "run", "orders"],
        cwd=shop.folder,
        env=shop.environ(PYTHONDONTWRITEBYTECODE="1"),  # else bytecode is cut short, and stays so
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        preexec_fn=limit,
    )


def write(shop, text):
    (Path(shop.folder) / "shop.py").write_text(text)


def refs_of(shop, prefix):
    with shop.workspace.catalog.read() as tx:
        return refs.all(tx, "shop", prefix)
