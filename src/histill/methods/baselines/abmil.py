"""Gated attention-based multiple-instance learning (Ilse et al., ICML 2018), one pool a magnification."""

from __future__ import annotations

from torch import Tensor, nn

from histill.methods.attention import Gate, Projection, masked_softmax
from histill.subspaces import GENES


class ABMIL(nn.Module):
    """The slide alone -> logits at every level."""

    magnifications = "mean"

    def __init__(self, features: dict[str, int], outputs: int, *, dim: int, dropout: float):
        super().__init__()
        self.project = nn.ModuleDict({level: Projection(width, dim, dropout) for level, width in features.items()})
        self.gate = nn.ModuleDict({level: Gate(dim) for level in features})
        self.head = nn.ModuleDict({level: nn.Linear(dim, outputs) for level in features})

    def forward(self, batch: dict) -> dict[str, dict[str, Tensor]]:
        """`batch['tokens'][level]` [B, N, F], `['mask'][level]` [B, N] -> `logits`: level -> [B, C].

        `attention["genes"]`: level -> [B, N], under the name of what has no subspaces.
        """
        logits, attention = {}, {}
        for level, project in self.project.items():
            tiles = project(batch["tokens"][level])
            weights = masked_softmax(self.gate[level](tiles).squeeze(-1), batch["mask"][level])
            logits[level] = self.head[level]((weights.unsqueeze(1) @ tiles).squeeze(1))
            attention[level] = weights
        return {"logits": logits, "attention": {GENES: attention}}
