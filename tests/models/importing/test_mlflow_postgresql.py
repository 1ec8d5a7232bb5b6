"""A PostgreSQL database of MLflow as the source of an import, written by MLflow's own store."""

from mlflow.entities import Metric
from mlflow.tracking import MlflowClient


def test_a_postgresql_database_is_imported_and_read_only(house, empty_postgresql_url, tmp_path):
    theirs = empty_postgresql_url.replace("postgresql:", "postgresql+psycopg:")
    client = MlflowClient(theirs, theirs)
    home = client.create_experiment("tuning", artifact_location=str(tmp_path / "files"))
    run = client.create_run(home, run_name="first").info.run_id
    client.log_param(run, "depth", "6")
    client.log_batch(run, [Metric("loss", 1 / (step + 1), step, step) for step in range(30)])
    client.log_text(run, "hello", "notes/a.txt")
    client.set_terminated(run)
    client.create_registered_model("delay", tags={"team": "ops"})
    client.create_model_version("delay", f"runs:/{run}/notes", run)
    client.set_registered_model_alias("delay", "best", "1")
    before = client.get_run(run).to_dictionary()
    first = house.bring("mlflow", empty_postgresql_url, artifacts=(str(tmp_path / "files"),))
    (found,) = house.runs().values()
    assert (found.id, found.name, found.params) == (run, "first", {"depth": "6"})
    assert house.series(found, "loss") == [(step, 1 / (step + 1)) for step in range(30)]
    assert client.get_run(run).to_dictionary() == before
    assert first["imported"]["versions"] == first["imported"]["aliases"] == 1
    again = house.bring("mlflow", empty_postgresql_url, artifacts=(str(tmp_path / "files"),))["imported"]
    assert (again["versions there"], again["aliases there"]) == (1, 1)
    assert len(house.runs()) == 1
