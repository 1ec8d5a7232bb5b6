import subprocess
import sys
from dataclasses import replace

import pytest

from everloop.core.canonical import canonical_json
from everloop.core.clock import DAY, HOUR, MINUTE
from everloop.core.errors import DefinitionError
from everloop.core.ids import manifest_id
from everloop.data.definitions import Files, SourceDef
from everloop.features import definitions as el
from everloop.features.definitions import Feature, FeatureServiceDef, FeatureViewDef, hop_of
from everloop.features.vectors.definitions import vector

FLIGHTS = SourceDef("flights", Files("*.parquet"), key="id", event_time="sched", known_time="landed")


def view(**changes):
    given = {"name": "load", "source": "flights", "entity": "origin", "features": [el.count(over="1h")]} | changes
    return FeatureViewDef(**given)


def test_default_names_say_column_function_and_window():
    made = [
        el.count(over="1h"),
        el.sum("delay", over="2d"),
        el.mean("dep_delay", over="3h"),
        el.min("x", over="10m"),
        el.max("x", over="4w"),
        el.last("visibility", ttl="2h"),
        el.last("seats", name="seats"),
    ]
    names = ["count_1h", "delay_sum_2d", "dep_delay_mean_3h", "x_min_10m", "x_max_4w", "visibility_last", "seats"]
    assert [f.name for f in made] == names


def test_hops_follow_the_window():
    windows = [MINUTE, 12 * HOUR - 1, 12 * HOUR, 12 * DAY - 1, 12 * DAY, 90 * DAY]
    assert [hop_of(w) for w in windows] == [5 * MINUTE, 5 * MINUTE, HOUR, HOUR, DAY, DAY]


def test_manifests_are_canonical_and_come_back():
    features = [
        el.mean("x", over="3h", where=("y", ">=", 0.25)),
        el.sum("x", over="3h", scale=2, name="s"),
        el.count(over="1d", where=("carrier", "==", "AA")),
        el.count(over="2d", where=("y", "<", -3)),
        el.last("x"),
    ]
    made = view(features=features, entity=("origin", "dest"), slack="3h").validate(FLIGHTS)
    again = FeatureViewDef.from_manifest("load", made.manifest())
    assert again == made
    assert canonical_json(made.manifest()) == canonical_json(again.manifest())
    assert (made.event_time, made.known_time, made.key, made.slack) == ("sched", "landed", ("id",), 3 * HOUR)


def test_identity_holds_window_scale_filter_and_times_but_not_the_name():
    base = view(features=[el.sum("x", over="3h", name="f")]).validate(FLIGHTS)
    assert manifest_id(replace(base, name="other").manifest()) == manifest_id(base.manifest())
    others = [
        replace(base, features=(el.sum("x", over="4h", name="f"),)),
        replace(base, features=(el.sum("x", over="3h", name="f", scale=2),)),
        replace(base, features=(el.sum("x", over="3h", name="f", where=("x", ">", 1)),)),
        replace(base, known_time="sched"),
        replace(base, key=()),
    ]
    assert len({manifest_id(v.manifest()) for v in [base, *others]}) == 6


def test_a_manifest_with_another_hop_is_refused():
    with pytest.raises(DefinitionError, match="another hop"):
        Feature.from_manifest(el.count(over="1h").manifest() | {"hop": HOUR})


def test_a_service_lists_request_columns_then_features_in_order():
    a, b = view().validate(FLIGHTS), view(name="b", entity="carrier", features=[el.last("x"), el.count(over="2h")])
    b = b.validate(FLIGHTS)
    service = FeatureServiceDef("inputs", [b, a], request=["distance"])
    assert service.columns == ("distance", "b__x_last", "b__count_2h", "load__count_1h")
    assert service.entities == ("carrier", "origin")
    ids = {"load": "b3:1", "b": "b3:2"}
    manifest = service.manifest(ids)
    assert manifest["views"] == ids
    again = FeatureServiceDef.from_manifest("inputs", manifest, {"b3:1": a.manifest(), "b3:2": b.manifest()})
    assert again == service


def test_known_time_defaults_to_event_time():
    assert view().validate(replace(FLIGHTS, known_time=None)).known_time == "sched"


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (lambda: view().validate(replace(FLIGHTS, event_time=None, known_time=None)), "no event time"),
        (lambda: view().manifest(), "no event time"),
        (lambda: view(entity=()), "no entity"),
        (lambda: view(features=[]), "no features"),
        (lambda: view(features=[el.count(over="1h"), el.count(over="1h")]), "two features named 'count_1h'"),
        (lambda: el.count(over="1 hour"), "not a duration"),
        (lambda: el.mean("", over="1h"), "needs a column"),
        (lambda: el.mean("a b", over="1h"), "cannot be a name"),
        (lambda: el.sum("x", over="1h", scale=16), "scale 16"),
        (lambda: el.count(over="1h", where=("x", "~", 1)), "not a filter"),
        (lambda: el.count(over="1h", where=("x", "==", float("nan"))), "not a filter"),
        (lambda: el.histogram("x", [1, 1], over="1h"), "do not ascend"),
        (lambda: el.histogram("x", ["low"], over="1h"), "no number"),
        (lambda: el.histogram("x", [float("nan")], over="1h"), "beyond"),
        (lambda: el.histogram("x", [0, 1e10], over="1h"), "beyond"),
        (lambda: el.histogram("x", [0.1234567], over="1h"), "more than 6 digits"),
        (lambda: FeatureServiceDef("s", []), "empty"),
        (lambda: FeatureServiceDef("s", [view(), view()]), "'load' twice"),
        (lambda: FeatureServiceDef("s", ["load"]), "lists 'load', which is no view"),
        (lambda: view(slack="soon"), "not a duration"),
        (lambda: view(features=["count"]), "'count' is no feature"),
        (lambda: view(features=[vector("x", 2)]), "is no feature"),
        (lambda: view(reads=["load"]), "reads 'load', which is no view"),
        (lambda: el.count(over=3), "3 is no length of time"),
        (lambda: el.last_k("x", "3"), "k='3' is not between"),
        (lambda: el.quantile("x", "half", over="1h"), "not between 0 and 1"),
        (lambda: vector("x", 2.5), "2.5 dimensions"),
    ],
)
def test_wrong_definitions_are_refused_with_a_reason(wrong, told):
    with pytest.raises(DefinitionError, match=told):
        wrong()


def loaded(code):
    heavy = ["polars", "duckdb", "pyarrow", "sqlalchemy", "pydantic", "pandas", "mlflow", "numpy", "lmdb"]
    program = f"import sys; {code}; print([m for m in {heavy} if m in sys.modules])"
    return subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout.strip()


def test_definitions_load_nothing_heavy():
    assert loaded("import everloop.features.definitions") == "[]"


def test_online_loads_numpy_and_lmdb_only():
    assert loaded("import everloop.features.online, everloop.features.stores.lmdb") == "['numpy', 'lmdb']"
