from __future__ import annotations

import sys

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from histill.errors import HistillError
from histill.methods.msrl.gcn import GCN
from histill.methods.msrl.learner import GraphLearner, cosine
from histill.methods.msrl.lending import Lenders
from histill.methods.msrl.neighbours import ApproximateIndex, Neighbours, exact, kept_similarity, pairs, rank, recall


def unit(rows: int, width: int = 8) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.randn(rows, width), dim=1)


def unknown(rows: int) -> torch.Tensor:
    return torch.full((rows,), -1)


def among(size: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.arange(size), torch.arange(size)


class Largest(TorchDispatchMode):
    """Notes the number of elements of the largest tensor that is made."""

    def __init__(self):
        super().__init__()
        self.size = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for value in result if isinstance(result, tuple | list) else [result]:
            if isinstance(value, torch.Tensor):
                self.size = max(self.size, value.numel())
        return result


@pytest.mark.parametrize("block", [1, 7, 1000])
def test_blocks_find_what_sorting_finds(block):
    queries, keys = unit(20), unit(50)
    found = exact(queries, keys, 5, cosine, cases=(unknown(20), torch.arange(50)), block=block)
    assert torch.equal(found.index, (queries @ keys.T).argsort(dim=1, descending=True)[:, :5])
    assert found.found.all()


def test_own_rows_are_not_found():
    keys = unit(30)
    cases = torch.arange(30) // 2  # every case is there twice
    found = exact(keys, keys, 29, cosine, cases=(cases, cases), block=8)
    assert (found.found.sum(dim=1) == 28).all()
    assert not (cases[found.index] == cases[:, None])[found.found].any()


def test_fewer_keys_than_wanted():
    found = exact(unit(3), unit(2), 5, cosine, cases=(unknown(3), torch.arange(2)))
    assert found.index.shape == (3, 2)
    none = exact(unit(3), unit(0), 5, cosine, cases=(unknown(3), unknown(0)))
    assert none.index.shape == none.found.shape == (3, 0)
    assert rank(unit(3), unit(0), none, 5, cosine, cases=(unknown(3), unknown(0))).index.shape == (3, 0)


def test_ranking_again_takes_the_best_and_breaks_ties_by_row():
    keys = unit(40).repeat(2, 1)  # row i and row i + 40 are equal
    queries, cases = keys[:10] + 0.1 * torch.randn(10, 8), (unknown(10), torch.arange(80))
    near = exact(queries, keys, 20, cosine, cases=cases)
    shuffled = Neighbours(near.index[:, torch.randperm(20)], near.found)
    best = rank(queries, keys, shuffled, 6, cosine, cases=cases, block=3)
    expected = (queries.double() @ keys.double().T).argsort(dim=1, descending=True, stable=True)[:, :6]
    assert torch.equal(best.index, expected)


def test_ranking_again_tells_keys_apart_that_single_precision_does_not():
    keys = torch.full((2, 256), 1 / 16)
    keys[1, 0] = torch.nextafter(keys[1, 0], torch.tensor(1.0))
    query, cases = keys[:1], (unknown(1), torch.arange(2))
    assert (query * keys[0]).sum() == (query * keys[1]).sum()
    near = Neighbours(torch.tensor([[0, 1]]), torch.ones(1, 2, dtype=torch.bool))
    assert rank(query, keys, near, 1, cosine, cases=cases).index.item() == 1


def test_ranking_again_leaves_out_the_own_case_and_what_was_not_found():
    keys = unit(5)
    near = Neighbours(torch.tensor([[0, 1, 2]]), torch.tensor([[True, True, False]]))
    best = rank(keys[:1], keys, near, 3, cosine, cases=(torch.tensor([9]), torch.tensor([9, 1, 2, 3, 4])))
    assert best.index[0, 0] == 1
    assert best.found.tolist() == [[True, False, False]]


def test_gradients_of_blocks_are_those_of_the_whole():
    keys = unit(30).double().requires_grad_()
    index = torch.randint(30, (30, 4))
    weight = torch.randn(30, 4, dtype=torch.float64)
    (blocks,) = torch.autograd.grad((kept_similarity(keys, keys, index, cosine, block=7) * weight).sum(), keys)
    (whole,) = torch.autograd.grad((pairs(keys, keys, index, cosine) * weight).sum(), keys)
    torch.testing.assert_close(blocks, whole)


def test_memory_is_linear_in_the_number_of_cases():
    learner, gcn = GraphLearner(8), GCN(8, 8, 8, 0.0)
    sizes = []
    for count in (3000, 6000):
        with Largest() as largest:
            lenders = Lenders.of(learner, gcn, torch.randn(count, 8), torch.arange(count), 5)
            sum(message.sum() for message in lenders.messages).backward()
        sizes.append(largest.size)
    assert sizes[0] == 1024 * 3000  # a block of similarities
    assert sizes[1] == 2 * sizes[0]


def test_recall_counts_what_was_found():
    wanted = Neighbours(
        torch.tensor([[1, 2], [3, 4], [5, 6]]), torch.tensor([[True, True], [True, False], [False] * 2])
    )
    found = Neighbours(torch.tensor([[2, 9], [3, 4], [5, 6]]), torch.ones(3, 2, dtype=torch.bool))
    assert recall(found, wanted) == pytest.approx((0.5 + 1) / 2)


def test_approximate_search_finds_most():
    pytest.importorskip("voyager")
    torch.manual_seed(0)
    keys = unit(3000, 32)
    wanted = exact(keys, keys, 10, cosine, cases=among(3000))
    near = ApproximateIndex(keys).candidates(keys, 41)
    assert recall(rank(keys, keys, near, 10, cosine, cases=among(3000)), wanted) >= 0.95


def test_an_index_of_older_keys_still_serves_after_the_learner_moved():
    pytest.importorskip("voyager")
    torch.manual_seed(0)
    nodes, learner = torch.randn(2000, 32), GraphLearner(32)
    index = ApproximateIndex(learner(nodes))
    with torch.no_grad():
        for weight in learner.weights:
            weight.mul_(1 + 0.1 * torch.randn(32))
    keys = learner(nodes).detach()
    wanted = exact(keys, keys, 10, cosine, cases=among(2000))
    again = rank(keys, keys, index.candidates(keys, 41), 10, cosine, cases=among(2000))
    few = rank(keys, keys, index.candidates(keys, 11), 10, cosine, cases=among(2000))
    assert recall(again, wanted) >= 0.95
    assert recall(few, wanted) < recall(again, wanted)


def test_without_the_extra_its_name_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "voyager", None)
    with pytest.raises(HistillError, match="voyager"):
        ApproximateIndex(unit(3))
