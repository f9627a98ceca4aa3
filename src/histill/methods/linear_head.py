"""Linear heads on fixed embeddings, with the task losses of all networks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from histill.data.fold import Labels
from histill.methods.outputs import probabilities, task_loss

INNER_FOLDS = 4
_STEPS, _TOLERANCE = 200, 1e-9
# Published: batches of 16, 100 epochs, label smoothing, weights that start near 0 (MIRROR, §3.2).
_BATCH, _EPOCHS, _SMOOTHING, _START = 16, 100, 0.1, 0.01
_RATES = {True: 3e-3, False: 2e-3}  # of survival, of classes


@dataclass(frozen=True)
class Examples:
    """What a head is fitted on.

    Attributes
    ----------
    x
        Embeddings float64 [N, D].
    label, event
        int64 [N] (`Labels.encode`).
    patient
        Number of the patient of each row, int64 [N].
    weight
        What each row counts, float64 [N], 1 on average.
    """

    x: Tensor
    label: Tensor
    event: Tensor
    patient: np.ndarray
    weight: Tensor

    def of(self, patients: np.ndarray) -> Examples:
        """Rows of some patients."""
        rows = torch.from_numpy(np.flatnonzero(np.isin(self.patient, patients)))
        return Examples(self.x[rows], self.label[rows], self.event[rows], self.patient[rows], self.weight[rows])


@contextmanager
def _one_thread() -> Iterator[None]:
    """Steps on some hundred embeddings take longer to share among threads than to make."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@_one_thread()
def ridge_head(examples: Examples, labels: Labels, alphas: list[float], *, seed: int) -> tuple[Tensor, Tensor, float]:
    """Weights [C, D], biases [C] and penalty of the head with the least penalised task loss.

    Embeddings are standardised; the penalty is chosen among `alphas` by cross-validation over patients, by the task
    loss of those held out. Of equals the strongest is taken.
    """
    single = len(alphas) == 1 or len(np.unique(examples.patient)) == 1
    alpha = max(alphas) if single else _choose(examples, labels, alphas, seed=seed)
    return *_fit(examples, labels, alpha), alpha


def _choose(examples: Examples, labels: Labels, alphas: list[float], *, seed: int) -> float:
    patients, first = np.unique(examples.patient, return_index=True)
    strata = examples.label[torch.from_numpy(first)].numpy() * 2 + examples.event[torch.from_numpy(first)].numpy()
    order = np.lexsort((np.random.default_rng(seed).permutation(len(patients)), strata))
    folds = min(INNER_FOLDS, len(patients))
    part = np.empty(len(patients), int)
    part[order] = np.arange(len(patients)) % folds
    losses = []
    for alpha in alphas:
        own = []
        for held in range(folds):
            weight, bias = _fit(examples.of(patients[part != held]), labels, alpha)
            own.append(_loss(examples.of(patients[part == held]), labels, weight, bias).item())
        losses.append(np.mean(own))
    best = min(losses)
    return max(alpha for alpha, loss in zip(alphas, losses, strict=True) if loss <= best + 1e-12)


def _loss(examples: Examples, labels: Labels, weight: Tensor, bias: Tensor) -> Tensor:
    survival = labels.task.type == "survival"
    classes = None if survival else torch.from_numpy(np.asarray(labels.weights, dtype=np.float64))
    predicted = probabilities(F.linear(examples.x, weight, bias), survival)
    return (examples.weight * task_loss(predicted, examples.label, examples.event, classes)).mean()


def _standard(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation [D]; columns that do not vary are left as they are."""
    deviation = x.std(dim=0, unbiased=False)
    return x.mean(dim=0), torch.where(deviation > 1e-8, deviation, torch.ones_like(deviation))


def _fit(examples: Examples, labels: Labels, alpha: float) -> tuple[Tensor, Tensor]:
    mean, deviation = _standard(examples.x)
    scaled = Examples((examples.x - mean) / deviation, *list(vars(examples).values())[1:])
    weight = torch.zeros(labels.outputs, examples.x.shape[1], dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(labels.outputs, dtype=torch.float64, requires_grad=True)
    solver = torch.optim.LBFGS(
        [weight, bias], max_iter=_STEPS, tolerance_grad=_TOLERANCE, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        solver.zero_grad()
        loss = _loss(scaled, labels, weight, bias) + 0.5 * alpha * weight.square().sum()
        loss.backward()
        return loss

    solver.step(closure)
    weight = weight.detach() / deviation
    return weight, bias.detach() - weight @ mean


@_one_thread()
def published_head(examples: Examples, labels: Labels, *, seed: int) -> tuple[Tensor, Tensor]:
    """Weights [C, D] and biases [C] after 100 epochs of Adam at a constant rate, as published for MIRROR (§3.2).

    The published code leaves dropout on in the frozen encoders meanwhile; here embeddings are fixed (#9).
    """
    survival = labels.task.type == "survival"
    generator = torch.Generator().manual_seed(seed)
    shape = (labels.outputs, examples.x.shape[1])
    weight = (_START * torch.randn(shape, generator=generator, dtype=torch.float64)).requires_grad_()
    bias = torch.zeros(labels.outputs, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([weight, bias], lr=_RATES[survival])
    for _ in range(_EPOCHS):
        for rows in torch.randperm(len(examples.x), generator=generator).split(_BATCH):
            logits = F.linear(examples.x[rows], weight, bias)
            if survival:
                loss = task_loss(torch.sigmoid(logits), examples.label[rows], examples.event[rows], None)
            else:
                loss = F.cross_entropy(logits, examples.label[rows], label_smoothing=_SMOOTHING, reduction="none")
            optimizer.zero_grad()
            (examples.weight[rows] * loss).mean().backward()
            optimizer.step()
    return weight.detach(), bias.detach()
