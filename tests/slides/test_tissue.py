import cv2
import numpy as np
import pytest

from histill.slides import colour
from histill.slides.tissue import tissue_mask

MPP = 8.0
PINK, PURPLE, PALE = (225, 165, 200), (140, 90, 165), (234, 219, 230)


def glass(height=300, width=300, seed=0):
    noise = np.random.default_rng(seed).integers(-3, 4, (height, width, 3))
    return np.clip(243 + noise, 0, 255).astype(np.uint8)


def disk(picture, centre, radius, rgb):
    cv2.circle(picture, centre, radius, rgb, -1)
    return picture


def mask_of(picture, min_area=0.01, min_hole=0.005):
    return tissue_mask(picture, MPP, min_area_mm2=min_area, min_hole_mm2=min_hole)


def overlap(mask, centre, radius):
    """Intersection over union of a mask and a disk."""
    expected = cv2.circle(np.zeros(mask.shape, np.uint8), centre, radius, 1, -1) > 0
    return (mask & expected).sum() / (mask | expected).sum()


@pytest.mark.parametrize("rgb", [PINK, PURPLE, PALE])
def test_stain_is_found(rgb):
    assert overlap(mask_of(disk(glass(), (150, 150), 80, rgb)), (150, 150), 80) > 0.95


def test_pale_tissue_beside_dark_tissue_is_found():
    picture = disk(disk(glass(), (80, 150), 50, PURPLE), (220, 150), 50, PALE)
    mask = mask_of(picture)
    assert mask[150, 80]
    assert mask[130:170, 200:240].all()


def test_empty_glass_has_none():
    assert not mask_of(glass()).any()
    assert not mask_of(np.full((200, 200, 3), 255, np.uint8)).any()


def test_a_picture_full_of_tissue_is_all_tissue():
    random = np.random.default_rng(1)
    picture = np.where(random.random((150, 150, 1)) < 0.4, PURPLE, PINK).astype(np.uint8)
    assert mask_of(picture).mean() > 0.99


def test_tinted_glass_is_no_tissue():
    picture = disk(glass(), (150, 150), 60, PINK).astype(float) * np.array([1, 0.985, 0.93])
    assert overlap(mask_of(picture.astype(np.uint8)), (150, 150), 60) > 0.93


def test_large_holes_stay_and_small_ones_are_filled():
    picture = disk(disk(glass(), (150, 150), 100, PINK), (110, 150), 20, (243, 243, 243))
    picture = disk(picture, (200, 150), 7, (243, 243, 243))  # 0.01 mm²
    mask = mask_of(picture, min_hole=0.02)
    assert not mask[150, 110]
    assert mask[150, 200]
    assert not mask_of(picture, min_hole=0.002)[150, 200]


def test_small_fragments_are_left_out():
    picture = disk(disk(glass(), (80, 80), 40, PINK), (220, 220), 6, PINK)  # 0.007 mm²
    assert not mask_of(picture, min_area=0.02)[220, 220]
    assert mask_of(picture, min_area=0.002)[220, 220]


def test_a_small_corner_of_glass_is_no_hole():
    picture = np.full((100, 100, 3), PINK, np.uint8)
    picture[:9, :9] = 243
    assert not mask_of(picture, min_hole=0.1)[:3, :3].any()


@pytest.mark.parametrize("ink", [(30, 60, 190), (20, 140, 70), (215, 35, 45), (35, 32, 38)])
def test_marker_is_no_tissue(ink):
    picture = disk(glass(), (90, 150), 50, PINK)
    cv2.line(picture, (200, 20), (240, 280), ink, 14)
    mask = mask_of(picture)
    assert overlap(mask, (90, 150), 50) > 0.93
    assert not mask[:, 180:].any()


def test_marker_across_tissue_is_cut_out():
    picture = disk(glass(), (150, 150), 100, PINK)
    cv2.line(picture, (20, 150), (280, 150), (20, 120, 60), 12)
    mask = mask_of(picture)
    assert not mask[150, 60:240].any()
    assert mask[100, 150]
    assert mask[200, 150]


def test_black_border_is_no_tissue():
    picture = disk(glass(), (150, 150), 60, PINK)
    picture[:40], picture[:, 260:] = 0, 3
    mask = mask_of(picture)
    assert overlap(mask, (150, 150), 60) > 0.95


def test_dark_field_is_told_from_black_borders():
    yy, xx = np.mgrid[:200, :200]
    glow = (90 * np.exp(-((yy - 100) ** 2 + (xx - 100) ** 2) / 3000)).astype(np.uint8)
    assert colour.is_fluorescence(np.stack([glow, glow // 5, glow // 6], axis=2))
    assert colour.is_fluorescence(np.zeros((50, 50, 3), np.uint8))
    bordered = disk(glass(), (150, 220), 50, PINK)
    bordered[:170] = 2
    assert not colour.is_fluorescence(bordered)
    only_tissue = np.full((100, 100, 3), PURPLE, np.uint8)
    only_tissue[:60] = 0
    assert not colour.is_fluorescence(only_tissue)


def test_stain_is_no_ink():
    shades = np.array([[PINK, PURPLE, PALE, (96, 62, 140), (170, 170, 205), (190, 60, 90), (150, 75, 50)]], np.uint8)
    density = colour.optical_density(shades, np.full(3, 243.0, np.float32))
    assert not colour.coloured_ink(density).any()
    assert not colour.black(shades, density).any()
