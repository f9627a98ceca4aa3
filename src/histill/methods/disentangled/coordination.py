"""Confidence-guided gradient coordination: the less confident subspace gives way (specification §2.6).

Two rules. `shared` acts on parameters that both subspaces learn together, where their gradients can conflict: the
gradient of the less confident subspace is projected off that of the more confident one. `head` is the closed form of
the public code: it acts on the two halves of the classifier's rows, which are different parameters, and reflects where
its comment announces a projection.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def confidence(probability: Tensor, label: Tensor) -> Tensor:
    """Mean probability of the true class: probabilities [B, C] and labels [B] -> scalar."""
    return probability.gather(1, label[:, None]).mean()


def conflict(gradients: list[Tensor], scores: Tensor) -> Tensor:
    """What has to be added to the sum of the subspaces' gradients so that no conflict is left.

    Each gradient is projected off that of every more confident subspace where their product is negative (Yu et al.,
    NeurIPS 2020, made one-sided): g ← g − (g·s / |s|²) s.

    Parameters
    ----------
    gradients
        One flat gradient [P] a subspace, of the same parameters.
    scores
        Confidence of each [K]. Equals give way to nobody.

    Returns
    -------
    [P]; zeros where nothing conflicts, or where a gradient is zero.
    """
    change = torch.zeros_like(gradients[0])
    for weak, own in enumerate(gradients):
        mended = own
        for strong, other in enumerate(gradients):
            product, norm = mended @ other, other @ other
            gives_way = (scores[weak] < scores[strong]) & (product < 0) & (norm > 0)
            along = product / norm.clamp(min=torch.finfo(norm.dtype).tiny)
            mended = mended - torch.where(gives_way, along, 0.0) * other
        change = change + (mended - own)
    return change


def coordinate_rows(gradient: Tensor, scores: Tensor, *, single: bool = False) -> Tensor:
    """The public code's rule on a classifier's weight gradient, row by row.

    With g_w of the less and g_s of the more confident half of a row, P = (g_w·g_s / |g_s|²) g_s and g_⊥ = g_w − P:
    where their cosine is negative, g_w ← |g_⊥| (g_⊥ − P) / |g_⊥ − P|. P is taken off twice, so the cosine changes its
    sign instead of becoming zero.

    Parameters
    ----------
    gradient
        [C, 2d], the two halves of a row side by side.
    scores
        Confidence of the two halves [2]; equals change nothing.
    single
        Project once, as announced: g_w ← g_⊥.

    Returns
    -------
    [C, 2d]. Rows with a half of length zero are left as they are.
    """
    halves = gradient.chunk(2, dim=1)
    if scores[0] == scores[1]:
        return gradient
    weak = int(scores[0] > scores[1])
    own, other = halves[weak], halves[1 - weak]
    product = (own * other).sum(dim=1, keepdim=True)
    norm = (other * other).sum(dim=1, keepdim=True)
    along = product / norm.clamp(min=torch.finfo(norm.dtype).tiny) * other
    across = own - along
    mended = across
    if not single:
        turned = across - along
        mended = across.norm(dim=1, keepdim=True) * nn.functional.normalize(turned, dim=1)
    # A row whose projection vanishes has a length of its own to lose, not a direction to make up.
    mended = torch.where((product < 0) & (norm > 0), mended, own)
    return torch.cat([mended, other] if weak == 0 else [other, mended], dim=1)


class SmoothedConfidence(nn.Module):
    """Exponential mean of the subspaces' confidence [K]; part of what a resumed run goes on with."""

    def __init__(self, subspaces: int, momentum: float = 0.9):
        super().__init__()
        self.momentum = momentum
        self.register_buffer("mean", torch.zeros(subspaces))
        self.register_buffer("steps", torch.zeros(()))

    def update(self, scores: Tensor) -> Tensor:
        """Take in the scores of a step [K] and return the mean [K], free of the bias towards its start at 0."""
        self.mean = self.momentum * self.mean + (1 - self.momentum) * scores
        self.steps = self.steps + 1
        return self.mean / (1 - self.momentum**self.steps)
