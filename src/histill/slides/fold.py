"""Tissue folds on an overview: narrow strips where every colour channel absorbs about twice what the tissue does.

A fold is tissue on tissue, so its density is the sum of two layers in red, green and blue alike. Packed nuclei add red
density and little else, muscle and blood add green and blue and hardly any red: the least of the three ratios parts
folds from them. A fold is also long and narrow; a nest of tumour is neither. And it has the hue of the tissue that lies
double: lymphoid clusters, epithelium and keratin among stroma have another.
"""

from __future__ import annotations

import cv2
import numpy as np

OVER_SLIDE = 1.5  # least channel over the median of the slide's tissue: 2 for two equal layers, less at a slant
OVER_LOCAL = 1.4  # the same over the tissue around it, so that dark tissue is no fold
LEAST_DENSITY = 0.5  # sum of the channels; below, noise and dust tell as much as stain
WIDTH_UM = (12.0, 160.0)
LENGTH_UM = 120.0
ASPECT = 3.0  # length over width
# Angles between densities in degrees. Real fields folded: at most 1.6 to either. Clusters, epithelium and keratin: 3.4
# to 9 to the slide's usual tissue, and 1.4 and more to what is around them.
HUE_OF_SLIDE, HUE_AROUND = 3.0, 1.2
SMOOTH_UM = 6.0  # less than half the narrowest fold, more than a nucleus at the overview
STEPS = 128  # grey levels of density per unit: 8 bits hold the overview of the largest slide
_AROUND_UM = 400.0  # wide enough that a fold is the smaller part of it
_LEAST_USUAL = 0.02 * STEPS
_SAMPLE = 500_000


def fold_levels(density: np.ndarray, mpp: float) -> np.ndarray:
    """Smoothed density in steps of 1/128, uint8 [H, W, 3], of a float32 density [H, W, 3]."""
    smooth = cv2.GaussianBlur(density, (0, 0), max(SMOOTH_UM / mpp, 0.5))
    return cv2.convertScaleAbs(smooth, alpha=STEPS)


def fold_mask(levels: np.ndarray, tissue: np.ndarray, mpp: float) -> np.ndarray:
    """Where the tissue is folded.

    Parameters
    ----------
    levels
        `fold_levels` of the overview, uint8 [H, W, 3].
    tissue
        Stained tissue without ink and unlit pixels, bool [H, W]; it may be generous.
    mpp
        µm per pixel; from 16 on folds are too narrow to be seen and nothing is found.

    Returns
    -------
    bool [H, W].
    """
    if mpp >= 16 or not tissue.any():
        return np.zeros(tissue.shape, bool)
    step = max(1, round((tissue.size / _SAMPLE) ** 0.5))
    sample = levels[::step, ::step][tissue[::step, ::step]]
    if not len(sample):
        return np.zeros(tissue.shape, bool)
    usual = np.maximum(np.median(sample, axis=0), _LEAST_USUAL)
    strip = tissue & (levels @ np.ones(3, np.uint16) > LEAST_DENSITY * STEPS)
    for channel in range(3):
        strip &= levels[..., channel] > OVER_SLIDE * usual[channel]
    if not strip.any():
        return strip
    around = np.empty((np.count_nonzero(strip), 3), np.float32)
    high = np.ones(len(around), bool)
    for channel in range(3):
        around[:, channel] = _around(levels[..., channel], tissue, usual[channel], mpp)[strip]
        high &= levels[..., channel][strip] > OVER_LOCAL * around[:, channel]
    strip[strip] = high
    return _of_hue(*_strips(strip, mpp), levels, usual, around[high], strip)


def _of_hue(
    labels: np.ndarray, number: int, levels: np.ndarray, usual: np.ndarray, around: np.ndarray, strip: np.ndarray
) -> np.ndarray:
    """The components with the hue of the slide's usual tissue, or of that around them; `around` is of `strip`."""
    member, inside, keep = labels[strip], levels[strip], np.zeros(number, bool)
    for label in np.unique(member[member > 0]):
        own = np.median(inside[member == label], axis=0)  # a stroke of ink that crosses does not count
        local = np.median(around[member == label], axis=0)
        keep[label] = _angle(own, usual) <= HUE_OF_SLIDE or _angle(own, local) <= HUE_AROUND
    return keep[labels]


def _angle(one: np.ndarray, other: np.ndarray) -> float:
    """Angle between two densities in degrees."""
    cosine = one @ other / max(np.linalg.norm(one) * np.linalg.norm(other), 1e-9)
    return float(np.degrees(np.arccos(np.clip(cosine, -1, 1))))


def _around(levels: np.ndarray, tissue: np.ndarray, usual: float, mpp: float) -> np.ndarray:
    """Median level of the surroundings; glass counts as usual tissue, or edges would look like folds."""
    filled = np.where(tissue, levels, np.uint8(min(round(usual), 255)))
    shrink = max(1, round(16 / mpp))  # the median of so wide an area needs no more detail
    small = cv2.resize(filled, None, fx=1 / shrink, fy=1 / shrink, interpolation=cv2.INTER_AREA)
    size = 2 * round(_AROUND_UM / (mpp * shrink) / 2) + 1
    around = cv2.resize(cv2.medianBlur(small, size), levels.shape[::-1], interpolation=cv2.INTER_LINEAR)
    return np.maximum(around, np.float32(_LEAST_USUAL))


def _strips(mask: np.ndarray, mpp: float) -> tuple[np.ndarray, int]:
    """Labels of the long and narrow components of a mask, int32 [H, W], 0 elsewhere, and their number with that."""
    number, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    width = np.maximum(thickness(mask, labels, number) * mpp, mpp)
    length = stats[:, cv2.CC_STAT_AREA] * mpp**2 / width
    keep = (width >= WIDTH_UM[0]) & (width <= WIDTH_UM[1]) & (length >= np.maximum(LENGTH_UM, ASPECT * width))
    keep[0] = False
    return np.where(keep, np.arange(number, dtype=np.int32), 0)[labels], number


def thickness(mask: np.ndarray, labels: np.ndarray, number: int) -> np.ndarray:
    """Diameter in pixels of the largest disk inside each component of a mask, float32 [number]; 0 for the background.

    Parameters
    ----------
    labels, number
        Of `cv2.connectedComponents(mask)`.
    """
    inside = cv2.distanceTransform(np.pad(mask, 1).astype(np.uint8), cv2.DIST_L2, 3)[1:-1, 1:-1]
    radius = np.zeros(number, np.float32)
    np.maximum.at(radius, labels[mask], inside[mask])
    return np.maximum(2 * radius - 1, 0)
