"""MCAT (Chen et al., ICCV 2021): groups of genes attend to the tiles, then both sets are read by transformers.

Notation: B patients, N tiles (padded), F features a tile, n genes, J gene groups, d width, C logits.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from histill.errors import HistillError
from histill.methods.attention import CrossAttention, Gate
from histill.methods.baselines.snn import SelfNormalising
from histill.subspaces import GENES


class MCAT(nn.Module):
    """Slide and genes -> logits at every level.

    The gene groups' embeddings serve all levels; each level has all else of its own.

    Parameters
    ----------
    features
        Level -> F.
    outputs
        C.
    groups
        Gene group -> positions of its genes in the expression vector; one without a gene is left out.
    dim, heads, layers
        d, and the two transformers' heads and layers.

    Raises
    ------
    HistillError
        If no group has a gene.
    """

    magnifications = "mean"

    def __init__(
        self,
        features: dict[str, int],
        outputs: int,
        groups: dict[str, list[int]],
        *,
        dim: int,
        heads: int,
        layers: int,
        dropout: float,
    ):
        super().__init__()
        self.embed = GroupEmbedding(groups, dim, dropout)
        options = {"dim": dim, "heads": heads, "layers": layers, "dropout": dropout}
        self.levels = nn.ModuleDict(
            {level: CoAttention(width, outputs, **options) for level, width in features.items()}
        )

    def forward(self, batch: dict) -> dict[str, dict]:
        """`batch['tokens'][level]` [B, N, F], `['mask'][level]` [B, N], `['genes']['genes']` [B, n].

        Returns
        -------
        `logits`: level -> [B, C]; `attention`: group -> level -> [B, N], which sums to 1 over the tiles of a patient.
        """
        genes = self.embed(batch["genes"][GENES])
        logits, attention = {}, {name: {} for name in self.embed.names}
        for level, read in self.levels.items():
            logits[level], weights = read(genes, batch["tokens"][level], batch["mask"][level])
            for name, own in zip(self.embed.names, weights.unbind(dim=1), strict=True):
                attention[name][level] = own
        return {"logits": logits, "attention": attention}


class GroupEmbedding(nn.Module):
    """A self-normalising network a gene group (§3.2, genomic bag): expression [B, n] -> [B, J, d]."""

    def __init__(self, groups: dict[str, list[int]], dim: int, dropout: float):
        super().__init__()
        members = {name: positions for name, positions in groups.items() if positions}
        if not members:
            raise HistillError(
                f"no gene of the groups {', '.join(groups)} is in the expression table",
                mend="name genes by their current HGNC symbols, or take 'mcat' out of the methods",
            )
        self.names = list(members)
        self.sizes = [len(positions) for positions in members.values()]
        positions = torch.tensor([row for rows in members.values() for row in rows])
        self.register_buffer("positions", positions, persistent=False)
        self.encoders = nn.ModuleList(SelfNormalising(size, dim, layers=2, dropout=dropout) for size in self.sizes)

    def forward(self, genes: Tensor) -> Tensor:
        parts = genes[:, self.positions].split(self.sizes, dim=1)
        return torch.stack([encode(part) for encode, part in zip(self.encoders, parts, strict=True)], dim=1)


class CoAttention(nn.Module):
    """One level: co-attention, two set transformers, late fusion.

    With tiles H [N, d] and gene groups G [J, d], genes guide the attention softmax(G W_q (H W_k)ᵀ / √d) H W_v, one
    row a group (eq. 3 of the paper); what it gives, and G itself, each go through a transformer and gated pooling, and
    both vectors together through two layers to the logits.
    """

    def __init__(self, features: int, outputs: int, *, dim: int, heads: int, layers: int, dropout: float):
        super().__init__()
        self.project = nn.Sequential(nn.Linear(features, dim), nn.ReLU(), nn.Dropout(dropout))
        self.attend = CrossAttention(dim, heads=1)
        self.slide, self.genes = (SetTransformer(dim, heads, layers, dropout) for _ in range(2))
        self.fuse = nn.Sequential(nn.Linear(2 * dim, dim), nn.ReLU(), nn.Linear(dim, dim), nn.ReLU())
        self.head = nn.Linear(dim, outputs)

    def forward(self, genes: Tensor, tiles: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Gene groups [B, J, d], tiles [B, N, F], True at real ones [B, N] -> logits [B, C], attention [B, J, N]."""
        seen, attention = self.attend(genes, self.project(tiles), mask)
        both = torch.cat([self.slide(seen), self.genes(genes)], dim=1)
        return self.head(self.fuse(both)), attention.squeeze(1)


class SetTransformer(nn.Module):
    """Vectors of a set [B, J, d] -> one [B, d]: transformer without positions, gated attention pooling, a layer."""

    def __init__(self, dim: int, heads: int, layers: int, dropout: float):
        super().__init__()
        layer = nn.TransformerEncoderLayer(dim, heads, 2 * dim, dropout, batch_first=True)
        self.transformer = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.gate = Gate(dim)
        self.out = nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Dropout(dropout))

    def forward(self, vectors: Tensor) -> Tensor:
        vectors = self.transformer(vectors)
        weights = torch.softmax(self.gate(vectors).squeeze(-1), dim=-1)
        return self.out((weights.unsqueeze(1) @ vectors).squeeze(1))
