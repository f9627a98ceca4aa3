"""From node features to what nodes are compared by (specification §2.2).

Notation: K nodes, D features a node.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from histill.errors import HistillError


def cosine(first: Tensor, second: Tensor) -> Tensor:
    """Cosines of unit rows: [..., A, D] and [..., C, D] -> [..., A, C] in [−1, 1]."""
    return first @ second.mT


def closeness(first: Tensor, second: Tensor) -> Tensor:
    """1 / (1 + Euclidean distance), which is 1 for a node and itself: [..., A, D] and [..., C, D] -> [..., A, C]."""
    return 1 / (1 + torch.cdist(first, second, compute_mode="donot_use_mm_for_euclid_dist"))


class GraphLearner(nn.Module):
    """One weight a feature and layer; nodes are alike by the cosine of what comes out (Algorithm 1).

    E⁽ˡ⁾ = tanh(E⁽ˡ⁻¹⁾ ⊙ ω⁽ˡ⁾), without tanh in the last layer, rows then scaled to length 1. The weights begin at one.
    """

    similarity = staticmethod(cosine)

    def __init__(self, width: int, layers: int = 2):
        super().__init__()
        self.weights = nn.ParameterList(nn.Parameter(torch.ones(width)) for _ in range(layers))

    def forward(self, nodes: Tensor) -> Tensor:
        """[K, D] -> rows of length 1 [K, D]."""
        *before, last = self.weights
        for weight in before:
            nodes = torch.tanh(nodes * weight)
        return F.normalize(nodes * last, dim=-1)


class StaticGraph(nn.Module):
    """The graph that is not learned: nodes as they are, compared by `cosine` or `euclidean` distance.

    No gradient goes through it. Of fused vectors with unit halves both find the same neighbours, with other weights.
    """

    def __init__(self, metric: str):
        super().__init__()
        if metric not in ("cosine", "euclidean"):
            raise HistillError(f"graph '{metric}' is not known", mend="use learned, cosine or euclidean")
        self.metric = metric
        self.similarity = {"cosine": cosine, "euclidean": closeness}[metric]

    def forward(self, nodes: Tensor) -> Tensor:
        """[K, D] -> [K, D], rows of length 1 for the cosine."""
        nodes = nodes.detach()
        return F.normalize(nodes, dim=-1) if self.metric == "cosine" else nodes
