"""The flights demo under fire: the same holds as for the tiny project, through builds, retraining, rollouts, replay."""

import json
import sys

import chaos_invariants
import pytest
from chaos_flights import Fire


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_the_demo_survives_fifty_kills(tmp_path):
    fire = Fire(tmp_path / "demo", seed=2013, kills=50, pause=(0.5, 8.0))
    with fire.stage as stage:
        year = fire.rage(questions=400)
        told = fire.told
        sys.stderr.write(json.dumps(told.shown()) + "\n")
        assert told.troubles == []
        assert sum(told.kills[name] for name in ("server", "worker-0", "worker-1", "gateway")) == 50
        assert told.did["kills during builds, checks and retraining"] >= 20
        assert told.replies["200"] > 100
        assert told.labels
        chaos_invariants.holds(stage.workspace, "flights", year.turn.ada, told, "delay")
        year.trace()
        year.rewind()
