from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from histill.errors import HistillError
from histill.methods.msrl.learner import GraphLearner, StaticGraph, closeness


def test_one_layer_of_ones_is_the_cosine():
    nodes, learner = torch.randn(6, 5), GraphLearner(5, layers=1)
    embedding = learner(nodes)
    expected = F.cosine_similarity(nodes[:, None], nodes[None, :], dim=-1)
    torch.testing.assert_close(learner.similarity(embedding, embedding), expected)


def test_layers_by_hand():
    learner = GraphLearner(2, layers=2)
    with torch.no_grad():
        learner.weights[0].copy_(torch.tensor([1.0, 2.0]))
        learner.weights[1].copy_(torch.tensor([3.0, 1.0]))
    hidden = torch.tanh(torch.tensor([0.5, -0.5]))  # 0.5 · 1, −0.25 · 2
    raw = hidden * torch.tensor([3.0, 1.0])
    torch.testing.assert_close(learner(torch.tensor([[0.5, -0.25]])), (raw / raw.norm())[None])


def test_it_has_one_weight_a_feature_and_layer():
    assert sum(value.numel() for value in GraphLearner(1536, layers=2).parameters()) == 2 * 1536


def test_a_node_of_zeros_is_like_none():
    embedding = GraphLearner(3)(torch.tensor([[0.0, 0.0, 0.0], [1.0, 2.0, 3.0]]))
    assert embedding.isfinite().all()
    assert not (embedding @ embedding.T)[0].any()


def test_distances_by_hand():
    points = torch.tensor([[0.0, 0.0], [3.0, 4.0]])
    expected = torch.tensor([[1.0, 1 / 6], [1 / 6, 1.0]])
    torch.testing.assert_close(closeness(points, points), expected)


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_static_graphs_have_nothing_to_learn(metric):
    nodes = torch.randn(4, 3, requires_grad=True)
    graph = StaticGraph(metric)
    embedding = graph(nodes)
    assert not embedding.requires_grad
    assert not list(graph.parameters())
    torch.testing.assert_close(graph.similarity(embedding, embedding).diagonal(), torch.ones(4))


def test_the_metrics_agree_on_unit_halves_and_not_otherwise():
    halves = F.normalize(torch.randn(40, 2, 4), dim=-1).flatten(1)
    ranks = {}
    for name, nodes in (("unit", halves), ("raw", halves * torch.rand(40, 1))):
        for metric in ("cosine", "euclidean"):
            graph = StaticGraph(metric)
            ranks[name, metric] = graph.similarity(graph(nodes), graph(nodes)).argsort(dim=1, descending=True)
    assert torch.equal(ranks["unit", "cosine"], ranks["unit", "euclidean"])
    assert not torch.equal(ranks["raw", "cosine"], ranks["raw", "euclidean"])


def test_an_unknown_metric_is_refused():
    with pytest.raises(HistillError, match="manhattan"):
        StaticGraph("manhattan")
