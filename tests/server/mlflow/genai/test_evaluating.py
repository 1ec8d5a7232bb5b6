"""Evaluation datasets, scorers and `mlflow.genai.evaluate`, from start to end with the ordinary client."""

import pytest


@pytest.fixture
def dataset(mlflow, home):
    """Two questions, of which one has an expected answer."""
    made = mlflow.genai.create_dataset(name=f"qa {home}", experiment_id=home, tags={"team": "blue"})
    made.merge_records(
        [
            {"inputs": {"question": "a"}, "expectations": {"expected": "A"}, "tags": {"kind": "easy"}},
            {"inputs": {"question": "b"}, "expectations": {"expected": "X"}},
        ]
    )
    return made


def test_records_of_the_same_inputs_are_one_record(mlflow, home, dataset):
    dataset.merge_records([{"inputs": {"question": "a"}, "expectations": {"more": 1}, "outputs": "A"}])
    known = mlflow.genai.get_dataset(dataset_id=dataset.dataset_id)
    rows = known.to_df().set_index(known.to_df()["inputs"].map(lambda inputs: inputs["question"]))
    assert rows.loc["a", "expectations"] == {"expected": "A", "more": 1}
    assert (rows.loc["a", "tags"]["kind"], rows.loc["a", "outputs"]) == ("easy", "A")
    assert (len(rows), known.tags["team"], known.experiment_ids) == (2, "blue", [home])
    assert known.profile == '{"num_records": 2}'
    assert known.delete_records([rows.loc["b", "dataset_record_id"]]) == 1
    assert len(mlflow.genai.get_dataset(dataset_id=dataset.dataset_id).to_df()) == 1


def test_datasets_are_found_linked_and_deleted(mlflow, home, dataset):
    other = mlflow.create_experiment(f"other of {home}")
    found = mlflow.genai.search_datasets(experiment_ids=[home], filter_string="tags.team = 'blue' AND name LIKE 'qa%'")
    assert [one.dataset_id for one in found] == [dataset.dataset_id]
    assert mlflow.genai.search_datasets(experiment_ids=[other]) == []
    mlflow.genai.datasets.add_dataset_to_experiments(dataset_id=dataset.dataset_id, experiment_ids=[other])
    assert [one.dataset_id for one in mlflow.genai.search_datasets(experiment_ids=[other])] == [dataset.dataset_id]
    mlflow.genai.datasets.remove_dataset_from_experiments(dataset_id=dataset.dataset_id, experiment_ids=[home])
    mlflow.genai.set_dataset_tags(dataset_id=dataset.dataset_id, tags={"stage": "1"})
    mlflow.genai.delete_dataset_tag(dataset_id=dataset.dataset_id, key="team")
    known = mlflow.genai.get_dataset(dataset_id=dataset.dataset_id)
    assert (known.experiment_ids, known.tags["stage"], "team" in known.tags) == ([other], "1", False)
    mlflow.genai.delete_dataset(dataset_id=dataset.dataset_id)
    with pytest.raises(mlflow.exceptions.MlflowException, match="not found"):
        mlflow.genai.get_dataset(dataset_id=dataset.dataset_id)


def test_an_evaluation_with_a_scorer_of_ones_own(mlflow, home, dataset, ask):
    @mlflow.genai.scorer
    def exact(outputs, expectations):
        return outputs["answer"] == expectations["expected"]

    result = mlflow.genai.evaluate(data=dataset, predict_fn=ask, scorers=[exact])
    assert result.metrics["exact/mean"] == 0.5
    found = mlflow.search_traces(run_id=result.run_id, return_type="list")
    judged = {one.info.request_preview: one.info.assessments for one in found}
    values = {text: {said.name: said.value for said in all_of} for text, all_of in judged.items()}
    assert values == {
        '{"question": "a"}': {"exact": True, "expected": "A"},
        '{"question": "b"}': {"exact": False, "expected": "X"},
    }
    run = mlflow.get_run(result.run_id)
    assert run.data.metrics["exact/mean"] == 0.5
    assert [one.dataset.name for one in run.inputs.dataset_inputs] == [dataset.name]


def test_scorers_are_numbered_and_keep_their_numbers(mlflow, home):
    from mlflow.genai.scorers import Guidelines, delete_scorer, get_scorer, list_scorers
    from mlflow.genai.scorers.registry import list_scorer_versions

    Guidelines(name="polite", guidelines="be polite").register(experiment_id=home)
    Guidelines(name="polite", guidelines="be very polite").register(experiment_id=home)
    assert [(one.name, one.guidelines) for one in list_scorers(experiment_id=home)] == [("polite", "be very polite")]
    assert [number for _, number in list_scorer_versions(name="polite", experiment_id=home)] == [1, 2]
    assert get_scorer(name="polite", experiment_id=home, version=1).guidelines == "be polite"
    delete_scorer(name="polite", experiment_id=home, version=2)
    Guidelines(name="polite", guidelines="again").register(experiment_id=home)
    assert [number for _, number in list_scorer_versions(name="polite", experiment_id=home)] == [1, 3]
    delete_scorer(name="polite", experiment_id=home, version="all")
    with pytest.raises(mlflow.exceptions.MlflowException, match="not found"):
        get_scorer(name="polite", experiment_id=home)
    assert list_scorers(experiment_id=home) == []


def test_on_which_share_of_traces_a_scorer_is_asked(mlflow, home):
    store = mlflow.tracking._tracking_service.utils._get_store()
    made = store.register_scorer(home, "polite", '{"name": "polite"}')
    config = store.upsert_online_scoring_config(home, "polite", 0.5, "trace.status = 'OK'")
    assert (config.scorer_id, config.sample_rate, config.experiment_id) == (made.scorer_id, 0.5, home)
    store.upsert_online_scoring_config(home, "polite", 0.25)
    (known,) = store.get_online_scoring_configs([made.scorer_id, "0" * 32])
    assert (known.sample_rate, known.filter_string) == (0.25, None)
    with pytest.raises(mlflow.exceptions.MlflowException, match="between 0 and 1"):
        store.upsert_online_scoring_config(home, "polite", 2.0)
