"""Attention building blocks that respect padding."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def masked_softmax(scores: Tensor, mask: Tensor) -> Tensor:
    """Softmax over the last dimension where `mask`; rows without any True are all zero, not NaN."""
    scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    return torch.softmax(scores, dim=-1) * mask


class Projection(nn.Module):
    """Tile features [B, N, F] -> tokens [B, N, d]: linear, layer norm, GELU, dropout."""

    def __init__(self, features: int, dim: int, dropout: float):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(features, dim), nn.LayerNorm(dim), nn.GELU(), nn.Dropout(dropout))

    def forward(self, tokens: Tensor) -> Tensor:
        return self.layers(tokens)


class Gate(nn.Module):
    """Gated attention score of every token (Ilse et al., ICML 2018, eq. 9): [B, N, d] -> [B, N, heads]."""

    def __init__(self, dim: int, heads: int = 1):
        super().__init__()
        self.value, self.gate, self.score = nn.Linear(dim, dim), nn.Linear(dim, dim), nn.Linear(dim, heads)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.score(torch.tanh(self.value(tokens)) * torch.sigmoid(self.gate(tokens)))


class CrossAttention(nn.Module):
    """Queries [B, J, d] attend to tokens [B, N, d]; padded tokens get no weight."""

    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value = (nn.Linear(dim, dim) for _ in range(3))
        self.out = nn.Linear(dim, dim)

    def forward(self, queries: Tensor, tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Attended values [B, J, d] and attention [B, heads, J, N]."""
        batch, count, dim = queries.shape
        split = (batch, -1, self.heads, dim // self.heads)
        query, key, value = (
            layer(x).view(split).transpose(1, 2)
            for layer, x in ((self.query, queries), (self.key, tokens), (self.value, tokens))
        )
        scores = query @ key.transpose(-1, -2) / (dim // self.heads) ** 0.5
        attention = masked_softmax(scores, mask[:, None, None, :])
        attended = (attention @ value).transpose(1, 2).reshape(batch, count, dim)
        return self.out(attended), attention
