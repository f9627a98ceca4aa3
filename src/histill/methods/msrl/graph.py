"""Graphs over cases: dense, sparse, augmented, and figures of them (specification §2.2, §2.3).

A node keeps its k nearest neighbours and itself; what is kept is constant, and gradients go through its weights alone:
ReLU of the similarity, and 1 of a node to itself. Edges are halved in both directions (A + Aᵀ) / 2 and scaled by
D^−½ A D^−½. Queries are nodes that borrow from others and lend to none: their edges are not halved.

Notation: K nodes, the first B of them queries or none; D features a node, k neighbours.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from histill.methods.msrl.learner import cosine

_EPSILON = 1e-10
Similarity = Callable[[Tensor, Tensor], Tensor]


def same_case(first: Tensor, second: Tensor) -> Tensor:
    """Whether two rows are of one case, by their codes: [A] and [C] -> bool [A, C]. Negative codes are of none."""
    return (first[:, None] == second[None, :]) & (first[:, None] >= 0)


def refine(
    embedding: Tensor,
    neighbours: int,
    *,
    similarity: Similarity = cosine,
    cases: Tensor | None = None,
    queries: int = 0,
) -> Tensor:
    """The dense normalised graph A_r [K, K] of a graph learner's embedding [K, D].

    Parameters
    ----------
    similarity
        Of the learner.
    cases
        Codes of the nodes' cases [K]: rows of one case are not linked.
    queries
        B: how many of the first nodes are linked to by none.
    """
    allowed = ~torch.eye(len(embedding), dtype=torch.bool, device=embedding.device)
    if cases is not None:
        allowed &= ~same_case(cases, cases)
    allowed[:, :queries] = False
    values = similarity(embedding, embedding)
    kept = nearest_mask(values.detach().masked_fill(~allowed, -torch.inf), neighbours)
    weights = values.relu() * kept
    others = weights[queries:, queries:]
    weights = torch.cat([weights[:queries], F.pad((others + others.T) / 2, (queries, 0))])
    weights = weights + torch.eye(len(weights), dtype=weights.dtype, device=weights.device)
    scale = (weights.sum(dim=1) + _EPSILON).rsqrt()
    return scale[:, None] * weights * scale[None, :]


def nearest_mask(values: Tensor, neighbours: int) -> Tensor:
    """Which are the k largest of each row of [A, C], bool; never one of −∞."""
    top = values.topk(min(neighbours, values.shape[1]), dim=1)
    return torch.zeros_like(values, dtype=torch.bool).scatter(1, top.indices, top.values > -torch.inf)


@dataclass(frozen=True)
class SparseGraph:
    """A normalised adjacency [K, K] in compressed rows; `graph @ x` is linear in its edges E, both ways.

    Attributes
    ----------
    offsets
        Where each row begins among the edges [K].
    columns, weights
        Of the edges [E]; a pair may be there more than once, and its weights add up.
    """

    offsets: Tensor
    columns: Tensor
    weights: Tensor

    def __matmul__(self, nodes: Tensor) -> Tensor:
        return F.embedding_bag(
            self.columns, nodes, self.offsets, mode="sum", per_sample_weights=self.weights.to(nodes.dtype)
        )


def symmetric(index: Tensor, weights: Tensor) -> tuple[SparseGraph, Tensor]:
    """The graph that `refine` makes, from every node's neighbours: the graph and the nodes' degrees [K].

    Parameters
    ----------
    index, weights
        Neighbours [K, k] without the node itself, and their weights before normalisation [K, k]; 0 where there is none.
    """
    size, width = index.shape
    nodes = torch.arange(size, device=index.device)
    givers = nodes.repeat_interleave(width)
    rows, columns = torch.cat([nodes, givers, index.flatten()]), torch.cat([nodes, index.flatten(), givers])
    order = rows.argsort(stable=True)
    rows, columns = rows[order], columns[order]
    half = weights.flatten() / 2
    values = torch.cat([weights.new_ones(size), half, half])[order]
    degree = values.new_zeros(size).index_add(0, rows, values) + _EPSILON
    offsets = rows.bincount(minlength=size).cumsum(0).roll(1)
    offsets[:1] = 0
    scale = degree.rsqrt()
    return SparseGraph(offsets, columns, values * scale[rows] * scale[columns]), degree


def borrow(weights: Tensor, degrees: Tensor) -> tuple[Tensor, Tensor]:
    """Normalised weights of queries on themselves [B] and on their neighbours [B, k] (§5.2).

    Parameters
    ----------
    weights, degrees
        Of the neighbours [B, k]: weights before normalisation, degrees in the graph of the lenders.
    """
    degree = 1 + weights.sum(dim=1) + _EPSILON
    return 1 / degree, weights * (degree[:, None] * degrees).rsqrt()


def gather(rows: Tensor, index: Tensor, weights: Tensor) -> Tensor:
    """Weighted sums of rows [K, D] by index [B, k] and weights [B, k] -> [B, D]; zeros where k is 0."""
    count, width = index.shape
    offsets = torch.arange(count, device=index.device) * width
    weights = weights.flatten().to(rows.dtype)
    return F.embedding_bag(index.flatten(), rows, offsets, mode="sum", per_sample_weights=weights)


def mask_columns(nodes: Tensor, rate: float) -> Tensor:
    """Nodes [K, D] with a random share of the features set to 0, the same of all nodes (§2.3)."""
    return nodes * (torch.rand(nodes.shape[1], device=nodes.device) >= rate)


def drop_edges(adjacency: Tensor, rate: float) -> Tensor:
    """A symmetric graph [K, K] without a random share of its edges, the others scaled by 1 / (1 − rate) (§2.3).

    Both directions of an edge go together, so that the graph stays symmetric.
    """
    kept = torch.rand_like(adjacency).triu() >= rate
    kept = kept.triu() | kept.triu().T
    return adjacency * kept / (1 - rate)


def homophily(adjacency: Tensor, cohort: Tensor) -> Tensor:
    """Share of the edge weight of [K, K] that lies within cohorts [K], without edges of a node to itself.

    NaN where there is no such edge.
    """
    weights = adjacency - adjacency.diagonal().diag()
    return (weights * (cohort[:, None] == cohort[None, :])).sum() / weights.sum()
