"""What people do with MLflow, as one script for any client of the 2.x and 3.x lines (MLFLOW_TRACKING_URI says where).

It prints one line a chapter and leaves with 1 at the first thing that is not as a user expects.
"""

import math
import os
import sys
import tempfile
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression

CLIENT = mlflow.MlflowClient()
MAJOR, MINOR = (int(part) for part in mlflow.__version__.split(".")[:2])
MARK = f"{MAJOR}-{MINOR}-{os.getpid()}"
RANDOM = np.random.default_rng(7)
ROWS = pd.DataFrame(RANDOM.random((80, 3)), columns=["a", "b", "c"])
LABEL = (ROWS["a"] + ROWS["b"] > 1).astype(int)
SMALL_FILES = 120


def say(line):
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def expect(found, wanted):
    if found != wanted:
        raise AssertionError(f"found {found!r}, wanted {wanted!r}")


def fluent():
    """Parameters, metrics, tags, batches, nested runs, resuming, search."""
    with mlflow.start_run(run_name="größer", tags={"team": "ops"}) as run:
        mlflow.log_params({"depth": 3, "long": "x" * 500, "weiß": "ß 漢字 🛫"})
        mlflow.log_metrics({"nan": math.nan, "up": math.inf, "down": -math.inf}, step=2)
        for step in range(10):
            mlflow.log_metric("loss", 1 / (step + 1), step=step)
        mlflow.set_tags({"note": "déjà vu", "n": 1})
        with mlflow.start_run(nested=True):
            mlflow.log_param("inner", True)
    found = CLIENT.get_run(run.info.run_id)
    expect(found.info.status, "FINISHED")
    expect(found.data.params["weiß"], "ß 漢字 🛫")
    expect((found.data.metrics["up"], found.data.metrics["down"]), (math.inf, -math.inf))
    expect(math.isnan(found.data.metrics["nan"]), True)
    expect([one.step for one in CLIENT.get_metric_history(run.info.run_id, "loss")], list(range(10)))
    with mlflow.start_run(run_id=run.info.run_id):
        mlflow.log_metric("again", 1)
    frame = mlflow.search_runs(filter_string="metrics.again = 1 and params.depth = '3'", order_by=["metrics.loss ASC"])
    expect(list(frame["run_id"]), [run.info.run_id])
    CLIENT.delete_run(run.info.run_id)
    expect(len(mlflow.search_runs(filter_string="metrics.again = 1")), 0)
    CLIENT.restore_run(run.info.run_id)
    expect(mlflow.get_experiment_by_name(MARK).name, MARK)


def artifacts():
    """One larger file, many small ones in folders, texts and tables; up, listed, down, and the same bytes."""
    with tempfile.TemporaryDirectory() as folder, mlflow.start_run() as run:
        here = Path(folder)
        large = RANDOM.bytes(3_000_001)
        (here / "large.bin").write_bytes(large)
        for number in range(SMALL_FILES):
            place = here / "many" / str(number % 5)
            place.mkdir(parents=True, exist_ok=True)
            (place / f"ü {number}.txt").write_text(f"number {number}", encoding="utf-8")
        mlflow.log_artifact(str(here / "large.bin"), "data")
        mlflow.log_artifacts(str(here / "many"), "many")
        mlflow.log_text("hello", "notes/hello.txt")
        mlflow.log_dict({"a": [1, 2]}, "notes/a.json")
        mlflow.log_table({"x": [1, 2]}, "tables/t.json")
        expect(sorted(one.path for one in CLIENT.list_artifacts(run.info.run_id)), ["data", "many", "notes", "tables"])
        there = Path(mlflow.artifacts.download_artifacts(run_id=run.info.run_id, dst_path=str(here / "down")))
        expect((there / "data" / "large.bin").read_bytes(), large)
        expect(len(list((there / "many").rglob("*.txt"))), SMALL_FILES)
        expect((there / "many" / "3" / "ü 3.txt").read_text(encoding="utf-8"), "number 3")
        expect(mlflow.artifacts.load_dict(f"runs:/{run.info.run_id}/notes/a.json"), {"a": [1, 2]})


def models():
    """Autolog, log_model, the registry by number, alias, stage and search, copying, and loading by each address."""
    mlflow.sklearn.autolog(log_models=False, silent=True)
    with mlflow.start_run() as run:
        fitted = LogisticRegression().fit(ROWS, LABEL)
        named = {"name": "model"} if MAJOR >= 3 else {"artifact_path": "model"}
        if (MAJOR, MINOR) >= (3, 10):  # the clients that ask before they unpickle
            named["serialization_format"] = "cloudpickle"
        info = mlflow.sklearn.log_model(fitted, input_example=ROWS[:2], pip_requirements=["scikit-learn"], **named)
    mlflow.sklearn.autolog(disable=True, silent=True)
    found = CLIENT.get_run(run.info.run_id)
    expect(found.data.params["C"], "1.0")
    expect("training_score" in found.data.metrics, True)
    name = f"model {MARK}"
    for number in (1, 2):
        made = mlflow.register_model(info.model_uri, name, tags={"n": str(number)})
        expect((int(made.version), made.run_id), (number, run.info.run_id))
    CLIENT.set_registered_model_alias(name, "best", 1)
    answers = fitted.predict(ROWS)
    for address in (f"models:/{name}@best", f"models:/{name}/2", f"models:/{name}/latest", info.model_uri):
        expect((mlflow.pyfunc.load_model(address).predict(ROWS) == answers).all(), True)
    expect((mlflow.sklearn.load_model(f"models:/{name}@best").predict(ROWS) == answers).all(), True)
    CLIENT.transition_model_version_stage(name, "2", "Archived")
    expect(CLIENT.get_model_version(name, "2").current_stage, "Archived")
    copied = CLIENT.copy_model_version(f"models:/{name}/2", f"copy {MARK}")
    expect((copied.name, int(copied.version)), (f"copy {MARK}", 1))
    expect((mlflow.pyfunc.load_model(f"models:/copy {MARK}/1").predict(ROWS) == answers).all(), True)
    ordered = CLIENT.search_model_versions(f"name = '{name}'", order_by=["version_number ASC"])
    expect([int(one.version) for one in ordered], [1, 2])
    expect(
        [one.name for one in CLIENT.search_registered_models(f"name LIKE '%{MARK}'")], sorted([f"copy {MARK}", name])
    )
    CLIENT.rename_registered_model(f"copy {MARK}", f"renamed {MARK}")
    CLIENT.delete_registered_model(f"renamed {MARK}")
    expect([one.name for one in CLIENT.search_registered_models(f"name LIKE 'renamed {MARK}'")], [])


def inputs():
    """A dataset as an input of a run, found again by its name."""
    dataset = mlflow.data.from_pandas(ROWS.assign(label=LABEL), name="rows", targets="label")
    with mlflow.start_run() as run:
        mlflow.log_input(dataset, context="training")
    (one,) = CLIENT.get_run(run.info.run_id).inputs.dataset_inputs
    expect((one.dataset.name, one.tags[0].value), ("rows", "training"))
    frame = mlflow.search_runs(filter_string="dataset.name = 'rows' AND dataset.context = 'training'")
    expect(run.info.run_id in list(frame["run_id"]), True)


def evaluation():
    """mlflow.evaluate on predictions that are there already."""
    evaluate = mlflow.models.evaluate if hasattr(mlflow.models, "evaluate") else mlflow.evaluate
    table = ROWS.assign(label=LABEL, prediction=LABEL)
    options = {"log_model_explainability": False, "log_explainer": False}
    with mlflow.start_run() as run:
        evaluate(
            data=table,
            targets="label",
            predictions="prediction",
            model_type="classifier",
            evaluators="default",
            evaluator_config=options,
        )
    expect(CLIENT.get_run(run.info.run_id).data.metrics["accuracy_score"], 1.0)


def tracing():
    """A trace of two spans, found again with what went in and out."""

    @mlflow.trace(name="inner")
    def inner(x):
        return x + 1

    @mlflow.trace(name="outer")
    def outer(x):
        return inner(x) * 2

    expect(outer(1), 4)
    if hasattr(mlflow, "flush_trace_async_logging"):
        mlflow.flush_trace_async_logging()
    home = mlflow.get_experiment_by_name(MARK).experiment_id
    searched = {"locations": [home]} if (MAJOR, MINOR) >= (3, 5) else {"experiment_ids": [home]}
    (found,) = CLIENT.search_traces(**searched)
    expect(sorted(span.name for span in found.data.spans), ["inner", "outer"])


CHAPTERS = {one.__name__: one for one in (fluent, artifacts, models, inputs, evaluation, tracing)}


def main(chapters):
    mlflow.set_experiment(MARK)
    say(f"client {mlflow.__version__}")
    for name in chapters or CHAPTERS:
        CHAPTERS[name]()
        say(f"{name} ok")


if __name__ == "__main__":
    main(sys.argv[1:])
