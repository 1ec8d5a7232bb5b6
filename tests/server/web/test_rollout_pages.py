"""The sections of an endpoint's page on its rollout: shares, guardrails, the experiment."""


def test_guardrails_are_shown_with_their_limits(http):
    body = http().get("/shop/endpoints/delay").text
    assert "Wanted and observed" in body
    assert "business revenue" in body
    assert "drift" in body
    assert "the new revision" in body
    assert "10 %" in body
    assert "Experiment" not in body


def test_each_time_that_it_went_back_says_on_which_evidence(http):
    body = " ".join(http().get("/shop/endpoints/delay").text.split())
    assert "9 of 9 requests failed" in body
    assert "9 requests, 9 of them failed." in body
    assert "70 rows of it and 600 of the champion, 2026-01-02 to 2026-01-03" in body
    assert 'predictions/p0001"' in body


def test_an_experiment_is_drawn(http):
    body = http().get("/shop/endpoints/compared").text
    assert "worse by 0.1 to 0.3" in body
    assert "as good as the champion" in body
    assert "<svg" in body
    assert "<td>deep</td>" in body  # whose guardrails they are
    assert "0.1" in body
