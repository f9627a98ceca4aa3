"""Retention (§2.4): what each encoder gives is masked and told again from what is left.

Notation: B bags, N tiles (padded), D model width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from histill.methods.mirror.rna import EPSILON, INIT_STD, RNABlock
from histill.methods.transmil import Encoded, PositionalConvolution, TransLayer, in_reading_order, noise, take


def hide(mask: Tensor, ratio: float, training: bool) -> Tensor:
    """True at a random share [B, N] of each row's real places; at least at one, where there is any.

    ⌊(1 − ratio) n⌋ of n places stay visible. At evaluation a bag has the same ones in any batch.
    """
    rank = noise(mask, training).argsort(dim=1).argsort(dim=1)
    visible = (mask.sum(dim=1, keepdim=True) * (1 - ratio)).long()
    return mask & (rank >= visible)


class SlideRetention(nn.Module):
    """Tells masked tokens of a slide from its [CLS] and visible tokens.

    Where tokens lie is told to the decoder as the encoder knows it: by the positional convolution on the slides' grids
    (`coordinates`), which knows no origin, as slides have none, and shows a masked tile its visible neighbours; or by a
    learned table of a fixed number of `tokens` (`order`, published).

    Parameters
    ----------
    positions, tokens, heads, landmarks, dropout, mask_padding
        As for the encoder (`histill.methods.transmil.SlideEncoder`).
    mask
        Share of the tokens that is masked.
    """

    def __init__(
        self,
        dim: int,
        *,
        heads: int,
        landmarks: int,
        positions: str,
        tokens: int | None,
        dropout: float,
        mask_padding: bool,
        mask: float,
    ):
        super().__init__()
        self.ratio = mask
        self.embed = nn.Linear(dim, dim)
        self.blank = nn.Parameter(torch.randn(1, 1, dim) * INIT_STD)
        self.convolution = PositionalConvolution(dim) if positions == "coordinates" else None
        self.table = None
        if positions == "order" and tokens is not None:
            self.table = nn.Parameter(nn.init.trunc_normal_(torch.empty(1, tokens + 1, dim), std=INIT_STD))
        self.layer = TransLayer(dim, heads, landmarks, dropout=dropout, mask_padding=mask_padding)
        self.norm, self.tell = nn.LayerNorm(dim), nn.Linear(dim, dim)

    def forward(self, bag: Encoded) -> tuple[Tensor, Tensor]:
        """What is told of the tokens [B, N, D], and which were masked [B, N]."""
        hidden = hide(bag.mask, self.ratio, self.training)
        tokens = torch.where(hidden.unsqueeze(-1), self.blank, self.embed(bag.tokens))
        real, back = bag.mask, None
        if self.convolution is not None:
            rows, places, real, back = in_reading_order(bag.cells, bag.mask)
            tokens = self.convolution(take(tokens, rows), places, real)
        x = torch.cat([self.embed(bag.cls).unsqueeze(1), tokens], dim=1)
        if self.table is not None:
            x = x + self.table
        x = self.layer(x, torch.cat([real.new_ones(len(real), 1), real], dim=1))
        told = self.tell(self.norm(x))[:, 1:]
        return (told if back is None else take(told, back)), hidden


class RNARetention(nn.Module):
    """Tells masked coordinates of an RNA vector from the visible ones: the sequence is the vector itself.

    Parameters
    ----------
    mask
        Share of the D coordinates that is masked.
    """

    def __init__(self, dim: int, *, heads: int, mlp_ratio: float, dropout: float, mask: float):
        super().__init__()
        self.ratio = mask
        self.embed = nn.Linear(dim, dim)
        self.blank = nn.Parameter(torch.randn(1) * INIT_STD)
        self.place = nn.Parameter(torch.randn(1, dim) * INIT_STD)
        self.block = RNABlock(dim, heads, mlp_ratio=mlp_ratio, dropout=dropout)
        self.norm, self.tell = nn.LayerNorm(dim, EPSILON), nn.Linear(dim, dim)

    def forward(self, rna: Tensor) -> tuple[Tensor, Tensor]:
        """What is told of the vector [B, D], and which coordinates were masked [B, D]."""
        hidden = hide(torch.ones_like(rna, dtype=torch.bool), self.ratio, self.training)
        x = torch.where(hidden, self.blank, self.embed(rna)) + self.place
        return self.tell(self.norm(self.block(x))), hidden
