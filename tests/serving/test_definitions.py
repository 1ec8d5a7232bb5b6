"""What an author may say about an endpoint, and the closed revision that comes of it."""

import subprocess
import sys

import pytest

from everloop.core.errors import DefinitionError, InvalidInput, NotFound
from everloop.core.version import Version
from everloop.flows.compute.profiles import Price, profile
from everloop.serving import AllAtOnce, Canary, EndpointDef, Guardrails, Lookup, Model, Sequence
from everloop.serving.definitions import Workers
from everloop.serving.revision import build, needed


def test_an_endpoint_says_what_it_is():
    endpoint = EndpointDef("delay", Sequence(Lookup("inputs"), "delay"), rollout=Canary([5, 100], hold=200))
    said = endpoint.manifest()
    assert said["graph"]["nodes"] == [
        {"node": "lookup", "service": "inputs"},
        {"node": "model", "model": "delay", "role": "champion"},
    ]
    assert said["rollout"] == {"rollout": "canary", "steps": [5, 100], "hold": {"requests": 200}}
    assert said["guardrails"] == {"errors_ppm": 20_000, "p99_micros": 0}
    assert endpoint.upstream == ("service/inputs", "model/delay")
    assert endpoint.key == "endpoint/delay"
    Version("endpoint", "delay", said)
    assert EndpointDef("d", "m", AllAtOnce(), guardrails=Guardrails("0.5%", "250ms")).manifest()["guardrails"] == {
        "errors_ppm": 5000,
        "p99_micros": 250_000,
    }


@pytest.mark.parametrize(
    "make",
    [
        lambda: Canary([]),
        lambda: Canary([25, 5, 100]),
        lambda: Canary([5, 25]),
        lambda: Canary([5, 100], hold="soon"),
        lambda: Canary([5, 100], hold=0),
        lambda: Guardrails("a lot"),
        lambda: Guardrails("200%"),
        lambda: Guardrails(p99="fast"),
        Sequence,
        lambda: EndpointDef("delay", Lookup("inputs")),
        lambda: EndpointDef("delay", Sequence("model", Lookup("inputs"))),
        lambda: EndpointDef("delay", Sequence("a", Model("b"))),
        lambda: EndpointDef("1 bad name", "model"),
        lambda: EndpointDef("delay", 7),
        lambda: EndpointDef("delay", "model", fallback="nobody"),
        lambda: EndpointDef("delay", "model", full_disk="hope"),
        lambda: EndpointDef("delay", "model", deadline="soon"),
    ],
)
def test_what_cannot_serve_is_refused_with_a_hint(make):
    with pytest.raises(DefinitionError) as refused:
        make()
    assert refused.value.hint


def parts():
    view = Version("view", "load", {"n": 1})
    service = Version("service", "inputs", {"views": {"load": view.id}})
    model = Version("model", "delay", {"service": service.id})
    endpoint = Version("endpoint", "delay", EndpointDef("delay", Sequence(Lookup("inputs"), "delay")).manifest())
    return view, service, model, endpoint


def test_a_revision_pins_everything_and_must_fit_together():
    view, service, model, endpoint = versions = parts()
    entries = {version.key: version.id for version in versions}
    manifests = {version.id: version.manifest for version in versions}
    made = build("delay", entries, manifests)
    assert made.manifest["models"] == {"champion": model.id}
    assert made.manifest["views"] == {"load": view.id}
    assert ("service", service.id) in made.inputs
    assert build("delay", {**entries, "monitor/x": view.id}, manifests).id == made.id
    with pytest.raises(NotFound, match="model/delay"):
        build("delay", {k: v for k, v in entries.items() if k != model.key}, manifests)
    other = Version("model", "delay", {"service": endpoint.id})
    with pytest.raises(InvalidInput, match="another version"):
        build("delay", {**entries, other.key: other.id}, {**manifests, other.id: other.manifest})


def on_profile(workers, *profiles):
    """The needs that a revision pins for these workers, in a snapshot with these profiles."""
    view, service, model, _ = parts()
    line = Sequence(Lookup("inputs"), "delay")
    endpoint = Version("endpoint", "delay", EndpointDef("delay", line, workers=workers).manifest())
    versions = (view, service, model, endpoint, *(Version("compute", one.name, one.manifest()) for one in profiles))
    entries = {version.key: version.id for version in versions}
    there = {endpoint.id, view.id, *needed(entries, endpoint.manifest)}
    return build("delay", entries, {version.id: version.manifest for version in versions if version.id in there})


def test_workers_get_what_a_compute_profile_gives():
    large = profile("large", cores=8, memory="4GB", gpus=1)
    pinned = on_profile(Workers(compute="large"), large, profile("other", cores=64))
    assert pinned.manifest["needs"] == {"cores": 8000, "memory": 4 * 10**9, "gpus": 1000}
    less = on_profile(Workers(compute="large", cores=2, memory="1GB", gpus=0.5), large).manifest["needs"]
    assert less == {"cores": 2000, "memory": 10**9, "gpus": 500}
    built_in = on_profile(Workers(compute="medium")).manifest["needs"]
    assert built_in == {"cores": 4000, "memory": 0, "gpus": 0}
    assert "needs" not in on_profile(Workers(cores=2), large).manifest
    with pytest.raises(DefinitionError, match="cores 9 of 8"):
        on_profile(Workers(compute="large", cores=9), large)
    with pytest.raises(InvalidInput, match="compute='larg', which nothing defines"):
        on_profile(Workers(compute="larg"), large)
    with pytest.raises(DefinitionError, match="one core"):
        Workers(compute="large", shared="small")


def test_another_price_rolls_nothing_out_and_other_cores_do():
    dear = profile("large", cores=8, price=Price("EUR", hour=9))
    first = on_profile(Workers(compute="large"), profile("large", cores=8))
    assert on_profile(Workers(compute="large"), dear).id == first.id
    assert on_profile(Workers(compute="large"), profile("large", cores=4)).id != first.id


def test_defining_an_endpoint_loads_nothing_heavy():
    script = "import sys, everloop.serving; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert not {"numpy", "sqlalchemy", "polars", "uvicorn", "pydantic", "msgspec"} & set(loaded)
