"""RNA encoder (§2.2): one vector a patient, refined by attention over its own heads.

Notation: B patients, G genes, D model width, h heads.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

EPSILON = 1e-6  # of the layer norms, as in the published code
INIT_STD = 0.02


class HeadAttention(nn.Module):
    """Attention of a vector's h heads to each other: [B, D] -> [B, D].

    There is one token a patient, so this is no attention over genes: it mixes h parts of width D / h.
    """

    def __init__(self, dim: int, heads: int, dropout: float):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.project, self.dropout = nn.Linear(dim, dim), nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.qkv(x).unflatten(-1, (3, self.heads, -1)).unbind(1)
        weights = torch.softmax(query @ key.transpose(1, 2) / query.shape[-1] ** 0.5, dim=-1)
        return self.dropout(self.project((weights @ value).transpose(1, 2).flatten(1)))


class RNABlock(nn.Module):
    """Pre-norm block, head attention and MLP: [B, D] -> [B, D]."""

    def __init__(self, dim: int, heads: int, *, mlp_ratio: float, dropout: float):
        super().__init__()
        inner = int(dim * mlp_ratio)
        self.norm_attention, self.norm_mlp = nn.LayerNorm(dim, EPSILON), nn.LayerNorm(dim, EPSILON)
        self.attention = HeadAttention(dim, heads, dropout)
        self.mlp = nn.Sequential(
            nn.Linear(dim, inner), nn.GELU(), nn.Dropout(dropout), nn.Linear(inner, dim), nn.Dropout(dropout)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm_attention(x))
        return x + self.mlp(self.norm_mlp(x))


class RNAEncoder(nn.Module):
    """Genes [B, G] -> H_r [B, D]: MLP to one token, blocks, layer norm."""

    def __init__(self, genes: int, dim: int, *, depth: int, heads: int, mlp_ratio: float, dropout: float):
        super().__init__()
        self.embed = nn.Sequential(
            nn.Linear(genes, 2 * dim), nn.GELU(), nn.LayerNorm(2 * dim, EPSILON), nn.Linear(2 * dim, dim)
        )
        self.token = nn.Parameter(torch.randn(1, dim) * INIT_STD)
        self.blocks = nn.Sequential(*(RNABlock(dim, heads, mlp_ratio=mlp_ratio, dropout=dropout) for _ in range(depth)))
        self.norm = nn.LayerNorm(dim, EPSILON)

    def forward(self, genes: Tensor) -> Tensor:
        return self.norm(self.blocks(self.embed(genes) + self.token))
