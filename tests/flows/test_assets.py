import pytest

from everloop.core.errors import DefinitionError
from everloop.flows.assets import Asset, define, levels, order, plan, wire


def raw():
    return 1


def doubled(raw, factor: int = 2):
    return raw * factor


def total(raw, doubled):
    return raw + doubled


def test_a_signature_says_what_is_upstream_and_what_is_tunable():
    asset = define(doubled)
    assert asset.key == "value/doubled"
    assert asset.upstream == {"raw": "raw"}
    assert asset.params == {"factor": 2}
    assert asset.place == f"{__file__}:{doubled.__code__.co_firstlineno}"


def test_wire_resolves_names_and_plan_puts_upstream_first():
    assets = wire([define(total), define(doubled), define(raw, kind="value")])
    assert assets["value/total"].upstream == {"raw": "value/raw", "doubled": "value/doubled"}
    assert [a.key for a in plan(assets, ["total"])] == ["value/raw", "value/doubled", "value/total"]
    assert [a.key for a in plan(assets, ["value/raw"])] == ["value/raw"]
    assert [[a.name for a in wave] for wave in levels(plan(assets, ["total"]))] == [["raw"], ["doubled"], ["total"]]


def test_an_upstream_can_be_renamed_and_may_have_a_default():
    def scaled(number, factor=3):
        return number * factor

    asset = define(scaled, upstream={"number": "data/flights", "factor": "ratio"})
    assert asset.upstream == {"number": "data/flights", "factor": "ratio"}
    assert asset.params == {}


def test_unknown_upstream_names_place_and_nearest():
    def report(doubld):
        return doubld

    with pytest.raises(DefinitionError) as caught:
        wire([define(raw), define(doubled), define(report)])
    assert caught.value.message.startswith(f"{__file__}:{report.__code__.co_firstlineno}: value/report needs 'doubld'")
    assert "did you mean doubled?" in caught.value.hint


def test_a_cycle_is_shown_as_a_path():
    def one(two):
        return two

    def two(three):
        return three

    def three(one):
        return one

    with pytest.raises(DefinitionError) as caught:
        wire([define(one), define(two), define(three)])
    assert caught.value.message.startswith(__file__)
    assert "value/one -> value/two -> value/three -> value/one" in caught.value.message


def test_two_of_one_name_are_refused_whatever_their_kind():
    with pytest.raises(DefinitionError, match=r"test_assets.py:\d+: two assets are named 'raw'"):
        wire([define(raw), define(raw, kind="data")])


def test_what_a_signature_may_not_have():
    def spread(*values):
        return values

    with pytest.raises(DefinitionError, match=r"spread takes \*values"):
        define(spread)
    with pytest.raises(DefinitionError, match="has no parameter 'x'"):
        define(doubled, upstream={"x": "raw"})
    with pytest.raises(DefinitionError, match="cannot be a name"):
        define(raw, name="a b")
    with pytest.raises(DefinitionError, match="kind/name"):
        define(raw, kind="thing")


def test_an_unknown_target_has_a_hint():
    with pytest.raises(DefinitionError) as caught:
        plan(wire([define(raw)]), ["rwa"])
    assert caught.value.hint == "did you mean raw?"


def test_a_chain_of_ten_thousand_is_no_recursion():
    chain = {"value/s0": Asset("value/s0", raw)}
    for i in range(1, 10_000):
        chain[f"value/s{i}"] = Asset(f"value/s{i}", doubled, {"raw": f"value/s{i - 1}"})
    assert [a.key for a in order(chain, ["value/s9999"])][-1] == "value/s9999"
