"""A documented colour-and-texture descriptor: 88 numbers a tile, no weights, no GPU.

It makes the whole system run anywhere and is a baseline that a foundation encoder should beat. Everything is computed
from three optical-density channels after Ruifrok & Johnston (2001), whose fixed haematoxylin-eosin-DAB matrix needs no
fit: haematoxylin marks nuclei, eosin stroma and cytoplasm, the residual catches what is neither (ink, blood).

| numbers | what |
|---|---|
| 18 | haematoxylin, eosin, residual: mean, standard deviation, 10th, 50th, 90th percentile, skewness |
| 8 | red, green, blue, saturation: mean, standard deviation |
| 20 | uniform local binary patterns of haematoxylin, 8 neighbours at radius 1 and 3 px (Ojala et al. 2002) |
| 8 | band-pass energy of haematoxylin (differences of Gaussians at 1, 2, 4, 8, 16 px): mean magnitude, deviation |
| 8 | eosin structure tensor at 2 and 8 px: coherence mean, deviation, 90th percentile, alignment of orientations |
| 2 | gradient magnitude of luminance: mean, standard deviation |
| 16 | nuclear blobs: density, area fraction, area (mean, deviation, 10th, 50th, 90th percentile), elongation (mean, |
|    | deviation), solidity, haematoxylin in nuclei (mean, deviation, texture), small round dark share, neighbour |
|    | distance (mean, variation) |
| 8 | layout on a 4 × 4 grid: mean, variation and maximum of nuclear and eosin cover, neighbour correlation of both |

Areas are in µm², distances in µm, densities per mm², on log scales where they span decades.
"""

from __future__ import annotations

import cv2
import numpy as np

# Inverse of the Ruifrok & Johnston matrix (rows: haematoxylin, eosin, DAB, each of unit length).
_STAINS = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
_UNMIX = np.linalg.inv(_STAINS / np.linalg.norm(_STAINS, axis=1, keepdims=True)).astype(np.float32)

_OD = (-np.log10((np.arange(256) + 1) / 256)).astype(np.float32)
_MIN_NUCLEUS_UM2, _MAX_NUCLEUS_UM2 = 4.0, 400.0
_SMALL_NUCLEUS_UM2 = 40.0  # lymphocytes measure about 7 µm across
_MIN_NUCLEAR_OD = 0.15  # below this haematoxylin is background, whatever Otsu says
_GRID = 4


def _names() -> list[str]:
    spread = ("mean", "std", "p10", "p50", "p90", "skew")
    names = [f"{channel}_{what}" for channel in ("haematoxylin", "eosin", "residual") for what in spread]
    names += [f"{channel}_{what}" for channel in ("red", "green", "blue", "saturation") for what in ("mean", "std")]
    names += [f"lbp_r{radius}_{pattern}" for radius in (1, 3) for pattern in range(10)]
    names += [f"band_{low}_{2 * low}_{what}" for low in (1, 2, 4, 8) for what in ("mean", "std")]
    names += [
        f"fibre_s{s}_{what}" for s in (2, 8) for what in ("coherence", "coherence_std", "coherence_p90", "aligned")
    ]
    names += ["gradient_mean", "gradient_std"]
    names += ["nuclei_density", "nuclei_cover"]
    names += [f"nuclei_area_{what}" for what in ("mean", "std", "p10", "p50", "p90")]
    names += ["nuclei_elongation_mean", "nuclei_elongation_std", "nuclei_solidity"]
    names += ["nuclei_stain_mean", "nuclei_stain_std", "nuclei_stain_texture", "nuclei_small_round"]
    names += ["nuclei_distance_mean", "nuclei_distance_variation"]
    names += [
        f"layout_{tissue}_{what}" for tissue in ("nuclei", "eosin") for what in ("mean", "cv", "max", "neighbour")
    ]
    return names


class ColourTexture:
    """The descriptor as an encoder; `names` says what each of the `dim` numbers is."""

    names = _names()
    dim = len(names)

    def encode(self, tiles: np.ndarray, mpp: float) -> np.ndarray:
        """uint8 RGB tiles [B, H, W, 3] at `mpp` µm per pixel -> float32 [B, 88]."""
        if len(tiles) == 0:
            return np.zeros((0, self.dim), dtype=np.float32)
        return np.stack([describe(tile, mpp) for tile in tiles])


def describe(tile: np.ndarray, mpp: float) -> np.ndarray:
    """Descriptor of one uint8 RGB tile [H, W, 3] at `mpp` µm per pixel: float32 [88], always finite."""
    stains = unmix(tile)
    haematoxylin, eosin = stains[..., 0], stains[..., 1]
    mask = nuclear_mask(haematoxylin)
    values = np.concatenate(
        [
            *(_spread(stains[..., channel]) for channel in range(3)),
            _colour(tile),
            _binary_patterns(haematoxylin),
            _bands(haematoxylin),
            _fibres(eosin),
            _gradient(tile),
            _nuclei(mask, haematoxylin, mpp),
            _layout(mask, eosin),
        ]
    )
    return np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0).astype(np.float32)


def unmix(tile: np.ndarray) -> np.ndarray:
    """Stain densities [H, W, 3] (haematoxylin, eosin, residual) of an RGB tile, in optical density, not below 0."""
    return np.maximum(cv2.transform(_OD[tile], _UNMIX.T), 0.0)


def nuclear_mask(haematoxylin: np.ndarray) -> np.ndarray:
    """Nuclei as uint8 0/1 [H, W]: Otsu on the smoothed haematoxylin density, never below a floor."""
    smooth = cv2.GaussianBlur(haematoxylin, (0, 0), 1.0)
    scaled = np.clip(smooth * 170, 0, 255).astype(np.uint8)
    threshold, _ = cv2.threshold(scaled, 0, 1, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    mask = (scaled > max(threshold, 170 * _MIN_NUCLEAR_OD)).astype(np.uint8)
    return cv2.morphologyEx(mask, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))


def _spread(channel: np.ndarray) -> np.ndarray:
    mean, std = (float(value) for value in np.ravel(cv2.meanStdDev(channel)))
    sample = channel[::3, ::3].ravel()  # a ninth of the pixels: percentiles and skewness cost a sort and a cube
    skew = float(((sample - mean) ** 3).mean()) / (std**3 + 1e-6)
    return np.array([mean, std, *np.percentile(sample, (10, 50, 90)), np.clip(skew, -10, 10)])


def _colour(tile: np.ndarray) -> np.ndarray:
    mean, std = cv2.meanStdDev(tile)
    high, low = tile.max(axis=2).astype(np.float32), tile.min(axis=2).astype(np.float32)
    saturation = (high - low) / np.maximum(high, 1)
    return np.array([*np.column_stack([mean, std]).ravel() / 255, saturation.mean(), saturation.std()])


def _pattern_table() -> np.ndarray:
    """Neighbour code (8 bits) -> rotation-invariant uniform pattern 0..8, or 9 where it is not uniform."""
    bits = (np.arange(256)[:, None] >> np.arange(8)) & 1
    changes = (bits != np.roll(bits, 1, axis=1)).sum(axis=1)
    return np.where(changes <= 2, bits.sum(axis=1), 9).astype(np.uint8)


_PATTERNS = _pattern_table()
_NEIGHBOURS = ((-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1))


def _binary_patterns(channel: np.ndarray) -> np.ndarray:
    """Histograms of rotation-invariant uniform patterns (Ojala et al. 2002, eq. 9) at two radii."""
    scaled = np.clip(channel * 127, 0, 255).astype(np.uint8)
    histograms = []
    for radius in (1, 3):
        smooth = scaled if radius == 1 else cv2.blur(scaled, (3, 3))
        height, width = smooth.shape
        centre = smooth[radius : height - radius, radius : width - radius]
        code = np.zeros(centre.shape, np.uint8)
        for bit, (dy, dx) in enumerate(_NEIGHBOURS):
            top, left = radius * (1 + dy), radius * (1 + dx)
            neighbour = smooth[top : top + centre.shape[0], left : left + centre.shape[1]]
            code |= (neighbour >= centre).view(np.uint8) << bit
        counts = np.bincount(code.ravel(), minlength=256)
        histograms.append(np.bincount(_PATTERNS, counts, 10) / centre.size)
    return np.concatenate(histograms)


def _half(channel: np.ndarray) -> np.ndarray:
    height, width = channel.shape
    return cv2.resize(channel, (max(1, width // 2), max(1, height // 2)), interpolation=cv2.INTER_AREA)


def _bands(channel: np.ndarray) -> np.ndarray:
    """Differences of Gaussians an octave apart; every octave on an image of half the size, as in SIFT."""
    values: list[float] = []
    for _ in range(4):
        fine, coarse = cv2.GaussianBlur(channel, (0, 0), 1.0), cv2.GaussianBlur(channel, (0, 0), 2.0)
        energy = cv2.absdiff(fine, coarse)
        values.extend(np.ravel(cv2.meanStdDev(energy)))
        channel = _half(channel)
    return np.array(values)


def _fibres(channel: np.ndarray) -> np.ndarray:
    """Coherence and common orientation of the structure tensor (Bigün & Granlund 1987) at two scales."""
    smooth = cv2.GaussianBlur(channel, (0, 0), 1.0)
    dx, dy = cv2.Sobel(smooth, cv2.CV_32F, 1, 0), cv2.Sobel(smooth, cv2.CV_32F, 0, 1)
    tensor = [dx * dx, dy * dy, dx * dy]
    values: list[float] = []
    for halvings in (0, 2):  # 2 px, and 2 px of a quarter-size image: 8 px
        for _ in range(halvings):
            tensor = [_half(product) for product in tensor]
        xx, yy, xy = (cv2.GaussianBlur(product, (0, 0), 2.0) for product in tensor)
        energy = xx + yy
        coherence = cv2.magnitude(xx - yy, 2 * xy) / (energy + 1e-6)
        # Doubled angles: opposite directions are one orientation.
        aligned = np.hypot((xx - yy).sum(), 2 * xy.sum()) / (energy.sum() + 1e-6)
        values += [coherence.mean(), coherence.std(), float(np.percentile(coherence[::2, ::2], 90)), aligned]
    return np.array(values)


def _gradient(tile: np.ndarray) -> np.ndarray:
    luminance = cv2.cvtColor(tile, cv2.COLOR_RGB2GRAY).astype(np.float32) / 255
    magnitude = np.hypot(cv2.Sobel(luminance, cv2.CV_32F, 1, 0), cv2.Sobel(luminance, cv2.CV_32F, 0, 1))
    return np.array([magnitude.mean(), magnitude.std()])


def _nuclei(mask: np.ndarray, haematoxylin: np.ndarray, mpp: float) -> np.ndarray:
    count, labels, stats, centroids = cv2.connectedComponentsWithStats(mask, connectivity=8)
    area = stats[1:, cv2.CC_STAT_AREA] * mpp**2
    kept = (area >= _MIN_NUCLEUS_UM2) & (area <= _MAX_NUCLEUS_UM2)
    tile_mm2 = mask.size * mpp**2 / 1e6
    if not kept.any():
        return np.array([0.0, mask.mean(), *np.zeros(14)])
    rows, columns = np.nonzero(mask)
    nucleus = labels[rows, columns] - 1
    pixels = stats[1:, cv2.CC_STAT_AREA].astype(np.float64)
    density = haematoxylin[rows, columns]
    stain = np.bincount(nucleus, density, count - 1) / pixels
    squares = np.bincount(nucleus, density * density, count - 1) / pixels
    elongation = _elongation(nucleus, rows, columns, centroids[1:], pixels)[kept]
    solidity = (pixels / (stats[1:, cv2.CC_STAT_WIDTH] * stats[1:, cv2.CC_STAT_HEIGHT]))[kept]
    texture = np.sqrt(np.maximum(squares - stain**2, 0))[kept]
    stain = stain[kept]
    area = area[kept]
    small_round = (area < _SMALL_NUCLEUS_UM2) & (elongation < 1.6)
    distance = _nearest(centroids[1:][kept]) * mpp
    return np.array(
        [
            np.log1p(kept.sum() / tile_mm2),
            mask.mean(),
            np.log(area.mean()),
            np.log1p(area.std()),
            *np.log(np.percentile(area, (10, 50, 90))),
            elongation.mean(),
            elongation.std(),
            solidity.mean(),
            stain.mean(),
            stain.std(),
            texture.mean(),
            small_round.mean(),
            np.log1p(distance.mean()),
            distance.std() / (distance.mean() + 1e-6),
        ]
    )


def _elongation(nucleus, rows, columns, centroids, pixels) -> np.ndarray:
    """Ratio of the axes of every component's moment ellipse, 10 at most."""
    count = len(pixels)
    dx, dy = columns - centroids[nucleus, 0], rows - centroids[nucleus, 1]
    # A pixel is a unit square: 1/12 is its own second moment, which keeps one-pixel-wide components finite.
    xx = np.bincount(nucleus, dx * dx, count) / pixels + 1 / 12
    yy = np.bincount(nucleus, dy * dy, count) / pixels + 1 / 12
    xy = np.bincount(nucleus, dx * dy, count) / pixels
    root = np.sqrt((xx - yy) ** 2 + 4 * xy**2)
    return np.minimum(np.sqrt((xx + yy + root) / np.maximum(xx + yy - root, 1e-6)), 10.0)


def _nearest(points: np.ndarray) -> np.ndarray:
    """Distance of each point to its nearest neighbour, in pixels; 0 for a lone point."""
    if len(points) < 2:
        return np.zeros(1)
    from scipy.spatial import cKDTree

    return cKDTree(points).query(points, k=2)[0][:, 1]


def _layout(mask: np.ndarray, eosin: np.ndarray) -> np.ndarray:
    values: list[float] = []
    for channel in (mask.astype(np.float32), eosin):
        cells = cv2.resize(channel, (_GRID, _GRID), interpolation=cv2.INTER_AREA)
        centred = cells - cells.mean()
        products = np.concatenate([(centred[1:] * centred[:-1]).ravel(), (centred[:, 1:] * centred[:, :-1]).ravel()])
        neighbour = products.mean() / (centred.var() + 1e-6)
        values += [cells.mean(), cells.std() / (cells.mean() + 1e-3), cells.max(), neighbour]
    return np.array(values)
