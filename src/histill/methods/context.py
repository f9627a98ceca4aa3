"""What lies around a tile: means over blocks of the tile grid."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def block_means(tokens: Tensor, cells: Tensor, mask: Tensor, size: int) -> Tensor:
    """Mean of the tokens in each token's block of `size` × `size` tiles.

    Parameters
    ----------
    tokens
        [B, N, d].
    cells
        Slide number, column and row of every tile on its grid [B, N, 3], int64; negative where not known.
    mask
        True at real tiles [B, N].

    Returns
    -------
    [B, N, d]; a token whose place is not known is its own mean. Time and memory are linear in N.
    """
    known = mask & (cells >= 0).all(dim=-1)
    where = cells[known]
    slide, column, row = where[:, 0], where[:, 1] // size, where[:, 2] // size
    if not len(where):
        return tokens
    patient = torch.nonzero(known)[:, 0]
    key = patient
    for part in (slide, column, row):
        key = key * (part.max() + 1) + part
    _, block = torch.unique(key, return_inverse=True)
    own = tokens[known]
    blocks = int(block.max()) + 1
    total = own.new_zeros(blocks, own.shape[1]).index_add(0, block, own)
    count = own.new_zeros(blocks).index_add(0, block, own.new_ones(len(own)))
    means = tokens.clone()
    means[known] = (total / count[:, None])[block]
    return means


class LocalContext(nn.Module):
    """Adds to every tile what its neighbourhood of `size` × `size` tiles looks like: [B, N, d] -> [B, N, d].

    Starts as the identity. Moving tiles about in the bag together with their cells changes nothing.
    """

    def __init__(self, dim: int, size: int):
        super().__init__()
        self.size = size
        self.norm, self.layer = nn.LayerNorm(dim), nn.Linear(dim, dim)
        nn.init.zeros_(self.layer.weight)
        nn.init.zeros_(self.layer.bias)

    def forward(self, tokens: Tensor, cells: Tensor, mask: Tensor) -> Tensor:
        return tokens + self.layer(self.norm(block_means(tokens, cells, mask, self.size)))
