"""A project whose model chooses its inputs, built as people build it: the choice is pinned, shown, and kept to."""

import pytest
from shop_house import PROJECT_FILE, Shop

from everloop.catalog import versions
from everloop.catalog.operation import invoke
from everloop.cli.main import main
from everloop.cli.options import given
from everloop.models.selection.operations import OfModel

NOISE = """
    import numpy as np

    rng = np.random.default_rng(1)
    known = pl.col("at") + pl.duration(hours=6)
    till = till.collect().lazy()
    till = till.with_columns(noise=pl.Series(rng.normal(size=till.collect().height)))
"""


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    text = PROJECT_FILE.read_text()
    text = text.replace('    known = pl.col("at") + pl.duration(hours=6)\n', NOISE, 1)
    text = text.replace('"amount", "items", pl.col("returned")', '"amount", "items", "noise", pl.col("returned")')
    text = text.replace('request=["amount", "items"]', 'request=["amount", "items", "noise"]')
    text = text.replace('holdout="5d")', 'holdout="5d", select=el.select(2, stability=0.5, nulls=3, repeats=2))')
    made = Shop(tmp_path_factory.mktemp("chosen") / "shop", policy="solo", days=20, text=text)
    yield made
    made.close()


def test_the_choice_is_pinned_shown_and_kept_to(shop, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("LOGNAME", "ada")
    built = shop.build()
    ctx = shop.context("sandbox/ada/main")
    model = built.results.outputs["model/comeback"]
    found = invoke(ctx, "models.selection", OfModel(model=model))
    assert found.version == built.results.outputs["value/comeback_selection"]
    assert {one.column for one in found.ranking} == {
        "amount", "items", "noise", "place_outcomes__returned_mean_2d", "place_outcomes__count_2d"
    }  # fmt: skip
    reasons = {one.column: one for one in found.ranking}
    assert reasons["amount"].chosen
    assert not reasons["noise"].chosen
    assert "no more than chance" in reasons["noise"].why
    assert set(found.chosen) == {one.column for one in found.ranking if one.chosen}
    assert 1 <= len(found.chosen) <= 2
    with ctx.read() as tx:
        signature = versions.get(tx, "shop", model).manifest["signature"]
    assert [field["name"] for field in signature["inputs"]] == list(found.chosen)
    assert shop.build().results.outputs["model/comeback"] == model
    capsys.readouterr()
    assert main(["--home", str(ctx.home), "--project", "shop", "models", "selection", model]) == 0
    given.clear()
    told = capsys.readouterr().out
    assert "of 5 columns" in told
    assert "no more than chance" in " ".join(told.split())


def test_a_model_without_a_rule_took_all_columns(context):
    from everloop.core.version import Version

    plain = Version("model", "plain", {"flavor": "none"})
    with context.write() as tx:
        versions.put(tx, context.project, plain, actor="ada", at=context.now())
    assert invoke(context, "models.selection", OfModel(model=plain.id)).version == ""
