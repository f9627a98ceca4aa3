"""Parts of `histill predict` that need no model: cells of tiles, what is read of a slide, and what is said."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from histill import config as configuration
from histill.bundle import pixels
from histill.bundle.maps import ATTENTION, SHARE, SlideMaps, TileMap, Tiles
from histill.bundle.pictures import ramp, scale_bar, write_heatmaps
from histill.bundle.pixels import Window, read_pixels, window_around
from histill.bundle.prediction import warnings
from histill.bundle.raster import raster
from histill.demo.slide_file import write_slide

MPP = (0.5, 0.5)
SURE = {"prediction": {"type": "classification", "votes": {"a": 4, "b": 0}}}
NEAR = {"out_of_distribution": {"outside": False, "says": "near"}}
FAR = {"out_of_distribution": {"outside": True, "says": "far"}}
GREEN = {"light": "green", "reasons": []}


@pytest.fixture(scope="module")
def slide(tmp_path_factory):
    """(file, its pixels) of a slide of gradients."""
    down, across = np.mgrid[0:1600, 0:2000]
    picture = np.stack([across // 10, down // 8, np.full_like(across, 90)], axis=2).astype(np.uint8)
    path = tmp_path_factory.mktemp("slide") / "gradient.svs"
    write_slide(path, picture, "gradient", mpp=0.5)
    return path, picture


def read(path, window, wanted=None):
    return read_pixels(path, "openslide", window, wanted or {}, configuration.complete({"cohort": {}}))


def test_cells_of_a_raster_are_the_tiles():
    boxes = np.array([[0, 0, 10, 10], [10, 0, 10, 10], [10, 10, 10, 10], [40, 10, 10, 10]])
    cells = raster(boxes)
    assert cells.x.tolist() == [0, 10, 20, 40, 50]
    assert cells.tile.tolist() == [[0, 1, -1, -1], [-1, 2, -1, 3]]
    painted = cells.paint(np.array([5.0, 6.0, 7.0, 8.0]), (12, 4), (5.0, 5.0))
    assert painted.shape == (4, 12)
    np.testing.assert_array_equal(painted[0, :5], [5, 5, 6, 6, np.nan])
    np.testing.assert_array_equal(painted[2, [0, 2, 3, 8, 9, 10]], [np.nan, 7, 7, 8, 8, np.nan])


def test_overlapping_tiles_share_cells_and_the_later_one_is_drawn():
    cells = raster(np.array([[0, 0, 10, 10], [5, 0, 10, 10]]))
    assert cells.x.tolist() == [0, 5, 10, 15]
    assert cells.tile.tolist() == [[0, 1, 1]]


def test_the_picture_is_that_of_the_window(slide):
    path, picture = slide
    window = Window(400, 200, 800, 600)
    shown = pixels.decode(read(path, window).picture)
    assert shown.shape == (600, 800, 3)
    assert np.abs(shown.astype(int) - picture[200:800, 400:1200]).mean() < 3


def test_a_large_window_is_read_from_a_coarser_level(slide, monkeypatch):
    path, picture = slide
    monkeypatch.setattr(pixels, "SIDE", 700)
    shown = pixels.decode(read(path, Window(0, 0, 2000, 1600)).picture)
    assert shown.shape == (400, 500, 3)
    assert np.abs(shown.astype(int) - cv2.resize(picture, (500, 400), interpolation=cv2.INTER_AREA)).mean() < 3


def test_a_picture_fits_into_its_bytes(slide, monkeypatch):
    noise = np.random.default_rng(0).integers(0, 255, (400, 400, 3), dtype=np.uint8)
    monkeypatch.setattr(pixels, "BYTES", 40_000)
    content = pixels._small_enough(noise)
    assert len(content) <= 40_000
    assert pixels.decode(content).shape[0] < 400


def test_tiles_are_read_at_their_magnification(slide):
    path, picture = slide
    wanted = {("20x", 7): np.array([224, 448, 224, 224]), ("10x", 3): np.array([448, 0, 448, 448])}
    found = read(path, Window(0, 0, 100, 100), wanted).tiles
    assert found.keys() == wanted.keys()
    fine, coarse = (pixels.decode(found[key]).astype(int) for key in wanted)
    assert fine.shape == coarse.shape == (224, 224, 3)
    assert np.abs(fine - picture[448:672, 224:448]).mean() < 3
    assert np.abs(coarse - cv2.resize(picture[:448, 448:896], (224, 224), interpolation=cv2.INTER_AREA)).mean() < 3


def test_the_window_surrounds_the_tissue_and_stays_in_the_slide():
    assert window_around((2000, 3000, 2500, 3100), (10_000, 10_000), MPP) == (1000, 2000, 2501, 2101)
    assert window_around((10, 10, 9990, 500), (10_000, 800), MPP) == (0, 0, 10_000, 800)


def test_a_label_beside_the_tissue_is_not_read(tmp_path):
    picture = np.full((2000, 6000, 3), 240, np.uint8)
    picture[600:1400, 600:1400] = (200, 120, 180)
    picture[:, 5000:] = (0, 255, 0)  # the label that a scanner took along
    path = tmp_path / "label.svs"
    write_slide(path, picture, "label", mpp=0.5)
    window = window_around((600, 600, 1400, 1400), (6000, 2000), MPP)
    shown = pixels.decode(read(path, window).picture)
    assert not ((shown[..., 1] > 200) & (shown[..., 0] < 100)).any()


@pytest.mark.parametrize(("um", "px", "label"), [(0.5, 300, "100 µm"), (8.0, 300, "2 mm"), (1.0, 60, "50 µm")])
def test_scale_bars_have_round_lengths(um, px, label):
    length, said = scale_bar(um, px)
    assert said == label
    assert length <= um * px


def test_colours_rise_with_the_value():
    values = np.array([0.5, 1.5])
    for one in (TileMap(ATTENTION, "tumor", (213, 94, 0), values), TileMap(SHARE, "tumor", (213, 94, 0), values)):
        alphas = [alpha for *_, alpha in ramp(one)]
        assert alphas == sorted(alphas)
        assert alphas[-1] == 1


@pytest.mark.parametrize("size", [(400, 300), (1600, 300), (300, 1200)])
def test_heatmaps_are_drawn_for_slides_of_any_shape(slide, tmp_path, size):
    boxes = np.array([[0, 0, 224, 224], [224, 0, 224, 224]])
    maps = [TileMap(ATTENTION, None, (213, 94, 0), np.array([0.2, 2.5]))]
    tiles = Tiles("20x", np.array([4, 5]), boxes, np.ones(2), maps)
    shown = read(slide[0], Window(0, 0, *size))
    names = write_heatmaps(tmp_path, "a$b$.svs", SlideMaps([tiles], []), shown, MPP)
    assert names == ["attention-20x.png"]
    picture = cv2.imread(str(tmp_path / names[0]))
    yellow = (picture[..., 2] > 170) & (picture[..., 1] > 150) & (picture[..., 0] < 120)
    assert yellow.sum() > 2000


def test_top_tiles_pass_glass_over_and_say_so():
    values = np.array([9.0, 8.0, 1.0, 8.0])
    one = TileMap(ATTENTION, None, (0, 0, 0), values)
    tiles = Tiles("20x", np.array([3, 2, 1, 0]), np.zeros((4, 4), int), np.array([0.1, 1.0, 1.0, 1.0]), [one])
    assert tiles.top(one).tolist() == [3, 1, 2]
    assert tiles.passed_over(one) == 1


def test_warnings_come_the_worst_first():
    red = {"light": "red", "reasons": ["only 4 tiles kept at 10x"]}
    found = warnings({**FAR, "prediction": {"type": "survival", "low": 10.0, "high": 90.0}}, red, ["edited tissue"])
    assert [one["level"] for one in found] == ["stop", "stop", "care", "care"]
    assert "10 to 90 %" in found[2]["text"]
    assert warnings({**NEAR, **SURE}, GREEN, []) == []
    split = {"prediction": {"type": "classification", "votes": {"a": 3, "b": 1}}}
    assert warnings({**NEAR, **split}, GREEN, [])[0]["text"] == "a: 3 of 4, b: 1 of 4."
