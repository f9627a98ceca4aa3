"""Style clustering (§2.5): both modalities pass one variational bottleneck and are assigned to common prototypes.

Notation: B patients, D model width, k latent dimensions, P prototypes.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Style(NamedTuple):
    """Posterior `mean` and `log_variance` [B, k], and log-probabilities of the prototypes, `assignment` [B, P]."""

    mean: Tensor
    log_variance: Tensor
    assignment: Tensor


class StyleClustering(nn.Module):
    """Vectors of either modality [B, D] -> their style.

    The posterior is sampled in training; at evaluation its mean is taken (the published code samples there too, which
    is noise in everything that is computed from it).

    Parameters
    ----------
    hidden
        Widths of the layers before the posterior.
    temperature
        Assignments are the softmax of cosines over it. None: of products with vectors of any length (published).
    """

    def __init__(self, dim: int, *, hidden: tuple[int, ...], latent: int, prototypes: int, temperature: float | None):
        super().__init__()
        self.temperature = temperature
        layers = [layer for into, out in pairwise((dim, *hidden)) for layer in (nn.Linear(into, out), nn.GELU())]
        self.layers = nn.Sequential(*layers[:-1])
        self.mean, self.log_variance = nn.Linear(hidden[-1], latent), nn.Linear(hidden[-1], latent)
        self.decode = nn.Linear(latent, dim)
        self.prototypes = nn.Parameter(nn.init.orthogonal_(torch.empty(prototypes, dim)))
        self.constrain()

    @torch.no_grad()
    def constrain(self) -> None:
        """Bring the prototypes back to unit length."""
        self.prototypes.copy_(F.normalize(self.prototypes, dim=-1))

    def forward(self, x: Tensor) -> Style:
        x = self.layers(x)
        mean, log_variance = self.mean(x), self.log_variance(x)
        code = mean
        if self.training:
            code = mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean)
        code = self.decode(code)
        if self.temperature is not None:
            code = F.normalize(code, dim=-1) / self.temperature
        return Style(mean, log_variance, torch.log_softmax(code @ self.prototypes.T, dim=-1))
