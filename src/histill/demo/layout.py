"""Where things lie on a synthetic slide: tissue, holes, fibre bands, lymphocyte clusters.

Fields are computed at 1/16 of the slide's resolution (8 µm per pixel) and enlarged: everything here is architecture,
which cells are not. Lengths are level-0 pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

SCALE = 16


@dataclass(frozen=True)
class Layout:
    """The architecture of a slide.

    Attributes
    ----------
    tissue, band
        uint8 [h, w] at 1/16: 255 inside the tissue, inside a fibre band.
    phase
        float32 [h, w] at 1/16: distance across the bands in pixels, bent; fibres follow its contours.
    clusters
        float32 [K, 3]: centre x, y and radius of each lymphocyte cluster, pixels.
    """

    tissue: np.ndarray
    band: np.ndarray
    phase: np.ndarray
    clusters: np.ndarray


def smooth_noise(rng: np.random.Generator, shape: tuple[int, int], cell: float) -> np.ndarray:
    """Standard normal noise on a grid of `cell` pixels, enlarged to `shape`, float32 [h, w]."""
    grid = (math.ceil(shape[0] / cell) + 3, math.ceil(shape[1] / cell) + 3)
    coarse = rng.standard_normal(grid, dtype=np.float32)
    large = cv2.resize(coarse, None, fx=cell, fy=cell, interpolation=cv2.INTER_CUBIC)
    return np.ascontiguousarray(large[: shape[0], : shape[1]])


def layout(rng: np.random.Generator, width: int, height: int, microenvironment: float) -> Layout:
    """Lay out a slide.

    Parameters
    ----------
    microenvironment
        What the slide shows of e, as a rank in 0..1: more and broader fibre bands, more and larger clusters.
    """
    shape = (math.ceil(height / SCALE), math.ceil(width / SCALE))
    tissue = _tissue(rng, shape)
    phase = _phase(rng, shape)
    period = rng.uniform(400, 620)
    share = 0.10 + 0.36 * microenvironment + rng.normal(0, 0.015)  # of the tissue that is band
    wave = np.cos(2 * np.pi * phase / period) + 0.25 * smooth_noise(rng, shape, 12)
    threshold = float(np.quantile(wave, 1 - share))
    band = np.clip(128 + 400 * (wave - threshold), 0, 255).astype(np.uint8)
    return Layout(tissue, band, phase, _clusters(rng, tissue, microenvironment))


def _tissue(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """One or two pieces of tissue with ragged edges and holes."""
    height, width = shape
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    pieces = [(0.5, 0.5, 0.43, 0.42)] if rng.random() < 0.65 else [(0.30, 0.42, 0.25, 0.37), (0.73, 0.58, 0.23, 0.36)]
    field = np.full(shape, -1.0, np.float32)
    for centre_x, centre_y, radius_x, radius_y in pieces:
        across = (x / width - centre_x - rng.normal(0, 0.01)) / radius_x
        down = (y / height - centre_y - rng.normal(0, 0.01)) / radius_y
        field = np.maximum(field, 1 - across**2 - down**2)
    field += 0.16 * smooth_noise(rng, shape, 30) + 0.05 * smooth_noise(rng, shape, 7)
    tissue = (field > 0.05).astype(np.uint8) * 255
    inside = np.argwhere(field > 0.35)
    for _ in range(int(rng.integers(2, 6))):
        centre = inside[rng.integers(len(inside))]
        axes = (int(rng.integers(3, 9)), int(rng.integers(3, 9)))
        at = (int(centre[1]), int(centre[0]))
        cv2.ellipse(tissue, at, axes, float(rng.uniform(0, 180)), 0, 360, 0, cv2.FILLED)
    # The glass reaches the rim: a tile grid never starts inside tissue.
    tissue[[0, 1, -2, -1]] = 0
    tissue[:, [0, 1, -2, -1]] = 0
    return tissue


def _phase(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Distance across the bands in level-0 pixels, float32 [h, w]."""
    y, x = np.mgrid[0 : shape[0], 0 : shape[1]].astype(np.float32) * SCALE
    angle = rng.uniform(0, np.pi)
    straight = x * np.float32(math.cos(angle)) + y * np.float32(math.sin(angle))
    return straight + 130 * smooth_noise(rng, shape, 36) + 18 * smooth_noise(rng, shape, 9)


def _clusters(rng: np.random.Generator, tissue: np.ndarray, microenvironment: float) -> np.ndarray:
    """Centres and radii of lymphocyte clusters, float32 [K, 3]."""
    inside = np.argwhere(tissue)
    megapixels = len(inside) * SCALE**2 / 1e6
    count = int(rng.poisson(megapixels * (0.4 + 4.2 * microenvironment**1.3)))
    centres = inside[rng.integers(len(inside), size=count)][:, ::-1] * SCALE
    radii = rng.uniform(45, 85, count) + 55 * microenvironment
    return np.column_stack([centres, radii]).astype(np.float32).reshape(-1, 3)
