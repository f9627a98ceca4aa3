"""Linear heads on fixed embeddings."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from histill.cohort.tasks import Task
from histill.data.fold import Labels
from histill.methods.linear_head import Examples, published_head, ridge_head
from histill.methods.outputs import task_loss

CLASSES = Labels(Task("dx", "classification", ("dx",)), classes=["a", "b", "c"], weights=np.ones(3))
SURVIVAL = Labels(Task("os", "survival", ("t", "e")), edges=np.array([1.0, 2.0, 3.0]))


def examples(labels: Labels, patients: int = 120, *, bags: int = 1, noise: float = 1.0) -> Examples:
    """Embeddings of which the first column tells the outcome."""
    generator = np.random.default_rng(0)
    x = generator.normal(size=(patients, 5))
    rank = np.argsort(np.argsort(x[:, 0] + noise * generator.normal(size=patients)))
    label = rank * labels.outputs // patients
    event = generator.integers(0, 2, patients) if labels.task.type == "survival" else np.zeros(patients, int)
    patient = np.repeat(np.arange(patients), bags)
    tensors = [torch.from_numpy(np.repeat(value, bags, axis=0)) for value in (x, label, event)]
    return Examples(*tensors, patient, torch.full((len(patient),), 1.0, dtype=torch.float64))


def test_of_classes_it_is_logistic_regression():
    own = examples(CLASSES)
    weight, bias, _ = ridge_head(own, CLASSES, [0.1], seed=0)
    x = own.x.numpy()
    scaled = (x - x.mean(axis=0)) / x.std(axis=0)
    other = LogisticRegression(C=1 / (0.1 * len(x)), tol=1e-10, max_iter=5000).fit(scaled, own.label.numpy())
    probability = torch.softmax(own.x @ weight.T + bias, dim=1).numpy()
    np.testing.assert_allclose(probability, other.predict_proba(scaled), atol=1e-4)


@pytest.mark.parametrize("labels", [CLASSES, SURVIVAL], ids=["classes", "survival"])
def test_it_is_a_minimum_of_the_penalised_task_loss(labels):
    own = examples(labels)
    weight, bias, alpha = ridge_head(own, labels, [0.3], seed=0)
    deviation = own.x.std(dim=0, unbiased=False)
    classes = None if labels is SURVIVAL else torch.ones(3, dtype=torch.float64)

    def objective(w, b):
        logits = own.x @ w.T + b
        predicted = torch.sigmoid(logits) if labels is SURVIVAL else torch.softmax(logits, dim=1)
        loss = task_loss(predicted, own.label, own.event, classes).mean()
        return loss + 0.5 * alpha * (w * deviation).square().sum()

    least = objective(weight, bias)
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        step = 0.02 * torch.randn(weight.shape, generator=generator, dtype=torch.float64)
        assert objective(weight + step, bias) > least


def test_noise_is_penalised_and_signal_is_not():
    generator = torch.Generator().manual_seed(1)
    clear, noise = examples(SURVIVAL, noise=0.1), examples(SURVIVAL)
    noise = Examples(
        torch.randn(noise.x.shape, generator=generator, dtype=torch.float64), *list(vars(noise).values())[1:]
    )
    alphas = [0.001, 0.01, 10.0]
    assert ridge_head(clear, SURVIVAL, alphas, seed=0)[2] < ridge_head(noise, SURVIVAL, alphas, seed=0)[2] == 10.0


def test_bags_of_a_patient_are_never_on_both_sides_of_the_inner_split():
    """Twice the same bags: held-out copies would make the weakest penalty look best."""
    generator = torch.Generator().manual_seed(2)
    own = examples(CLASSES, 40, bags=2, noise=20.0)
    wide = torch.randn(40, 60, generator=generator, dtype=torch.float64).repeat_interleave(2, dim=0)
    doubled = Examples(wide, *list(vars(own).values())[1:])
    assert ridge_head(doubled, CLASSES, [1e-4, 1.0], seed=0)[2] == 1.0


def test_a_column_that_does_not_vary_does_no_harm():
    own = examples(CLASSES)
    constant = Examples(torch.cat([own.x, torch.full((120, 1), 3.0)], dim=1), *list(vars(own).values())[1:])
    for head in (ridge_head(constant, CLASSES, [0.1], seed=0)[0], published_head(constant, CLASSES, seed=0)[0]):
        assert torch.isfinite(head).all()


def test_the_published_head_learns_and_follows_from_its_seed():
    own = examples(SURVIVAL, noise=0.1)
    weight, _bias = published_head(own, SURVIVAL, seed=3)
    again, _ = published_head(own, SURVIVAL, seed=3)
    assert torch.equal(weight, again)
    assert not torch.equal(weight, published_head(own, SURVIVAL, seed=4)[0])
    # The smaller the first column, the earlier the interval: its hazards are larger.
    assert (weight[:-1, 0] < 0).all()
