"""Tissue on an overview: a mask by colour and morphology, no weights; fragments and holes filtered by physical area.

Stained tissue is what is coloured in optical density. The threshold is Otsu's, taken again among the paler pixels while
it parts dark stain from pale stain, and held within bounds, since on an empty slide it parts noise from noise.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

from histill.slides import colour

CHROMA_BOUNDS = (0.02, 0.05)  # optical density; pale stroma has 0.025 and more, glass with JPEG noise below 0.01
SMOOTH_UM = 10.0  # noise of single pixels
CLOSE_UM = 24.0  # gaps between cells of one tissue
OPEN_UM = 12.0  # threads and dust
INK_MARGIN_UM = 24.0  # the pale rim of a stroke
_OTSU_ROUNDS = 4


def tissue_mask(rgb: np.ndarray, mpp: float, *, min_area_mm2: float, min_hole_mm2: float) -> np.ndarray:
    """Where the stained tissue is.

    Parameters
    ----------
    rgb
        Overview, uint8 [H, W, 3].
    mpp
        Its resolution in µm per pixel.
    min_area_mm2
        Fragments below it are left out.
    min_hole_mm2
        Holes below it are filled.

    Returns
    -------
    bool [H, W].
    """
    density = colour.optical_density(rgb, colour.glass_colour(rgb))
    unlit = colour.dark(rgb)
    ink = (colour.coloured_ink(density) | colour.black(rgb, density)).astype(np.uint8)
    ink = cv2.dilate(ink, _disk(INK_MARGIN_UM / mpp))
    ink = _large(ink, min_hole_mm2 / (mpp / 1000) ** 2).astype(bool)  # grains of pigment are tissue; a stroke is longer
    coloured = colour.chroma(density)
    coloured[unlit] = 0
    coloured = cv2.GaussianBlur(coloured, (0, 0), max(SMOOTH_UM / mpp / 2, 0.5))
    usable = ~(ink | unlit)
    mask = ((coloured > _threshold(coloured[usable])) & usable).astype(np.uint8)
    mask = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, _disk(CLOSE_UM / mpp))
    mask = cv2.morphologyEx(mask, cv2.MORPH_OPEN, _disk(OPEN_UM / mpp))
    mask[ink | unlit] = 0
    pixel_mm2 = (mpp / 1000) ** 2
    mask = _large(mask, min_area_mm2 / pixel_mm2)
    outside = np.pad(1 - mask, 1, constant_values=1)  # the frame joins all glass that is no hole
    _, labels, stats, _ = cv2.connectedComponentsWithStats(outside, connectivity=4)
    small = stats[:, cv2.CC_STAT_AREA] < min_hole_mm2 / pixel_mm2
    small[[0, labels[0, 0]]] = False
    return (mask > 0) | small[labels][1:-1, 1:-1]


def _threshold(values: np.ndarray) -> float:
    low, high = CHROMA_BOUNDS
    otsu = high
    for _ in range(_OTSU_ROUNDS):
        if values.size == 0:
            break
        # The square root spreads pale stain over as many grey levels as dark stain.
        scaled = np.clip(np.sqrt(values) * 255, 0, 255).astype(np.uint8).reshape(-1, 1)
        otsu = float(((cv2.threshold(scaled, 0, 255, cv2.THRESH_OTSU)[0] + 0.5) / 255) ** 2)
        if otsu <= high:
            break
        values = values[values < otsu]
    return float(np.clip(otsu, low, high))


def _large(mask: np.ndarray, min_pixels: float) -> np.ndarray:
    """The mask's components of at least `min_pixels` pixels, uint8."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=4)
    keep = stats[:, cv2.CC_STAT_AREA] >= min_pixels
    keep[0] = False
    return keep.astype(np.uint8)[labels]


def _disk(radius: float) -> np.ndarray:
    size = 2 * max(1, math.ceil(radius - 0.5)) + 1
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))
