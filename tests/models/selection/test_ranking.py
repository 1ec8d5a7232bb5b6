import numpy as np
import pytest

from everloop.core.errors import DataError, DefinitionError
from everloop.models.selection.definitions import need_kept, select
from everloop.models.selection.ranking import ranked

ROWS = 600


@pytest.fixture(scope="module")
def planted():
    """Columns of which it is known what they are worth, in the order of time."""
    rng = np.random.default_rng(5)
    good, late = rng.normal(size=ROWS), rng.normal(size=ROWS)
    newer = np.arange(ROWS) >= ROWS // 2
    label = (rng.random(ROWS) < 1 / (1 + np.exp(-3 * good - np.where(newer, 2.5 * late, 0)))).astype(int)
    columns = {
        "good": np.where(rng.random(ROWS) < 0.05, np.nan, good),
        "unstable": late,
        "leak": label + rng.normal(size=ROWS) / 100,
        "noise": rng.normal(size=ROWS),
        "words": np.array(["a", "b", None] * (ROWS // 3), object),
    }
    return columns, label


@pytest.fixture(scope="module")
def found(planted):
    columns, label = planted
    return {one.column: one for one in ranked(columns, label, select(stability=0.7, nulls=3, repeats=2))}


def test_the_informative_stays_and_the_reasons_are_said(found):
    assert [name for name, one in found.items() if one.chosen] == ["good"]
    assert "above chance" in found["good"].why
    assert "no more than chance" in found["noise"].why
    assert "no more than chance" in found["words"].why
    assert "a leak?" in found["leak"].why
    assert found["leak"].alone > 0.99
    assert "of the windows" in found["unstable"].why or "no more than chance" in found["unstable"].why
    assert found["unstable"].stability < 0.7 <= found["good"].stability
    assert found["good"].mutual_information > found["noise"].mutual_information


def test_the_same_rows_and_seed_give_the_same_ranking(planted, found):
    columns, label = planted
    again = ranked(columns, label, select(stability=0.7, nulls=3, repeats=2))
    assert [one.record() for one in again] == [one.record() for one in found.values()]


def test_a_bound_and_a_wish_are_kept(planted):
    columns, label = planted
    few = {name: columns[name] for name in ("good", "noise")}
    rule = select(1, stability=0.0, nulls=2, repeats=1, windows=2, keep=("noise",))
    assert {one.column: one.chosen for one in ranked(few, label, rule)} == {"good": True, "noise": True}


def test_what_cannot_be_ranked_is_refused(planted):
    columns, label = planted
    with pytest.raises(DataError, match="one value only"):
        ranked(columns, np.ones(ROWS), select())
    with pytest.raises(DataError, match="too few"):
        ranked({"good": columns["good"][:20]}, label[:20], select())
    with pytest.raises(DefinitionError, match="chooses nothing"):
        select(stability=2)


def test_a_column_that_is_kept_must_be_there():
    assert select(3, keep="good").keep == ("good",)
    need_kept(select(3, keep=("good",)), ("good", "bad"))
    need_kept(None, ())
    with pytest.raises(DefinitionError, match="keeps 'goood'") as told:
        need_kept(select(3, keep=("goood",)), ("good", "bad"))
    assert told.value.hint == "it has good"
