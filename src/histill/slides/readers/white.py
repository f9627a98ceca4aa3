"""White behind what is transparent, and around the slide."""

from __future__ import annotations

import cv2
import numpy as np

from histill.errors import SlideError
from histill.slides.readers.request import Axis

WHITE = 255


def on_white(pixels: np.ndarray) -> np.ndarray:
    """RGB of 8-bit RGB or RGBA pixels, what is transparent composited on white."""
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] not in (3, 4):
        what = f"the pixels are {pixels.dtype} of shape {pixels.shape}, not 8-bit RGB"
        raise SlideError(what, mend="convert the slide to 8-bit RGB, or leave it out")
    if pixels.shape[2] == 3:
        return pixels
    colour, alpha = pixels[..., :3], pixels[..., 3:]
    if alpha.min() == WHITE:
        return cv2.cvtColor(pixels, cv2.COLOR_RGBA2RGB)
    opacity = alpha.astype(np.float32) / WHITE
    return np.rint(colour * opacity + WHITE * (1 - opacity)).astype(np.uint8)


def framed(pixels: np.ndarray, columns: Axis, rows: Axis, out: np.ndarray) -> None:
    """Write the part of a picture that touches the slide, each pixel as white as it lies outside.

    Parameters
    ----------
    pixels
        uint8 RGB [rows.count, columns.count, 3].
    out
        The picture, uint8 [H, W, 3].
    """
    share = (rows.share()[:, None] * columns.share())[..., None]
    out[:] = WHITE
    mixed = np.rint(pixels * share + WHITE * (1 - share)).astype(np.uint8)
    out[rows.first : rows.first + rows.count, columns.first : columns.first + columns.count] = mixed
