"""From slides and genes to case vectors (specification §2.1).

Notation: B cases, N tiles (padded), F features a tile, n genes, d width of a case vector.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from histill.errors import HistillError
from histill.methods.attention import Gate, Projection, masked_softmax


class SNN(nn.Sequential):
    """Two self-normalising blocks, linear, ELU, alpha dropout: [B, inputs] -> [B, outputs].

    Weights are N(0, 1 / fan-in) and biases 0 (Klambauer et al., NeurIPS 2017), with the ELU of the published encoders
    in place of their SELU.
    """

    def __init__(self, inputs: int, hidden: int, outputs: int, dropout: float):
        super().__init__(*_block(inputs, hidden, dropout), *_block(hidden, outputs, dropout))


def _block(inputs: int, outputs: int, dropout: float) -> tuple[nn.Module, ...]:
    linear = nn.Linear(inputs, outputs)
    nn.init.normal_(linear.weight, std=inputs**-0.5)
    nn.init.zeros_(linear.bias)
    return linear, nn.ELU(), nn.AlphaDropout(dropout)


class GeneEncoder(nn.Module):
    """One SNN a gene group, side by side: expression [B, n] -> g [B, d].

    Parameters
    ----------
    groups
        Group -> positions of its genes in the expression vector. Groups may overlap and be of any size; one without a
        gene is left out.
    dim
        d. It is shared out as evenly as it goes: 768 and six groups give the published 128 a group.

    Raises
    ------
    HistillError
        If no group has a gene, or there are more groups than `dim`.
    """

    def __init__(self, groups: dict[str, list[int]], dim: int, dropout: float):
        super().__init__()
        members = [positions for positions in groups.values() if positions]
        if not 0 < len(members) <= dim:
            raise HistillError(
                f"{len(members)} gene groups with a gene among {list(groups)} cannot share {dim} dimensions",
                mend="give at least one gene group that the expression has genes of, and a width of one each or more",
            )
        each, more = divmod(dim, len(members))
        widths = [each + (index < more) for index in range(len(members))]
        self.sizes = [len(positions) for positions in members]
        self.register_buffer("positions", torch.tensor([row for rows in members for row in rows]), persistent=False)
        self.encoders = nn.ModuleList(
            SNN(size, 2 * width, width, dropout) for size, width in zip(self.sizes, widths, strict=True)
        )

    def forward(self, genes: Tensor) -> Tensor:
        parts = genes[:, self.positions].split(self.sizes, dim=1)
        return torch.cat([encode(part) for encode, part in zip(self.encoders, parts, strict=True)], dim=1)


class Inductor(nn.Module):
    """The genomic prompt of a slide, what its genes' vector may be: h [B, d] -> ĝ [B, d], an SNN as the genes' own."""

    def __init__(self, dim: int, dropout: float):
        super().__init__()
        self.layers = SNN(dim, 2 * dim, dim, dropout)

    def forward(self, slide: Tensor) -> Tensor:
        return self.layers(slide)


class SlideEncoder(nn.Module):
    """Tiles of every level, or imported slide vectors, to one vector a case.

    Each level is pooled over all tiles of the case, the levels are laid side by side, and a residual projector takes
    them to width d. Its branch begins at zero, so that what is encoded begins as a linear map of the features.

    Parameters
    ----------
    features
        Level -> F.
    pooling
        `mean`, or `attention`: gated, one score a tile (Ilse et al., ICML 2018). Either is the vector itself where a
        level has one token.
    """

    def __init__(self, features: dict[str, int], dim: int, *, pooling: str = "mean", dropout: float = 0.25):
        super().__init__()
        if pooling not in ("mean", "attention"):
            raise HistillError(f"pooling '{pooling}' is not known", mend="use mean or attention")
        self.features = dict(features)
        width = sum(features.values())
        scored = features if pooling == "attention" else {}
        self.scores = nn.ModuleDict(
            {level: nn.Sequential(Projection(size, dim, dropout), Gate(dim)) for level, size in scored.items()}
        )
        self.skip = nn.Linear(width, dim)
        self.branch = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, dim), nn.GELU(), nn.Dropout(dropout), nn.Linear(dim, dim)
        )
        nn.init.zeros_(self.branch[-1].weight)
        nn.init.zeros_(self.branch[-1].bias)

    def forward(self, tokens: dict[str, Tensor], mask: dict[str, Tensor]) -> Tensor:
        """Tokens [B, N, F] and masks [B, N] by level -> h [B, d]."""
        return self.project(self.pool(tokens, mask))

    def pool(self, tokens: dict[str, Tensor], mask: dict[str, Tensor]) -> Tensor:
        """[B, sum of F]: all levels; zeros where a level is not in the batch or a case has no tile of it."""
        some = next(iter(tokens.values()))
        parts = [
            self._level(level, tokens[level], mask[level]) if level in tokens else some.new_zeros(len(some), size)
            for level, size in self.features.items()
        ]
        return torch.cat(parts, dim=1)

    def project(self, pooled: Tensor) -> Tensor:
        """What is pooled [B, sum of F] -> h [B, d]."""
        return self.skip(pooled) + self.branch(pooled)

    def _level(self, level: str, tokens: Tensor, mask: Tensor) -> Tensor:
        scores = self.scores[level](tokens).squeeze(-1) if self.scores else torch.zeros_like(tokens[..., 0])
        return (masked_softmax(scores, mask).unsqueeze(1) @ tokens).squeeze(1)
