"""Nearest cases: exact in blocks, or approximate and ranked again (specification §5).

Notation: Q queries, M keys, k neighbours, D features; a block is so many queries at once.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from histill.errors import HistillError
from histill.methods.msrl.graph import Similarity, same_case

BLOCK = 1024
OVERFETCH = 4  # candidates that are ranked again, for one neighbour


@dataclass(frozen=True)
class Neighbours:
    """The nearest keys of some queries.

    Attributes
    ----------
    index
        Their rows [Q, k], nearest first.
    found
        False [Q, k] where there was no further key; the index there means nothing.
    """

    index: Tensor
    found: Tensor


def exact(
    queries: Tensor,
    keys: Tensor,
    count: int,
    similarity: Similarity,
    *,
    cases: tuple[Tensor, Tensor],
    block: int = BLOCK,
) -> Neighbours:
    """The most similar keys of every query by comparing all, in memory of block × M.

    Parameters
    ----------
    queries, keys
        [Q, D] and [M, D].
    count
        k; fewer where there are fewer keys.
    cases
        Codes of their cases, [Q] and [M]: keys of the query's own case are none of its neighbours.
    """
    count = min(count, len(keys))
    parts = []
    with torch.no_grad():
        for rows, own in zip(queries.split(block), cases[0].split(block), strict=True):
            values = similarity(rows, keys).masked_fill_(same_case(own, cases[1]), -torch.inf)
            parts.append(values.topk(count, dim=1))
    return _joined([part.indices for part in parts], [part.values > -torch.inf for part in parts], count, keys)


def rank(
    queries: Tensor,
    keys: Tensor,
    candidates: Neighbours,
    count: int,
    similarity: Similarity,
    *,
    cases: tuple[Tensor, Tensor],
    block: int = BLOCK,
) -> Neighbours:
    """The best of some candidates [Q, c] by similarities in double precision, equal ones in the order of their rows.

    The rounding of a product of matrices, which depends on what a query is asked together with, so does not choose
    between keys. Other arguments are those of `exact`.
    """
    count = min(count, candidates.index.shape[1])
    indices, found = [], []
    with torch.no_grad():
        for start in range(0, len(queries), block):
            rows = slice(start, start + block)
            index, place = candidates.index[rows].sort(dim=1)
            allowed = candidates.found[rows].gather(1, place)
            allowed &= ~((cases[0][rows, None] == cases[1][index]) & (cases[0][rows, None] >= 0))
            values = pairs(queries[rows].double(), keys, index, similarity).masked_fill(~allowed, -torch.inf)
            order = values.argsort(dim=1, descending=True, stable=True)[:, :count]
            indices.append(index.gather(1, order))
            found.append(allowed.gather(1, order))
    return _joined(indices, found, count, keys)


def pairs(queries: Tensor, keys: Tensor, index: Tensor, similarity: Similarity) -> Tensor:
    """Similarity of every query [Q, D] with its own keys, by index [Q, k] -> [Q, k], in the queries' precision."""
    chosen = keys[index].to(queries.dtype)
    return similarity(queries.unsqueeze(1), chosen).squeeze(1)


def kept_similarity(
    queries: Tensor, keys: Tensor, index: Tensor, similarity: Similarity, *, block: int = BLOCK
) -> Tensor:
    """`pairs` with gradients, in memory of block × k × D: backward computes each block again."""
    if len(queries) <= block:
        return pairs(queries, keys, index, similarity)
    parts = [
        checkpoint(pairs, rows, keys, own, similarity, use_reentrant=False, preserve_rng_state=False)
        for rows, own in zip(queries.split(block), index.split(block), strict=True)
    ]
    return torch.cat(parts)


class ApproximateIndex:
    """A graph of small worlds over keys (HNSW; Malkov & Yashunin, TPAMI 2020), from the extra `ann`.

    What it gives are candidates to `rank`, by the present similarity: the keys it was made of may be older.

    Parameters
    ----------
    keys
        Rows of length 1 [M, D].
    links, effort
        Links of a key, and how many keys are looked at to find them.
    threads
        With more than one, the order of insertion and so the index differ from run to run; −1 for all cores.

    Raises
    ------
    HistillError
        If the extra is not installed.
    """

    def __init__(self, keys: Tensor, *, links: int = 16, effort: int = 128, threads: int = 1):
        try:
            from voyager import Index, Space
        except ImportError:
            raise HistillError(
                "approximate search over cases needs the package voyager", mend="pip install 'histill[ann]'"
            ) from None
        self.size = len(keys)
        self._index = Index(Space.InnerProduct, keys.shape[1], M=links, ef_construction=effort, random_seed=0)
        if self.size:
            self._index.add_items(_array(keys), num_threads=threads)

    def candidates(self, queries: Tensor, count: int) -> Neighbours:
        """Some `count` keys near every query [Q, D]; fewer where there are fewer keys.

        Raises
        ------
        HistillError
            If not as many can be reached.
        """
        count = min(count, self.size)
        if not count or not len(queries):
            return _joined([], [], count, queries)
        from voyager import RecallError

        try:
            found, _ = self._index.query(_array(queries), k=count, query_ef=max(2 * count, 64))
        except RecallError as error:
            raise HistillError(f"approximate search over {self.size} cases: {error}", mend="search exactly") from None
        index = torch.from_numpy(found.astype("int64")).to(queries.device)
        return Neighbours(index, torch.ones_like(index, dtype=torch.bool))


def recall(found: Neighbours, wanted: Neighbours) -> float:
    """Share of the wanted neighbours that were found, mean over queries that have any."""
    hit = (found.index.unsqueeze(1) == wanted.index.unsqueeze(2)) & found.found.unsqueeze(1)
    number = wanted.found.sum(dim=1)
    share = (hit.any(dim=2) & wanted.found).sum(dim=1) / number.clamp(min=1)
    return share[number > 0].double().mean().item()


def _joined(indices: list[Tensor], found: list[Tensor], count: int, like: Tensor) -> Neighbours:
    none = torch.zeros(0, count, dtype=torch.int64, device=like.device)
    return Neighbours(torch.cat([none, *indices]), torch.cat([none.bool(), *found]))


def _array(rows: Tensor):
    return rows.detach().float().cpu().numpy()
