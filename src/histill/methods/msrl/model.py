"""The network of MSRL: a case that has a slide alone borrows from training cases with real genes (§2.7, §5.2).

Notation: B cases of a batch, M rows of the buffer, R of them that lend, k neighbours; d width of a case vector, D of a
node: 2d, gene half and slide half, or d without genes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from histill.errors import HistillError
from histill.methods.msrl.buffer import CaseBuffer
from histill.methods.msrl.encoders import GeneEncoder, Inductor, SlideEncoder
from histill.methods.msrl.gcn import GCN
from histill.methods.msrl.graph import refine, same_case
from histill.methods.msrl.learner import GraphLearner, StaticGraph
from histill.methods.msrl.lending import Lenders, farthest, lend
from histill.methods.msrl.neighbours import Neighbours
from histill.subspaces import GENES

CASE = "case"  # the one level of its logits
LINKS = ("buffer", "all")
SEARCH = ("exact", "approximate")


def fuse(genes: Tensor | None, slide: Tensor, *, unit: bool = True) -> Tensor:
    """Node vectors [B, 2d] of gene vectors and slide vectors [B, d]; [B, d] without genes.

    With `unit` each half has length 1 (§2.9.4): prompts vary less than real genes, so that without it a query would be
    closer to any slide half than to any gene half.
    """
    halves = [slide] if genes is None else [genes, slide]
    return torch.cat([F.normalize(half, dim=-1) for half in halves] if unit else halves, dim=-1)


@dataclass(frozen=True)
class Structure:
    """A batch in a training graph. Its nodes [N] are the lending rows, after the batch itself where `links` is `all`.

    Attributes
    ----------
    states
        Z of the batch [B, d].
    similarity
        Of the batch to the nodes [B, N], dense, with gradients.
    edges
        Which of them the graph has [B, N], bool.
    pairs
        Which of them it may have [B, N], bool: not those of a case with itself.
    """

    states: Tensor
    similarity: Tensor
    edges: Tensor
    pairs: Tensor


class MSRL(nn.Module):
    """Slide, and genes where they are known, -> logits, over a graph with the cases of the buffer.

    In training the batch is part of a graph with the buffer's rows of other cases. In evaluation each case asks the
    frozen buffer by itself, so that what it gets depends neither on its batch nor on the order.

    Parameters
    ----------
    features
        Level -> F.
    groups
        Gene group -> positions of its genes.
    capacity
        M.
    dim
        d.
    neighbours
        k.
    layers
        Of the graph learner.
    hidden
        Width inside the GCN.
    graph
        `learned`, or static by `cosine` or `euclidean` distance.
    links
        Of the training graph: `buffer`, as in evaluation (a batch links to lending rows, and these among themselves),
        or `all` nodes with all (published).
    unit
        Whether both halves of a node, and its state where the head reads it, have length 1.
    policy
        Of the buffer: `keyed` or `fifo`.
    search
        In evaluation: `exact`, or `approximate`, for buffers of 50,000 cases and more (the extra `ann`).
    pooling
        Of the slide encoder.
    genes
        Whether there is a gene half; without it the model is MSRL_H.
    """

    magnifications = "mean"

    def __init__(
        self,
        features: dict[str, int],
        outputs: int,
        groups: dict[str, list[int]],
        capacity: int,
        *,
        dim: int,
        neighbours: int,
        layers: int = 2,
        hidden: int,
        graph: str = "learned",
        links: str = "buffer",
        unit: bool = True,
        policy: str = "keyed",
        search: str = "exact",
        pooling: str = "mean",
        dropout: float = 0.25,
        genes: bool = True,
    ):
        super().__init__()
        for name, value, known in (("links", links, LINKS), ("search", search, SEARCH)):
            if value not in known:
                raise HistillError(f"{name} '{value}' is not known", mend=f"use {' or '.join(known)}")
        if search == "approximate" and graph == "euclidean":
            raise HistillError("approximate search compares cosines", mend="use search: exact, or another graph")
        width = 2 * dim if genes else dim
        self.k, self.links, self.unit, self.search = neighbours, links, unit, search
        self.slide = SlideEncoder(features, dim, pooling=pooling, dropout=dropout)
        self.genes = GeneEncoder(groups, dim, dropout) if genes else None
        self.inductor = Inductor(dim, dropout) if genes else None
        self.learner = GraphLearner(width, layers) if graph == "learned" else StaticGraph(graph)
        self.gcn = GCN(width, hidden, dim, dropout)
        self.head = nn.Linear(width + dim, outputs)
        self.buffer = CaseBuffer(capacity, width, policy)
        self._frozen: tuple[tuple, Lenders] | None = None

    def forward(self, batch: dict) -> dict[str, dict[str, Tensor]]:
        """`logits["case"]` [B, C] of the bags (docs/architecture.md, Batches); in evaluation also `neighbours`.

        `batch["genes"]` are looked at if they are given. Codes of the cases, `batch["targets"]["case"]` or
        `batch["case"]` int64 [B], keep a case from borrowing from its own row.
        """
        nodes = self.nodes(batch)
        cases = _cases(batch, nodes)
        if self.training:
            return {"logits": {CASE: self.read_out(nodes, self.structure(nodes, cases).states)}}
        states, neighbours = self._borrow(nodes, cases)
        return {"logits": {CASE: self.read_out(nodes, states)}, "neighbours": neighbours}

    @torch.no_grad()
    def neighbours(self, batch: dict) -> dict[str, Tensor]:
        """Whom the cases of a batch borrow from in evaluation, and how far that is.

        Returns
        -------
        `case` codes [B, k], nearest first (−1 where there is none); `weight` [B, k], their shares of all that is
        borrowed; `similarity` to the k-th of them [B] (−1 without any); `abstention` [B], the share of the buffer's
        cases that are nearer to their own k-th neighbour: 1 is farther than all of them.
        """
        nodes = self.nodes(batch)
        return self._borrow(nodes, _cases(batch, nodes))[1]

    def nodes(self, batch: dict) -> Tensor:
        """Node vectors [B, D] of a batch, with the prompt ĝ where genes are not given."""
        slide = self.slide(batch["tokens"], batch["mask"])
        if self.genes is None:
            return self.fuse(None, slide)
        return self.fuse(self.genes(batch["genes"][GENES]) if "genes" in batch else self.inductor(slide), slide)

    def fuse(self, genes: Tensor | None, slide: Tensor) -> Tensor:
        """`fuse` as this network does it."""
        return fuse(genes, slide, unit=self.unit)

    def read_out(self, nodes: Tensor, states: Tensor) -> Tensor:
        """Logits [B, C] of nodes [B, D] and their states [B, d].

        Of unit length like the halves of a node, states count as much; as they come they are far smaller, and what is
        borrowed is hardly heard.
        """
        return self.head(torch.cat([nodes, F.normalize(states, dim=-1) if self.unit else states], dim=-1))

    def structure(
        self, nodes: Tensor, cases: Tensor, *, learner: nn.Module | None = None, gcn: GCN | None = None
    ) -> Structure:
        """The training graph of nodes [B, D] and the rows of all cases but theirs [B].

        A case is so kept from its own answer over two edges too. `learner` and `gcn` are those of the target branch;
        its own where not given.
        """
        learner, gcn = learner or self.learner, gcn or self.gcn
        with torch.autocast(nodes.device.type, enabled=False):
            nodes, rows = nodes.to(self.head.weight.dtype), self.buffer.rows(without=cases)
            if self.links == "all":
                return self._joint(nodes, cases, rows, learner, gcn)
            lenders = Lenders.of(learner, gcn, self._values(rows), self.buffer.case[rows], self.k)
            embedding = learner(nodes)
            similarity = learner.similarity(embedding, lenders.embedding)
            top = similarity.detach().topk(min(self.k, len(rows)), dim=1).indices
            found = Neighbours(top, torch.ones_like(top, dtype=torch.bool))
            states, lent, _ = lend(nodes, embedding, found, lenders, learner, gcn)
            edges = torch.zeros_like(similarity, dtype=torch.bool).scatter(1, top, lent > 0)
            return Structure(states, similarity, edges, torch.ones_like(edges))

    def dense(self, batch: dict) -> Tensor:
        """The logits [B, C] of evaluation from one dense, masked graph over batch and buffer, in memory of (B + M)².

        What `forward` must equal.
        """
        nodes, rows = self.nodes(batch), self.buffer.rows()
        everything = torch.cat([nodes, self._values(rows)])
        codes = torch.cat([_cases(batch, nodes), self.buffer.case[rows]])
        graph = refine(
            self.learner(everything), self.k, similarity=self.learner.similarity, cases=codes, queries=len(nodes)
        )
        return self.read_out(nodes, self.gcn(graph, everything)[: len(nodes)])

    def _borrow(self, nodes: Tensor, cases: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """States [B, d] of nodes [B, D] that ask the frozen buffer, and `neighbours` of them."""
        with torch.autocast(nodes.device.type, enabled=False):
            nodes = nodes.to(self.head.weight.dtype)
            lenders, embedding = self._lenders(), self.learner(nodes)
            found = lenders.nearest(embedding, cases, self.k, self.learner.similarity)
            states, lent, similarity = lend(nodes, embedding, found, lenders, self.learner, self.gcn)
            limit, lent = farthest(similarity, found), lent.detach()
            nearer = (lenders.reach[None, :] > limit[:, None]).sum(dim=1)
        return states, {
            "case": lenders.cases[found.index].masked_fill(~found.found, -1),
            "weight": lent / lent.sum(dim=1, keepdim=True).clamp(min=torch.finfo(lent.dtype).tiny),
            "similarity": limit,
            "abstention": nearer / len(lenders.reach) if len(lenders.reach) else torch.ones_like(limit),
        }

    def _lenders(self) -> Lenders:
        """The buffer's cases as they lend; made anew when anything they follow from has changed."""
        buffer = self.buffer
        sources = [*self.learner.parameters(), *self.gcn.parameters(), buffer.values, buffer.case]
        key = tuple((id(tensor), tensor.data_ptr(), tensor._version) for tensor in sources)
        if self._frozen is None or self._frozen[0] != key:
            # Not inference tensors, which later calls with gradients could not use.
            with torch.inference_mode(False), torch.no_grad():
                rows = buffer.rows()
                lenders = Lenders.of(
                    self.learner, self.gcn, self._values(rows), buffer.case[rows], self.k, search=self.search
                )
            self._frozen = key, lenders
        return self._frozen[1]

    def _joint(self, nodes: Tensor, cases: Tensor, rows: Tensor, learner: nn.Module, gcn: GCN) -> Structure:
        everything, codes = torch.cat([nodes, self._values(rows)]), torch.cat([cases, self.buffer.case[rows]])
        embedding, size = learner(everything), len(nodes)
        graph = refine(embedding, self.k, similarity=learner.similarity, cases=codes)
        itself = torch.eye(size, len(everything), dtype=torch.bool, device=nodes.device)
        pairs = ~(itself | same_case(cases, codes))
        similarity = learner.similarity(embedding[:size], embedding)
        return Structure(gcn(graph, everything)[:size], similarity, (graph[:size] > 0) & pairs, pairs)

    def __getstate__(self) -> dict:
        """Copies and processes make what is cached themselves: an index cannot be copied."""
        return {**self.__dict__, "_frozen": None}

    def _values(self, rows: Tensor) -> Tensor:
        return self.buffer.values[rows].to(self.head.weight.dtype)


def _cases(batch: dict, nodes: Tensor) -> Tensor:
    """Codes of the cases [B]; −1 where they are not given."""
    given = batch.get(CASE, batch.get("targets", {}).get(CASE))
    return torch.full((len(nodes),), -1, device=nodes.device) if given is None else given
