"""Nuclei of a synthetic slide: small pictures of single nuclei, and where they are put.

A picture ("sprite") is the haematoxylin of one nucleus, uint8 [k, k], zero outside. A slide has a bank of some dozens;
putting one down is a maximum over a few hundred pixels, which paints ten thousand nuclei in a tenth of a second.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

from histill.demo.layout import SCALE, Layout, smooth_noise

BANK = 96
FIBRE_ANGLES = 24
LYMPHOCYTE_SPACING = 11.5


def nucleus(
    rng: np.random.Generator, axes: tuple[float, float], angle: float, stain: float, coarse: float, nucleoli: int
) -> np.ndarray:
    """One nucleus, uint8 [k, k].

    Parameters
    ----------
    axes
        Half axes in pixels.
    angle
        Direction of the first axis, degrees.
    stain
        Mean haematoxylin, 0..255.
    coarse
        Contrast of the chromatin, 0 (smooth) to 1 (clumped, with a dark membrane).
    nucleoli
        Dark dots inside.
    """
    half = math.ceil(max(axes)) + 3
    side = 2 * half + 1
    turns = np.linspace(0, 2 * np.pi, 20, endpoint=False)
    radius = 1 + (0.03 + 0.09 * coarse) * (
        np.sin(2 * turns + rng.uniform(0, 6)) + np.sin(3 * turns + rng.uniform(0, 6))
    )
    x, y = axes[0] * radius * np.cos(turns), axes[1] * radius * np.sin(turns)
    cosine, sine = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    outline = np.column_stack([half + x * cosine - y * sine, half + x * sine + y * cosine])
    mask = np.zeros((side, side), np.uint8)
    points = np.round(outline * 16).astype(np.int32)
    cv2.fillPoly(mask, [points], 255, cv2.LINE_AA, shift=4)
    chromatin = 1 + (0.05 + 0.34 * coarse) * smooth_noise(rng, (side, side), 2.6)
    rim = mask - cv2.erode(mask, np.ones((3, 3), np.uint8))
    chromatin += (0.10 + 0.30 * coarse) * rim.astype(np.float32) / 255
    picture = np.clip(stain * chromatin, 0.35 * stain, 250)
    for _ in range(nucleoli):
        at = (round(half + rng.normal(0, axes[1] * 0.3)), round(half + rng.normal(0, axes[1] * 0.3)))
        cv2.circle(picture, at, 2, float(min(250.0, stain * 1.9)), cv2.FILLED, cv2.LINE_AA)
    picture = cv2.GaussianBlur(picture.astype(np.float32), (0, 0), 0.8)
    return (picture * (cv2.GaussianBlur(mask, (0, 0), 0.7).astype(np.float32) / 255)).astype(np.uint8)


def tumor_bank(rng: np.random.Generator, tumor: float) -> list[np.ndarray]:
    """Tumour nuclei for a shown t (rank in 0..1): larger, darker, clumped, unequal in size and shape with rising t."""
    mean = 7.8 + 2.2 * tumor
    spread = 0.08 + 0.17 * tumor
    bank = []
    for _ in range(BANK):
        size = float(np.clip(mean * math.exp(rng.normal(0, spread)), 5, 19))
        aspect = 1 + abs(rng.normal(0, 0.08 + 0.28 * tumor))
        stain = float(np.clip(rng.normal(98 + 28 * tumor, 8 + 14 * tumor), 60, 190))
        nucleoli = int(rng.random() < 0.75 * tumor) + int(rng.random() < 0.45 * tumor)
        axes = (size * math.sqrt(aspect), size / math.sqrt(aspect))
        bank.append(nucleus(rng, axes, rng.uniform(0, 180), stain, tumor, nucleoli))
    return bank


def lymphocyte_bank(rng: np.random.Generator) -> list[np.ndarray]:
    """Lymphocytes: small, round, dark, the same on every slide."""
    return [nucleus(rng, (rng.uniform(5.4, 6.4),) * 2, 0.0, rng.uniform(150, 185), 0.25, 0) for _ in range(BANK // 4)]


def fibroblast_bank(rng: np.random.Generator) -> list[np.ndarray]:
    """Spindle nuclei in `FIBRE_ANGLES` directions over 180 degrees."""
    return [
        nucleus(rng, (rng.uniform(11, 15), rng.uniform(2.2, 3.0)), 180 * step / FIBRE_ANGLES, 118, 0.1, 0)
        for step in range(FIBRE_ANGLES)
    ]


def tumor_places(rng: np.random.Generator, plan: Layout, tumor: float) -> np.ndarray:
    """Centres of tumour nuclei, int32 [N, 2] (x, y): a lattice that loses its order and closes up with rising t."""
    spacing = 31.0 - 3.5 * tumor
    points = _lattice(rng, plan, spacing, jitter=0.24 + 0.30 * tumor)
    return points[(_sample(plan.tissue, points) > 127) & (_sample(plan.band, points) < 110)]


def fibroblast_places(rng: np.random.Generator, plan: Layout) -> tuple[np.ndarray, np.ndarray]:
    """Centres of spindle nuclei, int32 [N, 2], and the direction (row of the bank) along the fibres there, int [N]."""
    points = _lattice(rng, plan, 54.0, jitter=0.6)
    points = points[(_sample(plan.tissue, points) > 127) & (_sample(plan.band, points) > 150)]
    smooth = cv2.GaussianBlur(plan.phase, (0, 0), 1.5)
    down, across = np.gradient(smooth)
    # Fibres run along the contours of the phase, a right angle away from its gradient.
    angle = np.arctan2(_sample(down, points), _sample(across, points)) + np.pi / 2 + rng.normal(0, 0.12, len(points))
    return points, np.round(angle / np.pi * FIBRE_ANGLES).astype(int) % FIBRE_ANGLES


def lymphocyte_places(rng: np.random.Generator, plan: Layout, microenvironment: float) -> np.ndarray:
    """Centres of lymphocytes, int32 [N, 2]: dense in clusters, thin in the bands, there more with rising e."""
    found = [np.empty((0, 2), np.int32)]
    for x, y, radius in plan.clusters:
        count = int(0.62 * np.pi * radius**2 / LYMPHOCYTE_SPACING**2)
        turn, out = rng.uniform(0, 2 * np.pi, count), radius * rng.random(count) ** 0.65
        found.append(np.column_stack([x + 1.3 * out * np.cos(turn), y + 0.8 * out * np.sin(turn)]).astype(np.int32))
    stray = _lattice(rng, plan, 70.0, jitter=0.8)
    stray = stray[(_sample(plan.band, stray) > 127) & (rng.random(len(stray)) < 0.1 + 0.7 * microenvironment)]
    points = np.concatenate([*found, stray])
    points = points[(points >= 0).all(1) & (points < np.array(plan.tissue.shape[::-1]) * SCALE).all(1)]
    return points[_sample(plan.tissue, points) > 127]


def put(plane: np.ndarray, bank: list[np.ndarray], points: np.ndarray, choice: np.ndarray) -> None:
    """Put `bank[choice[i]]` at `points[i]` into the haematoxylin plane, uint8 [H, W], in place."""
    height, width = plane.shape
    for (x, y), which in zip(points.tolist(), choice.tolist(), strict=True):
        sprite = bank[which]
        half = sprite.shape[0] // 2
        if half <= x < width - half and half <= y < height - half:
            region = plane[y - half : y + half + 1, x - half : x + half + 1]
            np.maximum(region, sprite, out=region)


def _lattice(rng: np.random.Generator, plan: Layout, spacing: float, *, jitter: float) -> np.ndarray:
    """A hexagonal lattice over the slide with normal jitter (in spacings / 2), int32 [N, 2] (x, y), clipped to it."""
    height, width = plan.tissue.shape[0] * SCALE, plan.tissue.shape[1] * SCALE
    rows, columns = math.ceil(height / (spacing * 0.866)), math.ceil(width / spacing)
    row, column = np.divmod(np.arange(rows * columns), columns)
    points = np.column_stack([(column + 0.5 * (row % 2)) * spacing, row * spacing * 0.866])
    points += rng.normal(0, jitter * spacing / 2, points.shape)
    return np.clip(points, 0, [width - 1, height - 1]).astype(np.int32)


def _sample(field: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Values of a 1/16 field at level-0 points [N, 2]."""
    return field[points[:, 1] // SCALE, points[:, 0] // SCALE]
