import subprocess
import sys

import pytest

from everloop.core.clock import DAY, HOUR
from everloop.core.errors import InvalidInput
from everloop.watch import Late, MonitorDef, RetrainDef, every, on_alarm, on_new_rows


def test_monitor_survives_its_manifest():
    monitor = MonitorDef("delay", "delay", Late("arrivals", "late", delay="36h"), 2, "7d", ("carrier",), "on_time")
    assert MonitorDef.from_manifest("delay", monitor.version().manifest) == monitor
    assert monitor.length == 7 * DAY
    assert monitor.label.length == 36 * HOUR


def test_rule_survives_its_manifest():
    rule = RetrainDef("delay", [every("7d"), on_alarm("delay"), on_new_rows("departures", 20_000)])
    assert RetrainDef.from_manifest(rule.version().manifest) == rule
    assert [str(t) for t in rule.when] == ["every 7d", "alarm on delay", "20,000 new rows of departures"]


def test_definitions_may_be_named_by_the_thing_itself():
    arrivals = Late("arrivals", "late")

    class Dataset:
        name = "departures"

    assert Late(Dataset, "late").dataset == "departures"
    assert on_alarm(MonitorDef("m", "delay", arrivals)).subject == "m"


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Late("arrivals", "late", delay="soon"),
        lambda: MonitorDef("m", "delay", window="fortnight"),
        lambda: MonitorDef("m", "delay", alarms_per_quarter=0),
        lambda: RetrainDef("delay", []),
        lambda: every("often"),
        lambda: on_new_rows("departures", 0),
        lambda: on_alarm(7),
    ],
)
def test_wrong_definitions_are_refused(wrong):
    with pytest.raises(InvalidInput):
        wrong()


def test_defining_loads_no_engine():
    code = (
        "import sys, everloop.watch; print([m for m in ('numpy', 'scipy', 'polars', 'sqlalchemy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
