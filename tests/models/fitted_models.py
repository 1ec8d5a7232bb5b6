"""Run as a program: fits a model of each library on fixed data; prints the digests of their bytes and values."""

import json
import sys

import lightgbm
import numpy as np
import torch
import xgboost
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.ensemble import GradientBoostingClassifier, HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline

from everloop.core.ids import object_id
from everloop.models.canonical import canonical_digest
from everloop.models.package import serialized


def fitted(jobs):
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(400, 6))
    label = (rows[:, 0] + 0.5 * rng.normal(size=400) > 0).astype(int)
    plain = {
        "forest": RandomForestClassifier(10, random_state=0, n_jobs=jobs),
        "boosted": GradientBoostingClassifier(n_estimators=10, random_state=0),
        "histogram": HistGradientBoostingClassifier(max_iter=10, random_state=0),
        "logistic": LogisticRegression(),
        "ridge": Ridge(),
        "network": MLPClassifier((4,), max_iter=20, random_state=0, early_stopping=True),
        "kmeans": KMeans(3, n_init=2, random_state=0),
        "pipeline": make_pipeline(PCA(3), LogisticRegression()),
        "xgboost": xgboost.XGBClassifier(n_estimators=10, n_jobs=jobs, random_state=0),
        "lightgbm": lightgbm.LGBMClassifier(
            n_estimators=10, n_jobs=jobs, deterministic=True, force_row_wise=True, verbose=-1, random_state=0
        ),
    }
    made = {name: model.fit(rows, label) for name, model in plain.items()}
    torch.set_num_threads(jobs)
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(6, 4), torch.nn.ReLU(), torch.nn.Linear(4, 1), torch.nn.Sigmoid())
    optimiser = torch.optim.SGD(network.parameters(), 0.1)
    inputs, wanted = torch.tensor(rows, dtype=torch.float32), torch.tensor(label, dtype=torch.float32)[:, None]
    for _ in range(20):
        optimiser.zero_grad()
        torch.nn.functional.binary_cross_entropy(network(inputs), wanted).backward()
        optimiser.step()
    return {**made, "torch": network}


if __name__ == "__main__":
    models = fitted(int(sys.argv[1]))
    told = {name: [object_id(serialized(m)[0]), canonical_digest(m)] for name, m in models.items()}
    sys.stdout.write(json.dumps(told))
