"""A network that reads the slide alone: the pre-trained slide encoder, taught by the probe of slide and RNA."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from histill.methods.mirror.model import MIRROR


class Student(nn.Module):
    """The slide alone -> logits, and the RNA encoder's vector as far as the slide tells it.

    Parameters
    ----------
    pretrained
        Arguments of the network whose slide encoder this is (`MIRROR`).
    """

    magnifications = "mean"

    def __init__(self, outputs: int, pretrained: dict[str, Any]):
        super().__init__()
        whole, dim = MIRROR(**pretrained), pretrained["dim"]
        self.level, self.slide = whole.level, whole.slide
        self.tell = nn.Sequential(nn.Linear(dim, dim), nn.GELU(), nn.Linear(dim, dim), nn.LayerNorm(dim))
        self.head = nn.Linear(2 * dim, outputs)

    def forward(self, batch: dict) -> dict[str, Any]:
        """`logits`, and `features` [B, D]: `slide`, and `rna` as the teacher's encoder would have given it."""
        own = self.slide(*(batch[part][self.level] for part in ("tokens", "cells", "mask"))).cls
        told = self.tell(own)
        return {
            "logits": {self.level: self.head(torch.cat([own, told], dim=-1))},
            "features": {"slide": {self.level: own}, "rna": {self.level: told}},
        }

    def begin(self, teacher: dict[str, Tensor]) -> None:
        """Take slide encoder and head of the fused probe, whose weights these are."""
        own = self.state_dict()
        self.load_state_dict(own | {name: value for name, value in teacher.items() if name in own})
