"""Stage 1: three views of the same cases, or the slides' alone, learned without labels (specification §2.3 to §2.6).

Notation: K cases of a batch, all nodes of its graphs; d width of a case vector.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from histill.methods.msrl.encoders import GeneEncoder, SlideEncoder
from histill.methods.msrl.gcn import GCN
from histill.methods.msrl.graph import drop_edges, mask_columns, refine
from histill.methods.msrl.learner import GraphLearner
from histill.methods.msrl.model import fuse
from histill.subspaces import GENES

SLIDE, FUSED = "slide", "fused"


@dataclass
class Views:
    """What the graphs make of a batch; every dictionary goes by view: `slide`, and with genes `genes` and `fused`.

    Attributes
    ----------
    nodes
        Node vectors [K, d], of the fused view [K, 2d].
    embeddings
        The learners', rows of length 1 [K, d] or [K, 2d].
    graphs
        Refined graphs [K, K].
    states
        Projected states of the nodes [K, p].
    augmented
        The same of the augmented graphs; there is no fused one.
    """

    nodes: dict[str, Tensor]
    embeddings: dict[str, Tensor]
    graphs: dict[str, Tensor]
    states: dict[str, Tensor]
    augmented: dict[str, Tensor]


class Pretrainer(nn.Module):
    """Encoders, and for each view a graph learner, a GCN and a projection head.

    Parameters
    ----------
    features
        Level -> F.
    groups
        Gene group -> positions of its genes; none where slides are all there is (MSRL_H).
    dim
        d, of h and g; also what the GCNs give.
    neighbours
        Edges that a node keeps beside its own.
    layers
        Of the graph learners.
    hidden
        Width inside the GCNs.
    projection
        p, width of the projection heads, which training alone reads.
    fused_graph
        `learned` from [g ; h] by a learner of its own, or the `average` of the two others.
    unit
        As in stage 2 (`MSRL`).
    column_rate, edge_rate
        Share of node features and of edges that an augmented graph does not have.
    """

    def __init__(
        self,
        features: dict[str, int],
        groups: dict[str, list[int]],
        *,
        dim: int,
        neighbours: int,
        layers: int = 2,
        hidden: int,
        projection: int = 256,
        fused_graph: str = "learned",
        column_rate: float = 0.2,
        edge_rate: float = 0.3,
        unit: bool = True,
        pooling: str = "mean",
        dropout: float = 0.25,
    ):
        super().__init__()
        self.unit = unit
        self.neighbours, self.fused_graph = neighbours, fused_graph
        self.column_rate, self.edge_rate = column_rate, edge_rate
        widths = {SLIDE: dim, GENES: dim, FUSED: 2 * dim} if groups else {SLIDE: dim}
        self.slide = SlideEncoder(features, dim, pooling=pooling, dropout=dropout)
        self.genes = GeneEncoder(groups, dim, dropout) if groups else None
        self.learners = nn.ModuleDict({view: GraphLearner(width, layers) for view, width in widths.items()})
        self.gcns = nn.ModuleDict({view: GCN(width, hidden, dim, dropout) for view, width in widths.items()})
        self.heads = nn.ModuleDict(
            {view: nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, projection)) for view in widths}
        )

    def encode(self, batch: dict) -> tuple[Tensor, ...]:
        """Slide vectors h [K, d] and, with genes, gene vectors g [K, d] of a batch: what `forward` takes."""
        slide = self.slide(batch["tokens"], batch["mask"])
        return (slide,) if self.genes is None else (slide, self.genes(batch["genes"][GENES]))

    def forward(self, slide: Tensor, genes: Tensor | None = None) -> Views:
        """Graphs and states of cases that are all nodes there are: h [K, d], g [K, d].

        Features are masked in both views in training; in evaluation in the augmented one alone.
        """
        hidden = self.column_rate if self.training else 0.0
        if genes is None:
            nodes = {SLIDE: fuse(None, slide, unit=self.unit)}
        else:
            nodes = {SLIDE: slide, GENES: genes, FUSED: fuse(genes, slide, unit=self.unit)}
        embeddings = {view: self.learners[view](own) for view, own in nodes.items()}
        graphs = {view: refine(own, self.neighbours) for view, own in embeddings.items()}
        if self.fused_graph == "average" and genes is not None:
            graphs[FUSED] = (graphs[SLIDE] + graphs[GENES]) / 2
        states, augmented = {}, {}
        for view, graph in graphs.items():
            states[view] = self._state(view, graph, mask_columns(nodes[view], hidden))
        for view in (view for view in graphs if view != FUSED):
            fewer = drop_edges(graphs[view], self.edge_rate)
            augmented[view] = self._state(view, fewer, mask_columns(nodes[view], self.column_rate))
        return Views(nodes, embeddings, graphs, states, augmented)

    def _state(self, view: str, graph: Tensor, nodes: Tensor) -> Tensor:
        return self.heads[view](self.gcns[view](graph, nodes))


def transfer(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """What stage 2 begins with, by its names there: encoders, fused learner and fused GCN (§2.6).

    Parameters
    ----------
    state
        Of a `Pretrainer`. Of one without genes, the slides' learner and GCN serve.

    Returns
    -------
    For `MSRL.load_state_dict(..., strict=False)` of the same widths; inductor, head and buffer are not in it.
    """
    view = FUSED if any(name.startswith(f"learners.{FUSED}.") for name in state) else SLIDE
    parts = {"slide.": "slide.", "genes.": "genes.", f"learners.{view}.": "learner.", f"gcns.{view}.": "gcn."}
    return {
        new + name.removeprefix(old): value
        for old, new in parts.items()
        for name, value in state.items()
        if name.startswith(old)
    }
