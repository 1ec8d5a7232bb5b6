"""The small neural network of the first models: trained by torch, kept and asked as NumPy arrays."""

from typing import Any

import numpy.typing as npt
import torch
from torch import nn

Array = npt.NDArray[Any]
_HIDDEN = 64
_EPOCHS = 30
_BATCH = 256
_STEPS = 6000
"""At most so many steps: large tables are seen fewer times."""


def trained(matrix: Array, truth: Array, classes: int, seed: int) -> list[tuple[Array, Array]]:
    """Weights and biases of three layers; `classes` 0 is regression on a truth of mean 0 and deviation 1."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # sums in one order: the same rows give the same network
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return _trained(matrix, truth, classes)
    finally:
        torch.set_num_threads(threads)


def _trained(matrix: Array, truth: Array, classes: int) -> list[tuple[Array, Array]]:
    width = max(1, classes)
    layers = [nn.Linear(matrix.shape[1], _HIDDEN), nn.Linear(_HIDDEN, _HIDDEN), nn.Linear(_HIDDEN, width)]
    model = nn.Sequential(layers[0], nn.ReLU(), nn.Dropout(0.1), layers[1], nn.ReLU(), layers[2])
    loss: Any = nn.CrossEntropyLoss() if classes else nn.MSELoss()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=1e-3)
    x = torch.tensor(matrix, dtype=torch.float32)
    y = torch.tensor(truth, dtype=torch.long if classes else torch.float32)
    epochs = max(1, min(_EPOCHS, _STEPS * _BATCH // len(x)))
    for _ in range(epochs):
        order: Any = torch.randperm(len(x))
        for rows in order.split(_BATCH):
            optimizer.zero_grad()
            answer = model(x[rows])
            loss(answer if classes else answer[:, 0], y[rows]).backward()
            optimizer.step()
    return [(one.weight.detach().numpy().T.copy(), one.bias.detach().numpy().copy()) for one in layers]
