"""The page of a dataset: its contract and results, what differs and drifted, what goes together."""

from everloop.server.web.charts import histogram


def test_the_contract_and_how_it_went(http, world):
    world.seal()
    text = http("eve", timeout=120).get("/shop/data/flights").text
    assert '<h2 id="contract">Contract</h2>' in text
    assert "newest results" in text


def test_two_versions_are_compared_with_their_drift(http):
    text = http("eve", timeout=120).get("/shop/data/flights?version=2&against=1").text
    assert "Against v1" in text
    assert "How far columns drifted" in text
    drift = text.partition("How far columns drifted")[2].partition("</section>")[0]
    assert "Kolmogorov-Smirnov distance" in drift
    assert "N7" not in drift  # the tagged column
    assert "Columns that go together" in text


def test_two_histograms_stand_over_one_range():
    before, after = (histogram(edges, 4, (0.0, 4.0)) for edges in ([0.0, 1.0, 2.0], [2.0, 3.0, 4.0]))
    assert [share for *_, share in before] == [0.5, 0.5, 0.0, 0.0]
    assert [share for *_, share in after] == [0.0, 0.0, 0.5, 0.5]
