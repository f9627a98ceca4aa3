from __future__ import annotations

import math

import pytest
import torch

from histill.methods.outputs import fuse, risk, survival, survival_loss, task_loss


@pytest.mark.parametrize(
    ("interval", "event", "expected"),
    [
        (0, 1, -math.log(0.1)),  # first interval, event: h_0
        (3, 1, -math.log(0.9 * 0.8 * 0.7) - math.log(0.4)),  # last interval, event: S_2 h_3
        (0, 0, -math.log(0.9)),  # first interval, censored: S_0
        (3, 0, -math.log(0.9 * 0.8 * 0.7 * 0.6)),  # last interval, censored: S_3
    ],
)
def test_survival_likelihood_by_hand(interval, event, expected):
    hazards = torch.tensor([[0.1, 0.2, 0.3, 0.4]])
    loss = survival_loss(hazards, torch.tensor([interval]), torch.tensor([event]))
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_risk_rises_with_every_hazard():
    base = torch.tensor([[0.1, 0.2, 0.3, 0.4]])
    for index in range(4):
        more = base.clone()
        more[0, index] += 0.1
        assert risk(more) > risk(base)


def test_extreme_hazards_stay_finite():
    for value in (0.0, 1.0):
        hazards = torch.full((1, 4), value, requires_grad=True)
        for event in (0, 1):
            loss = survival_loss(hazards, torch.tensor([3]), torch.tensor([event])).sum()
            loss.backward()
            assert torch.isfinite(loss)
            assert torch.isfinite(hazards.grad).all()


def test_classification_is_weighted_cross_entropy():
    logits, labels, weights = torch.randn(6, 3), torch.tensor([0, 1, 2, 2, 1, 0]), torch.tensor([1.0, 2.0, 0.5])
    own = task_loss(torch.softmax(logits, -1), labels, torch.zeros(6), weights)
    theirs = torch.nn.functional.cross_entropy(logits, labels, weights, reduction="none")
    torch.testing.assert_close(own, theirs)


def test_fusion_is_the_mean_over_what_is_there():
    logits = {"10x": torch.tensor([[0.0, 2.0], [1.0, 1.0]]), "20x": torch.tensor([[3.0, 0.0], [5.0, 0.0]])}
    both = fuse(logits, {level: torch.tensor([True, True]) for level in logits}, survival=False)
    torch.testing.assert_close(both, (logits["10x"].softmax(-1) + logits["20x"].softmax(-1)) / 2)
    one = fuse(logits, {"10x": torch.tensor([True, True]), "20x": torch.tensor([True, False])}, survival=False)
    torch.testing.assert_close(one[1], logits["10x"][1].softmax(-1))


def test_losses_are_computed_in_single_precision():
    """Half-precision logits, as mixed precision gives them, are widened before the likelihood."""
    from histill.cohort.tasks import Task
    from histill.data.fold import Labels
    from histill.methods.module import SupervisedModule

    class Half(torch.nn.Module):
        magnifications = "mean"

        def forward(self, batch):
            return {"logits": {"10x": torch.full((2, 4), -9.0, dtype=torch.bfloat16)}}

    labels = Labels(Task("os", "survival", ("t", "e")))
    module = SupervisedModule(Half(), labels, learning_rate=1e-3, weight_decay=0.0)
    batch = {
        "mask": {"10x": torch.ones(2, 3, dtype=torch.bool)},
        "targets": {"label": torch.tensor([3, 3]), "event": torch.tensor([0, 0])},
    }
    expected = -4 * torch.log1p(-torch.sigmoid(torch.tensor(-9.0)))
    torch.testing.assert_close(module.losses(batch)["fused"], expected.expand(2), rtol=1e-3, atol=0)


def test_survival_falls_by_each_hazard():
    hazards = torch.tensor([[0.5, 0.2, 0.0]])
    torch.testing.assert_close(survival(hazards), torch.tensor([[0.5, 0.4, 0.4]]))
    torch.testing.assert_close(risk(hazards), -survival(hazards).sum(dim=1))
