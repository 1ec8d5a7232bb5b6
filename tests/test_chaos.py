"""Whoever is killed, whenever: what was acknowledged is there, nothing is there twice, and everything verifies."""

import json
import sys

import chaos_invariants
import pytest
from chaos_story import Chaos, live_shop


@pytest.mark.parametrize(
    ("kills", "pause"),
    [pytest.param(3, (1.0, 4.0), id="3"), pytest.param(50, (0.2, 4.0), id="50", marks=pytest.mark.slow)],
)
@pytest.mark.timeout(900)
def test_what_was_acknowledged_survives(tmp_path, kills, pause):
    shop = live_shop(tmp_path / "shop")
    try:
        told = Chaos(shop, seed=2013 + kills, kills=kills, pause=pause).rage()
        sys.stderr.write(json.dumps(told.shown()) + "\n")
        assert told.troubles == []
        assert told.kills.total() == kills
        assert told.replies["200"] > 20
        chaos_invariants.holds(shop.workspace, "shop", shop.person("ada"), told, "comeback")
        assert shop.down() == 0
    finally:
        shop.close()
