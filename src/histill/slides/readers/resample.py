"""Resampling with edges anywhere between pixels: means over areas, or Lanczos.

A pixel is a square of one colour. A pixel of the answer is the mean of what it covers (`area`), which needs no pixel
outside the box and makes neighbouring boxes agree whatever their edges. `cv2.INTER_AREA` does this where the box starts
on a whole pixel; elsewhere (Pillow's `BOX` counts pixels whole or not at all) the shares are worked out here. Enlarged
pictures are linear. `lanczos` is Pillow's, three pixels of the answer to each side.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import cv2
import numpy as np

METHODS = ("area", "lanczos")
_LOBES = 3
_BLOCK = 1 << 20  # pixels held as float32 at once


class Box(NamedTuple):
    """Edges on the picture, in its pixels; they may fall between them."""

    left: float
    top: float
    right: float
    bottom: float


def margin(scale: float, method: str) -> int:
    """Pixels to each side of a box that its resampling by `scale` looks at."""
    if method == "lanczos":
        return math.ceil(_LOBES * max(scale, 1.0)) + 1
    return 0 if scale >= 1 else 1


def resample(
    pixels: np.ndarray, box: Box, width: int, height: int, method: str = "area", out: np.ndarray | None = None
) -> np.ndarray:
    """A box of a picture at another size.

    Parameters
    ----------
    pixels
        uint8 [H, W, 3]. A pixel of the answer that is partly beyond it is the mean of the part within (`area`); what
        lies wholly beyond it, and the margin, is taken from its border.
    box
        Where to read.
    width, height
        Size of the answer.
    method
        `area` or `lanczos`.
    out
        Where to write it, C-contiguous.

    Returns
    -------
    uint8 [height, width, 3]: `out`, where it is given.
    """
    if out is None:
        out = np.empty((height, width, 3), np.uint8)
    near = tuple(round(edge) for edge in box)
    whole = all(abs(edge - pixel) < 1e-6 for edge, pixel in zip(box, near, strict=True))
    inside = near[0] >= 0 and near[1] >= 0 and near[2] <= pixels.shape[1] and near[3] <= pixels.shape[0]
    if whole and inside:
        left, top, right, bottom = near
        if (right - left, bottom - top) == (width, height):
            out[:] = pixels[top:bottom, left:right]
            return out
        if method == "area" and right - left >= width and bottom - top >= height:
            return cv2.resize(pixels[top:bottom, left:right], (width, height), dst=out, interpolation=cv2.INTER_AREA)
    if method == "lanczos":
        out[:] = _lanczos(pixels, box, width, height)
    else:
        _separable(pixels, box, out)
    return out


def _lanczos(pixels: np.ndarray, box: Box, width: int, height: int) -> np.ndarray:
    from PIL import Image

    rows, columns = pixels.shape[:2]
    # Pillow wants the box inside the picture; half a pixel is all it can lack at the far edge of a floored level.
    more = [math.ceil(max(0.0, value)) for value in (-box.top, box.bottom - rows, -box.left, box.right - columns)]
    if any(more):
        pixels = np.pad(pixels, (more[:2], more[2:], (0, 0)), mode="edge")
    moved = (box.left + more[2], box.top + more[0], box.right + more[2], box.bottom + more[0])
    return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.LANCZOS, box=moved))


def _separable(pixels: np.ndarray, box: Box, picture: np.ndarray) -> None:
    height, width = picture.shape[:2]
    across = _matrix(*_weights(box.left, box.right, width, pixels.shape[1]), pixels.shape[1])
    index, share = _weights(box.top, box.bottom, height, pixels.shape[0])
    step = max(1, _BLOCK // (pixels.shape[1] * max(1, math.ceil((box.bottom - box.top) / height))))
    for start in range(0, height, step):
        rows = index[start : start + step]
        first, last = int(rows.min()), int(rows.max()) + 1
        part = pixels[first:last].reshape(last - first, -1).astype(np.float32)
        part = _matrix(rows - first, share[start : start + step], last - first) @ part
        turned = cv2.transpose(part.reshape(len(rows), pixels.shape[1], 3)).reshape(pixels.shape[1], -1)
        turned = cv2.transpose((across @ turned).reshape(width, len(rows), 3))
        picture[start : start + step] = np.rint(turned, out=turned)


def _matrix(index: np.ndarray, share: np.ndarray, length: int) -> Any:
    """Shares [count, taps] of source pixels as a sparse matrix [count, length]."""
    from scipy.sparse import csr_array

    starts = np.arange(len(index) + 1) * index.shape[1]
    return csr_array((share.ravel(), index.ravel(), starts), shape=(len(index), length))


def _weights(low: float, high: float, count: int, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Source pixels (int [count, taps]) and their shares (float32, each row 1) of the answer's pixels on one axis."""
    edges = low + (high - low) * np.arange(count + 1) / count
    if high - low >= count:
        first = np.floor(edges[:-1]).astype(np.int64)
        taps = int((np.ceil(edges[1:]) - first).max())
        index = first[:, None] + np.arange(taps)
        share = np.minimum(edges[1:, None], index + 1) - np.maximum(edges[:-1, None], index)
        within = np.where((index >= 0) & (index < length), share, 0)
        share = np.where((within > 0).any(1, keepdims=True), within, share)
    else:
        centre = (edges[:-1] + edges[1:]) / 2 - 0.5
        index = np.floor(centre).astype(np.int64)[:, None] + np.arange(2)
        share = 1 - np.abs(index - centre[:, None])
    share = np.maximum(share, 0)
    share /= share.sum(1, keepdims=True)
    return np.clip(index, 0, length - 1), share.astype(np.float32)
