"""Quality flags of tiles. Colour, brightness and shape for gross artefacts, sharpness for defocus; no weights.

What they are: `pen` is red, green, blue or black marker, its colour in `pen_colour`; `blur` is defocus as of a Gaussian
of 2 µm and more; `fold` is tissue on tissue; `blood` is a lake of erythrocytes; `black` is unlit border and black
pigment; `white` is empty glass or lumen. What they are not: bubbles, knife marks and compression are not detected.
"""

from __future__ import annotations

import numpy as np

from histill.slides import colour, detail
from histill.slides.fold import SMOOTH_UM, fold_levels, fold_mask
from histill.slides.grid import Coverage, Grid
from histill.slides.ink import COLOURS, find_ink, ink_pixels

FLAGS = ("pen", "blur", "fold", "blood", "black", "white")
# Of the tile's area. A fold of 24 µm across half a 10x tile of 224 px covers 0.05.
SHARE = {"pen": 0.10, "fold": 0.05, "blood": 0.10, "black": 0.25, "white": 0.90}
_BAND = 512  # rows of the overview whose density is held at once


def flags_of(
    overview: np.ndarray,
    dimensions: tuple[int, int],
    mpp: tuple[float, float],
    grid: Grid,
    fine: detail.Detail,
    glass: np.ndarray,
) -> dict[str, np.ndarray]:
    """All flags of the 10x tiles of a grid, followed by those of their children.

    Parameters
    ----------
    overview
        uint8 RGB [H, W, 3] of the whole slide.
    dimensions
        (width, height) of the slide in level-0 pixels.
    mpp
        (x, y) of level 0, µm per pixel.
    grid
        N 10x tiles with their children.
    fine
        `histill.slides.detail.measure` of the same grid.
    glass
        Colour of the slide's glass, float32 [3].

    Returns
    -------
    Flag to bool [5 N], and `pen_colour`, text [5 N], empty where there is no pen.
    """
    boxes = np.concatenate([grid.parents, grid.children])
    overview_mpp = mpp[0] * dimensions[0] / overview.shape[1]
    flags, inks = overview_flags(overview, dimensions, overview_mpp, boxes, glass)
    # Red on the overview is ink or a lake of blood; its grain tells.
    inks[0] = np.where(fine.granular, 0, inks[0])
    pen = inks.sum(0) >= SHARE["pen"]
    colours = np.array(COLOURS)[inks.argmax(0)] if len(boxes) else np.zeros(0, "<U5")
    red = pen & (colours == "red")
    return {
        "pen": pen,
        "pen_colour": np.where(pen, colours, ""),
        "blur": fine.blur,
        "blood": (fine.blood >= SHARE["blood"]) & fine.granular & ~red,
        **flags,
    }


def overview_flags(
    overview: np.ndarray, dimensions: tuple[int, int], overview_mpp: float, boxes: np.ndarray, glass: np.ndarray
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """What the overview shows of tiles.

    Parameters
    ----------
    overview_mpp
        µm per pixel of the overview.
    boxes
        Tiles [N, 4]: x, y, width, height in level-0 pixels.
    glass
        Colour of the slide's glass, float32 [3].

    Returns
    -------
    Flags `fold`, `black` and `white` to bool [N]; and the share of red, green, blue and black ink, float32 [4, N]. Red
    may be blood as well.
    """
    ink, masks = _masks(overview, overview_mpp, glass)
    flags = {flag: Coverage(mask, dimensions).of(boxes) >= SHARE[flag] for flag, mask in masks.items()}
    inks = np.zeros((len(COLOURS), len(boxes)), np.float32)
    for value in np.flatnonzero(np.bincount(ink.ravel(), minlength=len(COLOURS) + 1)[1:]):
        inks[value] = Coverage(ink == value + 1, dimensions).of(boxes)
    return flags, inks


def _masks(overview: np.ndarray, mpp: float, glass: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Ink (`histill.slides.ink.Ink.colour`) and the masks of `fold`, `black` and `white`; density in bands of rows."""
    pixels = np.empty(overview.shape[:2], np.uint8)
    levels = np.empty(overview.shape, np.uint8)
    stained, empty = np.empty(overview.shape[:2], bool), np.empty(overview.shape[:2], bool)
    halo = int(np.ceil(4 * SMOOTH_UM / mpp)) + 1
    for top in range(0, len(overview), _BAND):
        rows, above = slice(top, top + _BAND), min(halo, top)
        inner = slice(above, above + _BAND)
        band = overview[top - above : top + _BAND + halo]
        density = colour.optical_density(band, glass)
        levels[rows] = fold_levels(density, mpp)[inner]
        density = density[inner]
        pixels[rows] = ink_pixels(band[inner], density)
        stained[rows] = colour.chroma(density) > 0.03
        empty[rows] = colour.glass(density)
    ink = find_ink(pixels, mpp)
    stained &= (ink.colour == 0) & ~ink.black
    return ink.colour, {"fold": fold_mask(levels, stained, mpp), "black": ink.black, "white": empty}
