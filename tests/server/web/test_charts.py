"""Charts: axes with round marks, gaps, bands and rules, texts that stay texts, and numbers beside every drawing."""

import json
import math
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everloop.core.clock import DAY, HOUR, MINUTE, SECOND, parse_time
from everloop.server.web.charts import (
    Row,
    Thing,
    Zoom,
    bar_chart,
    envelope,
    histogram,
    histogram_chart,
    line_chart,
    parallel_chart,
    scatter_chart,
    smoothed,
    spark_bars,
    thinned,
)
from everloop.server.web.charts.scale import position_scale, value_scale
from everloop.server.web.charts.ticks import duration_ticks, log_ticks, number_label, time_ticks
from everloop.server.web.pages import address, ago, counted, number, size

QUANTILES = st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=60).map(sorted)
VALUES = st.lists(st.floats(allow_nan=True, allow_infinity=True), max_size=30)
KINDS = st.sampled_from(["linear", "whole", "log", "time", "duration"])
ATTACK = '<a href="https://evil.example">x</a>" onload="x'


def drawn(chart):
    """The drawing as a browser's parser sees it; raises where a text broke out of its place."""
    return ET.fromstring(str(chart.svg))


def named(root, name):
    return [one for one in root.iter() if one.tag == name]


def classed(root, name):
    return [one for one in root.iter() if name in one.get("class", "").split()]


@given(VALUES, KINDS)
def test_an_axis_holds_every_value_that_it_can_say(values, kind):
    for scale in (value_scale(values, kind), position_scale(values, kind)):
        assert scale.low < scale.high
        assert 0 < len(scale.ticks) <= 24 or kind == "time"
        assert all(-1e-6 <= scale.at(tick.at) <= 1 + 1e-6 for tick in scale.ticks)
        if kind != "time":
            assert all(-1e-6 <= scale.at(value) <= 1 + 1e-6 for value in values if scale.holds(value))


@given(st.floats(0, 4e15), st.floats(1e3, 4e15))
def test_marks_of_times_are_in_order_and_few(start, span):
    marks = time_ticks(start, start + span)
    assert len(marks) <= 24
    assert [mark.at for mark in marks] == sorted({mark.at for mark in marks})


@pytest.mark.parametrize(
    ("span", "labels"),
    [
        (40 * SECOND, ["12:00:00", "12:00:10", "12:00:20"]),
        (MINUTE * 50, ["12:00", "12:10", "12:20"]),
        (30 * HOUR, ["12:00", "18:00", "6 Jan", "06:00"]),
        (40 * DAY, ["7 Jan", "14 Jan", "21 Jan"]),
        (300 * DAY, ["Mar", "May", "Jul"]),
        (3000 * DAY, ["2014", "2016", "2018"]),
    ],
)
def test_times_are_marked_as_people_say_them(span, labels):
    start = parse_time("2013-01-05T12:00:00Z")
    assert [mark.label for mark in time_ticks(start, start + span)][: len(labels)] == labels


def test_durations_powers_and_large_numbers_are_short():
    assert [mark.label for mark in duration_ticks(0, 600)] == ["0", "2 min", "4 min", "6 min", "8 min", "10 min"]
    assert [mark.label for mark in log_ticks(1e-4, 1)] == ["0.0001", "0.001", "0.01", "0.1", "1"]
    assert [mark.label for mark in log_ticks(1, 60)] == ["1", "2", "5", "10", "20", "50"]
    assert number_label(20_000, 5_000) == "20k"
    assert number_label(2_500_000, 500_000) == "2500k"
    assert number_label(-0.25, 0.05) == "\N{MINUS SIGN}0.25"
    assert number_label(3e-9, 1e-9) == "3e\N{MINUS SIGN}9"


def test_values_that_are_no_numbers_leave_a_gap():
    chart = line_chart({"loss": [(0, 1.0), (1, "NaN"), (2, math.inf), (3, 0.5), (4, 0.4)]}, x="step", y="loss")
    (line,) = classed(drawn(chart), "line")
    assert line.get("d").count("M") == 2
    assert chart.data["series"][0]["y"] == [1.0, None, None, 0.5, 0.4]
    json.dumps(chart.data, allow_nan=False)
    assert [row[0] for row in chart.rows] == [0, 1, 2, 3, 4]


def test_a_logarithmic_axis_has_no_place_for_zero():
    chart = line_chart({"loss": [(0, 10.0), (1, 0.0), (2, 0.1)]}, x="step", y="loss", log=True)
    assert chart.data["series"][0]["y"] == [10.0, None, 0.1]
    assert chart.data["y"]["kind"] == "log"


def test_a_point_alone_between_gaps_is_seen_on_a_long_line():
    points = [(step, 1.0 if step != 50 else "NaN") for step in range(100)] + [(101, "NaN"), (102, 3.0), (103, "NaN")]
    (dots,) = classed(drawn(line_chart({"a": points}, x="step", y="a")), "dots")
    assert dots.get("d").count("h0") == 1


def test_bands_rules_and_raw_values_are_drawn():
    points = [(step, step / 10) for step in range(20)]
    chart = line_chart(
        {"loss": points},
        x="step",
        y="loss",
        bands={"loss": [(at, value - 1, value + 1) for at, value in points]},
        faint={"loss": points},
        marks=[(1.5, "at most 1.5")],
    )
    root = drawn(chart)
    assert len(classed(root, "band")) == len(classed(root, "faint")) == len(classed(root, "rule")) == 1
    assert chart.data["y"]["low"] <= -1
    assert chart.data["y"]["high"] >= 2.9


def test_a_zoomed_chart_fits_its_values_to_what_is_seen():
    points = [(step, 1000.0 if step == 0 else 1.0 + step / 1000) for step in range(100)]
    chart = line_chart({"loss": points}, x="step", y="loss", zoom=Zoom("steps", (10.0, 20.0), "/whole"))
    assert chart.data["x"] == {"kind": "linear", "low": 10.0, "high": 20.0}
    assert chart.data["y"]["high"] < 1.1
    assert classed(drawn(chart), "clip")


def test_long_series_are_thinned_but_keep_their_spikes():
    points = [(step, 50.0 if step == 3333 else math.sin(step)) for step in range(10_000)]
    chart = line_chart({"n": points}, x="step", y="n")
    assert len(chart.data["series"][0]["x"]) <= 1700
    assert 50.0 in chart.data["series"][0]["y"]
    assert len(chart.rows) <= 240


@given(st.lists(st.tuples(st.integers(0, 9), st.none() | st.floats(-9, 9)), max_size=300), st.integers(4, 80))
def test_thinning_keeps_extremes_ends_and_gaps(pairs, most):
    points = [(float(index), value) for index, (_, value) in enumerate(pairs)]
    kept = thinned(points, most)
    assert [at for at, _ in kept] == sorted({at for at, _ in kept})
    values = [value for _, value in points if value is not None]
    held = [value for _, value in kept if value is not None]
    assert (max(values, default=0), min(values, default=0)) == (max(held, default=0), min(held, default=0))
    assert kept[:1] == points[:1]
    assert kept[-1:] == points[-1:]
    assert (None in [v for _, v in points]) == (None in [v for _, v in kept])
    assert len(kept) <= max(most, 4) / 4 * 5 or len(points) <= most


def test_an_envelope_holds_every_value():
    points = [(float(step), math.sin(step) if step % 50 else None) for step in range(1000)]
    band = envelope(points, 100)
    assert len(band) == 100
    for index, (at, low, high) in enumerate(band):
        values = [value for _, value in points[index * 10 : index * 10 + 10] if value is not None]
        assert (low, high) == (min(values), max(values))
        assert points[index * 10][0] <= at <= points[index * 10 + 9][0]
    assert envelope([(0.0, None), (1.0, 2.0)], 5) == [(0.0, None, None), (1.0, 2.0, 2.0)]
    assert envelope([], 5) == []


@given(st.lists(st.none() | st.floats(-1e3, 1e3), max_size=50), st.floats(0, 0.99))
def test_smoothing_stays_within_what_was_seen(values, weight):
    found = smoothed(values, weight)
    seen = [value for value in values if value is not None]
    assert [value is None for value in found] == [value is None for value in values]
    assert all(min(seen) - 1e-6 <= value <= max(seen) + 1e-6 for value in found if value is not None)
    if weight == 0:
        assert found == pytest.approx(values)


def test_labels_hold_no_markup():
    charts = [
        line_chart({ATTACK: [(0, 1.0)], "b": [(0, 1.0)]}, x=ATTACK, y=ATTACK, marks=[(1.0, ATTACK)]),
        bar_chart({ATTACK: [(ATTACK, 1.0)]}, x=ATTACK, y=ATTACK),
        scatter_chart([Thing(ATTACK, ATTACK, 1.0, href=ATTACK)], x=ATTACK, y=ATTACK),
        parallel_chart([Row(ATTACK, {ATTACK: ATTACK, "b": 1.0}, href=ATTACK)], (ATTACK, "b"), title=ATTACK),
    ]
    for chart in charts:
        for one in drawn(chart).iter():
            assert one.get("href") in (None, ATTACK)
            assert one.get("onload") is None


def test_every_drawing_says_what_it_is():
    chart = line_chart({"loss": [(0, 1.0), (1, 0.25)]}, x="step", y="loss")
    root = drawn(chart)
    assert named(root, "title")[0].text == "loss by step"
    assert named(root, "desc")[0].text == "loss: 0.25 to 1, last 0.25"
    assert root.get("role") == "img"
    assert chart.head == ("step", "loss")


def test_stacked_bars_stand_on_each_other():
    chart = bar_chart({"v1": [(0, 2), (HOUR, 1)], "v2": [(0, 3)]}, x="time", y="predictions", kind="time", stacked=True)
    tall = [float(rect.get("height")[:-1]) for rect in named(drawn(chart), "rect")]
    assert chart.data["y"]["high"] == 5
    assert tall == pytest.approx([40, 20, 60])
    assert [row[0] for row in chart.rows] == ["1970-01-01 00:00:00", "1970-01-01 01:00:00"]


@given(QUANTILES)
def test_a_histogram_keeps_all_of_the_mass(quantiles):
    bins = histogram(quantiles)
    assert sum(share for _, _, share in bins) == pytest.approx(1.0, abs=1e-6)
    assert bins[0][0] == quantiles[0]
    bars = named(drawn(histogram_chart(bins, x="distance", y="share")), "rect")
    assert len(bars) == len([share for _, _, share in bins if share > 0])


def test_a_histogram_of_nothing_is_empty():
    assert histogram([]) == []
    assert histogram([math.nan]) == []
    assert spark_bars([]) == ""


def test_scatter_places_texts_and_leaves_out_what_has_no_value():
    things = [Thing("a", "adam", 0.1), Thing("b", "sgd", 0.2), Thing("c", None, 0.3), Thing("d", "sgd", "NaN")]
    chart = scatter_chart(things, x="optimizer", y="loss")
    assert chart.data["x"]["labels"] == ["adam", "sgd"]
    assert len(chart.rows) == 4
    # a text among numbers makes an axis of texts: nothing is lost
    assert len(named(drawn(chart), "circle")) == 3


def test_parallel_lines_are_interrupted_where_a_value_is_missing():
    rows = [Row("whole", {"a": 1.0, "b": 2.0, "c": 3.0}), Row("torn", {"a": 2.0, "c": 1.0}, out=True)]
    chart = parallel_chart(rows, ("a", "b", "c"), title="two runs", brushes={"b": (1.0, 2.5)})
    torn, whole = classed(drawn(chart), "thread")  # what is out lies below
    assert (torn.get("d").count("M"), whole.get("d").count("M")) == (2, 1)
    assert len(classed(drawn(chart), "brush")) == 1
    assert chart.rows == (("whole", 1.0, 2.0, 3.0), ("torn", 2.0, None, 1.0))


def test_a_range_that_reaches_beyond_its_axis_ends_with_it():
    rows = [Row(str(value), {"a": value, "b": 1.0}) for value in (1.0, 100.0, 10_000.0)]
    for span in ((-1.0, 100.0), (-math.inf, 100.0), (0.0, 100.0)):
        chart = parallel_chart(rows, ("a", "b"), title="three runs", brushes={"a": span})
        assert chart.data["axes"][0]["kind"] == "log"
        (brush,) = classed(drawn(chart), "brush")
        assert (brush.get("y"), brush.get("height")) == ("50%", "50%")


def test_values_as_people_read_them():
    assert number(1234567) == "1,234,567"
    assert number(0.123456) == "0.1235"
    assert number("text") == "text"
    assert number(None) == "-"
    assert size(1_536_000) == "1.5 MB"
    assert counted(2, "policy") == "2 policies"
    assert ago(0, 5) == "never"
    assert address("a b", "c/d", x="", y="1&2") == "/a%20b/c%2Fd?y=1%262"
