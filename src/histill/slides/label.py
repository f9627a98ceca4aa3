"""The slide's label, where a scanner took it along: a printed rectangle of one colour at the slide's end."""

from __future__ import annotations

import cv2
import numpy as np

from histill.slides.morphology import fill_holes

FILLED = 0.9  # of its bounding box: a rectangle
LARGEST = 0.5  # of the slide
LEAST_MM2 = 2.0
GREY_LEVELS = 14  # paper is of one colour, give or take these; tissue varies more
PRINT, PRINT_DARK = 0.005, 0.6  # this share is darker than this part of the paper
_END_UM = 100.0


def find_label(rgb: np.ndarray, coloured: np.ndarray, mpp: float) -> np.ndarray:
    """Where the label is, uint8 [H, W].

    Parameters
    ----------
    rgb
        Overview, uint8 [H, W, 3].
    coloured
        What may be tissue by its colour, uint8 [H, W]; a white label is not, and none is looked for.
    mpp
        µm per pixel.
    """
    found = np.zeros_like(coloured)
    deep = max(1, round(_END_UM / mpp))
    for end in (np.s_[:deep], np.s_[-deep:], np.s_[:, :deep], np.s_[:, -deep:]):
        inside = coloured[end] > 0
        if inside.mean() < 0.25 or found[end].any():
            continue
        paper = np.median(rgb[end][inside], axis=0)
        low, high = (np.clip(paper + shift, 0, 255).tolist() for shift in (-GREY_LEVELS, GREY_LEVELS))
        same = cv2.inRange(rgb, (*low, 0), (*high, 0)) & coloured
        number, labels, stats, _ = cv2.connectedComponentsWithStats(same, connectivity=4)
        if number < 2:
            continue
        largest = 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))
        left, top, width, height, _ = stats[largest].tolist()
        box = np.s_[top : top + height, left : left + width]
        own = np.ascontiguousarray(labels[box] == largest).view(np.uint8)
        if _fits(width * height, coloured.size, mpp) and _is_printed(rgb[box], own, paper):
            found[box] = 1
    return found


def _fits(box: int, slide: int, mpp: float) -> bool:
    return box <= LARGEST * slide and box * (mpp / 1000) ** 2 >= LEAST_MM2


def _is_printed(rgb: np.ndarray, own: np.ndarray, paper: np.ndarray) -> bool:
    # Print that reaches the box's frame is no hole; the margin makes it one.
    framed = cv2.copyMakeBorder(own, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=1)
    rectangular = fill_holes(framed, own.size)[1:-1, 1:-1].mean() >= FILLED and own.mean() >= FILLED / 2
    return rectangular and (rgb.max(2) < PRINT_DARK * paper.max()).mean() >= PRINT
