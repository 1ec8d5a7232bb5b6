"""Will this order come back? Asked at the till, with what was known of its shop by then.

The smallest project that turns the whole loop: one source, two datasets, one view, one service, one model.
"""

import polars as pl

import everloop as el

project = el.Project("shop")

till = project.source("till", el.Files("data/till/*.csv"), key="number", event_time="at")


@project.dataset(
    key="number",
    event_time="at",
    expect=[
        el.expect.unique("number"),
        el.expect.between("amount", 0, 1000),
        el.expect.one_of("place", ["a", "b", "c"]),
    ],
)
def orders(till: pl.LazyFrame) -> pl.LazyFrame:
    """Every order: what is known at the till, and whether it came back, known six hours later."""
    known = pl.col("at") + pl.duration(hours=6)
    return till.select("number", "at", "place", "amount", "items", pl.col("returned").cast(pl.Int8), known_at=known)


@project.dataset(key="number", event_time="at", known_time="known_at")
def outcomes(till: pl.LazyFrame) -> pl.LazyFrame:
    """Whether an order came back, known six hours after it."""
    return till.select("number", "at", "place", "returned", known_at=pl.col("at") + pl.duration(hours=6))


place_outcomes = project.feature_view(
    "place_outcomes",
    source=outcomes,
    entity="place",
    features=[el.mean("returned", over="2d"), el.count(over="2d")],
)
inputs = project.feature_service("inputs", [place_outcomes], request=["amount", "items"])
ranked = project.objective("ranked", metric="roc_auc", at_least=0.6, owner="till")


@project.model(inputs=inputs, spine=orders, label="returned", label_known="known_at", holdout="5d")
def comeback(frame: pl.DataFrame, regularisation: float = 1.0):
    """Logistic regression; a shop without history counts as the average one."""
    import mlflow
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    mlflow.log_metric("rows", frame.height)
    print(f"{frame.height} orders")  # noqa: T201 - a run's console is a part of what tests look at
    model = make_pipeline(SimpleImputer(), StandardScaler(), LogisticRegression(C=regularisation))
    return model.fit(frame.drop("returned").to_numpy(), frame["returned"].to_numpy())


@project.check(objective=ranked, blocks=["staging", "production"])
def good_enough(comeback: el.Candidate, holdout: pl.DataFrame, objective: el.Objective) -> el.Verdict:
    """The objective holds on the newest days, which training has not seen."""
    return el.verdicts.threshold(comeback, holdout, objective)


@project.check(blocks=["staging", "production"])
def units_kept(frame: pl.DataFrame, champion_frame: pl.DataFrame | None) -> el.Verdict:
    """No feature changed its unit against what the champion was trained on."""
    return el.verdicts.same_units(frame, champion_frame)


endpoint = project.endpoint(
    "comeback",
    graph=el.Sequence(el.Lookup(inputs), comeback),
    rollout=el.Canary([50, 100], hold=20),
    fallback="previous",
)
project.monitor(
    endpoint, label=el.Late(orders, "returned", delay="6h"), objective=ranked, window="1d", alarms_per_quarter=1
)
project.retrain(comeback, when=[el.on_alarm(endpoint), el.on_new_rows(orders, 5_000)])
