"""The image side of KEEP (Zhou et al., arXiv 2412.13126): ViT-L/16 and a head into the space shared with text."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from histill.encoders.recipes import EncoderRecipe


class Keep(nn.Module):
    """Network and head under the names of the published file; vectors of unit length."""

    def __init__(self, dim: int):
        import timm

        super().__init__()
        self.visual = timm.create_model("vit_large_patch16_224", pretrained=False, init_values=1e-5, num_classes=0)
        self.visual_head = nn.Sequential(nn.Linear(self.visual.num_features, dim), nn.GELU(), nn.Linear(dim, dim))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """[B, 3, 224, 224] -> [B, dim]."""
        return F.normalize(self.visual_head(self.visual(pixels)), dim=-1)


def create(recipe: EncoderRecipe) -> nn.Module:
    """The network without weights."""
    return Keep(recipe.dim)
