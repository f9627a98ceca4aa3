"""Losses of structural representation learning (specification §2.5, §2.8). Each is one value a case [B]."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from histill.methods import contrast

_STRUCTURE_TEMPERATURE = 0.2


def info_nce(first: Tensor, second: Tensor, temperature: float, cases: Tensor | None = None) -> Tensor:
    """InfoNCE between two views of the same cases [B], mean of both directions.

    −log of the softmax over all cases of cosine / temperature, at the case itself. With one case it is 0.

    Parameters
    ----------
    first, second
        [B, D]; row i of both is case i.
    cases
        Codes of the rows' cases [B], int64, where a case may be there more than once (one row a slide): its other rows
        are no negatives.
    """
    cosine = F.normalize(first, dim=-1) @ F.normalize(second, dim=-1).T
    return contrast.info_nce(cosine / temperature, cases)


def structural_bce(similarity: Tensor, edges: Tensor, pairs: Tensor) -> Tensor:
    """Balanced cross-entropy between the online similarities and the target's edges [B].

    Where there is an edge, −α₁ log p, elsewhere −α₀ log(1 − p), with p = sigmoid(similarity / 0.2), α₁ = n / 2c₁ and
    α₀ = n / 2c₀ for c₁ edges among n pairs and c₀ others: both sides weigh n / 2 in all, however few edges there are.
    The mean over cases is the sum over pairs divided by n. The similarities are dense, since an edge that the sparse
    online graph does not have could not be learned from it. A side without any pair adds nothing.

    Parameters
    ----------
    similarity
        Online cosines of the batch's cases to all nodes [B, K].
    edges
        Whether the target's graph has that edge [B, K], bool.
    pairs
        What counts [B, K], bool: not a node with itself, nor what the graph may not link.
    """
    logits = similarity / _STRUCTURE_TEMPERATURE
    ones, zeros = edges & pairs, ~edges & pairs
    loss = F.softplus(-logits) * ones / ones.sum().clamp(min=1) + F.softplus(logits) * zeros / zeros.sum().clamp(min=1)
    return loss.sum(dim=1) * len(loss) / 2
