import json
import subprocess
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest

from histill.batches import read_receipt
from histill.cohort.sheets import Slide
from histill.errors import SlideError
from histill.slides import inspect, segment, table, tile


@pytest.fixture(scope="module")
def slide_path(stained, write_slide, tmp_path_factory):
    return write_slide(tmp_path_factory.mktemp("slides") / "good.tiff", stained(1900, 2000))


def run_all(slides, config, results):
    return [stage.run(slides, config=config, results=results) for stage in (inspect, segment, tile)]


def run_one(path, config, results, **options):
    return [receipts[0] for receipts in run_all([Slide("s", "p", str(path), **options)], config, results)]


def test_a_slide_from_file_to_tile_table(slide_path, config, tmp_path):
    receipts = run_one(slide_path, config, tmp_path)
    assert [receipt.state for receipt in receipts] == ["ok"] * 3
    folder = tmp_path / "slides" / "s"
    facts = json.loads((folder / "slide.json").read_text())
    assert (facts["width"], facts["height"], facts["reader"]) == (2000, 1900, "openslide")
    assert facts["levels"][1] == {"width": 1000, "height": 950, "downsample": 2.0}
    assert facts["mpp"]["x"] == pytest.approx(0.5)
    assert facts["fingerprint"] == receipts[0].inputs["slide"]
    assert set(facts["mpp"]) == {"x", "y", "source", "candidates", "conflicts"}

    ellipse = np.pi * 0.4**2 * 2000 * 1900 * 0.25e-6
    assert receipts[1].counts["tissue_mm2"] == pytest.approx(ellipse, rel=0.05)
    assert receipts[1].info["edited"] is False

    stored = pq.read_table(folder / "tiles.parquet")
    assert stored.schema.equals(table.SCHEMA)
    about = json.loads(stored.schema.metadata[b"histill"])
    assert about == {"size": 224, "mpp": {"10x": 1.0, "20x": 0.5}, "overlap": 0.0}
    columns = table.from_arrow(stored)
    coarse = columns["magnification"] == "10x"
    number = coarse.sum()
    assert (columns["parent"][coarse] == -1).all()
    np.testing.assert_array_equal(columns["parent"][~coarse], np.repeat(np.arange(number), 4))
    assert columns["keep"][~coarse].any()
    assert columns["keep"][columns["parent"][~coarse & columns["keep"]]].all(), "a kept child of a dropped parent"
    children = columns["tissue"][~coarse].reshape(-1, 4).mean(1)
    np.testing.assert_allclose(columns["tissue"][coarse], children, atol=1e-5)
    assert receipts[2].counts["kept_10x"] == columns["keep"][coarse].sum()
    assert (columns["tissue"][coarse & columns["keep"]] >= 0.25).all()
    assert (columns["keep"][~coarse] == columns["keep"][columns["parent"][~coarse]]).all()

    summary = json.loads((folder / "quality.json").read_text())
    assert "slides/s/quality.json" in receipts[2].outputs
    assert receipts[2].info["quality"] == {"light": summary["light"], "reasons": summary["reasons"]}
    assert summary["10x"]["kept"] == receipts[2].counts["kept_10x"]
    assert summary["tissue_mm2"] == receipts[1].counts["tissue_mm2"]
    assert summary["focus"]["median"] > 1


def test_stages_skip_what_is_up_to_date(slide_path, config, tmp_path, capsys):
    run_one(slide_path, config, tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.*")}
    run_one(slide_path, config, tmp_path)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.*")} == before
    assert capsys.readouterr().out.count("up to date") == 3
    config["tiles"]["overlap"] = 0.25
    run_one(slide_path, config, tmp_path)
    assert capsys.readouterr().out.count("up to date") == 2


def test_tissue_fraction_is_as_accurate_as_stated(slide_path, config, tmp_path):
    run_one(slide_path, config, tmp_path)
    columns = table.read(tmp_path / "slides" / "s" / "tiles.parquet")
    polygon = json.loads((tmp_path / "slides" / "s" / "tissue.geojson").read_text())["features"][0]["geometry"]
    import shapely

    boxes = shapely.box(columns["x"], columns["y"], columns["x"] + columns["width"], columns["y"] + columns["height"])
    exact = shapely.area(shapely.intersection(boxes, shapely.geometry.shape(polygon))) / shapely.area(boxes)
    coarse = columns["magnification"] == "10x"
    error = np.abs(columns["tissue"] - exact)
    assert error[coarse].max() < 0.02
    assert error.max() < 0.05


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("zero.svs", b"", "0 bytes"),
        ("garbage.svs", b"\x00\xff" * 4000, "no reader can open"),
        ("sheet.tiff", b"slide_id,patient_id\n", "no reader can open"),
        ("folder.svs", None, "folder"),
    ],
)
def test_bad_files_are_quarantined_and_the_cohort_goes_on(name, content, reason, slide_path, config, tmp_path):
    bad = tmp_path / name
    bad.mkdir() if content is None else bad.write_bytes(content)
    slides = [Slide("bad", "p", str(bad)), Slide("good", "p", str(slide_path))]
    for receipts in run_all(slides, config, tmp_path / "results"):
        assert [receipt.state for receipt in receipts] == ["quarantined", "ok"]
        assert reason in receipts[0].reason
        assert receipts[0].mend
    with pytest.raises(SlideError, match=reason):
        inspect.run(slides, config=config | {"on_error": "fail"}, results=tmp_path / "results")


def test_a_truncated_slide_is_quarantined(slide_path, config, tmp_path):
    cut = tmp_path / "cut.tiff"
    cut.write_bytes(slide_path.read_bytes()[:30_000])
    receipt = run_one(cut, config, tmp_path / "results")[2]
    assert receipt.state == "quarantined"
    assert "cut.tiff" in receipt.reason


def test_a_missing_file_is_quarantined(config, tmp_path):
    assert "No such file" in run_one(tmp_path / "gone.svs", config, tmp_path)[0].reason


def test_the_sheet_mends_a_missing_resolution(stained, write_slide, config, tmp_path):
    path = write_slide(tmp_path / "bare.tiff", stained(1000, 1000), mpp=None)
    receipt = run_one(path, config, tmp_path)[0]
    assert receipt.state == "quarantined"
    assert "column mpp" in receipt.mend
    receipts = run_one(path, config, tmp_path, mpp=0.5)
    assert [receipt.state for receipt in receipts] == ["ok"] * 3
    assert receipts[0].info["mpp_source"] == "sample sheet"


def test_unequal_axes_make_tiles_of_the_right_size(stained, write_slide, config, tmp_path):
    path = write_slide(tmp_path / "a.tiff", stained(1400, 1400), mpp=(0.40, 0.41))
    run_one(path, config, tmp_path)
    columns = table.read(tmp_path / "slides" / "s" / "tiles.parquet")
    coarse = columns["magnification"] == "10x"
    assert set(columns["width"][coarse].tolist()) <= {560}
    assert set(columns["height"][coarse].tolist()) <= {546, 547}


def test_a_coarse_scan_needs_consent(stained, write_slide, config, tmp_path):
    path = write_slide(tmp_path / "a.tiff", stained(900, 900), mpp=(1.0, 1.0))
    assert "coarser than" in run_one(path, config, tmp_path)[0].reason
    config["slides"]["allow_upsampling"] = True
    receipts = run_one(path, config, tmp_path)
    assert [receipt.state for receipt in receipts] == ["ok"] * 3
    assert "2.00 times" in receipts[0].warnings[0]


@pytest.mark.parametrize(
    ("size", "colour", "reason"),
    [((900, 900), 243, "no H&E tissue"), ((900, 900), 4, "fluorescence"), ((300, 300), 150, "smaller than one")],
)
def test_empty_slides(size, colour, reason, write_slide, config, tmp_path):
    picture = np.full((*size, 3), colour, np.uint8)
    if colour == 150:
        picture[:] = (225, 165, 200)
    receipts = run_one(write_slide(tmp_path / "a.tiff", picture), config, tmp_path)
    assert receipts[0].state == "ok"
    assert receipts[2].state == "empty"
    assert reason in receipts[2].reason
    assert pq.read_table(tmp_path / "slides" / "s" / "tiles.parquet").num_rows == 0


def test_an_empty_slide_leaves_no_old_table_behind(slide_path, config, tmp_path):
    run_one(slide_path, config, tmp_path)
    (tmp_path / "slides" / "s" / "tissue.geojson").write_text('{"type": "FeatureCollection", "features": []}')
    receipts = run_one(slide_path, config, tmp_path)
    assert [receipt.state for receipt in receipts] == ["ok", "empty", "empty"]
    assert pq.read_table(tmp_path / "slides" / "s" / "tiles.parquet").num_rows == 0
    assert not (tmp_path / "slides" / "s" / "quality.json").exists()


def test_edited_tissue_is_kept(slide_path, config, tmp_path):
    automatic = run_one(slide_path, config, tmp_path)[2]
    path = tmp_path / "slides" / "s" / "tissue.geojson"
    box = [[[500, 500], [1500, 500], [1500, 1500], [500, 1500], [500, 500]]]
    edited = json.dumps([{"type": "Feature", "properties": {}, "geometry": {"type": "Polygon", "coordinates": box}}])
    path.write_text(edited)
    _, tissue, tiles = run_one(slide_path, config, tmp_path)
    assert tissue.info["edited"] is True
    assert tissue.counts["tissue_mm2"] == 0.25
    assert tiles.counts["kept_10x"] < automatic.counts["kept_10x"]
    config["tissue"]["min_area_mm2"] = 0.02  # another recipe does not overwrite the edit either
    assert run_one(slide_path, config, tmp_path)[1].info["edited"] is True
    assert path.read_text() == edited
    path.unlink()
    assert run_one(slide_path, config, tmp_path)[1].info["edited"] is False
    assert path.exists()


def test_a_broken_edit_is_quarantined_by_name(slide_path, config, tmp_path):
    run_one(slide_path, config, tmp_path)
    (tmp_path / "slides" / "s" / "tissue.geojson").write_text("{")
    receipts = run_one(slide_path, config, tmp_path)
    assert receipts[1].state == receipts[2].state == "quarantined"
    assert "tissue.geojson: is not valid JSON" in receipts[2].reason
    assert read_receipt(tmp_path, "tissue", "s").outputs == {}


def test_excluded_flags_are_config(slide_path, stained, write_slide, config, tmp_path):
    picture = stained(1900, 2000)
    picture[:, 600:700] = (20, 110, 60)
    path = write_slide(tmp_path / "pen.tiff", picture)
    config["tissue"]["min_area_mm2"] = 0.0
    strict = run_one(path, config, tmp_path)[2]
    assert strict.counts["pen_10x"] > 0
    config["tiles"]["exclude"] = []
    assert run_one(path, config, tmp_path)[2].counts["kept_10x"] > strict.counts["kept_10x"]


def test_slide_stages_import_nothing_heavy(slide_path, tmp_path):
    code = f"""
import sys
from histill.cohort.sheets import Slide
from histill.config import complete
from histill.slides import inspect, segment, tile
slides = [Slide("s", "p", {str(slide_path)!r})]
for stage in (inspect, segment, tile):
    stage.run(slides, config=complete({{"cohort": {{}}}}), results={str(tmp_path)!r})
print(sorted({{"torch", "pandas", "anndata", "sklearn", "skimage", "tiffslide", "matplotlib"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


OK = ["ok", "ok", "ok"]


@pytest.mark.shared_data
@pytest.mark.parametrize(
    ("name", "states", "reason"),
    [
        ("TCGA-06-0174-01Z-00-DX3.tiff", OK, None),
        ("TCGA-26-1442-01Z-00-DX1.tiff", OK, None),
        ("TCGA-HT-7470-01Z-00-DX4.tiff", OK, None),
        ("cmu-1-small-region.svs", OK, None),
        ("openslide_unreadable.svs", ["quarantined"] * 3, "openslide says: Bogus marker length"),
        ("openslide_boxes.tiff", ["quarantined"] * 3, "352.8 µm per pixel, outside"),
        ("openslide_small.svs", ["ok", "empty", "empty"], "no H&E tissue"),
        ("openslide_boxes_0.dcm", ["ok", "empty", "empty"], "no H&E tissue"),
        ("hamamatsu_test3_TRITC.ndpi", ["ok", "empty", "empty"], "fluorescence"),
    ],
)
def test_real_slides(shared_data, name, states, reason, config, tmp_path):
    receipts = run_one(shared_data / "wsi" / name, config, tmp_path)
    assert [receipt.state for receipt in receipts] == states
    if reason is None:
        assert receipts[2].counts["kept_10x"] >= 4
        assert receipts[2].counts["kept_20x"] >= 16
        assert receipts[2].counts["blur_10x"] == receipts[2].counts["pen_10x"] == 0
    else:
        assert reason in receipts[2].reason
