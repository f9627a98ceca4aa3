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
    again = regions.to_mask(regions.from_mask(mask, SIZE), SIZE, mask.shape) > regions.QUARTERS / 2
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
        ([feature({"type": "Polygon", "coordinates": [[[10**400, 0], [1, 1], [1, 0], [0, 0]]]})], "make no polygon"),
        ([feature({"type": "Circle\ud800", "coordinates": []})], r"its geometry is Circle\?, not"),
        ([feature(square(9000, 9000, 10))], "outside the slide of 4000 × 3000"),
    ],
)
def test_bad_geojson_is_refused_by_name(tmp_path, content, reason):
    with pytest.raises(SlideError, match=reason) as caught:
        regions.read(save(tmp_path / "mine.geojson", content), SIZE)
    assert "mine.geojson" in caught.value.message
    assert "QuPath" in caught.value.mend


def qupath_ellipse(x, y, a, b, points=40):
    """QuPath writes an ellipse as a polygon of float coordinates."""
    angle = np.linspace(0, 2 * np.pi, points)
    ring = np.stack([x + a * np.cos(angle), y + b * np.sin(angle)], axis=1)
    ring[-1] = ring[0]
    return {"type": "Polygon", "coordinates": [ring.tolist()]}


def annotation(geometry, name=None, **more):
    """As QuPath 0.4 to 0.6 export an annotation."""
    properties = {"objectType": "annotation", "isLocked": True, **more}
    if name:
        properties["classification"] = {"name": name, "color": [200, 0, 0]}
    return feature(geometry, **properties) | {"id": "8ac9c0b4-1f7c-4bd6-8a58-5cf4f0b8c4a0"}


def total(found):
    return sum(polygon.area for polygon in found.polygons)


def test_a_file_that_qupath_wrote_back_is_the_same_tissue(tmp_path):
    """QuPath keeps polygons and class, and drops the digest."""
    path = tmp_path / "tissue.geojson"
    polygons = regions.from_mask(ring(), SIZE)
    regions.write(path, polygons)
    content = json.loads(path.read_text())
    for old in content["features"]:
        old["geometry"]["coordinates"] = [[[float(x), float(y)] for x, y in r] for r in old["geometry"]["coordinates"]]
        old["properties"] |= {"isLocked": False, "classification": {"names": ["Tissue"], "colorRGB": -13721533}}
        old["id"] = "1d1e6f0a-0c22-4a43-9f3e-2b6f7be1d8a6"
    back = regions.read(save(path, {"type": "FeatureCollection", "features": content["features"]}), SIZE)
    assert back.edited
    assert back.warnings == ()
    assert all(a.equals(b) for a, b in zip(back.polygons, polygons, strict=True))


def test_every_class_is_tissue_but_ignore(tmp_path):
    parts = [
        annotation(square(0, 0, 100), "Tumor"),
        annotation(square(200, 0, 100), "Stroma"),
        annotation(square(400, 0, 100)),
        feature(square(600, 0, 100), objectType="annotation", classification={"names": ["Tumor", "Necrosis"]}),
        annotation(square(50, 0, 100), "Ignore*"),
        feature(square(250, 0, 100), objectType="annotation", classification={"names": ["Ignore*", "pen"]}),
    ]
    found = regions.read(save(tmp_path / "a.geojson", {"type": "FeatureCollection", "features": parts}), SIZE)
    assert total(found) == 2 * 5000 + 2 * 10_000


def test_ellipses_and_multipolygons_with_holes(tmp_path):
    outer, hole = square(1000, 1000, 600)["coordinates"][0], square(1200, 1200, 100)["coordinates"][0]
    multi = {"type": "MultiPolygon", "coordinates": [[outer, hole], square(2000, 2000, 50)["coordinates"]]}
    parts = [annotation(qupath_ellipse(500.5, 400.25, 300, 200)), annotation(multi, "Tissue")]
    found = regions.read(save(tmp_path / "a.geojson", parts), SIZE)
    assert total(found) == pytest.approx(np.pi * 300 * 200 * 0.996 + 600**2 - 100**2 + 50**2, rel=0.003)
    assert sorted(len(polygon.interiors) for polygon in found.polygons) == [0, 0, 1]


@pytest.mark.parametrize(
    ("other", "named"),
    [
        (annotation({"type": "Point", "coordinates": [5, 5]}), "feature 2: its geometry is Point"),
        (annotation({"type": "MultiPoint", "coordinates": [[5, 5], [7, 7]]}), "MultiPoint"),
        (annotation({"type": "LineString", "coordinates": [[5, 5], [70, 7]]}), "LineString"),
        (feature(square(900, 900, 50), objectType="detection"), "feature 2: its geometry is that of a detection"),
        (feature(square(900, 900, 50), objectType="cell") | {"nucleusGeometry": square(910, 910, 5)}, "cell"),
        (feature(square(900, 900, 50), object_type="tile"), "that of a tile"),
        (feature(square(900, 900, 50)) | {"id": "PathDetectionObject"}, "that of a detection"),
        (feature(square(900, 900, 50), objectType="tma_core"), "that of a tma_core"),
    ],
)
def test_what_is_no_outline_is_left_out_by_name(tmp_path, other, named):
    found = regions.read(save(tmp_path / "a.geojson", [annotation(square(0, 0, 100)), other]), SIZE)
    assert total(found) == 10_000
    assert named in found.warnings[0]
    with pytest.raises(SlideError, match="holds no outline of tissue"):
        regions.read(save(tmp_path / "b.geojson", [other]), SIZE)


def test_many_cells_are_one_warning(tmp_path):
    cells = [feature(square(900, 900, 50), objectType="cell")] * 2000
    (warning,) = regions.read(save(tmp_path / "a.geojson", [annotation(square(0, 0, 9)), *cells]), SIZE).warnings
    assert "2000 features" in warning
    assert len(warning) < 500


def test_a_repair_that_leaves_lines_keeps_the_polygons(tmp_path):
    spike = {
        "type": "Polygon",
        "coordinates": [[[0, 0], [100, 0], [100, 100], [300, 100], [100, 100], [0, 100], [0, 0]]],
    }
    found = regions.read(save(tmp_path / "a.geojson", [annotation(spike)]), SIZE)
    assert total(found) == 10_000
    assert "repaired" in found.warnings[0]


def test_outlines_mostly_outside_the_slide_are_told(tmp_path):
    found = regions.read(save(tmp_path / "a.geojson", [annotation(square(3500, 2500, 2000))]), SIZE)
    assert total(found) == 250_000
    assert "94% of its area lies outside the slide of 4000 × 3000" in found.warnings[0]
    assert regions.read(save(tmp_path / "b.geojson", [annotation(square(-40, 0, 1000))]), SIZE).warnings == ()
