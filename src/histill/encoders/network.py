"""A network as a tile encoder, under the exact preprocessing and pooling of its recipe."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import torch

from histill.device import resolve
from histill.encoders.recipes import EncoderRecipe
from histill.encoders.resample import resize
from histill.errors import HistillError

_DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16}


class NetworkEncoder:
    """A torch network as an encoder (`histill.encoders.build.Encoder`).

    Parameters
    ----------
    model
        Network of the recipe with its weights.
    device
        torch device, or `auto`.
    """

    names = None
    shares_tiles = True  # `forward` takes tiles on the device: `histill.encoders.passes`

    def __init__(self, recipe: EncoderRecipe, model: torch.nn.Module, *, device: str = "auto"):
        self.recipe = recipe
        self.dim = recipe.dim
        self.device = resolve(device)
        self.model = model.eval().requires_grad_(False).to(self.device)
        if self.device.type == "cpu" and _is_convolutional(model):
            self.model.to(memory_format=torch.channels_last)  # 1.2 to 1.3 times as fast; no gain for transformers

    @torch.inference_mode()
    def encode(self, tiles: np.ndarray, mpp: float) -> np.ndarray:
        """uint8 RGB tiles [B, H, W, 3] -> float32 [B, dim]."""
        pixels = torch.from_numpy(np.require(tiles, requirements=("C", "W"))).to(self.device).permute(0, 3, 1, 2)
        return self.forward(pixels).cpu().numpy()

    @torch.inference_mode()
    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """uint8 [B, 3, S, S] on the device, in any memory format -> float32 [B, dim] there."""
        half = _DTYPES.get(self.recipe.precision) if self.device.type == "cuda" else None
        with torch.autocast(self.device.type, half, enabled=half is not None):
            output = self.model(prepare(pixels, self.recipe))
        return pool(output, self.recipe)


def prepare(pixels: torch.Tensor, recipe: EncoderRecipe) -> torch.Tensor:
    """Square tiles as the network wants them: uint8 [B, 3, S, S] -> normalised float32 [B, 3, input, input].

    Resized as PIL does (`histill.encoders.resample`), since that is what the networks were published with.
    """
    height, width = pixels.shape[-2:]
    if height != width:
        raise HistillError(f"tiles of {width} × {height} px are not square", mend="cut square tiles")
    if recipe.resize:
        pixels = resize(pixels, recipe.resize, recipe.interpolation)
    if recipe.crop:
        pixels = _centre(pixels, recipe)
    # Channels last, as tiles come: by rows of W · 3 values, since loops over 3 channels take forty times as long.
    rows = pixels.permute(0, 2, 3, 1).contiguous()
    mean, std = _normalisation(recipe.mean, recipe.std, rows.shape[2], rows.device)
    values = rows.flatten(2).float().div_(255).sub_(mean).div_(std)
    return values.view(rows.shape).permute(0, 3, 1, 2)


@lru_cache
def _normalisation(mean: tuple, std: tuple, width: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and deviation of each value of a row. Kept on the device: a copy at every batch would make the host wait."""
    return torch.tensor(mean, device=device).repeat(width), torch.tensor(std, device=device).repeat(width)


def _is_convolutional(model: torch.nn.Module) -> bool:
    """Whether most weights are those of convolutions."""
    convolutions, others = (
        sum(layer.weight.numel() for layer in model.modules() if isinstance(layer, kind))
        for kind in (torch.nn.Conv2d, torch.nn.Linear)
    )
    return convolutions > others


def _centre(pixels: torch.Tensor, recipe: EncoderRecipe) -> torch.Tensor:
    side = pixels.shape[-1]
    if side < recipe.crop:
        raise HistillError(
            f"encoder '{recipe.name}' cuts {recipe.crop} px, and the tile has {side}", mend="cut larger tiles"
        )
    # torchvision's rounding of a margin that is no whole number.
    start = round((side - recipe.crop) / 2)
    return pixels[..., start : start + recipe.crop, start : start + recipe.crop]


def pool(output: Any, recipe: EncoderRecipe) -> torch.Tensor:
    """What the network gave -> vectors float32 [B, dim].

    Raises
    ------
    HistillError
        When the output is not of the shape that the recipe's pooling and dimension say.
    """
    output = getattr(output, "last_hidden_state", output)
    if isinstance(output, (list, tuple)) and len(output) == 1:
        output = output[0]
    axes = {"model": 2, "average": 4}.get(recipe.pooling, 3)
    if not isinstance(output, torch.Tensor) or output.ndim != axes:
        shape = tuple(output.shape) if isinstance(output, torch.Tensor) else type(output).__name__
        raise HistillError(f"encoder '{recipe.name}' gave {shape}, which pooling '{recipe.pooling}' cannot take")
    vectors = _pooled(output.float(), recipe)
    if vectors.shape[-1] != recipe.dim:
        raise HistillError(f"encoder '{recipe.name}' gave {vectors.shape[-1]} values, its recipe says {recipe.dim}")
    return vectors


def _pooled(output: torch.Tensor, recipe: EncoderRecipe) -> torch.Tensor:
    if recipe.pooling == "model":
        return output
    if recipe.pooling == "average":
        return output.mean(dim=(2, 3))
    if recipe.pooling == "class":
        return output[:, 0]
    mean = output[:, recipe.prefix_tokens :].mean(dim=1)
    return mean if recipe.pooling == "mean" else torch.cat([output[:, 0], mean], dim=-1)
