"""Charts as values: histograms keep their mass, curves keep their numbers beside them."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everloop.server.web.charts import bar_chart, histogram, line_chart, spark_bars
from everloop.server.web.pages import address, ago, counted, number, size

QUANTILES = st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=60).map(sorted)


@given(QUANTILES)
def test_a_histogram_keeps_all_of_the_mass(quantiles):
    bins = histogram(quantiles)
    assert sum(share for _, _, share in bins) == pytest.approx(1.0, abs=1e-6)
    assert bins[0][0] == quantiles[0]


def test_a_histogram_of_nothing_is_empty():
    assert histogram([]) == []
    assert histogram([math.nan]) == []
    assert spark_bars([]) == ""


def test_values_that_are_no_numbers_leave_a_gap():
    chart = line_chart({"loss": [(0, 1.0), (1, "NaN"), (2, math.inf), (3, 0.5)]}, x="step", y="loss")
    assert chart.spec["traces"][0]["y"] == [1.0, None, None, 0.5]
    json.dumps(chart.spec, allow_nan=False)
    assert [row[0] for row in chart.rows] == [0, 1, 2, 3]


def test_long_series_are_thinned_in_the_table_only():
    chart = bar_chart({"n": [(step, step) for step in range(5000)]}, x="step", y="n")
    assert len(chart.spec["traces"][0]["x"]) == 5000
    assert len(chart.rows) <= 400


def test_labels_hold_no_markup():
    chart = line_chart({'<a href="https://evil.example">x</a>': [(0, 1.0)]}, x="<b>x</b>", y="y")
    assert "<" not in json.dumps(chart.spec)
    assert chart.head[1].startswith("<a")  # the table beside it is escaped by its template


def test_values_as_people_read_them():
    assert number(1234567) == "1,234,567"
    assert number(0.123456) == "0.1235"
    assert number("text") == "text"
    assert number(None) == "-"
    assert size(1_536_000) == "1.5 MB"
    assert counted(2, "policy") == "2 policies"
    assert ago(0, 5) == "never"
    assert address("a b", "c/d", x="", y="1&2") == "/a%20b/c%2Fd?y=1%262"
