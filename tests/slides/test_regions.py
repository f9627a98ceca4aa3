import json

import cv2
import numpy as np
import pytest
import shapely

from histill.errors import SlideError
from histill.slides import regions

SIZE = (4000, 3000)


def ring():
    """A disk with a hole, and a small square: mask [300, 400]."""
    mask = np.zeros((300, 400), np.uint8)
    cv2.circle(mask, (150, 150), 100, 1, -1)
    cv2.circle(mask, (150, 150), 40, 0, -1)
    mask[50:70, 320:340] = 1
    return mask.astype(bool)


def square(left, top, side):
    return {"type": "Polygon", "coordinates": [list(shapely.box(left, top, left + side, top + side).exterior.coords)]}


def feature(geometry, **properties):
    return {"type": "Feature", "geometry": geometry, "properties": properties}


def save(path, content):
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_outlines_keep_area_and_holes():
    mask = ring()
    polygons = regions.from_mask(mask, SIZE)
    assert [len(polygon.interiors) for polygon in polygons] == [1, 0]
    assert polygons[0].area == pytest.approx(100 * (mask.sum() - 400), rel=0.01)
    assert polygons[1].bounds == (3200, 500, 3400, 700)
    assert all(polygon.is_valid for polygon in polygons)
    assert regions.from_mask(np.zeros((5, 5), bool), SIZE) == []


def test_mask_to_polygons_and_back():
    mask = ring()
    again = regions.to_mask(regions.from_mask(mask, SIZE), SIZE, mask.shape) > 0.5
    assert (mask & ~again).sum() < 0.001 * mask.sum()
    assert (again & ~mask).sum() < 0.01 * mask.sum()


def test_a_full_mask_is_the_slide():
    (polygon,) = regions.from_mask(np.ones((75, 100), bool), (1001, 751))
    assert polygon.equals(shapely.box(0, 0, 1001, 751))


def test_written_file_is_geojson_for_qupath_and_not_edited(tmp_path):
    path = tmp_path / "tissue.geojson"
    polygons = regions.from_mask(ring(), SIZE)
    regions.write(path, polygons)
    content = json.loads(path.read_text())
    assert content["type"] == "FeatureCollection"
    first = content["features"][0]
    assert first["properties"]["objectType"] == "annotation"
    assert first["properties"]["classification"]["name"] == "Tissue"
    assert len(first["geometry"]["coordinates"]) == 2
    assert all(isinstance(value, int) for point in first["geometry"]["coordinates"][0] for value in point)
    found = regions.read(path, SIZE)
    assert not found.edited
    assert not regions.is_edited(path)
    assert [polygon.area for polygon in found.polygons] == [polygon.area for polygon in polygons]
    assert found.area_mm2((0.5, 0.5)) == pytest.approx(sum(p.area for p in polygons) * 0.25e-6)


def test_edits_are_known(tmp_path):
    path = tmp_path / "tissue.geojson"
    regions.write(path, regions.from_mask(ring(), SIZE))
    content = json.loads(path.read_text())
    content["features"].pop()
    assert regions.is_edited(save(path, content))
    assert regions.read(path, SIZE).edited
    assert regions.is_edited(save(path, {"type": "FeatureCollection", "features": content["features"]}))
    assert regions.is_edited(save(path, "no json"))
    assert not regions.is_edited(tmp_path / "absent.geojson")


@pytest.mark.parametrize("wrap", [lambda f: [f], lambda f: f, lambda f: {"type": "FeatureCollection", "features": [f]}])
def test_every_form_that_qupath_exports_is_read(tmp_path, wrap):
    path = save(tmp_path / "a.geojson", wrap(feature(square(100, 100, 50))))
    assert regions.read(path, SIZE).polygons[0].area == 2500


def test_parts_outside_the_slide_are_cut_and_ignored_regions_taken_out(tmp_path):
    features = [
        feature(square(-50, 0, 100)),
        feature(square(1000, 1000, 100)),
        feature(square(1050, 1000, 100), classification={"name": "Ignore*"}),
    ]
    found = regions.read(save(tmp_path / "a.geojson", features), SIZE)
    assert sorted(polygon.area for polygon in found.polygons) == [5000, 5000]


def test_a_crossing_outline_is_repaired_and_told(tmp_path):
    bow = {"type": "Polygon", "coordinates": [[[0, 0], [100, 100], [100, 0], [0, 100], [0, 0]]]}
    found = regions.read(save(tmp_path / "a.geojson", [feature(bow)]), SIZE)
    assert sum(polygon.area for polygon in found.polygons) == 5000
    assert "Self-intersection" in found.warnings[0]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "not valid JSON"),
        ('{"type": "Topology"}', "no GeoJSON FeatureCollection"),
        ("3", "no GeoJSON FeatureCollection"),
        ([feature({"type": "Point", "coordinates": [1, 2]})], "feature 1: its geometry is Point"),
        ([feature(None)], "geometry is missing"),
        (["Tissue"], "geometry is missing"),
        ([feature({"type": "Polygon", "coordinates": [[[0, 0], [1, 1]]]})], "make no polygon"),
        ([feature({"type": "Polygon", "coordinates": "here"})], "make no polygon"),
        ([feature({"type": "Polygon", "coordinates": [[[0, 0], [1, "a"], [1, 0], [0, 0]]]})], "make no polygon"),
        ([feature({"type": "Polygon"})], "make no polygon"),
        ([feature({"type": "Polygon", "coordinates": []})], "empty"),
        ([feature(square(9000, 9000, 10))], "outside the slide of 4000 × 3000"),
    ],
)
def test_bad_geojson_is_refused_by_name(tmp_path, content, reason):
    with pytest.raises(SlideError, match=reason) as caught:
        regions.read(save(tmp_path / "mine.geojson", content), SIZE)
    assert "mine.geojson" in caught.value.message
    assert "QuPath" in caught.value.mend
