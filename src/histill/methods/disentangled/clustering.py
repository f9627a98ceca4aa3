"""Density-peak clustering of tokens and their weighted merging, in memory linear in the number of tokens.

Centres are tokens that are dense and far from any denser token (Rodriguez & Laio, Science 2014), with the density taken
over the nearest neighbours (DPC-KNN: Du et al., Knowledge-Based Systems 2016), as specification §2.8 has it. Notation:
B patients, N tokens (padded), d width, K clusters, C candidates for centres.
"""

from __future__ import annotations

import torch
from torch import Tensor

CANDIDATES = 2048
CHUNK = 256


def merge_tokens(
    tokens: Tensor,
    weights: Tensor,
    mask: Tensor,
    kept: int,
    *,
    neighbours: int = 5,
    candidates: int = CANDIDATES,
    chunk: int = CHUNK,
    noise: float = 0.0,
) -> tuple[Tensor, Tensor, Tensor]:
    """Cluster each patient's tokens and merge every cluster into its weighted mean.

    The clusters are found without gradient; it flows through the means to tokens and weights. The largest blocks in
    memory are [chunk, N] and [B, kept, N].

    Parameters
    ----------
    tokens
        [B, N, d].
    weights
        [B, N], at least 0: the importance of a token in its cluster's mean.
    mask
        [B, N]: False where padded.
    kept
        Clusters a patient, K.
    neighbours, candidates, chunk, noise
        As in `cluster_tokens`.

    Returns
    -------
    merged
        [B, K, d], the densest cluster first; zeros where a cluster has no weight.
    cluster
        [B, N] int64, −1 where padded.
    share
        [B, K], the part of the patient's weight that is in the cluster; 0 where it has no token. Sums to 1 unless all
        weights are 0.
    """
    cluster = torch.full_like(mask, -1, dtype=torch.long)
    for patient, real in enumerate(mask):
        cluster[patient, real] = cluster_tokens(
            tokens[patient, real],
            weights[patient, real],
            kept,
            neighbours=neighbours,
            candidates=candidates,
            chunk=chunk,
            noise=noise,
        )
    with torch.autocast(tokens.device.type, enabled=False):
        within, share = cluster_weights(cluster, weights, kept)
        return within @ tokens.float().masked_fill(~mask.unsqueeze(-1), 0), cluster, share


def cluster_weights(cluster: Tensor, weights: Tensor, kept: int) -> tuple[Tensor, Tensor]:
    """Weights inside each cluster [B, K, N], each row summing to 1 (0 without weight), and the shares [B, K]."""
    members = cluster.unsqueeze(1) == torch.arange(kept, device=cluster.device).unsqueeze(-1)
    within = weights.float().unsqueeze(1).masked_fill(~members, 0)
    total = within.sum(dim=-1)
    tiny = torch.finfo(total.dtype).tiny
    return within / total.clamp(min=tiny).unsqueeze(-1), total / total.sum(dim=-1, keepdim=True).clamp(min=tiny)


@torch.no_grad()
def cluster_tokens(
    tokens: Tensor,
    weights: Tensor,
    kept: int,
    *,
    neighbours: int = 5,
    candidates: int = CANDIDATES,
    chunk: int = CHUNK,
    noise: float = 0.0,
) -> Tensor:
    """Cluster [N] int64 of every token of one patient, by DPC-KNN.

    With D the Euclidean distance over √d, a token's density is exp(−mean of its `neighbours` smallest D², its own
    included), its separation the smallest D to a denser token. The `kept` tokens of largest density · separation are
    the centres; the densest token is always the first. Every token joins its nearest centre. Ties go to the token that
    comes first, so without noise the result is a function of the tokens.

    Parameters
    ----------
    tokens
        [N, d].
    weights
        [N]. They choose the candidates, and nothing else, here.
    kept
        Clusters; with fewer tokens than that every token is its own.
    neighbours
        Neighbours in the density; all tokens count as neighbours.
    candidates
        With more tokens than this, only the most weighted ones can be centres: time is O(N · candidates) instead of
        O(N²). Exact up to it. At least `kept` are taken.
    chunk
        Rows of a block of distances.
    noise
        Uniform noise on the density, up to this. The public code adds 1e-6, which makes ties random.
    """
    count = len(tokens)
    if kept == 1 or count == 0:
        return torch.zeros(count, dtype=torch.long, device=tokens.device)
    tokens = tokens.float()
    candidate = _first_largest(weights, max(candidates, kept)).sort().values
    density = _log_density(tokens, tokens[candidate], neighbours, chunk)
    if noise:
        density = (density.exp() + noise * torch.rand_like(density)).log()
    density, rank = density.sort(descending=True, stable=True)
    candidate = candidate[rank]
    score = density + _separation(tokens[candidate], chunk).log()
    centre = candidate[_first_largest(score, kept)]
    nearest = [torch.cdist(part, tokens[centre]).min(dim=1).indices for part in tokens.split(chunk)]
    cluster = torch.cat(nearest)
    cluster[centre] = torch.arange(len(centre), device=tokens.device)
    return cluster


def _first_largest(values: Tensor, count: int) -> Tensor:
    """Positions of the `count` largest values; ties by position (which `topk` does not promise)."""
    return values.sort(descending=True, stable=True).indices[:count]


def _log_density(tokens: Tensor, candidates: Tensor, neighbours: int, chunk: int) -> Tensor:
    """Logarithm of the candidates' density [C] among all tokens; as a logarithm it does not underflow."""
    neighbours = min(neighbours, len(tokens))
    nearest = [torch.cdist(part, tokens).topk(neighbours, largest=False).values for part in candidates.split(chunk)]
    return -torch.cat(nearest).square().mean(dim=1) / tokens.shape[1]


def _separation(ranked: Tensor, chunk: int) -> Tensor:
    """Smallest distance [C] of each candidate to one before it, in falling density; infinite for the first.

    The public code gives the first the largest distance of all, which ranks the same: nothing can exceed its score.
    """
    smallest = []
    for start in range(0, len(ranked), chunk):
        part = ranked[start : start + chunk]
        distance = torch.cdist(part, ranked[: start + len(part)])
        later = torch.ones_like(distance, dtype=torch.bool).triu(start)
        smallest.append(distance.masked_fill(later, torch.inf).min(dim=1).values)
    return torch.cat(smallest)
