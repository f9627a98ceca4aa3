"""What the teacher and the student add to the task loss. Every term is one value a patient [B]."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_EPSILON = 1e-8


def orthogonality(features: dict[str, dict[str, Tensor]]) -> Tensor:
    """Squared cosine between every two subspaces' features [B], mean over levels and pairs.

    The explicit disentanglement term of specification §7 (6); the public code has none. 0 with a single subspace.
    """
    names = list(features)
    terms = [
        F.cosine_similarity(features[first][level], features[second][level], dim=-1) ** 2
        for index, first in enumerate(names)
        for second in names[index + 1 :]
        for level in features[first]
    ]
    if not terms:
        some = next(iter(features[names[0]].values()))
        return some.new_zeros(len(some))
    return torch.stack(terms).mean(dim=0)


def gram_consistency(low: Tensor, high: Tensor, both: Tensor) -> Tensor:
    """How differently two magnifications arrange a batch's patients: ‖G(low) − G(high)‖²_F / B² (§2.7, proposal a).

    Parameters
    ----------
    low, high
        Features of a subspace at 10x and at 20x [B, d]; G are their cosine Gram matrices.
    both
        Patients that have both magnifications [B], bool; the others take no part.

    Returns
    -------
    [B], each patient's row of the sum, so that their mean is the term; 0 where fewer than two patients have both.
    """
    pairs = both[:, None] & both[None, :]
    size = both.sum()
    gap = (_cosines(low) - _cosines(high)) ** 2 * pairs
    return gap.sum(dim=1) * len(both) / size.clamp(min=1) ** 2 * (size > 1)


def _cosines(features: Tensor) -> Tensor:
    unit = F.normalize(features, dim=-1)
    return unit @ unit.T


def gene_consistency(
    rebuilt: dict[str, Tensor], genes: Tensor, present: dict[str, Tensor], levels: tuple[str, str]
) -> Tensor:
    """Genes told from the slide against those measured, and between magnifications [B] (§2.7, proposal b).

    Huber distance, mean over genes: at every level to the expression, and between the two `levels` where a patient has
    both. Zero only where each magnification tells the whole expression; defined for a single patient.

    Parameters
    ----------
    rebuilt
        Level -> expression told from that level [B, n].
    genes
        Standardised expression [B, n].
    present
        Level -> whether the patient has a tile there [B].
    """
    terms = [huber(told, genes) * present[level] for level, told in rebuilt.items()]
    low, high = levels
    if low in rebuilt and high in rebuilt:
        terms.append(huber(rebuilt[low], rebuilt[high]) * (present[low] & present[high]))
    return torch.stack(terms).sum(dim=0)


def huber(first: Tensor, second: Tensor) -> Tensor:
    """Huber distance [B] of rows [B, n], mean over n."""
    return F.huber_loss(first, second, reduction="none").mean(dim=-1)


def map_consistency(low: Tensor, high: Tensor, parents: Tensor) -> Tensor:
    """Jensen–Shannon divergence [B] of where genes look at 10x and at 20x, in nats (0 to ln 2).

    The 20x tiles' attention is added up in their 10x tile; 10x tiles without a child in the bag take no part.

    Parameters
    ----------
    low, high
        Attention over 10x tiles [B, N10] and 20x tiles [B, N20].
    parents
        Position of each 20x tile's 10x tile in the bag [B, N20]; negative where it is not there.

    Returns
    -------
    0 for patients without any such pair of tiles.
    """
    known = parents >= 0
    at = parents.clamp(min=0)
    pooled = torch.zeros_like(low).scatter_add(1, at, high * known)
    children = torch.zeros_like(low).scatter_add(1, at, known.to(low.dtype))
    low, pooled = (_distribution(weights * (children > 0)) for weights in (low, pooled))
    middle = 0.5 * (low + pooled)
    return 0.5 * (_divergence(low, middle) + _divergence(pooled, middle))


def _distribution(weights: Tensor) -> Tensor:
    return weights / weights.sum(dim=-1, keepdim=True).clamp(min=_EPSILON)


def _divergence(p: Tensor, q: Tensor) -> Tensor:
    return (p * (p.clamp(min=_EPSILON).log() - q.clamp(min=_EPSILON).log())).sum(dim=-1)
