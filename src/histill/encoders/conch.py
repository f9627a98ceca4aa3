"""The image sides of CONCH and CONCH v1.5: a vision transformer whose tokens one learned query pools by attention.

Lu et al., Nature Medicine 2024; Ding et al., arXiv 2411.19666. The pooler is CoCa's (Yu et al., arXiv 2205.01917).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from histill.encoders.recipes import EncoderRecipe

_HEADS = 8


class AttentionPooler(nn.Module):
    """Learned queries that attend to the tokens; CONCH's, on torch's attention with biases.

    Parameters
    ----------
    dim
        Length of the query and of the output.
    tokens
        Length of a token.
    """

    def __init__(self, dim: int, tokens: int):
        super().__init__()
        self.query = nn.Parameter(torch.zeros(1, dim))
        self.attn = nn.MultiheadAttention(dim, _HEADS, kdim=tokens, vdim=tokens, batch_first=True)
        self.ln_q = nn.LayerNorm(dim)
        self.ln_k = nn.LayerNorm(tokens)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """[B, T, tokens] -> [B, dim]."""
        tokens = self.ln_k(tokens)
        query = self.ln_q(self.query).expand(len(tokens), -1, -1)
        return self.attn(query, tokens, tokens, need_weights=False)[0][:, 0]


class BiasFreePooler(nn.Module):
    """The same of CONCH v1.5: linear maps without biases, keys and values from one matrix."""

    def __init__(self, dim: int, tokens: int):
        super().__init__()
        self.query = nn.Parameter(torch.zeros(1, dim))
        self.ln_q = nn.LayerNorm(dim)
        self.ln_k = nn.LayerNorm(tokens)
        self.to_q = nn.Linear(dim, dim, bias=False)
        self.to_kv = nn.Linear(tokens, 2 * dim, bias=False)
        self.to_out = nn.Linear(dim, dim, bias=False)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """[B, T, tokens] -> [B, dim]."""
        key, value = self.to_kv(self.ln_k(tokens)).chunk(2, dim=-1)
        query = self.to_q(self.ln_q(self.query)).expand(len(tokens), -1, -1)
        query, key, value = (part.unflatten(-1, (_HEADS, -1)).transpose(1, 2) for part in (query, key, value))
        return self.to_out(F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2))[:, 0]


class Tower(nn.Module):
    """Vision transformer, pooler and norm, under the names of the published files."""

    def __init__(self, trunk: nn.Module, pooler: nn.Module, dim: int):
        super().__init__()
        self.trunk = trunk
        self.attn_pool_contrast = pooler
        self.ln_contrast = nn.LayerNorm(dim)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """[B, 3, H, W] -> [B, dim]."""
        return self.ln_contrast(self.attn_pool_contrast(self.trunk.forward_features(pixels)))


def create_v1(recipe: EncoderRecipe) -> nn.Module:
    """CONCH without weights: [B, 3, 448, 448] -> [B, 512]."""
    import timm

    trunk = timm.create_model("vit_base_patch16_224", pretrained=False, num_classes=0, **recipe.arguments)
    return Tower(trunk, AttentionPooler(recipe.dim, trunk.embed_dim), recipe.dim)


def create_v1_5(recipe: EncoderRecipe) -> nn.Module:
    """CONCH v1.5 without weights: [B, 3, 448, 448] -> [B, 768]."""
    import timm

    trunk = timm.create_model(
        "vit_large_patch16_224", pretrained=False, num_classes=0, init_values=1.0, **recipe.arguments
    )
    return Tower(trunk, BiasFreePooler(recipe.dim, trunk.embed_dim), recipe.dim)
