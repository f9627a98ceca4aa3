"""Teacher and student networks of the `default` preset (specification §7).

Notation: B patients, N tiles (padded), F features a tile, d model width, J gene tokens of a subspace, C logits, K
subspaces (`tumor` and `microenvironment`; one, `joint`, where fusion is not disentangled). Levels are magnifications.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from histill.methods.attention import CrossAttention, Projection
from histill.methods.context import LocalContext
from histill.methods.disentangled.aggregation import MeanAggregation, PrototypeAggregation


class SetTokens(nn.Module):
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


class GeneTokens(nn.Module):
    """Genes of a subspace [B, n] -> one token a gene [B, n, d]: its own direction, as long as it is expressed."""

    def __init__(self, genes: int, dim: int, dropout: float):
        super().__init__()
        self.direction = nn.Parameter(torch.randn(genes, dim))
        self.bias = nn.Parameter(torch.randn(genes, dim))
        self.shared = nn.Sequential(nn.Linear(dim, dim), nn.ELU(), nn.Dropout(dropout), nn.LayerNorm(dim))

    def forward(self, genes: Tensor) -> Tensor:
        return self.shared(genes[..., None] * self.direction + self.bias)


class TileTokens(nn.Module):
    """Features of a magnification [B, N, F] -> tokens [B, N, d] that know their neighbourhood."""

    def __init__(self, features: int, dim: int, dropout: float, context: int):
        super().__init__()
        self.project = Projection(features, dim, dropout)
        self.context = LocalContext(dim, context) if context else None

    def forward(self, tokens: Tensor, cells: Tensor | None, mask: Tensor) -> Tensor:
        tokens = self.project(tokens)
        return tokens if self.context is None or cells is None else self.context(tokens, cells, mask)


def levels(batch: dict, known: nn.ModuleDict) -> Iterator[tuple[str, Tensor, Tensor | None, Tensor]]:
    """(level, tokens, cells or None, mask) of the magnifications that both the batch and the network have."""
    for level in known:
        if level in batch["tokens"]:
            yield level, batch["tokens"][level], batch.get("cells", {}).get(level), batch["mask"][level]


def _read_out(width: int, dim: int, dropout: float) -> nn.Sequential:
    """Tokens [B, width] -> subspace feature [B, d]."""
    return nn.Sequential(
        nn.LayerNorm(width), nn.Linear(width, dim), nn.GELU(), nn.Dropout(dropout), nn.Linear(dim, dim)
    )


class SubspaceFusion(nn.Module):
    """Gene tokens of a subspace query the tiles; the read-out stays inside the subspace (specification §7, 3-4).

    Beside the gene tokens, `places` learned queries, the same for every patient, ask the tiles. What they find is the
    evidence of the slide: attention that a patient's genes steer would carry the genes into it, and expression could be
    told from any tiles at all. So it is these queries that learn which tiles belong to the subspace.
    """

    def __init__(self, dim: int, heads: int, dropout: float, places: int):
        super().__init__()
        self.places = nn.Parameter(torch.randn(places, dim))
        self.norm_genes, self.norm_tiles = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attention = CrossAttention(dim, heads)
        self.read_out = _read_out(2 * dim, dim, dropout)

    def forward(self, genes: Tensor, tiles: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Gene tokens [B, J, d], tiles [B, N, d], mask [B, N].

        Returns the subspace feature [B, d] in (−1, 1), the evidence of the slide [B, d], and the subspace's tiles:
        where the learned queries look [B, N], mean over heads and queries.
        """
        count = genes.shape[1]
        queries = torch.cat([self.norm_genes(genes), self.places.expand(len(genes), -1, -1)], dim=1)
        attended, attention = self.attention(queries, self.norm_tiles(tiles), mask)
        guided, evidence = attended[:, :count].mean(dim=1), attended[:, count:].mean(dim=1)
        feature = self.read_out(torch.cat([guided + evidence, genes.mean(dim=1)], dim=-1))
        return torch.tanh(feature), evidence, attention[:, :, count:].mean(dim=(1, 2))


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
    gene_dropout
        Share of the genes that a training step does not see.
    queries
        Gene tokens: one a gene set (`sets`), or one a gene (`genes`).
    context
        Edge of the neighbourhood a tile knows, in tiles; 0 for none.
    magnifications
        How magnifications are combined (`histill.methods.outputs.fuse`).
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
        gene_dropout: float = 0.0,
        queries: str = "sets",
        context: int = 0,
        magnifications: str = "mean",
    ):
        super().__init__()
        self.subspaces, self.magnifications = list(genes), magnifications
        self.drop_genes = nn.Dropout(gene_dropout)
        self.genes = nn.ModuleDict(
            {
                k: SetTokens(n, members[k], dim, dropout) if queries == "sets" else GeneTokens(n, dim, dropout)
                for k, n in genes.items()
            }
        )
        self.tiles = nn.ModuleDict({name: TileTokens(f, dim, dropout, context) for name, f in features.items()})
        self.fusion = nn.ModuleDict(
            {
                level: nn.ModuleDict({k: SubspaceFusion(dim, heads, dropout, len(members[k])) for k in genes})
                for level in features
            }
        )
        self.head = nn.ModuleDict({level: nn.Linear(len(genes) * dim, outputs) for level in features})
        # Two ways back to the expression: from the slide's evidence alone, and from the whole feature.
        self.tell = nn.ModuleDict({k: nn.Linear(dim, n) for k, n in genes.items()})
        self.rebuild = nn.ModuleDict({k: nn.Linear(dim, n) for k, n in genes.items()})

    def shared_parameters(self) -> list[nn.Parameter]:
        """What both subspaces learn together: the way from features to tile tokens."""
        return list(self.tiles.parameters())

    def forward(self, batch: dict) -> dict[str, dict]:
        """`batch['genes'][subspace]` [B, n] and the bags (docs/architecture.md, Batches).

        Returns `logits`: level -> [B, C]; by subspace and level `features` [B, d], `attention` [B, N], `seen` [B, d]
        (its tiles, by their weights), `told` and `rebuilt` [B, n] (its expression, from the slide alone and from the
        feature).
        """
        names = ("features", "attention", "seen", "told", "rebuilt")
        output: dict[str, dict] = {"logits": {}, **{name: {k: {} for k in self.genes} for name in names}}
        genes = {k: encode(self.drop_genes(batch["genes"][k])) for k, encode in self.genes.items()}
        for level, tokens, cells, mask in levels(batch, self.tiles):
            tiles = self.tiles[level](tokens, cells, mask)
            for k, fusion in self.fusion[level].items():
                feature, evidence, attention = fusion(genes[k], tiles, mask)
                output["features"][k][level], output["attention"][k][level] = feature, attention
                output["seen"][k][level] = (attention.unsqueeze(1) @ tiles).squeeze(1)
                output["told"][k][level] = self.tell[k](evidence)
                output["rebuilt"][k][level] = self.rebuild[k](feature)
            joined = torch.cat([output["features"][k][level] for k in self.subspaces], dim=-1)
            output["logits"][level] = self.head[level](joined)
        return output


class Student(nn.Module):
    """The slide alone -> subspace features and logits at every level. No gene enters anywhere.

    Parameters
    ----------
    features
        Level -> F.
    subspaces
        Their names, in the teacher's order.
    aggregation
        `prototypes`, or `mean` (no aggregation by subspace).
    tokens
        Merged tokens of each subspace.
    context, magnifications
        As for `Teacher`.
    """

    def __init__(
        self,
        features: dict[str, int],
        outputs: int,
        subspaces: list[str],
        *,
        dim: int,
        dropout: float,
        aggregation: str = "prototypes",
        tokens: int = 1,
        context: int = 0,
        magnifications: str = "mean",
    ):
        super().__init__()
        self.subspaces, self.magnifications = list(subspaces), magnifications
        self.has_prototypes = aggregation == "prototypes"
        count = len(self.subspaces)
        self.tiles = nn.ModuleDict({name: TileTokens(f, dim, dropout, context) for name, f in features.items()})
        self.aggregate = nn.ModuleDict(
            {
                level: PrototypeAggregation(dim, count, tokens)
                if aggregation == "prototypes"
                else MeanAggregation(dim, count)
                for level in features
            }
        )
        self.read_out = nn.ModuleDict(
            {level: nn.ModuleDict({k: _read_out(dim, dim, dropout) for k in subspaces}) for level in features}
        )
        self.head = nn.ModuleDict({level: nn.Linear(count * dim, outputs) for level in features})

    def forward(self, batch: dict) -> dict[str, dict]:
        """The bags (docs/architecture.md, Batches); genes are not looked at.

        Returns `logits`: level -> [B, C]; `features` and `attention` as `Teacher.forward`; by level `assignment`
        [B, N, K] of tiles to subspaces and `kept` [B, K], the number of merged tokens.
        """
        output: dict[str, dict] = {"logits": {}, "assignment": {}, "kept": {}}
        output |= {name: {k: {} for k in self.subspaces} for name in ("features", "attention")}
        for level, tokens, cells, mask in levels(batch, self.tiles):
            merged = self.aggregate[level](self.tiles[level](tokens, cells, mask), mask)
            for index, k in enumerate(self.subspaces):
                read = self.read_out[level][k](merged.tokens[:, index])
                feature = torch.tanh((merged.share[:, index, :, None] * read).sum(dim=1))
                output["features"][k][level], output["attention"][k][level] = feature, merged.weights[:, index]
            output["logits"][level] = self.head[level](
                torch.cat([output["features"][k][level] for k in self.subspaces], dim=-1)
            )
            output["assignment"][level], output["kept"][level] = merged.assignment, merged.kept
        return output
