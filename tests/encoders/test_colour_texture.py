from __future__ import annotations

import cv2
import numpy as np
import pytest

from histill.encoders import recipes
from histill.encoders.build import build
from histill.encoders.colour_texture import ColourTexture, describe, unmix

NAMES = ColourTexture.names


def tile(nuclei: int, radius: float, *, size: int = 224, seed: int = 0) -> np.ndarray:
    """Pink ground with dark blue discs on a jittered lattice."""
    generator = np.random.default_rng(seed)
    image = np.full((size, size, 3), (232, 180, 205), np.uint8)
    side = int(np.ceil(np.sqrt(nuclei)))
    for index in range(nuclei):
        centre = (np.array(divmod(index, side)) + 0.5) * size / side + generator.normal(0, 1, 2)
        cv2.circle(image, tuple(int(16 * value) for value in centre), int(16 * radius), (80, 50, 130), -1, shift=4)
    return image


def value(image: np.ndarray, name: str, mpp: float = 0.5) -> float:
    return describe(image, mpp)[NAMES.index(name)]


def test_dimension_is_the_recipes():
    recipe = recipes.get("colour-texture")
    encoder = build(recipe)
    assert encoder.dim == recipe.dim == len(NAMES) == len(set(NAMES)) >= 64
    assert encoder.encode(np.stack([tile(30, 6)] * 3), 0.5).shape == (3, recipe.dim)
    assert encoder.encode(np.zeros((0, 224, 224, 3), np.uint8), 0.5).shape == (0, recipe.dim)


@pytest.mark.parametrize("level", [0, 1, 128, 255])
@pytest.mark.parametrize("size", [32, 224])
def test_flat_tiles_give_finite_numbers(level, size):
    assert np.isfinite(describe(np.full((size, size, 3), level, np.uint8), 0.5)).all()


def test_it_is_deterministic_and_independent_of_the_batch():
    tiles = np.stack([tile(n, 5, seed=n) for n in (5, 20, 60)])
    whole = ColourTexture().encode(tiles, 0.5)
    np.testing.assert_array_equal(whole, ColourTexture().encode(tiles[::-1].copy(), 0.5)[::-1])
    np.testing.assert_array_equal(whole[1:2], ColourTexture().encode(tiles[1:2], 0.5))


def test_nuclear_numbers_mean_what_they_say():
    assert np.expm1(value(tile(36, 6), "nuclei_density")) == pytest.approx(36 / (0.112**2), rel=0.1)
    assert np.exp(value(tile(25, 8), "nuclei_area_mean")) == pytest.approx(np.pi * 4**2, rel=0.15)  # radius 4 µm
    assert value(tile(64, 5), "nuclei_cover") > value(tile(16, 5), "nuclei_cover")


def test_areas_are_physical():
    fine, coarse = tile(16, 10), cv2.resize(tile(16, 10), (112, 112), interpolation=cv2.INTER_AREA)
    assert value(coarse, "nuclei_area_mean", 1.0) == pytest.approx(value(fine, "nuclei_area_mean", 0.5), abs=0.15)


def test_fibres_are_coherent():
    stripes = np.full((224, 224, 3), (240, 200, 215), np.uint8)
    for x in range(0, 224, 12):
        cv2.line(stripes, (x, 0), (x, 223), (205, 110, 160), 4)
    noise = np.random.default_rng(0).integers(150, 255, (224, 224, 3), dtype=np.uint8)
    for scale in (2, 8):
        assert value(stripes, f"fibre_s{scale}_aligned") > value(noise, f"fibre_s{scale}_aligned") + 0.3


def test_stains_come_apart():
    """A pixel of pure stain, by the published vectors, has that stain alone."""
    for vector, channel in (((0.65, 0.70, 0.29), 0), ((0.07, 0.99, 0.11), 1)):
        rgb = np.round(256 * 10 ** (-0.6 * np.array(vector)) - 1).astype(np.uint8)
        density = unmix(np.full((4, 4, 3), rgb, np.uint8))[0, 0]
        assert density[channel] == pytest.approx(0.6, abs=0.05)
        assert np.delete(density, channel).max() < 0.05
