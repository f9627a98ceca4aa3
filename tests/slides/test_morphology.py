import cv2
import numpy as np
import pytest

from histill.slides import morphology


def disk_on(shape, centre, radius):
    return cv2.circle(np.zeros(shape, np.uint8), centre, radius, 1, -1)


@pytest.mark.parametrize("radius", [1, 3, 4, 6, 15])
def test_growing_and_shrinking_by_any_radius(radius):
    mask = disk_on((200, 200), (100, 100), 50)
    for found, expected in (
        (morphology.dilate(mask, radius), 50 + radius),
        (morphology.erode(mask, radius), 50 - radius),
    ):
        assert np.sqrt(found.sum() / np.pi) == pytest.approx(expected, abs=0.8)
        assert found.dtype == np.uint8
        assert found.max() == 1


@pytest.mark.parametrize("radius", [2, 9])
def test_closing_fills_gaps_and_opening_drops_threads(radius):
    mask = np.zeros((120, 120), np.uint8)
    mask[20:100, 20:100] = 1
    mask[:, 60 : 60 + 2 * radius - 1] = 0
    closed = morphology.close(mask, radius)
    assert closed[40:80, 20:100].all()
    assert not closed[:, :20].any()
    mask = np.zeros((120, 120), np.uint8)
    mask[:, 50 : 50 + 2 * radius - 1] = 1
    assert not morphology.open_(mask, radius).any()
    assert morphology.open_(np.ones((50, 50), np.uint8), radius).all()


def test_an_empty_or_full_mask_stays_so():
    for operation in (morphology.dilate, morphology.erode, morphology.close, morphology.open_):
        for radius in (0.2, 2, 9):
            assert not operation(np.zeros((30, 40), np.uint8), radius).any()
            if operation is not morphology.close:
                assert operation(np.ones((30, 40), np.uint8), radius).all()


def test_components_by_size_and_by_seed():
    mask = np.zeros((1100, 60), np.uint8)
    mask[5:15, 5:15] = mask[1000:1004, 5:9] = 1
    assert morphology.large(mask, 50).sum() == 100
    seeds = np.zeros_like(mask)
    seeds[1001, 6] = seeds[500, 30] = 1
    assert morphology.reached(mask, seeds).sum() == 16
    assert not morphology.reached(mask, np.zeros_like(mask)).any()


def test_holes_are_filled_by_size_and_bays_are_not():
    mask = np.ones((60, 60), np.uint8)
    mask[10:20, 10:20] = mask[40:43, 40:43] = mask[30:33, :3] = 0
    filled = morphology.fill_holes(mask, 50)
    assert filled[41, 41]
    assert not filled[15, 15]
    assert not filled[31, 1]


def test_fat_is_cells_between_thin_walls_and_nothing_else():
    net = np.zeros((200, 200), np.uint8)
    net[40:160:12, 40:160] = net[40:160, 40:160:12] = 1
    fat = morphology.fat(net, wall=3, lumen=9, least=12)
    assert fat[60:140, 60:140].all()
    assert not fat[:30].any()
    solid = disk_on((200, 200), (100, 100), 60) - disk_on((200, 200), (100, 100), 7)
    assert not morphology.fat(solid, wall=3, lumen=9, least=12).any()
    thread = np.zeros((200, 200), np.uint8)
    thread[100, 20:180] = 1
    assert not morphology.fat(thread, wall=3, lumen=9, least=12).any()
