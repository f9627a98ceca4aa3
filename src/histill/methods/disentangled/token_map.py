"""Bags as square maps of a fixed number of tokens, for networks that need one (specification §1.5).

Notation: B patients, N tiles (padded), F features a tile, S side of the map, S² its slots.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass
class TokenMap:
    """A bag laid out on a square of fixed size, in the order of the bag.

    The square is no tissue geometry: neighbours are tiles that follow each other in the bag. Repeated tiles weigh more
    than others in whatever pools over the slots.

    Attributes
    ----------
    tokens
        [B, S², F]; zeros for a patient without tiles.
    slots
        [B, S²] int64: the tile of every slot; −1 for a patient without tiles.
    tiles
        N.
    """

    tokens: Tensor
    slots: Tensor
    tiles: int

    @classmethod
    def of(cls, tokens: Tensor, mask: Tensor, side: int) -> TokenMap:
        """Lay out tokens [B, N, F] with mask [B, N]."""
        tiles = mask.shape[1]
        if tiles == 0:
            tokens, mask = F.pad(tokens, (0, 0, 0, 1)), F.pad(mask, (0, 1))
        slots = grid_slots(mask, side * side)
        laid = tokens.gather(1, slots.clamp(min=0).unsqueeze(-1).expand(-1, -1, tokens.shape[-1]))
        return cls(laid.masked_fill((slots < 0).unsqueeze(-1), 0), slots, tiles)

    @torch.no_grad()
    def to_tiles(self, weights: Tensor) -> Tensor:
        """Weights of slots [B, ..., S²] -> of tiles [B, ..., N], float32: sums over their slots, without gradient."""
        # Slots without a tile go to one more column, which is dropped.
        columns = self.slots.masked_fill(self.slots < 0, self.tiles)
        columns = columns.view(len(columns), *[1] * (weights.dim() - 2), -1).expand_as(weights)
        total = weights.new_zeros(*weights.shape[:-1], self.tiles + 1, dtype=torch.float32)
        return total.scatter_add(-1, columns, weights.float())[..., :-1]


def grid_slots(mask: Tensor, count: int) -> Tensor:
    """Tile of every slot [B, count] int64, from the mask [B, N ≥ 1] of n real tiles; −1 for patients without any.

    Up to `count` tiles are repeated in turn, more are thinned to those numbered round(i · n / count).
    """
    number = mask.sum(dim=1, keepdim=True)
    slot = torch.arange(count, device=mask.device)
    thinned = (slot * number.double() / count).round().long()
    rank = torch.where(number > count, thinned, slot % number.clamp(min=1))
    real = (~mask).to(torch.uint8).argsort(dim=1, stable=True)  # the real tiles first, in their order
    return real.gather(1, rank).masked_fill(number == 0, -1)
