"""timm networks as tile encoders, with weights from the hub or from a fixed seed."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from histill.device import resolve
from histill.encoders.recipes import EncoderRecipe
from histill.errors import HistillError

_LAYERS = ("mlp_layer", "act_layer")


class TimmEncoder:
    """A timm model under the exact preprocessing of its recipe.

    The tile is resized (antialiased) to `recipe.resize`, scaled to 0..1 and normalised, on the device.
    """

    def __init__(self, recipe: EncoderRecipe, *, device: str = "auto"):
        self.recipe = recipe
        self.dim = recipe.dim
        self.names = None
        self.device = resolve(device)
        self.model = _create(recipe).eval().requires_grad_(False).to(self.device)
        self._mean = torch.tensor(recipe.mean, device=self.device).view(1, 3, 1, 1)
        self._std = torch.tensor(recipe.std, device=self.device).view(1, 3, 1, 1)

    @torch.inference_mode()
    def encode(self, tiles: np.ndarray, mpp: float) -> np.ndarray:
        """uint8 RGB tiles [B, H, W, 3] -> float32 [B, dim]."""
        pixels = torch.from_numpy(np.ascontiguousarray(tiles)).to(self.device).permute(0, 3, 1, 2)
        half = {"float16": torch.float16, "bfloat16": torch.bfloat16}.get(self.recipe.precision)
        autocast = torch.autocast(self.device.type, half, enabled=half is not None and self.device.type == "cuda")
        with autocast:
            tokens = self.model(self.prepare(pixels))
        return self.pool(tokens.float()).cpu().numpy()

    def prepare(self, pixels: torch.Tensor) -> torch.Tensor:
        """uint8 [B, 3, H, W] -> normalised float32 [B, 3, resize, resize]."""
        side = self.recipe.resize
        pixels = pixels.float()
        if pixels.shape[-2:] != (side, side):
            pixels = F.interpolate(
                pixels, size=(side, side), mode=self.recipe.interpolation, antialias=True, align_corners=False
            ).clamp(0, 255)
        return (pixels / 255 - self._mean) / self._std

    def pool(self, tokens: torch.Tensor) -> torch.Tensor:
        """Network output -> vectors [B, dim]."""
        if self.recipe.pooling == "class_and_mean":
            tokens = torch.cat([tokens[:, 0], tokens[:, self.recipe.prefix_tokens :].mean(dim=1)], dim=-1)
        if tokens.shape[-1] != self.dim:
            raise HistillError(
                f"encoder '{self.recipe.name}' gave {tokens.shape[-1]} values, its recipe says {self.dim}"
            )
        return tokens


def _create(recipe: EncoderRecipe) -> torch.nn.Module:
    import timm
    from timm.layers import SwiGLUPacked

    layers = {"SwiGLUPacked": SwiGLUPacked, "SiLU": torch.nn.SiLU}
    arguments = {key: layers[value] if key in _LAYERS else value for key, value in recipe.arguments.items()}
    if recipe.hub is None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            return timm.create_model(recipe.architecture, pretrained=False, **arguments)
    name = f"hf-hub:{recipe.hub}" + (f"@{recipe.revision}" if recipe.revision else "")
    try:
        return timm.create_model(name, pretrained=True, **arguments)
    except Exception as error:  # the hub raises many types: no network, no token, no such revision
        licence = "it is gated: accept its licence on the hub and log in; " if recipe.gated else ""
        raise HistillError(
            f"weights of encoder '{recipe.name}' ({recipe.hub}) could not be loaded: {error}",
            mend=f"{licence}or choose features.encoder: colour-texture, which needs no weights",
        ) from error
