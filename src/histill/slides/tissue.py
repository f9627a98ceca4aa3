"""Tissue on an overview: a mask by colour and morphology, no weights; fragments and holes filtered by physical area.

Stained tissue is what is coloured in optical density against the glass at its place (`illumination`). Three things are
coloured and no tissue. Ink has hues that stain has not. Dust, bubbles and edges of glass have density without colour.
Haze and uneven light fade out over hundreds of µm, while a section ends within a cell or two: what is reached from
glass without crossing such an edge is background, and its colour is taken off.

The threshold is Otsu's, taken again among the paler pixels while it parts dark stain from pale stain, and held within
bounds, since on an empty slide it parts noise from noise.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import cv2
import numpy as np

from histill.slides import colour, morphology
from histill.slides.illumination import Glass, find_glass, unscanned
from histill.slides.label import find_label

CHROMA_BOUNDS = (0.012, 0.05)  # optical density; pale stroma has 0.025 and more, even glass under JPEG 0.006
NOISE_SIGMAS = 5.0  # the threshold lies this many standard deviations of glass above glass
SMOOTH_UM = 10.0  # noise of single pixels
CLOSE_UM = 24.0  # gaps between cells of one tissue
OPEN_UM = 12.0  # threads and dust
INK_MARGIN_UM = 24.0  # the pale rim of a stroke
# Least over most absorbed channel: haematoxylin has 0.41, brown 0.35, eosin 0.1, no mixture of them more than 0.75;
# grey has 1, and black ink on tissue more than 0.65.
COLOURLESS, NEARLY_COLOURLESS = 0.8, 0.65
COLOURLESS_DENSITY = 0.12, 1.0  # below it errors of the glass's colour matter, above it stray light levels all
YELLOW, YELLOW_DENSITY = 0.3, 0.04  # green over blue: of glue, resin and paper less, of saffron 0.39, brown 0.73
COLD, WARM, BLACK = 1, 2, 3  # blue and green ink; red ink; black ink
# Thin ink, on tissue too, in hundredths: the least of `_Pixels.cold` and `.warm`, and above what is usual on the slide.
# Red minus green over the larger of them is -7 for haematoxylin, -93 for eosin, +44 for blue ink; blue over green is 41
# for haematoxylin, 11 for eosin, and up to 55 for eosins of other makes and blood.
FAR_UM = 300.0  # what is usual is looked up this far from ink
THIN, USUAL = {COLD: (126, 12), WARM: (45, 10)}, 0.8
FRINGES = (
    (0.3, 24.0),
    (0.08, 64.0),
)  # the scanner's blur and JPEG carry this share of a colour, this far, across an edge
CLEAR = 0.02  # density of glass at most, but for dirt and shadow
HAZE = 0.10  # chroma that no haze reaches
EDGE_PER_UM = 2.0e-4  # density: a faint edge of 0.02, blurred by 17 µm, has 4.7e-4; haze of 0.05 over 300 µm 1.7e-4
FAT_WALL_UM, FAT_LUMEN_UM, FAT_LEAST_UM = 24.0, 75.0, 100.0  # adipocytes measure 50 to 150 µm
BARE = 0.3  # of a stretch of background is glass without haze, at least
GAP_UM = 16.0  # an edge is not crossed through gaps of up to twice this
_UNIT = 1000  # grey levels per unit of chroma: it is kept in 8 bits
_BAND = 256
PARTED = 0.75  # of the variance lies between the sides of a threshold that parts two kinds; of noise 0.64
_OTSU_ROUNDS = 5
_ENOUGH = 200  # pixels that tell what is usual


class Tissue(NamedTuple):
    """What was found on an overview.

    Attributes
    ----------
    mask
        Where tissue is, bool [H, W].
    facts
        By which values.
    label
        Where the slide's label is, bool [H, W]; None where none was looked for.
    """

    mask: np.ndarray
    facts: dict[str, Any]
    label: np.ndarray | None = None


class _Pixels(NamedTuple):
    """Pixel by pixel, uint8 [H, W].

    Attributes
    ----------
    chroma, density
        Chroma and largest density, in thousandths.
    ink
        0, or which ink it surely is.
    cold
        Red minus green over the largest density, in hundredths above 128; 0 where there is little density.
    warm
        Blue over green, in hundredths, where red is less than either; else 0.
    grey, greyish, unlit
        0 or 1; `grey` is yellow as well, which no stain is either.
    """

    chroma: np.ndarray
    density: np.ndarray
    ink: np.ndarray
    cold: np.ndarray
    warm: np.ndarray
    grey: np.ndarray
    greyish: np.ndarray
    unlit: np.ndarray


def find_tissue(rgb: np.ndarray, mpp: float, *, min_area_mm2: float, min_hole_mm2: float) -> Tissue:
    """Find the stained tissue.

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
    """
    pixel_mm2 = (mpp / 1000) ** 2
    glass = find_glass(rgb, mpp)
    pixels = _classify(rgb, glass, max(SMOOTH_UM / mpp / 2, 0.5))
    blank = unscanned(rgb, mpp).view(np.uint8) | pixels.unlit
    ink = _whole_strokes(pixels, min_hole_mm2 / pixel_mm2, FAR_UM / mpp)
    ink = morphology.dilate(ink, INK_MARGIN_UM / mpp)
    out = ink | blank
    chroma, density = pixels.chroma, pixels.density
    chroma[(out | pixels.grey) > 0] = 0
    shares = {"ink_share": round(float(ink.mean()), 4), "unscanned_share": round(float(blank.mean()), 4)}
    del pixels, ink, blank
    noise = _noise(chroma, glass)
    chroma, haze = _without_haze(chroma, density, out, noise, mpp)
    threshold = _threshold(np.bincount(chroma[out == 0], minlength=256), noise)
    chroma[(chroma <= _fringe(chroma, mpp)) | ((haze | out) > 0)] = 0
    mask = (chroma > round(threshold * _UNIT)).view(np.uint8)
    label = find_label(rgb, mask, mpp)
    chroma[label > 0] = mask[label > 0] = 0
    # Paler tissue next to it, and the membranes of fat, which are thinner than a pixel.
    faint = (chroma > round(max(noise, CHROMA_BOUNDS[0]) * _UNIT)).view(np.uint8)
    mask = morphology.reached(faint, mask)
    del chroma, density, haze
    fat = morphology.fat(faint, wall=max(FAT_WALL_UM / mpp, 2.0), lumen=FAT_LUMEN_UM / mpp, least=FAT_LEAST_UM / mpp)
    mask = morphology.close(mask, CLOSE_UM / mpp)
    mask = morphology.open_(mask, OPEN_UM / mpp) | fat
    mask[out > 0] = 0
    mask = morphology.large(mask, min_area_mm2 / pixel_mm2)
    mask = morphology.fill_holes(mask, min_hole_mm2 / pixel_mm2)
    facts = {
        "chroma": round(threshold, 4),
        "chroma_faint": round(max(noise, CHROMA_BOUNDS[0]), 4),
        "glass": glass.colour,
        "glass_surface": {-1: "none found, 245 assumed", 0: "constant", 1: "plane", 2: "quadric"}[glass.order],
        "glass_noise": round(noise, 4),
        "label_share": round(float(label.mean()), 4),
        **shares,
    }
    return Tissue(mask.view(bool), facts, label.view(bool))


def _classify(rgb: np.ndarray, glass: Glass, sigma: float) -> _Pixels:
    """Band by band: three densities of the whole slide as floats would take half a gigabyte."""
    shape, halo = rgb.shape[:2], int(np.ceil(4 * sigma))
    found = _Pixels(*(np.empty(shape, np.uint8) for _ in _Pixels._fields))
    logs = np.log10(np.maximum(np.arange(256, dtype=np.float32), 1))
    for top in range(0, shape[0], _BAND):
        rows = slice(top, min(top + _BAND, shape[0]))
        first, last = max(rows.start - halo, 0), min(rows.stop + halo, shape[0])
        smooth = cv2.GaussianBlur(rgb[first:last], (0, 0), sigma)[rows.start - first : rows.stop - first]
        density = glass.rows(rows.start, rows.stop, shape) - cv2.LUT(smooth, logs)
        np.maximum(density, 0, out=density)
        most, least = colour.highest(density), colour.lowest(density)
        found.chroma[rows] = np.minimum((most - least) * _UNIT + 0.5, 255)
        found.density[rows] = np.minimum(most * _UNIT + 0.5, 255)
        red, green, blue = density[..., 0], density[..., 1], density[..., 2]
        ink = colour.coloured_ink(density).astype(np.uint8) * WARM
        ink[(ink > 0) & (red > green)] = COLD
        ink[colour.black(smooth, density)] = BLACK
        found.ink[rows] = ink
        low, high = COLOURLESS_DENSITY
        dense = (most > low) & (most < high)
        cold = 128.5 + 100 * (red - green) / np.maximum(most, low)
        found.cold[rows] = np.where((most > low) | (red - green > 0.04), cold, 0)
        warm = 100.5 * np.minimum(blue, 1.1 * green) / np.maximum(green, 0.05)
        found.warm[rows] = np.where((green - red > 0.05) & (red < 0.7 * green) & (blue < 1.1 * green), warm, 0)
        yellow = (blue > YELLOW_DENSITY) & (np.maximum(red, green) < YELLOW * blue)
        found.grey[rows] = (dense & (least > COLOURLESS * most)) | yellow
        found.greyish[rows] = dense & (least > NEARLY_COLOURLESS * most)
        found.unlit[rows] = colour.dark(smooth)
    return found


def _whole_strokes(pixels: _Pixels, min_pixels: float, far: float) -> np.ndarray:
    """Ink together with its thin parts; grains of pigment are tissue, a stroke is larger.

    Thin ink is sought only next to ink of its kind, since stains of other makes come close to it.
    """
    strokes = morphology.large(pixels.grey, min_pixels)
    for kind, thin in ((COLD, pixels.cold), (WARM, pixels.warm), (BLACK, pixels.greyish)):
        sure = morphology.large((pixels.ink == kind).view(np.uint8), min_pixels)
        if sure.any():
            if kind == BLACK:
                sure |= strokes
            else:
                thin = (thin > _unusual(thin[morphology.dilate(sure, far) == 0], *THIN[kind])).view(np.uint8)
            strokes |= morphology.reached(thin | sure, sure)
    return strokes


def _unusual(hundredths: np.ndarray, least: int, apart: int) -> int:
    """The value that parts thin ink from what is usual away from ink; a cautious one where too little is."""
    counts = np.bincount(hundredths, minlength=256)
    counts[0] = 0
    if counts.sum() < _ENOUGH:
        return least + apart
    return max(int(np.searchsorted(np.cumsum(counts), USUAL * counts.sum())) + apart, least)


def _noise(chroma: np.ndarray, glass: Glass) -> float:
    """Median plus some standard deviations of the chroma of glass; the lower bound where there is none."""
    where = cv2.resize(glass.where.view(np.uint8), chroma.shape[::-1], interpolation=cv2.INTER_NEAREST)
    counts = np.bincount(chroma[where > 0], minlength=256)
    if counts.sum() < 100:
        return 0.02
    share = np.cumsum(counts) / counts.sum()
    middle, upper = (int(np.searchsorted(share, part)) for part in (0.5, 0.8413))
    return (middle + NOISE_SIGMAS * max(upper - middle, 0.5)) / _UNIT


def _without_haze(
    chroma: np.ndarray, density: np.ndarray, out: np.ndarray, noise: float, mpp: float
) -> tuple[np.ndarray, np.ndarray]:
    """Chroma above that of the background around, and where the background is; both uint8 [H, W]."""
    low = min(max(noise, CHROMA_BOUNDS[0]), CHROMA_BOUNDS[1])
    sigma = max(16.0 / mpp, 0.8)
    even = cv2.GaussianBlur(density, (0, 0), sigma)
    slope = np.empty(chroma.shape, np.uint8)
    limit = EDGE_PER_UM * mpp * _UNIT
    for top in range(0, len(chroma), _BAND):
        first, last = max(top - 2, 0), min(top + _BAND + 2, len(chroma))
        dx = cv2.Sobel(even[first:last], cv2.CV_32F, 1, 0, scale=1 / 8)
        dy = cv2.Sobel(even[first:last], cv2.CV_32F, 0, 1, scale=1 / 8)
        bottom = min(top + _BAND, len(chroma))
        slope[top:bottom] = (cv2.magnitude(dx, dy) < limit)[top - first : top - first + bottom - top]
    clear = even <= CLEAR * _UNIT
    even = cv2.GaussianBlur(chroma, (0, 0), sigma)
    passable = slope & (even < HAZE * _UNIT).view(np.uint8) & (1 - out)
    gap = np.ones([2 * max(1, round(GAP_UM / mpp)) + 1] * 2, np.uint8)
    inner = cv2.erode(passable, gap)
    number, labels, stats, _ = cv2.connectedComponentsWithStats(inner, connectivity=4)
    clear &= (even <= low * _UNIT) & (inner > 0)
    glassy = morphology.tally(labels, clear, number) >= np.maximum(BARE * stats[:, cv2.CC_STAT_AREA], 4)
    glassy[0] = False
    background = cv2.dilate(morphology.select(labels, glassy), gap) & passable
    del labels, passable, inner, slope
    veil = _around(even, background, mpp)
    return cv2.subtract(chroma, veil), background


def _around(chroma: np.ndarray, background: np.ndarray, mpp: float) -> np.ndarray:
    """Chroma of the background near each pixel, uint8 [H, W]; 0 far from any background."""
    step = max(1, round(32 / mpp))
    size = max(1, chroma.shape[1] // step), max(1, chroma.shape[0] // step)
    weight = cv2.resize(background * 255, size, interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    total = cv2.resize(chroma * background, size, interpolation=cv2.INTER_AREA).astype(np.float32)
    sigma = 80 / (mpp * step)
    weight, total = cv2.GaussianBlur(weight, (0, 0), sigma), cv2.GaussianBlur(total, (0, 0), sigma)
    level = np.where(weight > 0.02, total / np.maximum(weight, 0.02), 0)
    return cv2.resize(np.rint(level).astype(np.uint8), chroma.shape[::-1], interpolation=cv2.INTER_LINEAR)


def _fringe(chroma: np.ndarray, mpp: float) -> np.ndarray:
    """What an edge of tissue may lend to the glass beside it, uint8 [H, W]."""
    lent = np.zeros_like(chroma)
    for share, reach in FRINGES:
        near = cv2.dilate(chroma, np.ones([2 * max(1, round(reach / mpp)) + 1] * 2, np.uint8))
        np.maximum(lent, cv2.convertScaleAbs(near, alpha=share), out=lent)
    return lent


def _threshold(counts: np.ndarray, noise: float) -> float:
    """Otsu's threshold of chroma, from its histogram in thousandths; square roots spread pale stain as wide as dark."""
    low, high = CHROMA_BOUNDS
    low = min(max(low, noise), high)
    level = np.sqrt(np.arange(256))
    threshold, last = high, 256
    for _ in range(_OTSU_ROUNDS):
        weights = counts[:last].astype(np.float64)
        total = weights.sum()
        if last < 2 or total == 0:
            break
        below, mass = np.cumsum(weights), np.cumsum(weights * level[:last])
        above = total - below
        apart = mass / np.maximum(below, 1) - (mass[-1] - mass) / np.maximum(above, 1)
        between = below * above * apart**2 / total**2
        best = int(np.argmax(between))
        spread = np.sum(weights * (level[: len(weights)] - mass[-1] / total) ** 2) / total
        if last / _UNIT <= high and between[best] < PARTED * spread:
            break
        last = best
        threshold = float(np.clip((last + 0.5) / _UNIT, low, high))
        if threshold == low:
            break
    return threshold
