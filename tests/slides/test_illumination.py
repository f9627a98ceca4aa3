import cv2
import numpy as np
import pytest

from histill.slides.illumination import find_glass, unscanned
from tests.slides.conditions import CONDITIONS
from tests.slides.glass import EOSIN, HAEMATOXYLIN, Scene

MPP = 8.0


def noisy(lamp, seed=0):
    return np.clip(np.rint(lamp + np.random.default_rng(seed).normal(scale=1.5, size=lamp.shape)), 0, 255).astype(
        np.uint8
    )


@pytest.mark.parametrize("rgb", [(243, 243, 243), (240, 232, 208), (215, 228, 240), (190, 190, 190)])
def test_glass_of_one_colour(rgb):
    glass = find_glass(noisy(np.full((400, 500, 3), rgb, np.float32)), MPP)
    np.testing.assert_allclose(glass.colour, rgb, atol=1)
    np.testing.assert_allclose(10 ** glass.rows(100, 103, (400, 500)), np.broadcast_to(rgb, (3, 500, 3)), atol=1.5)


def test_an_uneven_lamp_is_followed_under_the_tissue():
    yy, xx = np.mgrid[-1:1:500j, -1:1:650j].astype(np.float32)
    lamp = 240 * (1 - (xx**2 + yy**2)[..., None] * np.array([0.05, 0.06, 0.10], np.float32))
    scene = Scene(1, MPP)
    scene.sections(0.6)
    glass = find_glass(noisy(lamp * 10**-scene.density), MPP)
    assert glass.order == 2
    fitted = 10 ** glass.rows(0, 500, (500, 650))
    assert np.abs(fitted - lamp)[scene.truth].max() < 4


def test_rows_are_the_same_however_they_are_cut():
    scene = Scene(1, MPP)
    CONDITIONS["lamp gradient"](scene)
    glass = find_glass(scene.painted().rgb, MPP)
    whole = glass.rows(0, 500, (500, 650))
    np.testing.assert_allclose(np.concatenate([glass.rows(0, 77, (500, 650)), glass.rows(77, 500, (500, 650))]), whole)


def test_where_all_is_tissue_no_glass_is_made_up():
    scene = Scene(2, MPP)
    scene.stain(np.ones(scene.shape, bool), {HAEMATOXYLIN: 0.05, EOSIN: 0.07})
    assert find_glass(scene.painted().rgb, MPP).order == -1


def test_unscanned_fields_have_one_colour_and_straight_sides():
    picture = noisy(np.full((400, 500, 3), 240, np.float32))
    picture[:120, 200:] = 255
    picture[300:, :90] = 236
    found = unscanned(picture, MPP)
    assert found[:118, 203:].all()
    assert found[303:, :88].all()
    assert not found[130:290, 100:].any()
    overexposed = cv2.circle(np.full((400, 500, 3), 255, np.uint8), (250, 200), 150, (210, 150, 190), -1)
    assert not unscanned(overexposed, MPP).any()
