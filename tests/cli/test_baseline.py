"""`everloop baseline` on real files, as people type it."""

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

import everloop as el
from everloop.cli.main import main
from everloop.cli.options import given
from everloop.core.settings import Settings
from everloop.models.predictor import materialize
from everloop.workspace.opened import Workspace


@pytest.fixture
def everloop(tmp_path, monkeypatch, capsys):
    """The command line in this process, in a new workspace; gives exit code, answer and what was said."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EVERLOOP_PROJECT", "shop")

    def run(*words):
        given.clear()
        capsys.readouterr()
        code = main(["--json", *words])
        told = capsys.readouterr()
        return code, (json.loads(told.out) if told.out.strip() else None), told.out + told.err

    assert run("init")[0] == 0
    yield run
    given.clear()


PLAIN = """
import json, sys
from importlib.abc import MetaPathFinder
from pathlib import Path

class Without(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "everloop":
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Without())
import mlflow.pyfunc
import pandas as pd

folder = sys.argv[1]
rows = json.loads(Path(folder, "example.json").read_text())
answer = mlflow.pyfunc.load_model(folder).predict(pd.DataFrame(rows))
assert answer.shape == (len(next(iter(rows.values()))), 2), answer
assert "everloop" not in sys.modules
"""


def orders(count=500):
    rng = np.random.default_rng(7)
    start = datetime(2025, 3, 1, tzinfo=UTC)
    amount, city = rng.gamma(2.0, 20.0, count), rng.choice(["ber", "par", "rom"], count)
    chance = 1 / (1 + np.exp(-(0.08 * (amount - 40) + 2.0 * (city == "par"))))
    late = rng.random(count) < chance
    return pl.DataFrame(
        {
            "order": np.arange(count) * 3,
            "at": [start + timedelta(hours=n // 2) for n in range(count)],
            "city": city,
            "amount": amount,
            "who": rng.integers(0, 40, count),
            "refund": late * 1.0,
            "late": np.where(late, "yes", "no"),
        }
    )


def test_a_table_and_a_label_give_a_first_model_and_a_report(everloop, tmp_path):
    orders().with_columns(pl.col("at").dt.replace_time_zone(None)).write_parquet(tmp_path / "orders.parquet")
    asked = ["baseline", "orders.parquet", "--label", "late", "--time", "at", "--name", "lateness"]
    asked += ["--try", "linear", "--try", "lightgbm"]  # every algorithm is tried in tests/models/baseline
    code, found, said = everloop(*asked)
    assert code == 0, said
    report = found["report"]
    assert (report["task"], report["metric"]) == ("binary", "roc_auc")
    assert {one["algorithm"] for one in found["tried"]} == {"trivial", "linear", "lightgbm"}
    assert all(one["state"] == "done" and len(one["folds"]) == 4 for one in found["tried"])
    best = next(one for one in found["tried"] if one["chosen"])
    assert best == found["tried"][0]
    assert best["interval"][0] < best["score"] < best["interval"][1]
    assert next(one for one in found["tried"] if one["algorithm"] == "trivial")["score"] == 0.5
    low, value, high = report["scores"]["model"]["roc_auc"]
    assert 0.5 < low < value < high <= 1
    assert report["better_by"][0] > 0
    assert {one["column"] for one in report["importance"][:2]} == {"amount", "city"}
    assert "refund answers the question alone" in " ".join(report["warnings"])
    assert "order" in report["columns"]["dropped"]
    # the model is one like any other: it is in the sandbox, answers, has a card, and comes out the same again
    code, model, said = everloop("call", "models.show", "model=lateness")
    assert code == 0, said
    assert float(model["manifest"]["metrics"]["roc_auc"]) == pytest.approx(value)
    code, again, said = everloop("reproduce", "model/lateness")
    assert code == 0, said
    assert again["tier"] in ("bit", "canonical")
    # it answers where there is no Everloop, for the plain mlflow client
    folder = tmp_path / "model"
    settings = Settings(home=tmp_path / ".everloop", project="shop")
    with Workspace.open(settings) as workspace:
        manifest = model["manifest"]
        materialize(manifest, workspace.store, folder)
    assert {"code/first_models/estimator.py", "code/first_models/encoding.py"} <= manifest["files"].keys()
    subprocess.run([sys.executable, "-W", "ignore", "-c", PLAIN, str(folder)], check=True, cwd="/")
    # and nothing is run twice
    code, second, _ = everloop(*asked)
    assert (code, second["model"]) == (0, found["model"])
    code, searched, _ = everloop("searches", "show", "lateness_search")
    assert code == 0
    assert [one["state"] for one in searched["trials"]] == ["done"] * 3
    code, listed, _ = everloop("searches", "list")
    assert [one["name"] for one in listed] == ["lateness_search"]


def test_a_dataset_and_groups_give_a_regression_whose_groups_are_on_one_side(everloop):
    table = (
        orders(400).with_columns(price=pl.col("amount") * 2 + pl.col("who") * 3).drop("refund", "late", "order", "at")
    )
    el.capture(table, name="sales", key=())
    code, found, said = everloop("baseline", "sales", "--label", "price", "--group", "who", "--try", "linear")
    assert code == 0, said
    assert {one["algorithm"] for one in found["tried"]} == {"trivial", "linear"}
    report = found["report"]
    assert (report["task"], report["metric"], report["group"]) == ("numbers", "rmse", "who")
    assert "who" not in report["columns"]["roles"]
    assert report["rows"]["training"] + report["rows"]["holdout"] == 400
    assert report["scores"]["model"]["rmse"][1] < report["scores"]["trivial"]["rmse"][1]


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["nothing", "--label", "late"], ""),
        (["orders.csv", "--label", "wrong"], "it has order"),
        (["orders.csv", "--label", "late", "--on", "production"], "sandbox"),
        (["orders.csv", "--label", "late", "--time", "when"], "it has order"),
        (["orders.csv", "--label", "late", "--try", "magic"], "lightgbm"),
    ],
)
def test_what_cannot_be_learnt_is_said(everloop, tmp_path, words, hint):
    orders(60).write_csv(tmp_path / "orders.csv")
    code, _, said = everloop("baseline", *words)
    assert code in (1, 2, 4)
    assert hint in said
