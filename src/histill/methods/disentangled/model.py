"""Teacher and student networks.

Notation: B patients, N tiles (padded), F features a tile, d model width, J gene sets of a subspace, C logits. Subspaces
are `tumor` and `microenvironment`; levels are magnifications.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from histill.methods.attention import CrossAttention, Gate, Projection, masked_softmax
from histill.subspaces import SUBSPACES


class GeneTokens(nn.Module):
    """Genes of a subspace [B, n] -> one token a gene set [B, J, d].

    Each set has its own first layer over its members, so that queries differ; the rest is shared (a self-normalising
    network, Klambauer et al. 2017).
    """

    def __init__(self, genes: int, members: dict[str, list[int]], dim: int, dropout: float):
        super().__init__()
        membership = torch.zeros(len(members), genes)
        for row, positions in enumerate(members.values()):
            membership[row, positions] = 1.0
        self.register_buffer("membership", membership)
        # As one masked weight: J small layers in one product. Scaled by set size like a linear layer's init.
        scale = membership.sum(dim=1).clamp(min=1).rsqrt()
        self.weight = nn.Parameter(torch.randn(len(members), dim, genes) * scale[:, None, None])
        self.bias = nn.Parameter(torch.zeros(len(members), dim))
        self.shared = nn.Sequential(
            nn.ELU(), nn.AlphaDropout(dropout), nn.Linear(dim, dim), nn.ELU(), nn.LayerNorm(dim)
        )

    def forward(self, genes: Tensor) -> Tensor:
        weight = self.weight * self.membership[:, None, :]
        return self.shared(torch.einsum("bn,jdn->bjd", genes, weight) + self.bias)


def _read_out(width: int, dim: int, dropout: float) -> nn.Sequential:
    """Tokens [B, width] -> subspace feature [B, d] in (−1, 1)."""
    return nn.Sequential(
        nn.LayerNorm(width), nn.Linear(width, dim), nn.GELU(), nn.Dropout(dropout), nn.Linear(dim, dim), nn.Tanh()
    )


class SubspaceFusion(nn.Module):
    """Gene tokens of a subspace query the tiles; the read-out stays inside the subspace (specification §7, 3-4)."""

    def __init__(self, dim: int, heads: int, dropout: float):
        super().__init__()
        self.norm_genes, self.norm_tiles = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attention = CrossAttention(dim, heads)
        self.read_out = _read_out(2 * dim, dim, dropout)

    def forward(self, genes: Tensor, tiles: Tensor, mask: Tensor) -> Tensor:
        """Gene tokens [B, J, d], tiles [B, N, d], mask [B, N] -> subspace feature [B, d] in (−1, 1)."""
        attended, _ = self.attention(self.norm_genes(genes), self.norm_tiles(tiles), mask)
        return self.read_out(torch.cat([(genes + attended).mean(dim=1), genes.mean(dim=1)], dim=-1))


class Teacher(nn.Module):
    """Slide and genes -> subspace features and logits at every level.

    Parameters
    ----------
    features
        Level -> F.
    genes
        Subspace -> number of genes.
    members
        Subspace -> gene set -> gene positions.
    """

    def __init__(
        self,
        features: dict[str, int],
        genes: dict[str, int],
        members: dict[str, dict[str, list[int]]],
        outputs: int,
        *,
        dim: int,
        heads: int,
        dropout: float,
    ):
        super().__init__()
        self.genes = nn.ModuleDict({k: GeneTokens(genes[k], members[k], dim, dropout) for k in SUBSPACES})
        self.project = nn.ModuleDict({level: Projection(width, dim, dropout) for level, width in features.items()})
        self.fusion = nn.ModuleDict(
            {level: nn.ModuleDict({k: SubspaceFusion(dim, heads, dropout) for k in SUBSPACES}) for level in features}
        )
        self.head = nn.ModuleDict({level: nn.Linear(len(SUBSPACES) * dim, outputs) for level in features})

    def forward(self, batch: dict) -> dict[str, dict[str, Tensor]]:
        """`batch['tokens'][level]` [B, N, F], `['mask'][level]` [B, N], `['genes'][subspace]` [B, n].

        Returns `logits`: level -> [B, C], and each subspace: level -> [B, d].
        """
        genes = {k: self.genes[k](batch["genes"][k]) for k in SUBSPACES}
        output: dict[str, dict[str, Tensor]] = {"logits": {}, **{k: {} for k in SUBSPACES}}
        for level, project in self.project.items():
            tiles, mask = project(batch["tokens"][level]), batch["mask"][level]
            for k in SUBSPACES:
                output[k][level] = self.fusion[level][k](genes[k], tiles, mask)
            output["logits"][level] = self.head[level](torch.cat([output[k][level] for k in SUBSPACES], dim=-1))
        return output


class SubspacePooling(nn.Module):
    """Tiles -> one token a subspace, by prototypes and importance (specification §2.8, proposal).

    Token i belongs to subspace k with p_ik = softmax_k(x_i · c_k / √d); within k, tiles are weighted by
    softmax_i(log p_ik + importance_ik). The order of the tokens is fixed by the prototypes, padded tiles weigh 0, and
    memory is linear in N.
    """

    def __init__(self, dim: int):
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.prototypes = nn.Parameter(torch.randn(len(SUBSPACES), dim) / dim**0.5)
        self.importance = Gate(dim, heads=len(SUBSPACES))

    def forward(self, tiles: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Tiles [B, N, d] -> tokens [B, 2, d], assignment p [B, N, 2], weights [B, 2, N] (each row sums to 1)."""
        tiles = self.norm(tiles)
        membership = torch.log_softmax(tiles @ self.prototypes.T / tiles.shape[-1] ** 0.5, dim=-1)
        scores = (membership + self.importance(tiles)).transpose(1, 2)
        weights = masked_softmax(scores, mask[:, None, :])
        return weights @ tiles, membership.exp(), weights


class Student(nn.Module):
    """The slide alone -> subspace features and logits at every level. No gene enters anywhere."""

    def __init__(self, features: dict[str, int], outputs: int, *, dim: int, dropout: float):
        super().__init__()
        self.project = nn.ModuleDict({level: Projection(width, dim, dropout) for level, width in features.items()})
        self.pool = nn.ModuleDict({level: SubspacePooling(dim) for level in features})
        self.read_out = nn.ModuleDict(
            {level: nn.ModuleDict({k: _read_out(dim, dim, dropout) for k in SUBSPACES}) for level in features}
        )
        self.head = nn.ModuleDict({level: nn.Linear(len(SUBSPACES) * dim, outputs) for level in features})

    def forward(self, batch: dict) -> dict[str, dict[str, Tensor]]:
        """As `Teacher.forward`, without genes; also `weights`: level -> [B, 2, N]."""
        output: dict[str, dict[str, Tensor]] = {"logits": {}, "weights": {}, **{k: {} for k in SUBSPACES}}
        for level, project in self.project.items():
            tiles = project(batch["tokens"][level])
            tokens, _, output["weights"][level] = self.pool[level](tiles, batch["mask"][level])
            for index, k in enumerate(SUBSPACES):
                output[k][level] = self.read_out[level][k](tokens[:, index])
            output["logits"][level] = self.head[level](torch.cat([output[k][level] for k in SUBSPACES], dim=-1))
        return output
