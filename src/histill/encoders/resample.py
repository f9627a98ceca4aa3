"""Resizing as PIL does it, to the bit: by PIL itself on a CPU, in torch on a GPU.

The transforms that networks were trained and published with resize PIL images: an antialiased separable filter, in
whole numbers, rounded and cut to 0..255 after each direction. torch's floating-point resize is up to 29 grey levels
away from it at sharp edges, since bicubic overshoots are not cut between the two directions. Whole numbers also make
the result the same on every device and for every batch.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch

_BITS = 22  # of a weight's fraction: with a pixel's 8 and a sign, what 32 bits hold


def resize(pixels: torch.Tensor, side: int, interpolation: str) -> torch.Tensor:
    """Square RGB images, uint8 [B, 3, S, S] -> uint8 [B, 3, side, side].

    Parameters
    ----------
    interpolation
        `bilinear` or `bicubic`.
    """
    if pixels.shape[-1] == side:
        return pixels
    if pixels.device.type == "cpu":
        return _by_pil(pixels, side, interpolation)
    return in_torch(pixels, side, interpolation)


def _by_pil(pixels: torch.Tensor, side: int, interpolation: str) -> torch.Tensor:
    from PIL import Image

    method = Image.Resampling[interpolation.upper()]
    tiles = pixels.permute(0, 2, 3, 1).contiguous().numpy()
    resized = np.empty((len(tiles), side, side, 3), np.uint8)
    for row, tile in enumerate(tiles):
        resized[row] = Image.fromarray(tile).resize((side, side), method)
    return torch.from_numpy(resized).permute(0, 3, 1, 2)


def in_torch(pixels: torch.Tensor, side: int, interpolation: str) -> torch.Tensor:
    """The same in torch, for GPUs; on a CPU it takes six times as long as PIL."""
    index, weights = _weights(pixels.shape[-1], side, interpolation, pixels.device)
    across = _along(pixels.to(torch.int32), index, weights, -1)
    return _along(across, index, weights, -2).to(torch.uint8)


def _along(pixels: torch.Tensor, index: torch.Tensor, weights: torch.Tensor, axis: int) -> torch.Tensor:
    """One direction: `index` and `weights` are [taps, side]."""
    total: torch.Tensor | int = 1 << (_BITS - 1)
    for where, weight in zip(index, weights, strict=True):
        total = total + pixels.index_select(axis, where) * (weight if axis == -1 else weight[:, None])
    return (total >> _BITS).clamp_(0, 255)


@lru_cache
def _weights(size: int, side: int, interpolation: str, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Which pixels make an output pixel and their weights [taps, side], on the device."""
    scale = size / side
    stretch = max(scale, 1.0)  # antialiasing: the filter covers what falls into one output pixel
    reach, shape = {"bilinear": (1.0, _triangle), "bicubic": (2.0, _cubic)}[interpolation]
    reach *= stretch
    centres = (np.arange(side) + 0.5) * scale
    low = np.maximum((centres - reach + 0.5).astype(int), 0)
    high = np.minimum((centres + reach + 0.5).astype(int), size)
    index = low[:, None] + np.arange((high - low).max())
    weights = np.where(index < high[:, None], shape((index - centres[:, None] + 0.5) / stretch), 0.0)
    weights /= weights.sum(axis=1, keepdims=True)
    fixed = np.trunc(weights * (1 << _BITS) + np.copysign(0.5, weights)).astype(np.int32)
    index = np.minimum(index, size - 1)  # of weight zero
    return torch.tensor(index.T.copy(), device=device), torch.tensor(fixed.T.copy(), device=device)


def _triangle(distance: np.ndarray) -> np.ndarray:
    return np.maximum(1 - np.abs(distance), 0.0)


def _cubic(distance: np.ndarray, a: float = -0.5) -> np.ndarray:
    """Keys' cubic convolution; PIL's a is -1/2, OpenCV's and torch's without antialiasing -3/4."""
    d = np.abs(distance)
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = (((d - 5) * d + 8) * d - 4) * a
    return np.where(d < 1, near, np.where(d < 2, far, 0.0))
