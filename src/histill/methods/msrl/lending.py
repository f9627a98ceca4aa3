"""Borrowing from a graph of cases that queries do not change (specification §5.1, §5.2).

Training makes the graph anew at every step, with gradients; evaluation once, from the frozen buffer. A query costs one
similarity a lender and the sum over its neighbours, at both layers of the GCN.

Notation: B queries, R lenders, k neighbours; D features a node.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from histill.methods.msrl.gcn import GCN
from histill.methods.msrl.graph import Similarity, borrow, symmetric
from histill.methods.msrl.neighbours import OVERFETCH, ApproximateIndex, Neighbours, exact, kept_similarity, rank


@dataclass(frozen=True)
class Lenders:
    """Cases in a graph among themselves, and what they give.

    Attributes
    ----------
    embedding
        Of the graph learner [R, D].
    cases
        Codes [R].
    degrees
        In the graph [R].
    reach
        Similarity to their own farthest neighbour [R]; −1 without any.
    messages
        What they give at either layer (`GCN.messages`).
    index
        For approximate search.
    """

    embedding: Tensor
    cases: Tensor
    degrees: Tensor
    reach: Tensor
    messages: tuple[Tensor, Tensor]
    index: ApproximateIndex | None

    @classmethod
    def of(
        cls, learner: nn.Module, gcn: GCN, values: Tensor, cases: Tensor, neighbours: int, *, search: str = "exact"
    ) -> Lenders:
        """From node vectors [R, D] and codes [R]; `search` is `exact` or `approximate`."""
        embedding = learner(values)
        index = ApproximateIndex(embedding) if search == "approximate" else None
        if index is None:
            found = exact(embedding, embedding, neighbours, learner.similarity, cases=(cases, cases))
        else:
            found = _best(index, embedding, embedding, neighbours, learner.similarity, (cases, cases))
        similarity = kept_similarity(embedding, embedding, found.index, learner.similarity)
        graph, degrees = symmetric(found.index, similarity.relu() * found.found)
        return cls(embedding, cases, degrees, farthest(similarity, found), gcn.messages(graph, values), index)

    def nearest(self, embedding: Tensor, cases: Tensor, neighbours: int, similarity: Similarity) -> Neighbours:
        """The lenders nearest to queries [B, D] of other cases [B]; each query's do not depend on the others."""
        codes = (cases, self.cases)
        if self.index is not None:
            return _best(self.index, embedding, self.embedding, neighbours, similarity, codes)
        near = exact(embedding, self.embedding, OVERFETCH * neighbours, similarity, cases=codes)
        return rank(embedding, self.embedding, near, neighbours, similarity, cases=codes)


def _best(
    index: ApproximateIndex,
    queries: Tensor,
    keys: Tensor,
    neighbours: int,
    similarity: Similarity,
    cases: tuple[Tensor, Tensor],
) -> Neighbours:
    near = index.candidates(queries, OVERFETCH * neighbours + 1)  # one may be the query's own row
    return rank(queries, keys, near, neighbours, similarity, cases=cases)


def lend(
    nodes: Tensor, embedding: Tensor, found: Neighbours, lenders: Lenders, learner: nn.Module, gcn: GCN
) -> tuple[Tensor, Tensor, Tensor]:
    """States of queries [B, out], the normalised weights of their lenders [B, k], and their similarity [B, k].

    Parameters
    ----------
    nodes, embedding
        Of the queries [B, D].
    """
    similarity = kept_similarity(embedding, lenders.embedding, found.index, learner.similarity)
    own, lent = borrow(similarity.relu() * found.found, lenders.degrees[found.index])
    return gcn.query(nodes, own, found.index, lent, lenders.messages), lent, similarity


def farthest(similarity: Tensor, found: Neighbours) -> Tensor:
    """The least of the similarities [B, k] to neighbours that were found [B]; −1 without any."""
    values = similarity.detach().masked_fill(~found.found, torch.inf)
    least = torch.cat([values, values.new_full((len(values), 1), torch.inf)], dim=1).amin(dim=1)
    return least.masked_fill(least == torch.inf, -1.0)
