"""TransMIL (Shao et al., NeurIPS 2021): Nyström attention and positional convolution; slide encoder and baseline.

Notation: B bags, N tiles (padded), F features a tile, D model width, L rows of the sequence, C logits.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from histill.methods.nystrom import NystromAttention

INIT_STD = 0.02
EVALUATION_SEED = 0
KERNELS = (7, 5, 3)
LEAST_CELLS = 64 * 64
CELLS_A_TILE = 4


class Encoded(NamedTuple):
    """A bag's [CLS] vector [B, D], its tokens [B, N, D] (zero where padded), their `mask` [B, N] and `cells` [B, N, 3].

    Where the encoder draws a fixed number of tokens, these are the drawn ones.
    """

    cls: Tensor
    tokens: Tensor
    mask: Tensor
    cells: Tensor


class TransLayer(nn.Module):
    """Pre-norm Nyström attention with a residual path: [B, N, D] -> [B, N, D]. There is no MLP in it."""

    def __init__(self, dim: int, heads: int, landmarks: int, *, dropout: float, mask_padding: bool):
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.attention = NystromAttention(dim, heads, landmarks, dropout=dropout, mask_padding=mask_padding)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return x + self.attention(self.norm(x), mask)


class PositionalConvolution(nn.Module):
    """Adds depth-wise convolutions of 7, 5 and 3 over the slides' tile grids: tokens [B, N, D] -> [B, N, D].

    Each slide has a dense grid, its tiles' bounding box, with zeros where there is no tile. A box of more than 4,096
    cells and more than four a tile is coarsened by the smallest whole stride that keeps it below, and a cell is the
    mean of its tiles; so memory is linear in the tiles. Tokens whose place is not known stay as they are.
    """

    def __init__(self, dim: int):
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv2d(dim, dim, k, padding=k // 2, groups=dim) for k in KERNELS)

    def forward(self, tokens: Tensor, cells: Tensor, mask: Tensor) -> Tensor:
        """Tokens [B, N, D], slide, column and row of each [B, N, 3] (negative: not known), True at real ones [B, N]."""
        known = mask & (cells >= 0).all(dim=-1)
        if not known.any():
            return tokens
        at, shapes = dense_cells(cells, known)
        own, sizes = tokens[known], [math.prod(shape) for shape in shapes]
        total = own.new_zeros(sum(sizes), own.shape[1]).index_add(0, at, own)
        count = own.new_zeros(sum(sizes)).index_add(0, at, own.new_ones(len(at)))
        grids = (total / count.clamp(min=1)[:, None]).split(sizes)
        weight, bias = self._kernel()
        told = []
        for grid, shape in zip(grids, shapes, strict=True):
            image = grid.view(*shape, -1).permute(0, 3, 1, 2)
            image = F.conv2d(image, weight, bias, padding=weight.shape[-1] // 2, groups=len(bias))
            told.append(image.permute(0, 2, 3, 1).flatten(0, 2))
        where = known.flatten().nonzero().squeeze(1)
        return tokens.flatten(0, 1).index_add(0, where, torch.cat(told)[at].to(tokens.dtype)).view_as(tokens)

    def _kernel(self) -> tuple[Tensor, Tensor]:
        """Weight [D, 1, 7, 7] and bias [D] of the one convolution that the three add up to."""
        largest = self.layers[0].kernel_size[0]
        margins = [(largest - layer.kernel_size[0]) // 2 for layer in self.layers]
        weight = sum(F.pad(layer.weight, [margin] * 4) for layer, margin in zip(self.layers, margins, strict=True))
        return weight, sum(layer.bias for layer in self.layers)


def dense_cells(cells: Tensor, known: Tensor) -> tuple[Tensor, list[tuple[int, int, int]]]:
    """Where tiles lie in the dense grids of their slides, laid end to end.

    Parameters
    ----------
    cells, known
        Slide, column and row [B, N, 3], and the T tiles to place [B, N].

    Returns
    -------
    Cell of each tile [T], and (number, height, width) of the grids that follow each other: equal ones are together.
    """
    slide, column, row = cells[known].unbind(dim=-1)
    bag = known.nonzero()[:, 0]
    _, grid, tiles = torch.unique(bag * (slide.max() + 1) + slide, return_inverse=True, return_counts=True)

    def from_edge(place: Tensor) -> tuple[Tensor, list[int]]:
        edge, end = (
            place.new_zeros(len(tiles)).scatter_reduce(0, grid, place, side, include_self=False)
            for side in ("amin", "amax")
        )
        return place - edge[grid], (end - edge + 1).tolist()

    (column, widths), (row, heights) = from_edge(column), from_edge(row)
    boxes = [_box(*facts) for facts in zip(heights, widths, tiles.tolist(), strict=True)]
    order = sorted(range(len(boxes)), key=lambda index: boxes[index][1:])
    starts, end = [0] * len(boxes), 0
    for index in order:
        starts[index], end = end, end + math.prod(boxes[index][1:])
    stride, _, width = torch.tensor(boxes, device=cells.device).T[:, grid]
    start = torch.tensor(starts, device=cells.device)[grid]
    shapes = Counter(boxes[index][1:] for index in order)  # keeps the order
    return start + row // stride * width + column // stride, [(count, *shape) for shape, count in shapes.items()]


def _box(height: int, width: int, tiles: int) -> tuple[int, int, int]:
    """Stride, height and width of a slide's grid of so many tiles."""
    stride, limit = 1, max(LEAST_CELLS, CELLS_A_TILE * tiles)
    while -(-height // stride) * -(-width // stride) > limit:
        stride += 1
    return stride, -(-height // stride), -(-width // stride)


class SlideEncoder(nn.Module):
    """Tiles of a bag -> [CLS] and contextual tokens (MIRROR specification §2.1).

    Parameters
    ----------
    features
        F.
    dim, heads, landmarks, dropout
        Of the attention (`NystromAttention`).
    positions
        Where the convolution has its tiles. `coordinates`: on the slides' tile grids; the tiles are sorted by slide,
        row and column, so that permuting them together with their cells changes nothing. `order` (published): in a
        square, row by row as they come, filled up with the first tiles again.
    tokens
        Draw exactly so many tiles of every bag, in random order, with replacement where it has fewer (published:
        2,048); the same ones at every evaluation. None: all of them.
    mask_padding
        As for `NystromAttention`.
    """

    def __init__(
        self,
        features: int,
        dim: int,
        *,
        heads: int,
        landmarks: int,
        positions: str = "coordinates",
        tokens: int | None = None,
        dropout: float = 0.0,
        mask_padding: bool = True,
    ):
        super().__init__()
        self.positions, self.tokens = positions, tokens
        self.project = nn.Sequential(nn.Linear(features, dim), nn.ReLU())
        self.cls = nn.Parameter(torch.randn(1, 1, dim) * INIT_STD)
        options = {"dropout": dropout, "mask_padding": mask_padding}
        self.first = TransLayer(dim, heads, landmarks, **options)
        self.convolution = PositionalConvolution(dim)
        self.second = TransLayer(dim, heads, landmarks, **options)
        self.norm = nn.LayerNorm(dim)

    def forward(self, tokens: Tensor, cells: Tensor, mask: Tensor) -> Encoded:
        """Tiles [B, N, F], their cells [B, N, 3] and mask [B, N] (docs/architecture.md, Batches)."""
        if self.tokens is not None:
            rows = draw(mask, self.tokens, self.training)
            tokens, cells = take(tokens, rows), take(cells, rows)
            mask = mask.any(dim=1, keepdim=True).expand(-1, self.tokens)
        arrange = in_reading_order if self.positions == "coordinates" else in_squares
        rows, places, there, back = arrange(cells, mask)
        x = take(self.project(tokens), rows) * there.unsqueeze(-1)
        x = torch.cat([self.cls.expand(len(x), -1, -1), x], dim=1)
        real = torch.cat([there.new_ones(len(x), 1), there], dim=1)
        x = self.first(x, real)
        x = torch.cat([x[:, :1], self.convolution(x[:, 1:], places, there)], dim=1)
        x = self.norm(self.second(x, real))
        own = take(x[:, 1:], back) * mask.unsqueeze(-1)
        return Encoded(x[:, 0], own, mask, cells)


class TransMIL(nn.Module):
    """The slide alone -> logits at every level: an encoder and a linear head each."""

    magnifications = "mean"

    def __init__(
        self,
        features: dict[str, int],
        outputs: int,
        *,
        dim: int,
        heads: int,
        landmarks: int,
        positions: str = "coordinates",
        tokens: int | None = None,
        dropout: float = 0.0,
    ):
        super().__init__()
        options = {
            "heads": heads,
            "landmarks": landmarks,
            "positions": positions,
            "tokens": tokens,
            "dropout": dropout,
        }
        self.encode = nn.ModuleDict({level: SlideEncoder(width, dim, **options) for level, width in features.items()})
        self.head = nn.ModuleDict({level: nn.Linear(dim, outputs) for level in features})

    def forward(self, batch: dict) -> dict[str, dict[str, Tensor]]:
        """`batch['tokens'][level]` [B, N, F], `['cells']`, `['mask']` -> `logits`: level -> [B, C]."""
        parts = ("tokens", "cells", "mask")
        encoded = {level: encode(*(batch[part][level] for part in parts)) for level, encode in self.encode.items()}
        return {"logits": {level: self.head[level](bag.cls) for level, bag in encoded.items()}}


def take(x: Tensor, rows: Tensor) -> Tensor:
    """Rows [B, L] of every bag's own [B, N, d]: [B, L, d]."""
    return x.gather(1, rows.unsqueeze(-1).expand(-1, -1, x.shape[-1]))


def noise(mask: Tensor, training: bool) -> Tensor:
    """Uniform numbers [B, N], 2 where not `mask`; fixed ones at evaluation, the same for a bag in any batch."""
    if training:
        return torch.rand(mask.shape, device=mask.device).masked_fill(~mask, 2.0)
    fixed = torch.full(mask.shape, 2.0)
    for bag, own in zip(fixed, mask.cpu(), strict=True):
        bag[own] = torch.rand(int(own.sum()), generator=torch.Generator().manual_seed(EVALUATION_SEED))
    return fixed.to(mask.device)


def draw(mask: Tensor, count: int, training: bool) -> Tensor:
    """Positions [B, count] of tiles drawn at random, with replacement in bags that have fewer."""
    order, real = noise(mask, training).argsort(dim=1), mask.sum(dim=1, keepdim=True)
    again = noise(torch.ones(len(mask), count, dtype=torch.bool, device=mask.device), training)
    ranks = torch.arange(count, device=mask.device).expand(len(mask), -1)
    ranks = torch.where(real >= count, ranks, (again * real).long().minimum((real - 1).clamp(min=0)))
    return order.gather(1, ranks)


def in_reading_order(cells: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Sequence of all tiles by slide, row and column; then real ones without a place as they come, then padding.

    Returns
    -------
    Positions of tiles [B, L], their places on a grid [B, L, 3], True at real ones [B, L], and every tile's row in the
    sequence [B, N]. Here L is N.
    """
    known = (cells >= 0).all(dim=-1)
    slide, column, row = cells.clamp(min=0).unbind(dim=-1)
    key = (slide * (row.max() + 1) + row) * (column.max() + 1) + column
    last = key.max() + 1
    rows = torch.where(mask & known, key, torch.where(mask, last, last + 1)).argsort(dim=1, stable=True)
    return rows, take(cells, rows), mask.gather(1, rows), rows.argsort(dim=1)


def in_squares(cells: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The published sequence: n tiles as they come in a square of side ⌈√n⌉, the first ones again in what is left.

    Results are those of `in_reading_order`; `cells` are not looked at.
    """
    order = (~mask).to(torch.uint8).argsort(dim=1, stable=True)
    real = mask.sum(dim=1, keepdim=True)
    side = real.double().sqrt().ceil().long()
    length = max(mask.shape[1], int(side.max()) ** 2)
    index = torch.arange(length, device=mask.device).expand(len(mask), -1)
    rows = order.gather(1, torch.where(index < real, index, index - real).clamp(max=mask.shape[1] - 1))
    edge = side.clamp(min=1)
    places = torch.stack([torch.zeros_like(index), index % edge, index // edge], dim=-1)
    return rows, places, index < side**2, order.argsort(dim=1)
