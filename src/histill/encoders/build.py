"""Builders: from a recipe to an object that turns tiles into vectors."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from histill.encoders.recipes import EncoderRecipe


class Encoder(Protocol):
    """Turns tiles into vectors."""

    dim: int
    names: list[str] | None

    def encode(self, tiles: np.ndarray, mpp: float) -> np.ndarray:
        """uint8 RGB tiles [B, H, W, 3] at `mpp` µm per pixel -> float32 [B, dim]."""
        ...


def build(recipe: EncoderRecipe, *, device: str = "auto") -> Encoder:
    """The encoder of a recipe. Only the builder that is asked for is imported."""
    if recipe.builder == "descriptor":
        from histill.encoders.colour_texture import ColourTexture

        return ColourTexture()
    from histill.encoders.timm_encoder import TimmEncoder

    return TimmEncoder(recipe, device=device)
