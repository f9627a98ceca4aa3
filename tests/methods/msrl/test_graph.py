from __future__ import annotations

import pytest
import torch

from histill.methods.msrl.gcn import GCN
from histill.methods.msrl.graph import (
    borrow,
    drop_edges,
    gather,
    homophily,
    mask_columns,
    refine,
    symmetric,
)
from histill.methods.msrl.learner import GraphLearner
from histill.methods.msrl.neighbours import exact, kept_similarity


def unit(rows: int, width: int) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.randn(rows, width, dtype=torch.float64), dim=1)


def test_the_chain_by_hand():
    # Angles 0°, 60°, 180°: cosines 0.5, −1, −0.5. Node 2 keeps node 1, but ReLU takes the edge away.
    nodes = torch.tensor([[1.0, 0.0], [0.5, 0.75**0.5], [-1.0, 0.0]])
    expected = torch.eye(3)
    expected[:2, :2] = torch.tensor([[1.0, 0.5], [0.5, 1.0]]) / 1.5
    torch.testing.assert_close(refine(nodes, 1), expected)


def test_a_one_sided_edge_is_halved():
    # Node 2 keeps node 1, which keeps node 0: the edge of 1 and 2 is there in one direction.
    nodes = torch.tensor([[1.0, 0.0], [0.96, 0.28], [0.6, 0.8]])
    weights = torch.tensor([[1.0, 0.96, 0.0], [0.96, 1.0, 0.4], [0.0, 0.4, 1.0]])  # 0.96·0.6 + 0.28·0.8 = 0.8
    scale = weights.sum(dim=1).rsqrt()
    torch.testing.assert_close(refine(nodes, 1), scale[:, None] * weights * scale)


def test_it_is_symmetric_non_negative_and_sparse():
    graph, k = refine(unit(60, 4), 5), 5
    torch.testing.assert_close(graph, graph.T)
    assert (graph >= 0).all()
    assert (graph > 0).sum(dim=1).double().mean() <= 2 * (k + 1) - 1
    assert torch.linalg.eigvalsh(graph)[-1] == pytest.approx(1)  # of D^−½ A D^−½ with D the degrees


def test_gradients_reach_every_weight_of_the_learner_through_kept_edges_alone():
    nodes, learner = torch.randn(20, 6), GraphLearner(6, layers=3)
    embedding = learner(nodes)
    embedding.retain_grad()
    graph = refine(embedding, 3)
    (graph * torch.rand(20, 20)).sum().backward()
    assert all((weight.grad != 0).all() for weight in learner.weights)
    kept = graph[0].detach() > 0
    assert kept.sum() < 20
    (gradient,) = torch.autograd.grad(refine(embedding, 3)[0].sum(), embedding)
    reached = (graph.detach() > 0)[kept].any(dim=0)  # through degrees, over two edges
    assert not gradient[~reached].any()


def test_fewer_nodes_than_neighbours():
    graph = refine(torch.ones(2, 3) / 3**0.5, 10)
    torch.testing.assert_close(graph, torch.full((2, 2), 0.5))


def test_rows_of_one_case_are_not_linked():
    nodes = torch.ones(3, 2) / 2**0.5
    graph = refine(nodes, 2, cases=torch.tensor([7, 7, 8]))
    assert graph[0, 1] == 0
    assert graph[0, 2] > 0
    assert (refine(nodes, 2, cases=torch.tensor([-1, -1, 8])) > 0).all()  # of no known case


def test_queries_are_linked_to_by_none_and_change_nothing():
    lenders, queries = unit(30, 4), unit(5, 4)
    graph = refine(torch.cat([queries, lenders]), 3, queries=5)
    assert not graph[5:, :5].any()
    assert torch.equal(graph[:5, :5] != 0, torch.eye(5, dtype=torch.bool))
    torch.testing.assert_close(graph[5:, 5:], refine(lenders, 3))


def test_the_sparse_graph_is_the_dense_one():
    nodes = unit(50, 4)
    learner = GraphLearner(4).double()
    embedding, codes = learner(nodes), torch.arange(50)
    found = exact(embedding, embedding, 6, learner.similarity, cases=(codes, codes), block=16)
    kept = kept_similarity(embedding, embedding, found.index, learner.similarity, block=16)
    graph, degrees = symmetric(found.index, kept.relu() * found.found)
    dense = refine(embedding, 6)
    torch.testing.assert_close(graph @ torch.eye(50, dtype=torch.float64), dense)
    torch.testing.assert_close(degrees, 1 / dense.diagonal())
    values = torch.randn(50, 3, dtype=torch.float64)
    weights = [*learner.weights]
    sparse_gradient = torch.autograd.grad((graph @ values).square().sum(), weights, retain_graph=True)
    torch.testing.assert_close(sparse_gradient, torch.autograd.grad((dense @ values).square().sum(), weights))


def test_borrowing_is_a_row_of_the_graph_with_a_query():
    lenders, queries = unit(30, 4), unit(5, 4)
    dense = refine(torch.cat([queries, lenders]), 3, queries=5)
    top = (queries @ lenders.T).topk(3, dim=1)
    degrees = 1 / refine(lenders, 3).diagonal()
    own, lent = borrow(top.values.relu(), degrees[top.indices])
    torch.testing.assert_close(own, dense.diagonal()[:5])
    torch.testing.assert_close(torch.zeros(5, 30, dtype=torch.float64).scatter(1, top.indices, lent), dense[:5, 5:])
    values = torch.randn(30, 2, dtype=torch.float64)
    torch.testing.assert_close(gather(values, top.indices, lent), dense[:5, 5:] @ values)


def test_nothing_can_be_gathered():
    rows, none = torch.zeros(0, 3), torch.zeros(2, 0)
    assert torch.equal(gather(rows, none.long(), none), torch.zeros(2, 3))
    graph, degrees = symmetric(torch.zeros(0, 0, dtype=torch.int64), torch.zeros(0, 0))
    assert (graph @ rows).shape == (0, 3)
    assert degrees.shape == (0,)


def test_the_gcn_by_hand():
    gcn = GCN(1, 1, 1, dropout=0.0)
    with torch.no_grad():
        for value, given in ((gcn.first.weight, 2.0), (gcn.first_bias, -3.0), (gcn.second.weight, 4.0)):
            value.fill_(given)
        gcn.second_bias.fill_(0.5)
    adjacency = torch.tensor([[0.5, 0.5], [0.0, 1.0]])
    # A X W₀ = (4, 6), + b₀ and ReLU (1, 3), W₁ (4, 12), A · (8, 12), + b₁.
    expected = torch.tensor([[8.5], [12.5]])
    torch.testing.assert_close(gcn(adjacency, torch.tensor([[1.0], [3.0]])), expected)


def test_the_same_columns_are_masked_of_all_nodes():
    masked = mask_columns(torch.ones(7, 400), 0.3)
    assert torch.equal(masked, masked[:1].expand(7, -1))
    assert masked[0].mean().item() == pytest.approx(0.7, abs=0.1)
    assert torch.equal(mask_columns(masked, 0.0), masked)


def test_edges_go_in_both_directions_together():
    graph = refine(unit(80, 4), 8)
    fewer = drop_edges(graph, 0.3)
    torch.testing.assert_close(fewer, fewer.T)
    kept = fewer > 0
    torch.testing.assert_close(fewer[kept], graph[kept] / 0.7)
    assert (kept.sum() / (graph > 0).sum()).item() == pytest.approx(0.7, abs=0.08)
    assert torch.equal(drop_edges(graph, 0.0), graph)


def test_homophily():
    graph = torch.tensor([[0.5, 0.3, 0.1], [0.3, 0.5, 0.0], [0.1, 0.0, 0.5]])
    assert homophily(graph, torch.tensor([0, 0, 1])).item() == pytest.approx(0.75)
