"""Profiles and prices as values, and what authors may say of them."""

from types import SimpleNamespace

import pytest

import everloop as el
from everloop.core.errors import DefinitionError, InvalidInput
from everloop.core.ports import Resources, Use
from everloop.flows.compute.profiles import BUILT_IN, Price, Profile, Profiles, hourly, in_force, placed, profile

GB = 10**9


def test_a_price_adds_up_what_is_used_in_exact_millionths():
    price = Price("EUR", core_hour="0.04", gb_hour=0.005, gpu_hour=2, hour="0.1")
    hour = Use(3600.0, 7200.0, 3 * GB, 1800.0)
    assert price.cost(hour) == 80_000 + 15_000 + 1_000_000 + 100_000
    assert price.cost(Use()) == 0
    assert Price("EUR", core_hour="0.0000018").cost(Use(0, 1000.0)) == 1, "half a millionth counts as one"
    assert price.json() == {"currency": "EUR", "core_hour": "0.04", "gb_hour": "0.005", "gpu_hour": "2", "hour": "0.1"}
    assert Price(**price.json()) == price
    assert str(price) == "EUR 0.04 a core-hour, 0.005 a GB-hour, 2 a GPU-hour, 0.1 an hour"


@pytest.mark.parametrize(
    "wrong", [{"currency": "euro"}, {"currency": "EUR", "hour": -1}, {"currency": "EUR", "hour": "much"},
              {"currency": "EUR", "gpu_hour": float("nan")}, {"currency": "EUR", "core_hour": "1e9"}]
)  # fmt: skip
def test_what_is_no_price_is_refused_with_a_hint(wrong):
    with pytest.raises(DefinitionError) as refused:
        Price(**wrong)
    assert refused.value.hint


def test_a_profile_is_the_same_after_its_manifest():
    made = profile("large", cores=8, memory="32GB", gpus=1, timeout="4h", price=Price("EUR", hour=3), default=True)
    assert Profile.from_manifest("large", made.manifest()) == made
    assert made.resources == Resources(8, 32 * GB, 14_400.0, 1)
    bare = profile("bare")
    assert Profile.from_manifest("bare", bare.manifest()) == bare
    with pytest.raises(DefinitionError, match="0 cores"):
        profile("none", cores=0)


def test_limits_take_a_part_of_a_profile_and_no_more():
    large = profile("large", cores=8, memory="32GB", timeout="4h")
    assert large.fitted(None, "s") == large.resources
    part = large.fitted(el.limits(cores=2, timeout="1h"), "s")
    assert part == Resources(2, 32 * GB, 3600.0)
    with pytest.raises(DefinitionError, match="cores 9 of 8, memory 40,000 MB of 32,000 MB"):
        large.fitted(el.limits(cores=9, memory="40GB"), "value/s")
    with pytest.raises(DefinitionError, match="GPUs 1 of 0"):
        large.fitted(el.limits(gpus=1), "value/s")


def test_what_an_hour_of_all_of_a_profile_costs():
    large = profile("large", cores=8, memory="10GB", gpus=2, price=Price("EUR", core_hour=1, gb_hour=2, gpu_hour=3))
    assert hourly(large) == 8 + 20 + 6
    assert hourly(profile("free")) is None
    assert hourly(None) is None


def test_which_profile_a_step_gets():
    none = Profiles()
    assert none.of("", "value/a") is None
    assert none.of("", "model/a") is BUILT_IN["small"]
    assert none.of("large", "value/a") is BUILT_IN["large"]
    own = Profiles({"tiny": profile("tiny", default=True), "huge": profile("huge", cores=64)})
    assert own.of("", "model/a").name == own.of("", "value/a").name == "tiny"
    assert own.of("huge", "value/a").resources.cores == 64
    with pytest.raises(InvalidInput, match="value/a asks for compute='hug'") as refused:
        own.of("hug", "value/a")
    assert refused.value.hint == "did you mean huge?"
    with pytest.raises(InvalidInput, match="the default: tiny, tinier"):
        Profiles({**own.named, "tinier": profile("tinier", default=True)})


def test_code_makes_nothing_cheaper_larger_or_open_to_all_that_production_holds():
    held = {
        "small": profile("small", default=True, price=Price("EUR", hour=1)),
        "large": profile("large", cores=16, price=Price("EUR", hour=9)),
    }
    code = Profiles({"large": profile("large", cores=99, default=True), "new": profile("new", cores=4)})
    found = in_force(code, held)
    assert found.named["large"] is held["large"]
    assert [one.name for one in found.named.values() if one.default] == ["small"]
    assert found.named["new"].resources.cores == 4
    only = in_force(Profiles({"mine": profile("mine", default=True)}), held)
    assert not only.named["mine"].default
    assert in_force(code, {}) is code


def test_a_project_declares_profiles_and_its_steps_get_them():
    project = el.Project("shop")
    project.compute("small", cores=2, memory="2GB", default=True)
    project.compute("large", cores=8, price=el.Price("EUR", core_hour=0.05))

    @project.step()
    def plain():
        return 1

    @project.step(compute="large", limits=el.limits(cores=4))
    def heavy(plain):
        return 2

    assets = project.assets()
    assert assets["value/plain"].resources == Resources(2, 2 * GB)
    assert assets["value/heavy"].resources == Resources(4)
    with pytest.raises(DefinitionError, match=r"test_profiles.py:\d+: two compute profiles are the default"):
        project.compute("other", default=True)
    with pytest.raises(DefinitionError, match="taken by compute/large"):
        project.compute("large")

    @project.step(compute="lage")
    def lost():
        return 3

    with pytest.raises(DefinitionError, match=r"test_profiles.py:\d+: value/lost asks for compute='lage'") as refused:
        project.assets()
    assert refused.value.hint == "did you mean large?"


def test_what_is_given_or_decided_needs_no_profile():
    given = el.Project("shop")
    given.compute("small", memory="1GB", default=True)

    @given.step()
    def one():
        return 1

    given.approval("agreed", of="one")
    assets = given.assets()
    assert assets["value/agreed"].resources == Resources()
    unknown = SimpleNamespace(function=None, compute="nothing")
    assert placed(unknown, Profiles()) is unknown
