"""One whole turn of the loop on the tiny project, told once a session; tests ask what each stage left behind."""

import itertools
from types import SimpleNamespace

from shop_house import BEGIN, Shop, orders_of, wait_for

from everloop.core.clock import DAY
from everloop.core.errors import EverloopError

FIRST, DRIFTED = 20, 22
"""The first day of service, and the first on which everything is dearer and comes back more often."""


def tell(folder, **elsewhere):
    """Play the story in `folder`; returns the shop, still up, with what each stage gave.

    `elsewhere` holds environment variables of every process.
    """
    shop = Shop(folder, elsewhere=elsewhere)
    story = SimpleNamespace(shop=shop)
    try:
        shop.up()
        shop.hire("grace", "approver", "contributor", "deployer")
        shop.hire("vera", "viewer")
        _first_model(story)
        _days(story)
        _retrain(story)
        _go_back(story)
    except BaseException:
        shop.close()
        raise
    return story


def refusal(client, operation, **fields):
    """The error that a call ends in; None when it was allowed."""
    try:
        client.call(operation, **fields)
    except EverloopError as error:
        return error
    return None


def _first_model(story):
    shop, ada = story.shop, story.shop.person("ada")
    story.built = shop.build(message="First model")
    story.refreshed = shop.refresh()
    opened = ada.call("changes.propose", source="sandbox/ada/main", target="production", title="First model")
    story.early = refusal(shop.person("grace"), "changes.merge", number=opened.number)
    story.first = shop.checked(opened.number)
    story.own = refusal(ada, "changes.approve", number=opened.number)
    story.merged = shop.land(opened.number)
    story.live = shop.settled("live", "settled")
    story.filled = ada.call("features.materialize", environment="production")


def _days(story):
    shop = story.shop
    story.answers = shop.play(FIRST) + shop.play(FIRST + 1)
    story.quiet = shop.task("watch.tick", {"environment": "production"})
    story.before_drift = shop.person("ada").call("alarms.list").alarms
    for day in range(DRIFTED, DRIFTED + 4):
        shop.deliver([day], dear=60, shift=0.5)
        story.answers += shop.play(day, dear=60, shift=0.5)
    shop.refresh()
    story.ticked = shop.task("watch.tick", {"environment": "production"})
    story.alarms = shop.person("ada").call("alarms.list").alarms


def _retrain(story):
    shop, ada = story.shop, story.shop.person("ada")

    def ended():
        tasks = [t for t in ada.call("tasks.list").tasks if t.kind == "flow.retrain"]
        return next((t for t in tasks if t.state in ("done", "failed")), None)

    story.retrained = wait_for(ended, 120, "retraining")
    assert story.retrained.state == "done", story.retrained.error
    story.second = shop.checked(story.retrained.result["change"])
    story.landed = None
    if all(check.state == "passed" for check in story.second.checks):
        story.landed = shop.land(story.second.number)
        story.canary = shop.settled("canary")
        story.during = []
        story.settled = _asked_until_settled(shop, story.during)


def _asked_until_settled(shop, replies):
    """Traffic moves on by answered requests: keep asking."""
    rows = itertools.cycle(orders_of(DRIFTED + 4, dear=60, shift=0.5).to_dicts())

    def settled():
        with shop.http() as http:
            replies.extend(shop.ask(http, row, BEGIN + (DRIFTED + 4) * DAY) for row in itertools.islice(rows, 20))
        found = shop.endpoint()
        return found if found.phase == "settled" else None

    return wait_for(settled, 60, "the challenger takes over")


def _go_back(story):
    shop, grace = story.shop, story.shop.person("grace")
    story.rolled = grace.call("environments.rollback", environment="production", reason="to see it")
    first = story.live.target

    def back():
        found = shop.endpoint()
        return found if found.serving == first and found.target == first else None

    story.back = wait_for(back, 30, "the first revision serves again")
