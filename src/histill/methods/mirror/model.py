"""The network that MIRROR pre-trains: two encoders, and the heads of its four pretexts.

Notation: B bags, N tiles (padded), F features a tile, G genes, D model width.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from histill.methods.mirror.retention import RNARetention, SlideRetention
from histill.methods.mirror.rna import RNAEncoder
from histill.methods.mirror.style import StyleClustering
from histill.methods.transmil import Encoded, SlideEncoder
from histill.subspaces import GENES

START_SCALE, LARGEST_SCALE = 1 / 0.07, 100.0


class MIRROR(nn.Module):
    """Slide and genes of a patient -> their vectors, and what the losses of pre-training compare.

    What is transferred are `slide.*` and `rna.*`.

    Parameters
    ----------
    features
        Level -> F, of one level.
    genes
        G.
    heads, landmarks, positions, tokens, mask_padding
        Of the slide encoder (`histill.methods.transmil.SlideEncoder`).
    rna_depth, rna_heads, mlp_ratio
        Of the RNA encoder.
    mask
        Share of the tokens, and of the RNA vector, that retention masks.
    latent, hidden, prototypes, temperature
        Of the style clustering (`StyleClustering`).
    normalise
        The alignment's vectors are brought to unit length `after` their head, so that logits are cosines; or `before`
        it and not again (published).
    """

    def __init__(
        self,
        features: dict[str, int],
        genes: int,
        *,
        dim: int,
        heads: int,
        landmarks: int,
        positions: str = "coordinates",
        tokens: int | None = None,
        mask_padding: bool = True,
        dropout: float = 0.1,
        rna_depth: int = 2,
        rna_heads: int = 8,
        mlp_ratio: float = 4.0,
        mask: float = 0.75,
        latent: int = 128,
        hidden: tuple[int, ...] = (512, 256),
        prototypes: int = 3000,
        temperature: float | None = 0.1,
        normalise: str = "after",
    ):
        super().__init__()
        ((self.level, width),) = features.items()
        self.normalise = normalise
        slide: dict[str, Any] = {
            "heads": heads,
            "landmarks": landmarks,
            "positions": positions,
            "tokens": tokens,
            "mask_padding": mask_padding,
            "dropout": dropout,
        }
        rna: dict[str, Any] = {"heads": rna_heads, "mlp_ratio": mlp_ratio, "dropout": dropout}
        self.slide = SlideEncoder(width, dim, **slide)
        self.rna = RNAEncoder(genes, dim, depth=rna_depth, **rna)
        self.align_slide, self.align_rna = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.retain_slide = SlideRetention(dim, mask=mask, **slide)
        self.retain_rna = RNARetention(dim, mask=mask, **rna)
        self.style = StyleClustering(
            dim,
            hidden=tuple(hidden),
            latent=latent,
            prototypes=prototypes,
            temperature=temperature,
        )
        self.log_scale = nn.Parameter(torch.tensor(math.log(START_SCALE)))
        self._initialise()

    def _initialise(self) -> None:
        """As published: the slide's layers by Xavier, all else as torch does, which gives the losses of §2.6.

        The layers that end the RNA decoder's two paths start smaller.
        """
        for part in (self.slide, self.align_slide, self.retain_slide):
            for layer in part.modules():
                if isinstance(layer, nn.Linear):
                    nn.init.xavier_uniform_(layer.weight)
                    if layer.bias is not None:
                        nn.init.zeros_(layer.bias)
        block = self.retain_rna.block
        with torch.no_grad():
            for layer in (block.attention.project, block.mlp[3]):
                layer.weight /= math.sqrt(2)

    @property
    def scale(self) -> Tensor:
        """What cosines of the alignment are multiplied by."""
        return self.log_scale.exp()

    @torch.no_grad()
    def constrain(self) -> None:
        """After every step: the scale is 1 to 100, and prototypes have unit length."""
        self.log_scale.clamp_(0.0, math.log(LARGEST_SCALE))
        self.style.constrain()

    def encode_slide(self, batch: dict) -> tuple[Tensor, Tensor, Tensor]:
        """[CLS] [B, D], tokens [B, N, D] and their mask [B, N] of a batch (docs/architecture.md, Batches)."""
        return self._encode(batch)[:3]

    def encode_rna(self, genes: Tensor) -> Tensor:
        """H_r [B, D] of standardised genes [B, G]."""
        return self.rna(genes)

    def align(self, slide: Tensor, rna: Tensor) -> tuple[Tensor, Tensor]:
        """The two modalities' vectors [B, D] in the common space (§2.3)."""
        pairs = ((self.align_slide, slide), (self.align_rna, rna))
        if self.normalise == "before":
            first, second = (head(F.normalize(x, dim=-1)) for head, x in pairs)
        else:
            first, second = (F.normalize(head(x), dim=-1) for head, x in pairs)
        return first, second

    def forward(self, batch: dict) -> dict[str, Any]:
        """A batch with `batch['genes']['genes']` [B, G].

        Returns by modality, `slide` and `rna`: `encoded` [B, D], `aligned` [B, D], `style` (`Style`), and of retention
        `target`, `told` (slide [B, N, D], RNA [B, D, 1]) and `hidden` (slide [B, N], RNA [B, D]). `real` [B, N] are the
        slide's tokens that are no padding.
        """
        bag, rna = self._encode(batch), self.encode_rna(batch["genes"][GENES])
        aligned = self.align(bag.cls, rna)
        told_slide, hidden_slide = self.retain_slide(bag)
        told_rna, hidden_rna = self.retain_rna(rna)
        return {
            "encoded": {"slide": bag.cls, "rna": rna},
            "aligned": {"slide": aligned[0], "rna": aligned[1]},
            "style": {"slide": self.style(bag.cls), "rna": self.style(rna)},
            "target": {"slide": bag.tokens, "rna": rna.unsqueeze(-1)},
            "told": {"slide": told_slide, "rna": told_rna.unsqueeze(-1)},
            "hidden": {"slide": hidden_slide, "rna": hidden_rna},
            "real": bag.mask,
        }

    def _encode(self, batch: dict) -> Encoded:
        return self.slide(*(batch[part][self.level] for part in ("tokens", "cells", "mask")))
