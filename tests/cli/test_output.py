"""How values look to people."""

from everloop.cli.output import NOTHING, cell


def test_what_has_fields_of_its_own_stands_below_its_name():
    told = {"state": "ready", "workers": {"model": {"pids": [1, 2], "engine": ""}}, "nodes": {}, "keys": ["a"]}
    assert cell("observed", told).splitlines() == [
        "state: ready",
        "workers:",
        "  model:",
        "    pids:",
        "      1",
        "      2",
        f"    engine: {NOTHING}",
        f"nodes: {NOTHING}",
        "keys: a",
    ]
