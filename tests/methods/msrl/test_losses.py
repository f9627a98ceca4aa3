from __future__ import annotations

import math

import pytest
import torch
from torch import tensor

from histill.methods.msrl.losses import info_nce, structural_bce


def test_info_nce_of_orthogonal_cases_by_hand():
    # Every case is 1 / 0.5 from itself and 0 from the other two.
    views = torch.eye(3)
    torch.testing.assert_close(info_nce(views, 5 * views, 0.5), torch.full((3,), math.log(1 + 2 * math.exp(-2))))


def test_info_nce_is_the_mean_of_both_directions():
    first, second = tensor([[1.0, 0.0], [0.0, 1.0]]), tensor([[1.0, 0.0], [1.0, 1.0]])
    half = math.sqrt(0.5)
    rows = [-math.log(math.exp(1) / (math.exp(1) + math.exp(half))), -math.log(math.exp(half) / (1 + math.exp(half)))]
    columns = [-math.log(math.exp(1) / (math.exp(1) + 1)), -math.log(math.exp(half) / (2 * math.exp(half)))]
    expected = [(row + column) / 2 for row, column in zip(rows, columns, strict=True)]
    torch.testing.assert_close(info_nce(first, second, 1.0), tensor(expected))
    torch.testing.assert_close(info_nce(second, first, 1.0), info_nce(first, second, 1.0))


def test_info_nce_of_views_that_say_nothing_is_the_logarithm_of_the_batch():
    torch.testing.assert_close(info_nce(torch.ones(64, 3), torch.ones(64, 3), 0.2), torch.full((64,), math.log(64)))


def test_info_nce_of_one_case_is_zero():
    assert info_nce(torch.randn(1, 4), torch.randn(1, 4), 0.2).item() == pytest.approx(0, abs=1e-6)


def test_other_rows_of_a_case_are_no_negatives():
    views = torch.nn.functional.normalize(torch.randn(3, 4, generator=torch.Generator().manual_seed(0)), dim=1)
    twice = views[[0, 1, 2, 2]]
    with_copy = info_nce(twice, twice, 0.2, tensor([7, 8, 9, 9]))
    logits = views @ views.T / 0.2
    # Rows 2 and 3 see cases 0 and 1 and themselves, as if the copy were not there.
    torch.testing.assert_close(with_copy[2:], (logits.logsumexp(dim=1) - logits.diagonal())[[2, 2]])


def test_structural_loss_by_hand():
    similarity = tensor([[0.2, -0.4, 1.0], [0.0, 0.6, 1.0]])
    edges = tensor([[True, False, True], [False, False, False]])
    pairs = tensor([[True, True, False], [True, True, False]])
    # n = 4 pairs count, 1 of them an edge: α₁ = 4 / 2 and α₀ = 4 / 6.
    one, zero = (lambda x: math.log(1 + math.exp(-x / 0.2))), (lambda x: math.log(1 + math.exp(x / 0.2)))
    parts = [2 * one(0.2) + 4 / 6 * zero(-0.4), 4 / 6 * (zero(0.0) + zero(0.6))]
    loss = structural_bce(similarity, edges, pairs)
    torch.testing.assert_close(loss, 2 / 4 * tensor(parts))
    assert loss.mean().item() == pytest.approx(sum(parts) / 4)


@pytest.mark.parametrize("edge", [1, 5, 199])
def test_edges_and_others_weigh_half_each_however_few_they_are(edge):
    # At similarity 0 every pair costs ln 2, so each side is its sum of weights over n times ln 2.
    similarity = torch.zeros(4, 50, requires_grad=True)
    edges = torch.arange(200).reshape(4, 50) < edge
    loss = structural_bce(similarity, edges, torch.ones_like(edges)).mean()
    (pull,) = torch.autograd.grad(loss, similarity)
    assert loss.item() == pytest.approx(math.log(2))
    assert pull[edges].sum().item() == pytest.approx(-pull[~edges].sum().item())


def test_missing_edges_are_drawn_near_and_others_pushed_away():
    similarity = tensor([[-1.0, 1.0]], requires_grad=True)
    structural_bce(similarity, tensor([[True, False]]), tensor([[True, True]])).mean().backward()
    assert similarity.grad[0, 0] < -0.5
    assert similarity.grad[0, 1] > 0.5


@pytest.mark.parametrize("edges", [torch.ones(2, 3, dtype=torch.bool), torch.zeros(2, 3, dtype=torch.bool)])
def test_a_side_without_pairs_adds_nothing(edges):
    assert structural_bce(torch.zeros(2, 3), edges, torch.ones_like(edges)).mean().item() == pytest.approx(
        math.log(2) / 2
    )


def test_no_pair_at_all_and_certain_similarities_are_finite():
    none = torch.zeros(2, 3, dtype=torch.bool)
    assert structural_bce(torch.ones(2, 3), none, none).tolist() == [0, 0]
    assert structural_bce(1e4 * torch.ones(2, 3), none, ~none).isfinite().all()
