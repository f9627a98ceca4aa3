"""Terms beside the task loss: zero where they should be, finite for one patient."""

from __future__ import annotations

import pytest
import torch

from histill.methods.disentangled.losses import (
    gene_consistency,
    gram_consistency,
    map_consistency,
    orthogonality,
)
from histill.methods.distillation import distil_features, distil_logits

BOTH = torch.ones(6, dtype=torch.bool)
LEVELS = ("10x", "20x")


def features(seed=0, patients=6):
    return torch.randn(patients, 8, generator=torch.Generator().manual_seed(seed))


def test_gram_is_zero_for_equal_magnifications_and_closed_form_else():
    low, high = features(0), features(1)
    assert not gram_consistency(low, 3 * low, BOTH).abs().gt(1e-10).any()
    unit = [torch.nn.functional.normalize(x, dim=1) for x in (low, high)]
    expected = ((unit[0] @ unit[0].T - unit[1] @ unit[1].T) ** 2).sum() / 36
    torch.testing.assert_close(gram_consistency(low, high, BOTH).mean(), expected)


def test_gram_leaves_out_patients_with_one_magnification():
    low, high = features(0), features(1)
    some = torch.tensor([True, True, True, False, True, False])
    whole = gram_consistency(low[some], high[some], some[some])
    torch.testing.assert_close(gram_consistency(low, high, some).mean(), whole.mean())
    assert gram_consistency(low, high, some)[3] == 0


def test_one_patient_has_no_gram_term_but_a_gene_term():
    low, high = features(0, 1), features(1, 1)
    assert gram_consistency(low, high, BOTH[:1]).item() == 0
    told = gene_consistency({"10x": low, "20x": high}, features(2, 1), {"10x": BOTH[:1], "20x": BOTH[:1]}, LEVELS)
    assert torch.isfinite(told).all()
    assert told.item() > 0


def test_genes_told_right_by_both_magnifications_cost_nothing():
    genes = features(0)
    present = {"10x": BOTH, "20x": BOTH}
    assert not gene_consistency({"10x": genes, "20x": genes}, genes, present, LEVELS).any()
    # Magnifications that agree with each other but not with the expression are no optimum.
    assert (gene_consistency({"10x": 0 * genes, "20x": 0 * genes}, genes, present, LEVELS) > 0).all()


def test_a_missing_magnification_is_not_asked_for_genes():
    genes = features(0)
    present = {"10x": ~BOTH, "20x": BOTH}
    assert not gene_consistency({"10x": genes + 5, "20x": genes}, genes, present, LEVELS).any()


def test_maps_agree_when_the_children_look_where_their_parents_do():
    low = torch.tensor([[0.5, 0.25, 0.25]])
    parents = torch.tensor([[0, 0, 1, 2, 2, -1]])
    high = torch.tensor([[0.2, 0.3, 0.25, 0.15, 0.1, 0.0]])
    assert map_consistency(low, high, parents).item() == pytest.approx(0, abs=1e-6)
    other = torch.tensor([[0.0, 0.0, 0.0, 0.5, 0.5, 0.0]])
    apart = map_consistency(torch.tensor([[1.0, 0.0, 0.0]]), other, parents).item()
    assert apart == pytest.approx(torch.log(torch.tensor(2.0)).item(), abs=1e-4)


def test_maps_of_bags_without_pairs_are_zero_and_have_a_gradient():
    low = torch.full((1, 3), 1 / 3, requires_grad=True)
    high = torch.full((1, 2), 1 / 2, requires_grad=True)
    term = map_consistency(low, high, torch.full((1, 2), -1))
    assert term.item() == 0
    term.sum().backward()
    assert torch.isfinite(low.grad).all()


def test_maps_leave_out_parents_without_a_child():
    low = torch.tensor([[0.4, 0.4, 0.2]])
    parents, high = torch.tensor([[0, 1]]), torch.tensor([[0.5, 0.5]])
    assert map_consistency(low, high, parents).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("survival", [True, False])
def test_distillation_is_zero_for_equal_logits_and_positive_else(survival):
    logits = torch.randn(5, 4)
    same = distil_logits(logits, logits, temperature=2.0, survival=survival)
    torch.testing.assert_close(same, torch.zeros(5), atol=1e-6, rtol=0)
    assert (distil_logits(logits, torch.randn(5, 4), temperature=2.0, survival=survival) > 0).all()


def test_feature_distillation_ignores_scale():
    x = torch.randn(5, 16)
    torch.testing.assert_close(distil_features(x, 0.1 * x), torch.zeros(5), atol=1e-6, rtol=0)


def test_orthogonality():
    x, y = torch.eye(4)[:1], torch.eye(4)[1:2]
    assert orthogonality({"tumor": {"10x": x}, "microenvironment": {"10x": y}}).item() == 0
    assert orthogonality({"tumor": {"10x": x}, "microenvironment": {"10x": -2 * x}}).item() == pytest.approx(1)
    assert orthogonality({"joint": {"10x": x}}).item() == 0
