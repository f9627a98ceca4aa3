"""Paint a synthetic H&E slide at level 0.

Two planes of stain (haematoxylin, eosin) become colour by Beer-Lambert look-up tables, so that everything stays in
8 bits: a slide of 3072 px a side takes about a third of a second on one core.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

from histill.demo.design import SITES, DemoSlide
from histill.demo.layout import SCALE, Layout, layout, smooth_noise
from histill.demo.nuclei import (
    fibroblast_bank,
    fibroblast_places,
    lymphocyte_bank,
    lymphocyte_places,
    put,
    tumor_bank,
    tumor_places,
)

# Optical density (natural) of a full plane in R, G, B.
HAEMATOXYLIN = np.array([1.36, 1.44, 0.66])
EOSIN = np.array([0.12, 1.12, 0.50])
GLASS = 243
# Scanner and stain of each site: strength of haematoxylin, of eosin.
SITE_STAIN = dict(zip(SITES, [(1.0, 1.0), (1.07, 0.92), (0.93, 1.08)], strict=True))
INKS = {"blue": (40, 70, 170), "black": (28, 28, 32), "green": (30, 130, 70), "red": (190, 40, 50)}  # RGB
FIBRE_WAVELENGTH = 160.0  # pixels after which the cross-section of the fibres repeats
FOCUS_SIGMA = 7.0


def paint(slide: DemoSlide) -> np.ndarray:
    """The pixels of a slide, RGB uint8 [height, width, 3]; the same for the same `slide.seed` and factors."""
    rng = np.random.default_rng(slide.seed)
    tumor, microenvironment = rank(slide.tumor), rank(slide.microenvironment)
    plan = layout(rng, slide.width, slide.height, microenvironment)
    haematoxylin, eosin = _ground(rng, plan, tumor, slide.width, slide.height)

    places = tumor_places(rng, plan, tumor)
    bank = tumor_bank(rng, tumor)
    put(haematoxylin, bank, places, rng.integers(len(bank), size=len(places)))
    places, direction = fibroblast_places(rng, plan)
    put(haematoxylin, fibroblast_bank(rng), places, direction)
    places = lymphocyte_places(rng, plan, microenvironment)
    bank = lymphocyte_bank(rng)
    put(haematoxylin, bank, places, rng.integers(len(bank), size=len(places)))

    strength = np.array(SITE_STAIN[slide.site]) * rng.normal(1, 0.03, 2)
    image = _colour(haematoxylin, eosin, strength)
    if slide.blurred:
        _defocus(rng, image)
    if slide.pen:
        _ink(rng, image, INKS[slide.pen])
    return image


def rank(factor: float) -> float:
    """Standard normal to 0..1."""
    return 0.5 * (1 + math.erf(factor / math.sqrt(2)))


def _ground(
    rng: np.random.Generator, plan: Layout, tumor: float, width: int, height: int
) -> tuple[np.ndarray, np.ndarray]:
    """Everything but nuclei: haematoxylin and eosin planes, uint8 [height, width]."""
    tissue = _enlarge(cv2.GaussianBlur(plan.tissue, (0, 0), 0.8), width, height)
    tissue = cv2.LUT(tissue, np.clip((np.arange(256) - 96) * 4, 0, 255).astype(np.uint8))
    band = _enlarge(plan.band, width, height)

    section = smooth_noise(rng, (1, 256), 6)[0] + 0.6 * smooth_noise(rng, (1, 256), 2.5)[0]
    section[-16:] = np.linspace(section[-17], section[0], 16)
    fibres = np.clip(112 + 30 * section, 30, 200).astype(np.uint8)
    phase = cv2.resize(plan.phase, (plan.phase.shape[1] * SCALE, plan.phase.shape[0] * SCALE))[:height, :width]
    phase = (phase * np.float32(256 / FIBRE_WAVELENGTH)).astype(np.int32).astype(np.uint8)
    stroma = cv2.LUT(phase, fibres)

    density = 62 + 7 * smooth_noise(rng, plan.tissue.shape, 5)
    cytoplasm = _enlarge(np.clip(density, 30, 110).astype(np.uint8), width, height)
    patch = np.clip(26 + 9 * smooth_noise(rng, (512, 512), 3.0), 0, 60).astype(np.uint8)
    grain = np.tile(patch, (math.ceil(height / 512), math.ceil(width / 512)))[:height, :width]
    cytoplasm = cv2.add(cytoplasm, grain)

    eosin = _mix(cytoplasm, stroma, band)
    basophilic = np.full_like(band, round(26 + 10 * tumor))
    haematoxylin = _mix(basophilic, np.full_like(band, 12), band)
    return cv2.multiply(haematoxylin, tissue, scale=1 / 255), cv2.multiply(eosin, tissue, scale=1 / 255)


def _enlarge(field: np.ndarray, width: int, height: int) -> np.ndarray:
    """A 1/16 field at level 0, cut to the slide."""
    large = cv2.resize(field, (field.shape[1] * SCALE, field.shape[0] * SCALE), interpolation=cv2.INTER_LINEAR)
    return np.ascontiguousarray(large[:height, :width])


def _mix(low: np.ndarray, high: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """`low` where weight is 0, `high` where it is 255."""
    return cv2.add(cv2.multiply(low, 255 - weight, scale=1 / 255), cv2.multiply(high, weight, scale=1 / 255))


def _colour(haematoxylin: np.ndarray, eosin: np.ndarray, strength: np.ndarray) -> np.ndarray:
    """Planes of stain to RGB."""
    level = np.arange(256)[None, :, None] / 255
    dark = np.round(GLASS * np.exp(-level * HAEMATOXYLIN * strength[0])).astype(np.uint8)
    pink = np.round(255 * np.exp(-level * EOSIN * strength[1])).astype(np.uint8)
    absorbed = cv2.LUT(cv2.merge([haematoxylin] * 3), dark)
    return cv2.multiply(absorbed, cv2.LUT(cv2.merge([eosin] * 3), pink), scale=1 / 255)


def _defocus(rng: np.random.Generator, image: np.ndarray) -> None:
    """Put one or two areas out of focus, in place."""
    height, width = image.shape[:2]
    for _ in range(int(rng.integers(1, 3))):
        half_x, half_y = int(width * rng.uniform(0.12, 0.18)), int(height * rng.uniform(0.12, 0.18))
        left = int(rng.integers(int(width * 0.2), int(width * 0.8) - 2 * half_x))
        top = int(rng.integers(int(height * 0.2), int(height * 0.8) - 2 * half_y))
        region = image[top : top + 2 * half_y, left : left + 2 * half_x]
        mask = np.zeros(region.shape[:2], np.uint8)
        cv2.ellipse(mask, (half_x, half_y), (half_x - 30, half_y - 30), 0, 0, 360, 255, cv2.FILLED)
        mask = cv2.merge([cv2.blur(mask, (41, 41))] * 3)
        region[...] = _mix(region, cv2.GaussianBlur(region, (0, 0), FOCUS_SIGMA), mask)


def _ink(rng: np.random.Generator, image: np.ndarray, ink: tuple[int, int, int]) -> None:
    """Draw two or three strokes of a felt pen over glass and the rim of the tissue, in place."""
    height, width = image.shape[:2]
    thickness = max(24, round(0.035 * max(height, width)))
    mask = np.zeros((math.ceil(height / 4), math.ceil(width / 4)), np.uint8)
    for _ in range(int(rng.integers(2, 4))):
        turn = rng.uniform(0, 2 * np.pi) + np.linspace(0, rng.uniform(0.5, 1.1), 24)
        out = 0.40 + 0.03 * np.cos(5 * turn + rng.uniform(0, 6))
        points = np.column_stack([width * (0.5 + out * np.cos(turn)), height * (0.5 + out * np.sin(turn))]) / 4
        cv2.polylines(mask, [np.round(points).astype(np.int32)], False, 255, thickness // 4, cv2.LINE_AA)
    mask = cv2.resize(mask, (mask.shape[1] * 4, mask.shape[0] * 4))[:height, :width]
    x, y, w, h = cv2.boundingRect(mask)
    region = image[y : y + h, x : x + w]
    # The ink is a filter over what lies below, with a little light scattered back.
    inked = cv2.LUT(region, np.round(0.12 * np.arange(256))[None, :, None].repeat(3, 2).astype(np.uint8))
    inked = cv2.add(inked, np.full_like(region, np.round(0.85 * np.array(ink)).astype(np.uint8)))
    region[...] = _mix(region, inked, cv2.merge([np.ascontiguousarray(mask[y : y + h, x : x + w])] * 3))
