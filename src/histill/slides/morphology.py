"""Shapes on a mask, all sizes in pixels: growing and shrinking by any radius, components, holes, fat.

Masks are uint8 [H, W] of 0 and 1. What numpy would do with an index array of the whole picture is done in bands, since
it makes 8 bytes of every pixel.
"""

from __future__ import annotations

import cv2
import numpy as np

_BAND = 512
_KERNEL_LIMIT = 4  # radius from which a distance transform is faster than a kernel


def dilate(mask: np.ndarray, radius: float) -> np.ndarray:
    """Grow a mask (uint8 [H, W], 0 and 1) by a disk; below half a pixel nothing changes."""
    if radius < 0.5:
        return mask
    if radius <= _KERNEL_LIMIT:
        return cv2.dilate(mask, disk(radius))
    away = cv2.distanceTransform(1 - mask, cv2.DIST_L2, cv2.DIST_MASK_5)
    return (away <= radius).view(np.uint8) if mask.any() else mask


def erode(mask: np.ndarray, radius: float) -> np.ndarray:
    """Shrink a mask by a disk; what lies beyond the picture counts as mask."""
    return 1 - dilate(1 - mask, radius)


def close(mask: np.ndarray, radius: float) -> np.ndarray:
    """Fill gaps narrower than twice the radius. The picture's frame is glass: a gap at it is no gap."""
    if radius < 0.5:
        return mask
    margin = int(np.ceil(radius)) + 1
    wide = cv2.copyMakeBorder(mask, *[margin] * 4, cv2.BORDER_CONSTANT, value=0)
    return np.ascontiguousarray(erode(dilate(wide, radius), radius)[margin:-margin, margin:-margin])


def open_(mask: np.ndarray, radius: float) -> np.ndarray:
    """Drop what is narrower than twice the radius."""
    return mask if radius < 0.5 else dilate(erode(mask, radius), radius)


def disk(radius: float) -> np.ndarray:
    """Kernel of a disk."""
    size = 2 * int(np.ceil(radius - 0.5)) + 1
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))


def large(mask: np.ndarray, min_pixels: float) -> np.ndarray:
    """The mask's components of at least `min_pixels` pixels, uint8."""
    if min_pixels <= 1 or not mask.any():
        return mask
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=4)
    keep = stats[:, cv2.CC_STAT_AREA] >= min_pixels
    keep[0] = False
    return select(labels, keep)


def reached(mask: np.ndarray, seeds: np.ndarray) -> np.ndarray:
    """The mask's components that hold any of the seeds, uint8."""
    if not seeds.any():
        return np.zeros_like(mask)
    number, labels = cv2.connectedComponents(mask, connectivity=4)
    touched = tally(labels, seeds, number) > 0
    touched[0] = False
    return select(labels, touched)


def select(labels: np.ndarray, keep: np.ndarray) -> np.ndarray:
    """Where the label [H, W] is one to keep (bool, one a label), uint8."""
    mask, keep = np.empty(labels.shape, np.uint8), keep.astype(np.uint8)
    for top in range(0, len(labels), _BAND):
        mask[top : top + _BAND] = keep[labels[top : top + _BAND]]
    return mask


def tally(labels: np.ndarray, where: np.ndarray, number: int) -> np.ndarray:
    """How many pixels of each of `number` labels lie in a mask, int64."""
    counts = np.zeros(number, np.int64)
    for top in range(0, len(labels), _BAND):
        band = slice(top, top + _BAND)
        counts += np.bincount(labels[band][where[band] > 0], minlength=number)
    return counts


def fill_holes(mask: np.ndarray, max_pixels: float) -> np.ndarray:
    """Fill holes smaller than `max_pixels` pixels; glass that reaches the picture's frame is no hole."""
    outside = cv2.copyMakeBorder(1 - mask, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=1)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(outside, connectivity=4)
    small = stats[:, cv2.CC_STAT_AREA] < max_pixels
    small[[0, labels[0, 0]]] = False
    return mask | select(labels[1:-1, 1:-1], small)


def fat(mask: np.ndarray, *, wall: float, lumen: float, least: float) -> np.ndarray:
    """Where thin walls lie around empty cells, the cells included.

    Parameters
    ----------
    mask
        Stained pixels, before anything thin was dropped; uint8 [H, W].
    wall
        Half the width of the thickest wall.
    lumen
        Half the width of the widest cell.
    least
        Half the width of the smallest stretch of fat.
    """
    thin = mask & (1 - open_(mask, wall))
    if not thin.any():
        return thin
    # Specks are no walls: a wall is as long as a cell is wide.
    _, labels, stats, _ = cv2.connectedComponentsWithStats(thin, connectivity=8)
    keep = np.maximum(stats[:, cv2.CC_STAT_WIDTH], stats[:, cv2.CC_STAT_HEIGHT]) >= lumen
    keep[0] = False
    walls = select(labels, keep)
    del labels, thin
    return open_(close(walls, lumen), least) if walls.any() else walls
