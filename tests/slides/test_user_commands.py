"""What stands behind `histill doctor`, `histill scan` and the pictures of slides."""

import csv
import json
import os
import time

import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from histill.cli import app
from histill.cohort.sheets import Slide
from histill.errors import HistillError
from histill.slides import examine, inspect, quality, readers, segment, table, tile
from histill.slides.doctor import doctor, render
from histill.slides.draw import FLAG_COLOURS, KEPT_COLOUR, TINT, TISSUE_COLOUR, draw_overview
from histill.slides.overview import read_picture
from histill.slides.scan import scan, write_sheet


@pytest.fixture(scope="module")
def slide_path(stained, write_slide, tmp_path_factory):
    return write_slide(tmp_path_factory.mktemp("slides") / "good.tiff", stained(1900, 2000))


def test_doctor_tells_what_will_be_done_and_never_raises(slide_path, write_slide, config, tmp_path):
    bare = write_slide(tmp_path / "bare.tiff", np.full((600, 600, 3), 243, np.uint8), mpp=None)
    garbage = tmp_path / "garbage.svs"
    garbage.write_bytes(b"nothing" * 100)
    findings = doctor([slide_path, bare, garbage, tmp_path, tmp_path / "absent.svs"], mpp=None, config=config)
    assert [finding.ok for finding in findings] == [True, False, False, False, False]
    assert all(finding.mend for finding in findings[1:])
    assert all(warned.mend for finding in findings for warned in finding.warnings)
    assert "histill scan" in findings[3].mend
    text = render(findings)
    for part in (
        *("3 levels: 2000 × 1900", "0.5 × 0.5 µm per pixel, from TIFF resolution tags", "1 × 0.95 mm"),
        *("resolution, TIFF resolution tags (openslide.mpp-x): 0.5 µm", "objective power not stated", "20x: "),
        *("flagged: ", "left out: tiles with under 0.25 tissue, or flagged pen, blur", "column mpp"),
        "5 slides: 1 ok, 4 with",
    ):
        assert part in text
    assert text.count("  mend ") == 4 + sum(len(finding.warnings) for finding in findings)
    (mended,) = doctor([bare], mpp=0.5, config=config)
    assert "no H&E tissue" in mended.problem
    assert "0.5 × 0.5 µm per pixel, from sample sheet" in render([mended])


def test_a_name_that_cannot_be_looked_at_is_a_finding(config, tmp_path):
    loop = tmp_path / "loop.svs"
    loop.symlink_to(loop)
    findings = doctor([loop, tmp_path / ("a" * 300 + ".svs")], mpp=None, config=config)
    assert all("cannot be read" in finding.problem and finding.mend for finding in findings)


def test_scan_names_the_file_whose_name_is_no_text(tmp_path):
    with open(os.fsencode(tmp_path) + b"/a\xff.svs", "wb") as file:
        file.write(b"x")
    with pytest.raises(HistillError, match=r"a\\xff\.svs: the name is no UTF-8"):
        scan(tmp_path)


def test_doctor_tells_every_source_of_a_slide_that_it_refuses(stained, write_slide, config, tmp_path):
    path = write_slide(tmp_path / "coarse.tiff", stained(600, 600), mpp=(1.0, 1.0), description="objective = 40x")
    (finding,) = doctor([path], mpp=None, config=config)
    assert "coarser than the 0.5 of 20x tiles" in finding.problem
    assert "objective 40x" in finding.problem
    assert "allow_upsampling" in finding.mend
    told = [line for line in finding.found if line.startswith("resolution, ")]
    assert [line.partition(": ")[2] for line in told] == ["1 µm per pixel", "about 0.25 µm per pixel"]
    config["slides"]["allow_upsampling"] = True
    (finding,) = doctor([path], mpp=None, config=config)
    assert finding.ok
    mends = {warned.text.partition(" ")[0]: warned.mend for warned in finding.warnings}
    assert "column mpp" in mends["resolutions"]
    assert "histill view" in mends["quality"]
    assert "finer scan" in next(warned.mend for warned in finding.warnings if "coarser than" in warned.text)


def test_doctor_takes_the_resolution_of_the_slide_sheet(slide_path, write_slide, config, tmp_path):
    sheet = tmp_path / "slides.csv"
    sheet.write_text(f"slide_id,patient_id,path,mpp\ns,p,{slide_path},0.4\n")
    config["cohort"]["slides"] = str(sheet)
    (finding,) = doctor([slide_path], mpp=None, config=config)
    assert any("0.4 × 0.4 µm per pixel, from sample sheet" in line for line in finding.found)
    assert any("says 0.5, sample sheet 0.4" in warned.text for warned in finding.warnings)


def test_a_slide_that_hangs_or_crashes_its_reader_is_a_finding(slide_path, config, tmp_path, monkeypatch):
    def opened(path, *_, **__):
        if path.name == "hangs.svs":
            time.sleep(60)
        if path.name == "crashes.svs":
            os.abort()
        return readers.open_slide(path)

    monkeypatch.setattr(examine, "open_slide", opened)
    config["slides"]["time_limit"] = 2
    for name in ("hangs.svs", "crashes.svs"):
        (tmp_path / name).write_bytes(b"a slide")
    start = time.perf_counter()
    findings = doctor([tmp_path / "hangs.svs", tmp_path / "crashes.svs", slide_path], mpp=None, config=config)
    assert time.perf_counter() - start < 20
    assert [finding.ok for finding in findings] == [False, False, True]
    assert "took longer than 2 s" in findings[0].problem
    assert "crashed (SIGABRT)" in findings[1].problem
    assert all("histill doctor again" in finding.mend for finding in findings[:2])


def test_doctor_names_the_missing_part_of_a_slide_of_several_files(config, tmp_path):
    (tmp_path / "case.mrxs").write_bytes(b"a preview")
    finding = doctor([tmp_path / "case.mrxs"], mpp=None, config=config)[0]
    assert f"the folder {tmp_path / 'case'} is missing" in finding.problem
    assert "beside its .mrxs" in finding.mend


def test_doctor_as_json(slide_path, tmp_path):
    garbage = tmp_path / "garbage.svs"
    garbage.write_bytes(b"nothing" * 100)
    done = CliRunner().invoke(app, ["doctor", "--json", str(slide_path), str(garbage)])
    assert done.exit_code == 1
    good, bad = json.loads(done.stdout)
    assert (good["ok"], good["problem"], bad["ok"]) == (True, None, False)
    assert good["light"] in ("green", "amber", "red")
    assert bad["mend"]
    assert CliRunner().invoke(app, ["doctor", str(slide_path)]).exit_code == 0


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
    tinted = (np.abs(changed - picture * (1 - TINT) - np.array(FLAG_COLOURS["pen"]) * TINT) <= 1).all(2)
    assert tinted.mean() > 0.3
    assert (changed == FLAG_COLOURS["pen"]).all(2).any()
    np.testing.assert_array_equal(draw_overview(picture, {"features": []}, None, facts), picture)


def test_every_flag_has_a_colour_of_its_own():
    assert set(FLAG_COLOURS) == set(quality.FLAGS)
    colours = np.array([KEPT_COLOUR, TISSUE_COLOUR, *FLAG_COLOURS.values()])
    apart = np.abs(colours[:, None] - colours[None]).sum(2) + 999 * np.eye(len(colours))
    assert apart.min() > 80


def one_tile(x=0, y=0, **flags):
    """Columns of one kept 10x tile of 100 level-0 pixels and its children."""
    columns = {
        "magnification": np.array(["10x"] + ["20x"] * 4),
        "x": np.array([0, 0, 50, 0, 50]) + x,
        "y": np.array([0, 0, 0, 50, 50]) + y,
        "width": np.array([100, 50, 50, 50, 50]),
        "height": np.array([100, 50, 50, 50, 50]),
        "keep": np.ones(5, bool),
        "pen_colour": np.array([""] * 5),
    }
    return columns | {flag: np.array(flags.get(flag, [False] * 5)) for flag in FLAG_COLOURS}


def test_the_grid_is_drawn_at_the_magnifications_asked_for():
    glass, facts = np.full((200, 200, 3), 250, np.uint8), {"width": 200, "height": 200}

    def changed(**options):
        drawn = draw_overview(glass, {"features": []}, one_tile(), facts, **options)
        return (drawn != glass).any(2)

    assert not changed()[50, 20]
    assert changed(magnification="both")[50, 20], "no line between the 20x tiles"
    assert changed(magnification="20x")[50, 20]
    assert not changed(magnification="both")[25, 25]
    small = draw_overview(glass, {"features": []}, one_tile(), facts, max_px=25, magnification="both")
    assert not (small[6, 3] != 250).any(), "lines that would hide the tissue"
    flagged = one_tile(blur=[False, True, False, False, False])
    fine = draw_overview(glass, {"features": []}, flagged, facts, magnification="20x")
    coarse = draw_overview(glass, {"features": []}, flagged, facts, magnification="both")
    assert (fine[25, 25] != 250).any()
    assert (coarse[25, 25] == 250).all(), "the flag of a 20x tile shown at 10x"


def test_holes_are_dashed():
    glass, facts = np.full((200, 200, 3), 250, np.uint8), {"width": 200, "height": 200}
    square = [[20, 20], [180, 20], [180, 180], [20, 180], [20, 20]]
    hole = [[60, 60], [140, 60], [140, 140], [60, 140], [60, 60]]
    geometry = {"type": "Polygon", "coordinates": [square, hole]}
    drawn = draw_overview(glass, {"features": [{"geometry": geometry}]}, None, facts)
    assert (drawn[20, 20:180] != 250).any(1).all()
    assert 0.2 < (drawn[60, 62:138] != 250).any(1).mean() < 0.95
