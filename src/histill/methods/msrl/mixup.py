"""Mixtures of a batch's cases."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Mix:
    """Mixup (Zhang et al., ICLR 2018): every row of a batch with another one, in the same shares.

    Attributes
    ----------
    partner
        Which row each is mixed with [B].
    share
        Of the row itself.
    """

    partner: Tensor
    share: float

    @classmethod
    def draw(cls, size: int, alpha: float, device: torch.device) -> Mix:
        """A share from Beta(alpha, alpha) and random partners; with alpha 0 every row by itself."""
        if not alpha:
            return cls(torch.arange(size, device=device), 1.0)
        share = torch.distributions.Beta(alpha, alpha).sample().item()
        return cls(torch.randperm(size, device=device), share)

    def __call__(self, rows: Tensor) -> Tensor:
        return self.share * rows + (1 - self.share) * rows[self.partner]
