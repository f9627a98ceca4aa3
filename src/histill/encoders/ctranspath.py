"""CTransPath: Swin-T on a convolutional stem (Wang et al., Medical Image Analysis 2022)."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn

from histill.encoders.recipes import EncoderRecipe


class ConvStem(nn.Module):
    """Pixels to patches of 4 × 4 px by two strided convolutions and a projection, in place of one convolution.

    Parameters
    ----------
    img_size, patch_size, in_chans, embed_dim, norm_layer
        As timm's Swin gives them; `patch_size` must be 4.
    """

    def __init__(self, img_size=224, patch_size=4, in_chans=3, embed_dim=96, norm_layer=None, **_):
        super().__init__()
        if patch_size not in (4, (4, 4)):
            raise ValueError(f"the stem makes patches of 4 px, not of {patch_size}")
        sides = (img_size, img_size) if isinstance(img_size, int) else img_size
        self.grid_size = (sides[0] // 4, sides[1] // 4)
        self.num_patches = self.grid_size[0] * self.grid_size[1]
        widths = (in_chans, embed_dim // 8, embed_dim // 4)
        layers: list[nn.Module] = []
        for narrow, wide in pairwise(widths):
            layers += [nn.Conv2d(narrow, wide, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(wide), nn.ReLU()]
        self.proj = nn.Sequential(*layers, nn.Conv2d(widths[-1], embed_dim, 1))
        self.norm = norm_layer(embed_dim) if norm_layer else nn.Identity()

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """[B, 3, H, W] -> [B, H / 4, W / 4, embed_dim]."""
        return self.norm(self.proj(pixels).permute(0, 2, 3, 1))


def create(recipe: EncoderRecipe) -> nn.Module:
    """The network without weights: [B, 3, 224, 224] -> [B, 768]."""
    import timm

    return timm.create_model("swin_tiny_patch4_window7_224", pretrained=False, embed_layer=ConvStem, num_classes=0)
