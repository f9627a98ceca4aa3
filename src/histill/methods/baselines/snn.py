"""Self-normalising networks of genes (Klambauer et al., NeurIPS 2017)."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from histill.subspaces import GENES

RNA = "rna"  # where the logits of a network stand that reads no tiles


class SelfNormalising(nn.Sequential):
    """Blocks of linear layer, SELU and alpha dropout: [B, inputs] -> [B, width].

    Weights are N(0, 1 / fan-in) and biases 0, so that inputs of mean 0 and variance 1 keep them from block to block.
    """

    def __init__(self, inputs: int, width: int, *, layers: int, dropout: float):
        sizes = [inputs, *[width] * layers]
        super().__init__(*(part for pair in pairwise(sizes) for part in _block(*pair, dropout)))


def _block(inputs: int, outputs: int, dropout: float) -> tuple[nn.Module, ...]:
    linear = nn.Linear(inputs, outputs)
    nn.init.normal_(linear.weight, std=inputs**-0.5)
    nn.init.zeros_(linear.bias)
    return linear, nn.SELU(), nn.AlphaDropout(dropout)


class SNN(nn.Module):
    """The transcriptome alone -> logits; as the genomic branch of MCAT and PORPOISE, over all genes at once.

    Parameters
    ----------
    genes
        G.
    outputs
        C.
    dim, layers
        Width and number of the self-normalising blocks.
    """

    magnifications = "mean"

    def __init__(self, genes: int, outputs: int, *, dim: int, layers: int, dropout: float):
        super().__init__()
        self.layers = SelfNormalising(genes, dim, layers=layers, dropout=dropout)
        self.head = nn.Linear(dim, outputs)

    def forward(self, batch: dict) -> dict[str, dict[str, Tensor]]:
        """`batch['genes']['genes']` [B, G], standardised -> `logits`: `rna` -> [B, C]."""
        return {"logits": {RNA: self.head(self.layers(batch["genes"][GENES]))}}
