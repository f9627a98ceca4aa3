"""The light behind the slide: colour of empty glass at every place, as a smooth surface through what is surely glass.

Lamps are yellowish or bluish, and unevenly so. Glass is what is bright, even over 100 µm, and not magenta:
haematoxylin and eosin both absorb green most, no lamp or glass does. Of several such levels the brightest is the glass;
its colour is fitted over the slide, so that no tint of the lamp looks like a stain.
"""

from __future__ import annotations

import cv2
import numpy as np

from histill.slides import colour

FIT_UM = 32.0  # µm per pixel at which glass is sought: nuclei are averaged out, lumens are not
EVEN = 0.006  # standard deviation of density over 3 × 3 of those pixels: glass has 0.001 to 0.004, stained tissue more
TINT = 0.12  # density by which channels of glass may differ: blue down to 0.76 of red
DIM = 0.25  # density below white at which nothing is called glass
MAGENTA = 0.012  # density by which green may exceed red and blue both
STEP = 0.02  # density by which glass may leave the surface fitted so far
_SHARE = 0.005  # of the slide that one level of glass takes at least
_SAMPLES = 20_000
_GRID = 64
_FILLS, _FILL_MIN = 3, 200  # colours of unscanned fields that a file may have, and their darkest channel
_BLOCK_UM = 300.0  # shortest straight side of an unscanned field


class Glass:
    """Colour of empty glass over a slide.

    Attributes
    ----------
    density
        float32 [64, 64, 3]: log10 of its intensity, spread over the whole slide.
    order
        0: one colour; 1, 2: a plane or a quadric, in log10; -1: none was found, 245 grey is assumed.
    where
        bool [h, w], a reduced picture of the slide: what was taken for glass.
    """

    def __init__(self, density: np.ndarray, order: int, where: np.ndarray):
        self.density, self.order, self.where = density, order, where

    def rows(self, top: int, bottom: int, shape: tuple[int, int]) -> np.ndarray:
        """log10 intensity of glass in some rows of a picture of `shape` [H, W]: float32 [bottom - top, W, 3]."""
        if self.order < 1:
            return np.broadcast_to(self.density[0, 0], (bottom - top, shape[1], 3))
        at = (np.arange(top, bottom, dtype=np.float32) + 0.5) * (_GRID / shape[0]) - 0.5
        low = np.clip(np.floor(at).astype(int), 0, _GRID - 2)
        part = np.clip(at - low, 0, 1)[:, None, None]
        lines = self.density[low] * (1 - part) + self.density[low + 1] * part
        return cv2.resize(lines, (shape[1], bottom - top), interpolation=cv2.INTER_LINEAR)

    @property
    def colour(self) -> list[float]:
        """Median colour over the slide, RGB."""
        return [round(float(value), 1) for value in 10 ** np.median(self.density.reshape(-1, 3), axis=0)]


def find_glass(rgb: np.ndarray, mpp: float) -> Glass:
    """Fit the colour of glass.

    Parameters
    ----------
    rgb
        Overview, uint8 [H, W, 3].
    mpp
        µm per pixel.
    """
    step = max(1, min(round(FIT_UM / mpp), min(rgb.shape[:2]) // 100))
    size = max(1, rgb.shape[1] // step), max(1, rgb.shape[0] // step)
    small = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)
    light = np.log10(np.maximum(small, 1).astype(np.float32))
    usable = plausible(light) & _even(light)
    blocks = unscanned(small, mpp * step)
    if np.count_nonzero(usable & ~blocks) >= _SHARE * usable.size:
        usable &= ~blocks
    seed = _brightest(light, usable)
    if seed is None:
        level = np.full(3, np.log10(colour.DEFAULT_GLASS), np.float32)
        return Glass(np.broadcast_to(level, (_GRID, _GRID, 3)), -1, np.zeros_like(usable))
    return _fit(light, usable, seed)


def plausible(light: np.ndarray) -> np.ndarray:
    """Pixels of a colour that lamp and glass may have, bool [H, W]; `light` is log10 of the intensity."""
    red, green, blue = (np.log10(255) - light[..., channel] for channel in range(3))
    most, least = np.maximum(np.maximum(red, green), blue), np.minimum(np.minimum(red, green), blue)
    return (most < DIM) & (most - least < TINT) & (green - np.maximum(red, blue) < MAGENTA)


def unscanned(rgb: np.ndarray, mpp: float) -> np.ndarray:
    """Fields that were not scanned: of exactly one bright colour, with straight sides. bool [H, W]."""
    fields = np.zeros(rgb.shape[:2], np.uint8)
    side = max(3, round(_BLOCK_UM / mpp))
    every = max(1, side // 3)
    sample = rgb[::every, ::every].reshape(-1, 3).astype(np.uint32)
    colours, counts = np.unique(sample @ np.array([1 << 16, 1 << 8, 1], np.uint32), return_counts=True)
    for code in colours[np.argsort(-counts)[:_FILLS]].tolist():
        fill = code >> 16, code >> 8 & 255, code & 255
        if min(fill) >= _FILL_MIN:
            same = cv2.inRange(rgb, fill, fill) >> 7
            same = cv2.morphologyEx(same, cv2.MORPH_OPEN, np.ones((side, side), np.uint8))
            if _is_straight(same, 2 * side):
                fields |= same
    # Resampling mixes the rim with what lies beside it.
    return cv2.dilate(fields, np.ones((3, 3), np.uint8)).view(bool)


def _is_straight(mask: np.ndarray, length: int) -> bool:
    """Whether most of a mask's outline is straight along rows and columns; that of overexposed glass is not."""
    padded = cv2.copyMakeBorder(mask, 1, 1, 1, 1, cv2.BORDER_REPLICATE)
    down, right = padded[1:] ^ padded[:-1], padded[:, 1:] ^ padded[:, :-1]
    edges = np.count_nonzero(down) + np.count_nonzero(right)
    line = np.ones(length, np.uint8)
    straight = np.count_nonzero(cv2.morphologyEx(down, cv2.MORPH_OPEN, line[None]))
    straight += np.count_nonzero(cv2.morphologyEx(right, cv2.MORPH_OPEN, line[:, None]))
    return edges > 0 and straight > 0.6 * edges


def _even(light: np.ndarray) -> np.ndarray:
    mean = cv2.blur(light, (3, 3))
    variance = cv2.blur(light * light, (3, 3)) - mean * mean
    return variance.max(2) < EVEN**2


def _brightest(light: np.ndarray, usable: np.ndarray) -> np.ndarray | None:
    """log10 intensity [3] of the brightest level that takes its share of the slide."""
    pixels = light[usable]
    if len(pixels) < max(4, _SHARE * usable.size):
        return None
    lightness = pixels.mean(1)
    ordered = np.sort(lightness)
    within = np.searchsorted(ordered, ordered + STEP / 2, side="right") - np.arange(len(ordered))
    broad = np.flatnonzero(within >= max(4, _SHARE * usable.size))
    if not broad.size:
        return None
    level = ordered[broad[-1]]
    return np.median(pixels[(lightness >= level) & (lightness <= level + STEP / 2)], axis=0)


def _fit(light: np.ndarray, usable: np.ndarray, seed: np.ndarray) -> Glass:
    """Grow from the seed level to what lies near the surface fitted so far, a constant, a plane, a quadric."""
    rows, columns = np.nonzero(usable)
    every = max(1, len(rows) // _SAMPLES)
    rows, columns = rows[::every], columns[::every]
    pixels = light[rows, columns]
    yy, xx = 2 * (rows + 0.5) / light.shape[0] - 1, 2 * (columns + 0.5) / light.shape[1] - 1
    surface, order = np.broadcast_to(seed, pixels.shape), 0
    weights = seed[None].astype(np.float64)
    for wanted in (0, 0, 1, 1, 1, 2, 2, 2):
        apart = pixels - surface
        near = np.abs(apart).max(1) < STEP
        near &= apart[:, 1] - np.minimum(apart[:, 0], apart[:, 2]) > -MAGENTA
        order = min(wanted, _supported(xx[near], yy[near]))
        terms = _terms(xx, yy, order)
        if np.count_nonzero(near) < 4 * terms.shape[1]:
            break
        # Normal equations: six terms over −1 to 1 are well apart, and this is ten times as fast.
        known = terms[near]
        weights = np.linalg.lstsq(known.T @ known, known.T @ pixels[near].astype(np.float64), rcond=None)[0]
        surface = terms @ weights
    centre = (np.arange(_GRID) + 0.5) * 2 / _GRID - 1
    grid = _terms(np.tile(centre, _GRID), np.repeat(centre, _GRID), order) @ weights
    level = np.median(surface, axis=0)
    grid = np.clip(grid, level - DIM / 2, level + DIM / 2).astype(np.float32).reshape(_GRID, _GRID, 3)
    where = np.zeros(usable.shape, bool)
    near = np.abs(pixels - surface).max(1) < STEP
    where[rows[near], columns[near]] = True
    return Glass(grid, order, where)


def _terms(xx: np.ndarray, yy: np.ndarray, order: int) -> np.ndarray:
    columns = [np.ones_like(xx), xx, yy, xx * xx, xx * yy, yy * yy]
    return np.stack(columns[: (1, 3, 6)[order]], axis=1)


def _supported(xx: np.ndarray, yy: np.ndarray) -> int:
    """Order of the surface that the places of glass determine: they must lie all over the slide."""
    cells = np.unique(np.clip((xx + 1) * 2, 0, 3).astype(int) * 4 + np.clip((yy + 1) * 2, 0, 3).astype(int))
    across = min(len(np.unique(cells // 4)), len(np.unique(cells % 4)))
    if len(cells) >= 9 and across == 4:
        return 2
    return 1 if len(cells) >= 5 and across >= 3 else 0
