"""Mean pooling: the plainest bag classifier, one head a magnification."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from histill.methods.attention import Projection, masked_softmax


class MeanPool(nn.Module):
    """The slide alone -> logits at every level.

    Parameters
    ----------
    features
        Level -> F.
    outputs
        C.
    hidden
        Width of the one hidden layer between the mean and the logits; 0: the head is linear.
    """

    magnifications = "mean"

    def __init__(self, features: dict[str, int], outputs: int, *, hidden: int, dropout: float):
        super().__init__()
        self.head = nn.ModuleDict(
            {
                level: nn.Sequential(Projection(width, hidden, dropout), nn.Linear(hidden, outputs))
                if hidden
                else nn.Linear(width, outputs)
                for level, width in features.items()
            }
        )

    def forward(self, batch: dict) -> dict[str, dict[str, Tensor]]:
        """`batch['tokens'][level]` [B, N, F], `['mask'][level]` [B, N] -> `logits`: level -> [B, C]."""
        logits = {}
        for level, head in self.head.items():
            tiles, mask = batch["tokens"][level], batch["mask"][level]
            weights = masked_softmax(torch.zeros_like(tiles[..., 0]), mask)
            logits[level] = head((weights.unsqueeze(1) @ tiles).squeeze(1))
        return {"logits": logits}
