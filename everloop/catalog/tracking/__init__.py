"""Tracking: experiments, runs, points, artifacts, logged models and the registry, as plain functions over a `Tx`.

`runs`, `points`, `experiments`, `inputs`, `artifacts`, `logged`, `registry` hold the verbs, `rows` the values;
`filters` reads MLflow's filter language and `search` turns it into SQL. How MLflow speaks is in `server.mlflow`.
"""
