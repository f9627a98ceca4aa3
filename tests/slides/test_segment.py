import json

import cv2
import numpy as np
import pytest
import shapely
import shapely.affinity

from histill.cohort.sheets import Slide
from histill.slides import inspect, regions, segment
from histill.slides.overview import read_picture
from histill.slides.readers import open_slide

MPP = 0.5
BOX = shapely.box(1200, 900, 1800, 1500)  # where the tissue is, level 0


@pytest.fixture(scope="module")
def slide_path(write_slide, tmp_path_factory):
    picture = np.full((2400, 3200, 3), 243, np.uint8)
    picture[900:1500, 1200:1800] = (214, 150, 190)
    picture += np.random.default_rng(0).integers(0, 5, picture.shape, dtype=np.uint8)
    return write_slide(tmp_path_factory.mktemp("segment") / "a.tiff", picture, mpp=(MPP, MPP))


def run(path, config, results):
    slides = [Slide("s", "p", str(path))]
    inspect.run(slides, config=config, results=results)
    return segment.run(slides, config=config, results=results)[0]


def draw(results, *boxes):
    rings = [[list(point) for point in box.exterior.coords] for box in boxes]
    parts = [
        {
            "type": "Feature",
            "properties": {"objectType": "annotation"},
            "geometry": {"type": "Polygon", "coordinates": [r]},
        }
        for r in rings
    ]
    (results / "slides" / "s").mkdir(parents=True)
    (results / "slides" / "s" / "tissue.geojson").write_text(json.dumps(parts))


def test_the_receipt_tells_method_and_thresholds(slide_path, config, tmp_path):
    receipt = run(slide_path, config, tmp_path)
    assert receipt.info["method"] == "colour"
    assert 0.01 < receipt.info["thresholds"]["chroma"] <= 0.05
    assert receipt.info["tissue_share"] == pytest.approx(BOX.area / (2400 * 3200), rel=0.05)
    assert receipt.warnings == []
    assert "weights" not in receipt.inputs


@pytest.mark.parametrize(("share", "warned"), [(0.96, "tissue covers 9"), (0.0006, "tissue covers 0.0"), (0.3, None)])
def test_implausible_shares_are_told_and_kept(share, warned, write_slide, config, tmp_path):
    picture = np.full((3000, 3000, 3), 243, np.uint8)
    picture[: round(3000 * share**0.5), : round(3000 * share**0.5)] = (200, 120, 170)
    config["tissue"]["min_area_mm2"] = 0.0005
    receipt = run(write_slide(tmp_path / "a.tiff", picture, mpp=(MPP, MPP)), config, tmp_path / "results")
    assert receipt.state == "ok"
    assert receipt.counts["tissue_mm2"] == pytest.approx(share * (3000 * MPP / 1000) ** 2, rel=0.25)
    assert [warning.startswith(warned or "") for warning in receipt.warnings] == [True] * bool(warned)


@pytest.fixture
def labelled(write_slide, config, tmp_path):
    """A slide of a square of tissue, 1 mm², and a printed label at its right end (2 µm per pixel)."""
    picture = np.full((1500, 3000, 3), 243, np.uint8)
    picture[500:1000, 500:1000] = (200, 120, 170)
    picture[:, 2400:] = (235, 160, 185)
    for row in range(150, 1500, 200):
        cv2.putText(picture, "A-17 / 2", (2450, row), cv2.FONT_HERSHEY_SIMPLEX, 3, (20, 20, 20), 12)
    config["slides"]["allow_upsampling"] = True
    return write_slide(tmp_path / "a.tiff", picture, mpp=(2.0, 2.0))


def test_a_label_is_left_out_blank_and_told(labelled, config, tmp_path):
    receipt = run(labelled, config, tmp_path / "results")
    assert receipt.counts["tissue_mm2"] == pytest.approx(1.0, rel=0.05)
    assert "taken for its label" in receipt.warnings[0]
    overview = read_picture(tmp_path / "results" / "slides" / "s" / "overview.jpg")
    assert overview[:, -140:].min() > 240
    assert overview[:, :-160].min() < 200  # the tissue is there


def test_a_label_is_blank_beside_drawn_tissue_and_stays_where_it_is_drawn_as_tissue(labelled, config, tmp_path):
    for name, box in (("tissue", (500, 500, 1000, 1000)), ("label", (2500, 100, 2900, 1400))):
        draw(tmp_path / name, shapely.box(*box))
        receipt = run(labelled, config, tmp_path / name)
        assert receipt.info["edited"]
        assert any("taken for its label" in warning for warning in receipt.warnings) == (name == "tissue")
        overview = read_picture(tmp_path / name / "slides" / "s" / "overview.jpg")
        assert (overview[:, -140:].min() > 240) == (name == "tissue")


def test_outlines_on_the_tissue_are_not_doubted(slide_path, config, tmp_path):
    draw(tmp_path, shapely.box(1100, 800, 1900, 1600))
    receipt = run(slide_path, config, tmp_path)
    assert receipt.info["edited"]
    assert receipt.info["method"] == "edited"
    assert receipt.warnings == []
    assert receipt.counts["tissue_mm2"] == pytest.approx(0.16)


@pytest.mark.parametrize(("factor", "unit"), [(0.5, "µm"), (1 / 4, "pixels of level 2")])
def test_outlines_in_another_unit_are_told(factor, unit, slide_path, config, tmp_path):
    draw(tmp_path, shapely.affinity.scale(BOX, factor, factor, origin=(0, 0)))
    receipt = run(slide_path, config, tmp_path)
    assert receipt.state == "ok"
    assert "0% of its area is on stained tissue" in receipt.warnings[0]
    assert f"if its coordinates are {unit}" in receipt.warnings[0]


def test_outlines_of_another_slide_are_told(slide_path, config, tmp_path):
    draw(tmp_path, shapely.box(2400, 200, 3000, 800))
    assert "is it drawn for this slide?" in run(slide_path, config, tmp_path).warnings[0]


def test_a_speck_of_an_outline_is_told(slide_path, config, tmp_path):
    draw(tmp_path, shapely.box(1300, 1000, 1350, 1050))
    assert "cover 0.03% of the slide" in run(slide_path, config, tmp_path).warnings[0]


def test_the_round_trip_keeps_the_tissue(slide_path, config, tmp_path):
    run(slide_path, config, tmp_path)
    with open_slide(slide_path) as reader:
        found = regions.read(tmp_path / "slides" / "s" / "tissue.geojson", reader.dimensions)
    (polygon,) = found.polygons
    assert polygon.intersection(BOX).area / polygon.union(BOX).area > 0.95
