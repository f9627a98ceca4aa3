"""A linear head on the frozen encoders: what pre-training is worth for a task (§2.7, §3.2)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from histill.methods.mirror.model import MIRROR
from histill.subspaces import GENES

RNA = "rna"  # level of the logits of a network that reads no slide


class Probe(nn.Module):
    """The slide, the genes, or both -> logits.

    Parameters
    ----------
    reads
        `slide`, `rna`, or both.
    pretrained
        Arguments of the network whose encoders these are (`MIRROR`).
    shots
        Number of heads beside the main one, each learned from few patients.
    """

    magnifications = "mean"

    def __init__(self, reads: list[str], outputs: int, pretrained: dict[str, Any], *, shots: int = 0):
        super().__init__()
        whole = MIRROR(**pretrained)
        self.level = whole.level if "slide" in reads else RNA
        self.slide = whole.slide if "slide" in reads else None
        self.rna = whole.rna if "rna" in reads else None
        self.align = whole.align if len(reads) == 2 else None
        self.align_slide, self.align_rna = (whole.align_slide, whole.align_rna) if self.align else (None, None)
        width = pretrained["dim"] * len(reads)
        self.head = nn.Linear(width, outputs)
        self.register_buffer("few_weight", torch.zeros(shots, outputs, width))
        self.register_buffer("few_bias", torch.zeros(shots, outputs))

    def forward(self, batch: dict) -> dict[str, Any]:
        """`logits` and, by modality, `features` [B, D]; `few_shot` logits [B, H, C] of the further heads.

        With both modalities also `aligned`: their vectors [B, D] in the common space.
        """
        features = {}
        if self.slide is not None:
            features["slide"] = self.slide(*(batch[part][self.level] for part in ("tokens", "cells", "mask"))).cls
        if self.rna is not None:
            features["rna"] = self.rna(batch["genes"][GENES])
        joined = torch.cat(list(features.values()), dim=-1)
        output = {
            "logits": {self.level: self.head(joined)},
            "features": {name: {self.level: value} for name, value in features.items()},
        }
        if len(self.few_weight):
            few = torch.einsum("bd,hcd->bhc", joined, self.few_weight) + self.few_bias
            output["few_shot"] = {self.level: few}
        if self.align is not None:
            aligned = self.align(features["slide"], features["rna"])
            output["aligned"] = {name: {self.level: value} for name, value in zip(features, aligned, strict=True)}
        return output


def set_heads(probe: Probe, heads: list[tuple[Tensor, Tensor]]) -> None:
    """Give a probe its main head and its further ones: weights [C, D] and biases [C]."""
    (weight, bias), *few = heads
    with torch.no_grad():
        probe.head.weight.copy_(weight)
        probe.head.bias.copy_(bias)
        for index, (own, shift) in enumerate(few):
            probe.few_weight[index].copy_(own)
            probe.few_bias[index].copy_(shift)
