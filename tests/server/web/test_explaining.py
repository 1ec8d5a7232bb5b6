"""The page of a bisection shows every figure, and its waterfall ends where the bad version is."""

import pytest

from everloop.catalog import versions
from everloop.server.web.views.explaining.bisect import waterfall

FOUND = {
    "metric": "roc_auc",
    "seeds": 6,
    "step": "model/delay",
    "state": "explained",
    "equal": {"environment": "the same on both sides"},
    "measured": {
        "good": ["0.93", "0.92", "0.94"],
        "bad": ["0.83", "0.82", "0.84"],
        "total": ["-0.1", "-0.12", "-0.08"],
    },
    "contributions": [
        {
            "factors": ["code"],
            "value": ["-0.09", "-0.1", "-0.08"],
            "noise": False,
            "swapped_in": ["-0.09", "-0.1", "-0.08"],
            "swapped_out": [],
        },
        {"factors": ["data"], "value": ["-0.01", "-0.03", "0.01"], "noise": True, "swapped_in": [], "swapped_out": []},
    ],
    "interactions": [{"first": "code", "second": "data", "value": ["0.001", "-0.01", "0.012"]}],
    "joint": [],
    "undefined": [["data"]],
    "inside": {
        "code": {"items": ["rules.py"], "effect": ["-0.09", "-0.1", "-0.08"], "reason": "one item", "probes": []}
    },
    "runs": {"run": 40, "reused": 56},
}


@pytest.fixture(scope="module")
def evidence(world):
    with world.workspace.catalog.read() as tx:
        ids = [versions.find(tx, "shop", spec).id for spec in ("code/shop@1", "code/shop@2")]
    found = {**FOUND, "good": ids[0], "bad": ids[1]}
    return world.ask("ada", "bisect.record", name="model.delay", found=found).evidence


def test_the_page_shows_every_figure(http, evidence):
    text = http("ada").get(f"/shop/bisect/{evidence}").text
    for said in (
        "roc_auc",
        "-0.09",
        "within noise",
        "rules.py",
        "code and data",
        "the same on both sides",
        "40 steps run",
    ):
        assert said in text
    assert http("ada").get("/shop/bisect/code/shop").status_code in (400, 422)


def test_a_waterfall_ends_where_the_bad_version_is():
    bars = waterfall(FOUND)
    assert [bar.kind for bar in bars] == ["end", "loss", "noise", "end"]
    assert bars[2].x == pytest.approx(bars[3].x + 2, abs=0.2)
    assert bars[1].x + bars[1].width == pytest.approx(bars[0].x + 2, abs=0.2)
    assert waterfall({**FOUND, "contributions": []}) == []
