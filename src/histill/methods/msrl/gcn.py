"""The graph convolutional network over cases (specification §2.4; Kipf & Welling, ICLR 2017).

Notation: K nodes, D features a node; adjacencies are normalised.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from histill.methods.msrl.graph import SparseGraph, gather


class GCN(nn.Module):
    """Two layers: H = dropout(ReLU(A X W₀ + b₀)), Z = A H W₁ + b₁; width D -> hidden -> out."""

    def __init__(self, width: int, hidden: int, out: int, dropout: float):
        super().__init__()
        self.first, self.second = nn.Linear(width, hidden, bias=False), nn.Linear(hidden, out, bias=False)
        self.first_bias, self.second_bias = nn.Parameter(torch.zeros(hidden)), nn.Parameter(torch.zeros(out))
        self.dropout = nn.Dropout(dropout)

    def forward(self, adjacency: Tensor | SparseGraph, nodes: Tensor) -> Tensor:
        """Adjacency [K, K] and nodes [K, D] -> [K, out]."""
        _, second = self.messages(adjacency, nodes)
        return adjacency @ second + self.second_bias

    def messages(self, adjacency: Tensor | SparseGraph, nodes: Tensor) -> tuple[Tensor, Tensor]:
        """What nodes give their neighbours in either layer: X W₀ [K, hidden] and H W₁ [K, out]."""
        first = self.first(nodes)
        return first, self.second(self._hidden(adjacency @ first))

    def query(self, nodes: Tensor, own: Tensor, index: Tensor, lent: Tensor, given: tuple[Tensor, Tensor]) -> Tensor:
        """Nodes that other nodes lend to and that lend to none (§5.2) -> [B, out].

        Parameters
        ----------
        nodes
            [B, D].
        own
            Normalised weight of each on itself [B].
        index, lent
            Neighbours [B, k] and their normalised weights [B, k].
        given
            `messages` of the lenders.
        """
        own, (first, second) = own.unsqueeze(1), given
        hidden = self._hidden(own * self.first(nodes) + gather(first, index, lent))
        return own * self.second(hidden) + gather(second, index, lent) + self.second_bias

    def _hidden(self, propagated: Tensor) -> Tensor:
        return self.dropout(F.relu(propagated + self.first_bias))
