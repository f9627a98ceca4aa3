"""Losses of pre-training (§2.3–2.6). Terms of a patient come one a row [B]."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from histill.methods import contrast


def same_profile(genes: Tensor) -> Tensor:
    """Number [B] of each row's transcriptome [B, G]: bags of one patient have the same one."""
    return torch.unique(genes, dim=0, return_inverse=True)[1]


def info_nce(slide: Tensor, rna: Tensor, scale: Tensor, group: Tensor) -> Tensor:
    """Symmetric InfoNCE (§2.3), one value a pair [B]; ln B where nothing is aligned.

    Parameters
    ----------
    slide, rna
        Aligned vectors [B, D]; rows are pairs.
    scale
        What their products are multiplied by.
    group
        Patient of each pair [B]: pairs of one patient are no negatives of each other.
    """
    return contrast.info_nce(scale * slide @ rna.T, group)


def retention(told: Tensor, target: Tensor, hidden: Tensor, *, stopped: bool) -> Tensor:
    """Mean squared error at the masked places (§2.4), one value a bag [B].

    Parameters
    ----------
    told, target
        [B, N, d].
    hidden
        True at masked places [B, N].
    stopped
        Whether the target has no gradient. With one (published), an encoder lowers the loss by shrinking (#6).
    """
    target = target.detach() if stopped else target
    error = (told - target).square().mean(dim=-1)
    return (error * hidden).sum(dim=1) / hidden.sum(dim=1).clamp(min=1)


def posterior_kl(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL divergence [B] of N(mean, exp(log_variance)) [B, k] from N(0, I), in nats."""
    return 0.5 * (log_variance.exp() + mean.square() - 1 - log_variance).sum(dim=-1)


def divergence(first: Tensor, second: Tensor) -> Tensor:
    """Half the sum of both KL divergences [B] of distributions given as log-probabilities [B, P], in nats."""
    return 0.5 * ((first.exp() - second.exp()) * (first - second)).sum(dim=-1)


def entropy(log_probabilities: Tensor) -> Tensor:
    """Entropy [...] of distributions [..., P], in nats."""
    return -(log_probabilities.exp() * log_probabilities).sum(dim=-1)


def marginal(assignment: Tensor) -> Tensor:
    """Log-probabilities [P] of the mean of B samples' assignments [B, P]."""
    return torch.logsumexp(assignment, dim=0) - math.log(len(assignment))


def mutual_information(assignment: Tensor) -> Tensor:
    """Between sample and prototype, over B samples' log-probabilities [B, P]: H(mean) − mean H, a scalar in nats.

    From 0, where all samples have the same assignment, to min(ln B, ln P).
    """
    return entropy(marginal(assignment)) - entropy(assignment).mean()
