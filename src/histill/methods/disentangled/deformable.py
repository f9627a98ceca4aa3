"""Deformable cross-attention over a square map of tokens (specification §2.3).

Keys are sampled from the context at points that the queries shift (Xia et al., CVPR 2022), and a small network turns
the distance between query and point into a bias. Notation: B patients, S side of the map, N = S² tokens, d width,
H heads, h width of a head, R side and M = R² number of the points (S = 50: R = 12, M = 144).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from histill.errors import HistillError

KERNEL, STRIDE, PADDING = 6, 4, 1  # of the convolution that makes one shift from the queries around a point
BIAS_WIDTH = 32
BIAS_BLOCK = 1 << 22  # floats of a hidden layer of the position bias that are held at once


class PositionBias(nn.Module):
    """Continuous position bias: p = sign(Δ) log(1 + |Δ|) of the two distances Δ -> 32 -> 32 -> 1, ReLU between.

    The hidden layers hold 32 values for every pair of query and point, which is most of what the attention stores and
    computes. So the map is done a few rows at a time, and the backward pass computes them again.
    """

    def __init__(self, side: int):
        super().__init__()
        self.register_buffer("axis", torch.linspace(-1, 1, side), persistent=False)
        self.first = nn.Linear(2, BIAS_WIDTH)
        self.rest = nn.Sequential(nn.ReLU(), nn.Linear(BIAS_WIDTH, BIAS_WIDTH), nn.ReLU(), nn.Linear(BIAS_WIDTH, 1))

    def forward(self, points: Tensor) -> Tensor:
        """Points [G, M, 2] as (column, row) in map units of [−1, 1] -> bias [G, N, M]."""
        # The first layer is a sum over the two axes, so each is done once a column or row, not once a query.
        column, row = (self._distance(points[..., axis]) * self.first.weight[:, axis] for axis in (0, 1))
        row = row + self.first.bias
        count = max(1, BIAS_BLOCK // column.numel())
        parts = [self._recomputed(column, part) for part in row.split(count, dim=1)]
        return torch.cat(parts, dim=1)

    def _distance(self, points: Tensor) -> Tensor:
        """[G, M] -> [G, S, M, 1]."""
        delta = self.axis[:, None] - points[:, None, :]
        return (delta.sign() * delta.abs().log1p()).unsqueeze(-1)

    def _recomputed(self, column: Tensor, row: Tensor) -> Tensor:
        if not torch.is_grad_enabled():
            return self._rows(column, row)
        return checkpoint(self._rows, column, row, use_reentrant=False, preserve_rng_state=False)

    def _rows(self, column: Tensor, row: Tensor) -> Tensor:
        hidden = column[:, None] + row[:, :, None]  # [G, rows, S, M, 32]
        return self.rest(hidden).squeeze(-1).flatten(1, 2)


class DeformableCrossAttention(nn.Module):
    """Every token of the query map attends to M points sampled from the context map.

    Each head is an offset group of its own and sees d / H channels of both maps. 93,921 parameters as published.

    Two traits are kept as published. Points are scaled to [−1, 1] by R − 1 but sampled with half-pixel corners, so that
    the outer ones lie half a pixel outside the map. And where all queries are the same vector, as in the published
    teacher, shifts and weights differ between queries by the position bias alone.

    Parameters
    ----------
    dim
        Width d of queries, context and output; a multiple of `heads`.
    heads, head_dim
        H and h.
    side
        S; at least 4.
    dropout
        Of the attention weights.
    """

    def __init__(self, dim: int = 128, heads: int = 8, head_dim: int = 64, side: int = 50, *, dropout: float = 0.1):
        super().__init__()
        if dim % heads:
            raise HistillError(
                f"deformable attention: a width of {dim} cannot be split over {heads} heads",
                mend="make methods.disentangled.model.dim a multiple of its heads",
            )
        if side + 2 * PADDING < KERNEL:
            raise HistillError(
                f"deformable attention: a map of side {side} is too small", mend="use a side of 4 or more"
            )
        self.heads, self.side, self.head_dim = heads, side, head_dim
        width = heads * head_dim
        self.query, self.key, self.value = (nn.Conv2d(dim, width, 1, groups=heads, bias=False) for _ in range(3))
        self.offset = nn.Sequential(
            nn.Conv2d(head_dim, head_dim, KERNEL, STRIDE, PADDING, groups=head_dim),
            nn.GELU(),
            nn.Conv2d(head_dim, 2, 1, bias=False),
            nn.Tanh(),
        )
        self.position_bias = PositionBias(side)
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(width, dim)

    def forward(self, queries: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """Attended values [B, N, d] and attention before dropout [B, H, N, M].

        Parameters
        ----------
        queries, context
            [B, N, d], the rows of the map one after the other.
        """
        batch = len(queries)
        query = self.query(self._map(queries))
        points = self._points(query)
        sampled = F.grid_sample(
            self._map(context).reshape(batch * self.heads, -1, self.side, self.side),
            points,
            mode="bilinear",
            padding_mode="zeros",
            align_corners=False,
        )
        sampled = sampled.reshape(batch, -1, *points.shape[1:3])
        query, key, value = (self._split(x) for x in (query, self.key(sampled), self.value(sampled)))
        bias = self.position_bias(points.flatten(1, 2)).unflatten(0, (batch, self.heads))
        attention = torch.softmax(query @ key.transpose(-1, -2) / self.head_dim**0.5 + bias, dim=-1)
        attended = self.dropout(attention) @ value
        return self.out(attended.transpose(1, 2).flatten(2)), attention

    def _map(self, tokens: Tensor) -> Tensor:
        """[B, N, d] -> [B, d, S, S]."""
        return tokens.transpose(1, 2).unflatten(2, (self.side, self.side))

    def _split(self, maps: Tensor) -> Tensor:
        """[B, H h, rows, columns] -> [B, H, rows · columns, h]."""
        return maps.flatten(2).unflatten(1, (self.heads, self.head_dim)).transpose(2, 3)

    def _points(self, query: Tensor) -> Tensor:
        """Sampled points [B H, R, R, 2] as (column, row): a regular grid, shifted by up to a stride."""
        shift = STRIDE * self.offset(query.reshape(-1, self.head_dim, self.side, self.side)).permute(0, 2, 3, 1)
        shift = shift.to(self.out.weight.dtype)  # under mixed precision a half float is too coarse for places
        axis = torch.arange(shift.shape[1], device=shift.device, dtype=shift.dtype)
        row, column = torch.meshgrid(axis, axis, indexing="ij")
        return 2 * (torch.stack([column, row], dim=-1) + shift) / max(len(axis) - 1, 1) - 1
