"""What kind of pixel it is: optical density, stain, ink, dark, glass. Shared by tissue detection and quality flags.

All thresholds are in optical density (log10 of incident over transmitted light), which adds up over stains and does not
depend on the lamp. They hold for an overview of 2 to 32 µm per pixel, where ink is smooth and nuclei are averaged out.
"""

from __future__ import annotations

import cv2
import numpy as np

DARK = 50  # brightest channel of a pixel without light: borders, black ink, unlit background
DEFAULT_GLASS = 245.0
_GLASS_MIN, _GLASS_SPREAD, _GLASS_SHARE = 190, 28, 0.005


def glass_colour(rgb: np.ndarray) -> np.ndarray:
    """Colour of empty glass: the median of the brightest near-neutral pixels, or 245 grey where there are none.

    Parameters
    ----------
    rgb
        uint8 [H, W, 3].

    Returns
    -------
    float32 [3].
    """
    pixels = rgb.reshape(-1, 3)[:: max(1, rgb.shape[0] * rgb.shape[1] // 500_000)]
    low, high = lowest(pixels), highest(pixels)
    bright = pixels[(low >= _GLASS_MIN) & (high - low.astype(np.int16) <= _GLASS_SPREAD)]
    if len(bright) < max(1, _GLASS_SHARE * len(pixels)):
        return np.full(3, DEFAULT_GLASS, np.float32)
    lightness = bright.sum(1, dtype=np.int32)
    return np.median(bright[lightness >= np.percentile(lightness, 75)], axis=0).astype(np.float32)


def optical_density(rgb: np.ndarray, glass: np.ndarray) -> np.ndarray:
    """Optical density per channel, 0 at the colour of glass and never below.

    Returns
    -------
    float32 [H, W, 3].
    """
    grey = np.maximum(np.arange(256, dtype=np.float32), 1)
    table = np.stack([np.maximum(np.log10(channel / grey), 0) for channel in glass.astype(np.float32)], axis=1)
    density = np.empty(rgb.shape, np.float32)
    for channel in range(3):
        density[..., channel] = cv2.LUT(rgb[..., channel], table[:, channel])
    return density


def highest(channels: np.ndarray) -> np.ndarray:
    """Largest of three channels [H, W, 3], [H, W]; many times faster than a reduction along a short last axis."""
    return np.maximum(np.maximum(channels[..., 0], channels[..., 1]), channels[..., 2])


def lowest(channels: np.ndarray) -> np.ndarray:
    """Smallest of three channels [H, W, 3], [H, W]."""
    return np.minimum(np.minimum(channels[..., 0], channels[..., 1]), channels[..., 2])


def chroma(density: np.ndarray) -> np.ndarray:
    """How coloured a pixel is: largest minus smallest density; stain has it, glass, dust and shadow have not."""
    return highest(density) - lowest(density)


def dark(rgb: np.ndarray) -> np.ndarray:
    """Pixels without light, bool [H, W]."""
    return highest(rgb) < DARK


def coloured_ink(density: np.ndarray) -> np.ndarray:
    """Pixels of blue, green and red marker. bool [H, W].

    Blue and green ink absorb red more than green light, which neither haematoxylin nor eosin does. Red ink absorbs blue
    about as much as green; eosin and blood absorb far less blue.
    """
    red, green, blue = density[..., 0], density[..., 1], density[..., 2]
    blue_or_green_ink = red - green > 0.10
    red_ink = (green - red > 0.30) & (blue > 0.78 * green) & (red < 0.30 * green)
    return blue_or_green_ink | red_ink


def black(rgb: np.ndarray, density: np.ndarray) -> np.ndarray:
    """Unlit pixels, black marker, and black pigment of the same looks: dark and neutral. bool [H, W]."""
    return dark(rgb) | ((highest(rgb) < 90) & (chroma(density) < 0.15))


def glass(density: np.ndarray) -> np.ndarray:
    """Empty glass or the lumen of a vessel: hardly any density in any channel. bool [H, W]."""
    return highest(density) < 0.04


def is_fluorescence(rgb: np.ndarray) -> bool:
    """Whether the picture is a dark field: most of it without light, and the rest mostly dim.

    A bright-field slide with wide black borders is no dark field: what is lit there is glass or tissue, both bright.
    """
    without = dark(rgb)
    if without.mean() < 0.5:
        return False
    lit = rgb[~without]
    return len(lit) < 0.01 * without.size or float(np.median(lit.max(1))) < 130
