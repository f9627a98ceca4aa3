"""Felt pen and unlit area on an overview: which colour of ink, and what is black without being ink.

Colour parts blue and green ink from stain. It parts red ink from blood only in part, and black ink from unlit border
not at all; there thickness, shape and place decide. What the overview leaves open, red ink or a lake of blood, is
settled by the grain at 2 µm per pixel (`histill.slides.detail`).
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

from histill.slides import colour
from histill.slides.fold import thickness

COLOURS = ("red", "green", "blue", "black")  # value in `Ink.colour` minus one
COLD = 0.06  # red above green density; of 61,000 tissue pixels at 8 µm none had more than 0.01
GREEN_BLUE = 0.45  # blue over red density on tissue: blue inks 0.1 to 0.45, green ones and teal 0.48 and more
RED_SOLID_UM = 24.0  # a stroke is solid over it; single cells and capillaries are not
BLACK_THICK_UM = 40.0  # finest pens draw 100 µm; grains of pigment are clumps of some 10 µm
BLACK_LONG_UM = 300.0
UNLIT_CONTACT = 0.5  # of a component's longer side lies on the slide's frame: a border; a stroke only ends there
UNLIT_FILL = 0.9  # of its bounding box: a field that was not scanned
UNLIT_FIELD_UM = 100.0


class Ink(NamedTuple):
    """What covers the slide.

    Attributes
    ----------
    colour
        uint8 [H, W]: 0 for no ink, else the place in `COLOURS` plus one.
    black
        bool [H, W]: unlit, and black that is no ink (pigment, dirt).
    """

    colour: np.ndarray
    black: np.ndarray


def ink_pixels(rgb: np.ndarray, density: np.ndarray) -> np.ndarray:
    """What each pixel may be by its own colour, uint8 [H, W]: 0, or the place in `COLOURS` plus one.

    Red may be blood, and black may be unlit; `find_ink` decides on the whole picture.

    Parameters
    ----------
    rgb
        uint8 [H, W, 3], of the overview or a band of it.
    density
        Its optical density, float32 [H, W, 3].
    """
    red, green, blue = (density[..., channel] for channel in range(3))
    found = np.zeros(rgb.shape[:2], np.uint8)
    found[colour.black(rgb, density)] = 1 + COLOURS.index("black")
    found[red_dye(density)] = 1 + COLOURS.index("red")
    cold = red - green > COLD
    found[cold] = 1 + COLOURS.index("blue")
    found[cold & ((blue > green) | (blue > GREEN_BLUE * red))] = 1 + COLOURS.index("green")
    return found


def find_ink(pixels: np.ndarray, mpp: float) -> Ink:
    """Ink and unlit area.

    Parameters
    ----------
    pixels
        `ink_pixels` of the whole overview.
    mpp
        µm per pixel.
    """
    marked = pixels.copy()
    red = (pixels == 1 + COLOURS.index("red")).view(np.uint8)
    size = max(1, round(RED_SOLID_UM / mpp))
    solid = cv2.morphologyEx(red, cv2.MORPH_OPEN, np.ones((size, size), np.uint8))
    marked[red > solid] = 0
    black = pixels == 1 + COLOURS.index("black")
    strokes = _strokes(black, mpp)
    marked[black & ~strokes] = 0
    return Ink(marked, black & ~strokes)


def red_dye(density: np.ndarray) -> np.ndarray:
    """Pixels of red ink, or of erythrocytes, whose dyes absorb alike. bool [H, W].

    Both absorb green and blue strongly and next to no red. Of eosin, however strong, the blue density is 0.55 to 0.67
    of the green one, of blood 0.63 to 1.0, of ink 0.66 and more; and any nucleus absorbs red.
    """
    red, green, blue = density[..., 0], density[..., 1], density[..., 2]
    return (green - red > 0.25) & (red < 0.35 * green) & (blue > 0.68 * green)


def _strokes(black: np.ndarray, mpp: float) -> np.ndarray:
    """The components of black that are drawn: thick and long, no border of the slide and no unscanned field."""
    if not black.any():
        return black
    number, labels, stats, _ = cv2.connectedComponentsWithStats(black.astype(np.uint8), connectivity=8)
    width, height, area = (stats[:, column] for column in (cv2.CC_STAT_WIDTH, cv2.CC_STAT_HEIGHT, cv2.CC_STAT_AREA))
    sides = [labels[0], labels[-1], labels[:, 0], labels[:, -1]]
    contact = np.max([np.bincount(side, minlength=number) for side in sides], axis=0)
    border = contact >= UNLIT_CONTACT * np.maximum(width, height)
    field = (area >= UNLIT_FILL * width * height) & (np.minimum(width, height) * mpp >= UNLIT_FIELD_UM)
    thick = thickness(black, labels, number) * mpp >= BLACK_THICK_UM
    drawn = thick & (np.hypot(width, height) * mpp >= BLACK_LONG_UM) & ~border & ~field
    drawn[0] = False
    return drawn[labels]
