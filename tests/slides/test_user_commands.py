"""What stands behind `histill doctor`, `histill scan` and the pictures of slides."""

import csv
import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from histill.cohort.sheets import Slide
from histill.errors import HistillError
from histill.slides import inspect, segment, table, tile
from histill.slides.doctor import doctor, render
from histill.slides.draw import FLAG_COLOURS, KEPT_COLOUR, TISSUE_COLOUR, draw_overview
from histill.slides.overview import read_picture
from histill.slides.scan import scan, write_sheet


@pytest.fixture(scope="module")
def slide_path(stained, write_slide, tmp_path_factory):
    return write_slide(tmp_path_factory.mktemp("slides") / "good.tiff", stained(1900, 2000))


def test_doctor_tells_what_will_be_done_and_never_raises(slide_path, write_slide, config, tmp_path):
    bare = write_slide(tmp_path / "bare.tiff", np.full((600, 600, 3), 243, np.uint8), mpp=None)
    garbage = tmp_path / "garbage.svs"
    garbage.write_bytes(b"nothing" * 100)
    findings = doctor([slide_path, bare, garbage, tmp_path], mpp=None, config=config)
    assert [finding.ok for finding in findings] == [True, False, False, False]
    assert all(finding.mend for finding in findings[1:])
    text = render(findings)
    for part in ("3 levels: 2000 × 1900", "from TIFF resolution tags", "20x: ", "column mpp", "4 slides: 1 ok, 3 with"):
        assert part in text
    (mended,) = doctor([bare], mpp=0.5, config=config)
    assert "no H&E tissue" in mended.problem
    assert "0.5 × 0.5 µm per pixel, from sample sheet" in render([mended])


def test_doctor_counts_as_the_stages_do(slide_path, config, tmp_path):
    slides = [Slide("s", "p", str(slide_path))]
    for stage in (inspect, segment, tile):
        (receipt,) = stage.run(slides, config=config, results=tmp_path)
    kept = receipt.counts["kept_10x"]
    assert f"10x: {kept} of" in render(doctor([slide_path], mpp=None, config=config))


def test_scan_drafts_a_sheet(tmp_path):
    names = [
        "TCGA-AB-1234-01Z-00-DX1.11AA22BB.svs",
        "b/tcga-cd-9876.ndpi",
        "b/Case 7 (left).SVS",
        "c/case_7_left_.tiff",
        ".hidden/x.svs",
        "notes.txt",
        "TCGA-AB-12345.svs",
    ]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    rows = scan(tmp_path)
    found = {row["slide_id"]: row["patient_id"] for row in rows}
    assert found == {
        "TCGA-AB-1234-01Z-00-DX1.11AA22BB": "TCGA-AB-1234",
        "TCGA-AB-12345": "TCGA-AB-12345",
        "tcga-cd-9876": "TCGA-CD-9876",
        "Case_7_left_": "Case_7_left_",
        "case_7_left_-2": "case_7_left_-2",
    }
    sheet = tmp_path / "slides.csv"
    write_sheet(rows, sheet)
    with open(sheet, newline="") as file:
        assert list(csv.DictReader(file)) == rows
    with pytest.raises(HistillError, match="exists already"):
        write_sheet(rows, sheet)


def test_scan_refuses_what_holds_no_slides(tmp_path):
    with pytest.raises(HistillError, match="holds no slide"):
        scan(tmp_path)
    with pytest.raises(HistillError, match="is no folder"):
        scan(tmp_path / "absent")


def test_drawn_overview_shows_tissue_tiles_and_flags(slide_path, config, tmp_path):
    slides = [Slide("s", "p", str(slide_path))]
    for stage in (inspect, segment, tile):
        stage.run(slides, config=config, results=tmp_path)
    folder = tmp_path / "slides" / "s"
    picture = read_picture(folder / "overview.jpg")
    outline, facts = (json.loads((folder / name).read_text()) for name in ("tissue.geojson", "slide.json"))
    drawn = draw_overview(picture, outline, pq.read_table(folder / "tiles.parquet"), facts, max_px=100)
    assert drawn.shape == (95, 100, 3)
    drawn = draw_overview(picture, outline["features"], table.read(folder / "tiles.parquet"), facts)
    assert drawn.shape == picture.shape
    for colour in (TISSUE_COLOUR, KEPT_COLOUR):
        assert (drawn == colour).all(2).any()
    columns = table.read(folder / "tiles.parquet")
    columns["pen"][:] = True
    changed = draw_overview(picture, {"features": []}, columns, facts).astype(int)
    tinted = (np.abs(changed - picture * 0.65 - np.array(FLAG_COLOURS["pen"]) * 0.35) <= 1).all(2)
    assert tinted.mean() > 0.3
    np.testing.assert_array_equal(draw_overview(picture, {"features": []}, None, facts), picture)
