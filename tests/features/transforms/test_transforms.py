import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

import everloop as el
from everloop.core.errors import CorruptObject, DataError, DefinitionError
from everloop.features.definitions import FeatureServiceDef
from everloop.features.transforms.applying import apply
from everloop.features.transforms.definitions import TransformDef, raw_inputs, transform_of
from everloop.features.transforms.packing import CARD, load, pack
from everloop.features.transforms.parity import check, differences
from everloop.features.transforms.steps import transformed
from everloop.features.transforms.typed import typed

FACTOR = 60


def minutes(hours):
    """Something that a transform calls."""
    return hours * FACTOR


def pace(distance, hours):
    """NumPy: one array a column, floats with NaN, others masked."""
    return distance / np.ma.filled(minutes(hours.astype(float)), np.nan)


def flags(frame: pl.DataFrame) -> pl.DataFrame:
    """Polars: a frame in, a frame out."""
    return frame.select(
        far=pl.col("distance") > 500,
        twice=pl.col("hours") * 2,
        code=pl.col("carrier").str.to_lowercase(),
    )


PACE = transform_of(pace, {"distance": "float64", "hours": "int64"}, {"pace": "float64"})
FLAGS = transform_of(
    flags,
    {"distance": "float64", "hours": "int64", "carrier": "text"},
    {"far": "bool", "twice": "int64", "code": "text"},
)
ROWS = {"distance": [600.0, None, 100.0], "hours": [2, 5, None], "carrier": ["AA", None, "b"]}


def test_a_null_leaves_the_type_alone():
    made = apply([PACE, FLAGS], ROWS, 3)
    assert made["pace"].listed() == [5.0, None, None]
    assert made["far"].listed() == [True, None, False]
    assert made["twice"].listed() == [4, 10, None]
    assert made["twice"].values.dtype == np.int64
    assert made["code"].listed() == ["aa", None, "b"]
    frame = transformed([PACE, FLAGS], pl.DataFrame(ROWS))
    assert frame.schema["twice"] == pl.Int64
    assert frame["far"].to_list() == [True, None, False]


@given(
    rows=st.lists(
        st.tuples(
            st.none() | st.floats(allow_nan=True, allow_infinity=False),
            st.none() | st.integers(-(2**52), 2**52),
            st.none() | st.text(max_size=3),
        ),
        min_size=1,
        max_size=8,
    )
)
def test_a_batch_is_its_rows_one_at_a_time(rows):
    columns = {
        name: typed(name, kind, [row[place] for row in rows]) for place, (name, kind) in enumerate(FLAGS.inputs.items())
    }
    assert differences([PACE, FLAGS], columns, len(rows)) == []


def later(pace):
    return pace + 1


LATER = transform_of(later, {"pace": "float64"}, {"later": "float64"})


def test_later_transforms_read_earlier_ones():
    assert apply([PACE, LATER], ROWS, 3)["later"].listed() == [6.0, None, None]
    assert raw_inputs([PACE, LATER]) == {"distance": "float64", "hours": "int64"}


def ranked(frame):
    return frame["distance"].rank()


def centred(distance):
    return distance - np.nansum(distance)


def counted(frame):
    return pl.Series(range(frame.height))


def of_chance(distance):
    return np.random.default_rng().random(len(distance))


@pytest.mark.parametrize("function", [ranked, centred, counted, of_chance])
def test_what_looks_at_other_rows_is_refused_with_the_rows(function):
    kind = "int64" if function is counted else "float64"
    wrong = transform_of(function, {"distance": "float64"}, {"x": kind})
    frame = pl.DataFrame({"distance": [3.0, 1.0, 2.0, None]})
    with pytest.raises(DataError, match=f"{function.__name__} is not row by row") as refused:
        transformed([wrong], frame)
    assert refused.value.details["rows"][0].keys() == {"inputs", "column", "batch", "alone"}


def broken(distance):
    return distance[:-1]


def mistyped(frame):
    return frame.select(x=pl.col("distance").cast(pl.String))


def missing(frame):
    return frame.select(other=pl.col("distance"))


def failing(frame):
    return 1 / 0


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (broken, "has 2 values for 3 rows"),
        (mistyped, "declared float64 and holds"),
        (missing, "gave no column 'x'"),
        (failing, "failed: ZeroDivisionError"),
    ],
)
def test_an_answer_that_does_not_fit_is_refused_by_name(function, said):
    one = transform_of(function, {"distance": "float64"}, {"x": "float64"})
    with pytest.raises(DataError, match=f"transform {function.__name__}.*{said}"):
        apply([one], ROWS, 3)


@pytest.mark.parametrize(
    ("kind", "values"),
    [("int64", [1.5]), ("int64", ["1"]), ("float64", ["x"]), ("bool", [1]), ("text", [3]), ("int64", [2**64])],
)
def test_a_value_that_is_not_its_type_is_refused(kind, values):
    with pytest.raises(DataError, match="'c'"):
        typed("c", kind, values)


def test_whole_floats_are_whole_numbers_and_nan_is_null():
    assert typed("c", "int64", [3.0, None]).listed() == [3, None]
    assert typed("c", "int64", np.array([3.0, np.nan])).listed() == [3, None]
    assert typed("c", "float64", pl.Series([1, None])).listed() == [1.0, None]
    assert typed("c", "text", pl.Series(["a"], dtype=pl.Categorical)).listed() == ["a"]


def takes_two(distance, other):
    return distance + other


@pytest.mark.parametrize(
    ("inputs", "outputs", "said"),
    [
        (["distance"], {"x": "bool"}, "says no types"),
        ({"distance": "decimal"}, {"x": "bool"}, "is 'decimal'"),
        ({"distance": "float64"}, {}, "has no outputs"),
        ({"distance": "float64"}, {"distance": "bool"}, "both reads and makes"),
        ({"distance": "float64"}, {"x": "bool"}, "takes distance, other"),
    ],
)
def test_wrong_definitions_are_refused_at_once(inputs, outputs, said):
    with pytest.raises(DefinitionError, match=said):
        transform_of(takes_two, inputs, outputs)


def test_a_service_refuses_what_is_not_there_before_a_transform():
    with pytest.raises(DefinitionError, match="reads 'pace', which is not there before it"):
        FeatureServiceDef("s", (), ("distance", "hours"), (LATER, PACE))
    with pytest.raises(DefinitionError, match="has 'pace' twice"):
        FeatureServiceDef("s", (), ("distance", "hours", "pace"), (PACE,))
    service = FeatureServiceDef("s", (), ("distance", "hours"), (PACE, LATER))
    assert service.columns == ("distance", "hours", "pace", "later")
    back = FeatureServiceDef.from_manifest("s", service.manifest({}), {})
    assert back == service


PROJECT = """
import everloop as el
import numpy as np
from helping import FACTOR

project = el.Project("p")

@project.transform(inputs={"a": "float64"}, outputs={"b": "float64"})
def doubled(a):
    return np.multiply(a, FACTOR)

service = project.feature_service("s", [], request=["a"], transforms=[doubled])
"""


@pytest.fixture
def project_in(tmp_path, monkeypatch):
    def make(name, factor, text=PROJECT):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "theirs.py").write_text(text)
        (folder / "helping.py").write_text(f"FACTOR = {factor}\n\ndef unused():\n    return 1\n")
        for module in ("theirs", "helping"):
            sys.modules.pop(module, None)
        from everloop.project.loading import load_project

        monkeypatch.syspath_prepend(str(folder))
        return load_project(folder, "theirs")

    yield make
    for module in ("theirs", "helping"):
        sys.modules.pop(module, None)


def test_the_service_pins_what_the_code_reaches_and_nothing_else(project_in):
    first = project_in("one", 2)
    same = project_in("elsewhere", 2, PROJECT.replace("np.multiply(a, FACTOR)", "np.multiply(a, FACTOR)  # twice"))
    other = project_in("changed", 3)
    ids = [p.service_version("s").id for p in (first, same, other)]
    assert ids[0] == ids[1] != ids[2]
    assert first.root != same.root


def written(folder, packed):
    import base64

    for path, content in packed.items():
        (folder / path).parent.mkdir(exist_ok=True, parents=True)
        (folder / path).write_bytes(base64.b64decode(content))
    return folder


def test_packed_code_needs_no_project_and_is_the_same_in_another_checkout(project_in, tmp_path):
    first = pack(project_in("one", 2).pinned_service("s").transforms)
    second = pack(project_in("two", 2).pinned_service("s").transforms)
    assert first == second
    for module in ("theirs", "helping"):
        sys.modules.pop(module)
    [found] = load(written(tmp_path / "model", first))
    assert "theirs" not in sys.modules
    assert apply([found], {"a": [1.5, None]}, 2)["b"].listed() == [3.0, None]


def test_another_python_or_broken_code_is_said_so(tmp_path, monkeypatch):
    packed = pack([PACE])
    folder = written(tmp_path / "model", packed)
    (folder / CARD).write_bytes((folder / CARD).read_bytes().replace(b'"python":"3', b'"python":"2'))
    with pytest.raises(CorruptObject, match=r"made by Python 2"):
        load(folder)
    written(folder, packed)
    (folder / "transforms" / "code.pkl").write_bytes(b"\x80\x05.")
    with pytest.raises(CorruptObject, match="do not load"):
        load(folder)
    assert load(tmp_path / "none") == []


def test_what_cannot_travel_is_refused_when_it_is_packed(tmp_path):
    with Path(tmp_path / "open").open("w") as handle:
        one = TransformDef("x", {"a": "float64"}, {"b": "float64"}, "arrays", lambda a: (handle, a)[1])
        with pytest.raises(DataError, match="cannot be packed"):
            pack([one])


def test_the_decorator_refuses_at_the_authors_line():
    project = el.Project("p")
    with pytest.raises(DefinitionError, match=r"test_transforms\.py:\d+: transform .* says no types"):
        project.transform(inputs=["distance"], outputs={"b": "bool"})(ranked)


def test_samples_hold_nulls_everywhere():
    seen = []

    def watched(distance, hours):
        seen.append((distance, hours))
        return distance

    one = transform_of(watched, {"distance": "float64", "hours": "int64"}, {"x": "float64"})
    check([one], {n: typed(n, k, [1, 2, 3, 4]) for n, k in one.inputs.items()}, 4)
    assert any(np.isnan(d).any() for d, _ in seen)
    assert any(np.ma.getmaskarray(h).any() for _, h in seen)
