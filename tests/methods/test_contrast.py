"""The shared loss of two views, and figures of what it leads to."""

from __future__ import annotations

import math

import pytest
import torch

from histill.methods.contrast import effective_rank, info_nce, recall


def test_info_nce_says_nothing_without_similarity():
    torch.testing.assert_close(info_nce(torch.zeros(8, 8)), torch.full((8,), math.log(8)))
    assert info_nce(torch.ones(1, 1)).item() == 0


def test_info_nce_is_the_mean_cross_entropy_of_rows_and_columns():
    logits, own = torch.randn(5, 5), torch.arange(5)
    both = [torch.nn.functional.cross_entropy(scores, own, reduction="none") for scores in (logits, logits.T)]
    torch.testing.assert_close(info_nce(logits), (both[0] + both[1]) / 2)


def test_rows_of_one_sample_are_no_negatives_of_each_other():
    logits = torch.randn(3, 3)
    loss = info_nce(logits, torch.tensor([7, 7, 8]))
    torch.testing.assert_close(loss[0], info_nce(logits[[0, 2]][:, [0, 2]])[0])
    torch.testing.assert_close(loss[1], info_nce(logits[[1, 2]][:, [1, 2]])[0])


@pytest.mark.parametrize("rank", [1, 3, 8])
def test_effective_rank_counts_equal_directions(rank):
    basis = torch.linalg.qr(torch.randn(8, 8))[0]
    rows = torch.cat([basis[:rank], -basis[:rank]])
    assert effective_rank(rows + 7, centred=True).item() == pytest.approx(rank, rel=1e-3)


def test_effective_rank_of_equal_rows_is_the_least():
    assert effective_rank(torch.ones(4, 3), centred=True).item() == pytest.approx(1)


def test_effective_rank_by_hand():
    assert effective_rank(torch.eye(5)).item() == pytest.approx(5)
    assert effective_rank(torch.diag(torch.tensor([3.0, 1.0]))).item() == pytest.approx(1.7547654)


def test_recall_of_pairs_and_of_chance():
    group = torch.arange(200)
    assert recall(torch.eye(200), group, 1).item() == 1
    assert recall(torch.eye(200).roll(1, 0), group, 1).item() == 0
    torch.manual_seed(0)
    assert recall(torch.randn(200, 200), group, 10).item() == pytest.approx(10 / 200, abs=0.04)


def test_recall_takes_any_bag_of_the_patient():
    scores = torch.tensor([[0.0, 1.0, 0.5], [1.0, 0.0, 0.5], [1.0, 0.5, 0.0]])
    assert recall(scores, torch.tensor([0, 0, 1]), 1).item() == pytest.approx(2 / 3)
    assert recall(scores, torch.tensor([0, 0, 1]), 5).item() == 1


def test_of_collapsed_vectors_nothing_is_found():
    assert recall(torch.ones(3, 3), torch.arange(3), 2) == 0
