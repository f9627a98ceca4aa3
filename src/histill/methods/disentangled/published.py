"""The networks as published: the preset that reproduces the public modules of arXiv 2508.16479 (specification §2).

What is degenerate in the published design stays so and is said where it is; the default networks are mended. Notation:
B patients, N tiles (padded), F features a tile, S side of the token map, S² its slots, d model width, H heads, M
sampled points (144 at S = 50), K subspaces, C logits.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from histill.methods.disentangled.clustering import cluster_weights, merge_tokens
from histill.methods.disentangled.deformable import DeformableCrossAttention
from histill.methods.disentangled.model import levels
from histill.methods.disentangled.token_map import TokenMap

OMICS_WIDTHS = (64, 48, 32)
DENSITY_NOISE = 1e-6


class OmicsEncoder(nn.Module):
    """Genes of a subspace [B, n] -> [B, d]: a self-normalising network (Klambauer et al., NeurIPS 2017), then ReLU.

    Four blocks of linear, ELU and alpha dropout. Weights start as N(0, 1 / inputs).
    """

    def __init__(self, genes: int, outputs: int, dim: int, dropout: float):
        super().__init__()
        widths = [genes, *OMICS_WIDTHS, dim]
        blocks = [(nn.Linear(into, out), nn.ELU(), nn.AlphaDropout(dropout)) for into, out in pairwise(widths)]
        self.layers = nn.Sequential(*(layer for block in blocks for layer in block), nn.ReLU())
        self.unused = _unused(nn.Linear(dim, outputs))
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, std=layer.in_features**-0.5)
                nn.init.zeros_(layer.bias)

    def forward(self, genes: Tensor) -> Tensor:
        return self.layers(genes)


class ReadOut(nn.Module):
    """Fused tokens [B, S², d] and the genes' vector [B, 1, d] -> [B, d] in (−1, 1).

    The attention has a single key, so its softmax is 1 and it adds one and the same shift to every token.
    """

    def __init__(self, dim: int, heads: int, dropout: float):
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.attention = nn.MultiheadAttention(dim, heads, dropout=dropout, batch_first=True)
        self.pool = nn.Linear(dim, dim)

    def forward(self, tokens: Tensor, genes: Tensor) -> Tensor:
        key = self.norm(genes)
        attended, _ = self.attention(self.norm(tokens), key, key, need_weights=False)
        return torch.tanh(self.pool(self.norm(tokens + attended).mean(dim=1)))


class TeacherLevel(nn.Module):
    """The teacher at one magnification, but for its head (specification §2.4).

    Every query of a subspace's deformable attention is the same genes' vector, so the map differs between slots by the
    position bias alone. The two subspaces are mixed in one linear layer before their read-outs.
    """

    def __init__(
        self, features: int, subspaces: list[str], dim: int, heads: int, head_dim: int, side: int, dropout: float
    ):
        super().__init__()
        self.project = nn.Sequential(nn.Linear(features, dim), nn.ReLU())
        self.norm, self.norm_read = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attention = nn.ModuleDict(
            {k: DeformableCrossAttention(dim, heads, head_dim, side, dropout=dropout) for k in subspaces}
        )
        self.fuse = nn.Linear(len(subspaces) * dim, dim)
        self.read_out = nn.ModuleDict({k: ReadOut(dim, heads, dropout) for k in subspaces})
        self.feature = nn.ModuleDict({k: nn.Linear(dim, dim) for k in subspaces})

    def shared(self) -> list[nn.Parameter]:
        """What every subspace passes through."""
        return [p for part in (self.project, self.norm, self.fuse, self.norm_read) for p in part.parameters()]

    def forward(self, tokens: Tensor, genes: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Tokens [B, S², F], genes: subspace -> [B, d]. By subspace: features [B, d], maps [B, H, S², M]."""
        context = self.norm(self.project(tokens))
        maps, attended = {}, []
        for k, attend in self.attention.items():
            queries = genes[k].unsqueeze(1).expand_as(context)
            values, maps[k] = attend(self.norm(queries), context)
            attended.append(queries + values)
        fused = self.norm(self.fuse(torch.cat(attended, dim=-1)))
        features = {}
        for k, read_out in self.read_out.items():
            read = read_out(fused, self.norm(genes[k]).unsqueeze(1))
            features[k] = torch.tanh(self.feature[k](self.norm_read(read)))
        return features, maps


class PublishedTeacher(nn.Module):
    """Slide and genes -> subspace features and logits at every level, as published.

    With two levels of 1,024 features, 59 and 361 genes and 4 logits it has 1,150,132 parameters: 552,134 a level with
    its head, 13,268 and 32,596 in the genes' encoders. These hold a head that is never used (516 each): it is kept for
    the count, and takes no gradient.

    Parameters
    ----------
    features
        Level -> F.
    genes
        Subspace -> number of genes.
    members, queries, context
        Of the default network, taken so that both are built alike; gene sets and places play no part here.
    outputs
        C.
    dim, heads, head_dim
        d, H, and the width of a deformable head. `dim` is a multiple of `heads`.
    side
        S: a bag becomes S² tokens.
    dropout
        Of attention weights. Published: 0.1.
    gene_dropout
        Alpha dropout of the genes' encoders. Published: 0.1, survival 0.01.
    magnifications
        How magnifications are combined (`histill.methods.outputs.fuse`).
    """

    def __init__(
        self,
        features: dict[str, int],
        genes: dict[str, int],
        members: dict[str, dict[str, list[int]]] | None,
        outputs: int,
        *,
        dim: int = 128,
        heads: int = 8,
        head_dim: int = 64,
        side: int = 50,
        dropout: float = 0.1,
        gene_dropout: float = 0.1,
        queries: str = "sets",
        context: int = 0,
        magnifications: str = "most_confident",
    ):
        super().__init__()
        self.subspaces, self.side, self.magnifications = list(genes), side, magnifications
        self.genes = nn.ModuleDict({k: OmicsEncoder(n, outputs, dim, gene_dropout) for k, n in genes.items()})
        shape = (dim, heads, head_dim, side, dropout)
        self.level = nn.ModuleDict(
            {level: TeacherLevel(width, self.subspaces, *shape) for level, width in features.items()}
        )
        self.head = nn.ModuleDict({level: nn.Linear(len(genes) * dim, outputs) for level in features})

    def shared_parameters(self) -> list[nn.Parameter]:
        """What the subspaces learn together: tile projections, fusion layers and shared norms."""
        return [parameter for network in self.level.values() for parameter in network.shared()]

    def forward(self, batch: dict) -> dict[str, dict]:
        """`batch['tokens'][level]` [B, N, F], `['mask'][level]` [B, N], `['genes'][subspace]` [B, n].

        Returns
        -------
        logits
            Level -> [B, C].
        features
            Subspace -> level -> [B, d] in (−1, 1).
        attention
            Subspace -> level -> [B, N], sums to 1 over the tiles: per slot the mean over points of the maximum over
            heads, as in the published figures, summed over a tile's slots. Without gradient.
        maps
            Subspace -> level -> attention of the slots to the sampled points [B, H, S², M].
        """
        genes = {k: encode(batch["genes"][k]) for k, encode in self.genes.items()}
        output: dict[str, dict] = {"logits": {}}
        output |= {name: {k: {} for k in self.subspaces} for name in ("features", "attention", "maps")}
        for level, tokens, _, mask in levels(batch, self.level):
            bag = TokenMap.of(tokens, mask, self.side)
            features, maps = self.level[level](bag.tokens, genes)
            for k in self.subspaces:
                output["features"][k][level], output["maps"][k][level] = features[k], maps[k]
                output["attention"][k][level] = _tile_attention(maps[k], bag)
            output["logits"][level] = self.head[level](torch.cat([features[k] for k in self.subspaces], dim=-1))
        return output


class StudentLevel(nn.Module):
    """The student at one magnification, but for its head: deformable self-attention, then K clusters (§2.8)."""

    def __init__(self, features: int, clusters: int, dim: int, heads: int, head_dim: int, side: int, dropout: float):
        super().__init__()
        self.clusters = clusters
        self.project = nn.Sequential(nn.Linear(features, dim), nn.ReLU())
        self.norm, self.norm_merge = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attention = DeformableCrossAttention(dim, heads, head_dim, side, dropout=dropout)
        self.score = nn.Linear(dim, 1)
        self.unused = _unused(nn.ModuleDict({"pool": nn.Linear(dim, dim), "norm": nn.LayerNorm(dim)}))

    def forward(self, tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Tokens [B, S², F], mask [B, S²].

        Returns merged tokens [B, K, d], the cluster of every slot [B, S²], the weights of slots inside their cluster
        [B, K, S²], and the attention map [B, H, S², M].
        """
        tiles = self.project(tokens)
        normed = self.norm(tiles)
        attended, maps = self.attention(normed, normed)
        tokens = self.norm_merge(tiles + attended)
        score = self.score(tokens).squeeze(-1).float()
        # The published exp(score), but for a factor a patient, which the mean over a cluster does not see.
        weights = (score - score.detach().amax(dim=1, keepdim=True)).exp()
        noise = DENSITY_NOISE if self.training else 0.0
        slots = tokens.shape[1]
        merged, cluster, _ = merge_tokens(tokens, weights, mask, self.clusters, candidates=slots, noise=noise)
        return merged, cluster, cluster_weights(cluster, weights.detach(), self.clusters)[0], maps


class PublishedStudent(nn.Module):
    """The slide alone -> subspace features and logits at every level, as published.

    The features are the means of two clusters, in the order of their density. So the names of the subspaces are empty:
    which cluster is first depends on the slide, and distillation pulls them towards tumour and microenvironment in
    whatever order they come. In evaluation the clusters are deterministic, in training their density has the published
    noise.

    With two levels of 1,024 features, two subspaces and 4 logits it has 487,116 parameters, 243,558 a level with its
    head. A pooling layer and a norm of each level (16,768) are never used: they are kept for the count, and take no
    gradient.

    Parameters
    ----------
    features, outputs, dim, heads, head_dim, side, dropout, magnifications
        As in `PublishedTeacher`.
    subspaces
        Their names, in the teacher's order: as many clusters.
    aggregation, tokens, context
        Of the default network, taken so that both are built alike; here every subspace has one token, a cluster's mean.
    """

    def __init__(
        self,
        features: dict[str, int],
        outputs: int,
        subspaces: list[str],
        *,
        dim: int = 128,
        heads: int = 8,
        head_dim: int = 64,
        side: int = 50,
        dropout: float = 0.1,
        aggregation: str = "prototypes",
        tokens: int = 1,
        context: int = 0,
        magnifications: str = "most_confident",
    ):
        super().__init__()
        self.subspaces, self.side, self.magnifications = list(subspaces), side, magnifications
        self.has_prototypes = False
        count, shape = len(self.subspaces), (dim, heads, head_dim, side, dropout)
        self.level = nn.ModuleDict({level: StudentLevel(width, count, *shape) for level, width in features.items()})
        self.head = nn.ModuleDict({level: nn.Linear(count * dim, outputs) for level in features})

    def forward(self, batch: dict) -> dict[str, dict]:
        """As `PublishedTeacher.forward`, without genes.

        `features` are not bounded here, and zero for a patient without tiles. `attention` are the weights inside a
        cluster. `maps`: `slide` -> level -> [B, H, S², M]. Also:

        assignment
            Level -> [B, N, K]: the part of a tile's slots in each cluster; zeros for a tile that is in no slot.
        kept
            Level -> int64 [B, K]: 1, or 0 where the cluster is empty.
        """
        output: dict[str, dict] = {"logits": {}, "assignment": {}, "kept": {}, "maps": {"slide": {}}}
        output |= {name: {k: {} for k in self.subspaces} for name in ("features", "attention")}
        for level, tokens, _, mask in levels(batch, self.level):
            bag = TokenMap.of(tokens, mask, self.side)
            merged, cluster, weights, output["maps"]["slide"][level] = self.level[level](bag.tokens, bag.slots >= 0)
            attention = bag.to_tiles(weights)
            for index, k in enumerate(self.subspaces):
                output["features"][k][level], output["attention"][k][level] = merged[:, index], attention[:, index]
            output["assignment"][level], output["kept"][level] = _assignment(cluster, len(self.subspaces), bag)
            output["logits"][level] = self.head[level](merged.flatten(1))
        return output


def _unused(module: nn.Module) -> nn.Module:
    """A module that is counted as published and trained by nothing."""
    return module.requires_grad_(False)


@torch.no_grad()
def _tile_attention(maps: Tensor, bag: TokenMap) -> Tensor:
    """Attention [B, H, S², M] -> weights of tiles [B, N]."""
    weights = maps.float().amax(dim=1).mean(dim=-1)
    return bag.to_tiles(weights / weights.sum(dim=-1, keepdim=True))


def _assignment(cluster: Tensor, clusters: int, bag: TokenMap) -> tuple[Tensor, Tensor]:
    """Clusters of slots [B, S²] -> assignment of tiles [B, N, K] and tokens kept [B, K]."""
    members = cluster.unsqueeze(1) == torch.arange(clusters, device=cluster.device).unsqueeze(-1)
    count = bag.to_tiles(members)
    return (count / count.sum(dim=1, keepdim=True).clamp(min=1)).transpose(1, 2), members.any(dim=-1).long()
