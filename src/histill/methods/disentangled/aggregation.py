"""Informative token aggregation: a few tokens of each subspace stand for all tiles (specification §2.8)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from histill.methods.attention import Gate, masked_softmax
from histill.methods.disentangled.clustering import merge_tokens

TEMPERATURE = 0.1  # of the squared distance between a tile and a prototype, mean over dimensions


@dataclass
class Aggregated:
    """Merged tokens of a bag, for K subspaces with T tokens each.

    Attributes
    ----------
    tokens
        [B, K, T, d]; zeros where a cluster is empty.
    share
        Weight of each merged token in its subspace [B, K, T]; sums to 1 over T, or to 0 for an empty bag.
    assignment
        Of tiles to subspaces [B, N, K]; sums to 1 over K at real tiles, 0 at padding.
    weights
        Of tiles in each subspace [B, K, N]; sums to 1 over N, or to 0 for an empty bag.
    kept
        Merged tokens that have members [B, K], int64.
    """

    tokens: Tensor
    share: Tensor
    assignment: Tensor
    weights: Tensor
    kept: Tensor


class PrototypeAggregation(nn.Module):
    """Assignment by prototypes, weights by importance, merging inside each subspace.

    Tile i belongs to subspace k with p_ik = softmax_k(−|x_i − c_k|² / (2 d τ)); within k it weighs
    softmax_i(log p_ik + importance_ik). Which token is whose is fixed by the prototypes, not by density as in the
    public code; padded tiles weigh 0, and memory is linear in N. With `count` above 1 the tiles of each subspace are
    merged by density peaks into so many tokens, without gradient in the choice of clusters.
    """

    def __init__(self, dim: int, subspaces: int, count: int):
        super().__init__()
        self.count = count
        self.norm = nn.LayerNorm(dim)
        self.prototypes = nn.Parameter(torch.randn(subspaces, dim))
        self.importance = Gate(dim, heads=subspaces)

    def forward(self, tiles: Tensor, mask: Tensor) -> Aggregated:
        """Tiles [B, N, d], mask [B, N]."""
        tiles = self.norm(tiles)
        # |x|² is the same for every prototype.
        nearness = tiles @ self.prototypes.T - (self.prototypes**2).sum(dim=-1) / 2
        membership = torch.log_softmax(nearness / (tiles.shape[-1] * TEMPERATURE), dim=-1)
        scores = (membership + self.importance(tiles)).transpose(1, 2)
        weights = masked_softmax(scores, mask[:, None, :])
        tokens, share = self._merge(tiles, weights, mask)
        return Aggregated(tokens, share, membership.exp() * mask[..., None], weights, (share > 0).sum(dim=-1))

    def _merge(self, tiles: Tensor, weights: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        if self.count == 1:
            return (weights @ tiles).unsqueeze(2), weights.sum(dim=-1, keepdim=True)
        merged = [merge_tokens(tiles, own, mask, self.count) for own in weights.unbind(dim=1)]
        return torch.stack([tokens for tokens, _, _ in merged], dim=1), torch.stack([s for *_, s in merged], dim=1)


class MeanAggregation(nn.Module):
    """Every subspace sees the mean of all tiles: what is left when aggregation is switched off."""

    def __init__(self, dim: int, subspaces: int):
        super().__init__()
        self.subspaces = subspaces
        self.norm = nn.LayerNorm(dim)

    def forward(self, tiles: Tensor, mask: Tensor) -> Aggregated:
        """Tiles [B, N, d], mask [B, N]."""
        weights = masked_softmax(torch.zeros_like(tiles[..., 0]), mask)[:, None, :].expand(-1, self.subspaces, -1)
        share = weights.sum(dim=-1, keepdim=True)
        assignment = mask[..., None].to(tiles.dtype).expand(-1, -1, self.subspaces) / self.subspaces
        return Aggregated(
            (weights @ self.norm(tiles)).unsqueeze(2), share, assignment, weights, (share > 0).sum(dim=-1)
        )
