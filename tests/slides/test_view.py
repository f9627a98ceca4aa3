"""`histill view`: what is drawn, from where, and what it refuses."""

import json

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from histill.cli import app
from histill.cohort.sheets import Slide
from histill.errors import HistillError, SlideError
from histill.slides import inspect, segment, tile
from histill.slides.draw import FLAG_COLOURS, KEPT_COLOUR, TISSUE_COLOUR
from histill.slides.view import find_stored, view
from histill.slides.view_page import LIGHT_COLOURS


@pytest.fixture(scope="module")
def slide_path(stained, write_slide, tmp_path_factory):
    picture = stained(1900, 2000)
    picture[600:760, :] = (20, 110, 60)  # a green pen
    cv2.circle(picture, (1000, 1200), 200, (243, 243, 243), -1)  # a hole
    return write_slide(tmp_path_factory.mktemp("slides") / "good.tiff", picture)


def read(path):
    picture = cv2.imread(str(path))
    assert picture is not None
    return picture[..., ::-1]


def has(picture, colour):
    return bool((picture == colour).all(2).any())


def test_a_picture_of_a_slide_that_was_never_processed(slide_path, config, tmp_path):
    scene = view(slide_path, tmp_path / "a.png", config=config, max_px=800)
    assert scene.note == "examined now"
    assert scene.quality["10x"]["flagged"]["pen"] > 0
    picture = read(tmp_path / "a.png")
    assert picture.shape[0] > 760
    assert picture.shape[1] > 800 + 300, "no room for the legend"
    for colour in (TISSUE_COLOUR, KEPT_COLOUR, *FLAG_COLOURS.values(), LIGHT_COLOURS[scene.quality["light"]]):
        assert has(picture, colour)
    view(slide_path, tmp_path / "b.jpg", config=config, max_px=800, magnification="20x")
    assert read(tmp_path / "b.jpg").shape == picture.shape
    assert view(slide_path, tmp_path / "c.png", config=config, mpp=0.4).facts["mpp"]["source"] == "sample sheet"


def test_stored_results_are_drawn_whatever_the_slides_path(slide_path, config, tmp_path):
    results = tmp_path / "results"
    for stage in (inspect, segment, tile):
        stage.run([Slide("s", "p", str(slide_path))], config=config, results=results)
    box = [[[500, 100], [1500, 100], [1500, 500], [500, 500], [500, 100]]]
    edited = [{"type": "Feature", "properties": {}, "geometry": {"type": "Polygon", "coordinates": box}}]
    (results / "slides" / "s" / "tissue.geojson").write_text(json.dumps(edited))
    moved = tmp_path / "elsewhere.tiff"
    moved.write_bytes(slide_path.read_bytes())
    (results / "slides" / "other").mkdir()
    (results / "slides" / "other" / "slide.json").write_text("{")
    assert find_stored(results, moved) == results / "slides" / "s"
    scene = view(moved, tmp_path / "a.png", config=config, results=results, max_px=400)
    assert scene.note == "stored results of slide s, tissue edited by a person"
    assert [polygon.area for polygon in scene.polygons] == [400_000]
    assert scene.quality["light"]
    fresh = view(moved, tmp_path / "a.png", config=config, results=results, mpp=0.5, max_px=400)
    assert fresh.note == "examined now"
    with open(moved, "ab") as file:
        file.write(b"another slide")
    assert view(moved, tmp_path / "a.png", config=config, results=results, max_px=400).note == "examined now"


def test_a_slide_that_was_only_inspected(slide_path, config, tmp_path):
    inspect.run([Slide("s", "p", str(slide_path))], config=config, results=tmp_path)
    scene = view(slide_path, tmp_path / "a.png", config=config, results=tmp_path, max_px=400)
    assert scene.columns is None
    assert scene.remarks == ["the stage tiles has not run", "no tissue is stored"]


@pytest.mark.parametrize("shape", [(16, 16), (40, 900), (700, 30)])
def test_small_and_narrow_slides_have_pictures(shape, write_slide, config, tmp_path):
    path = write_slide(tmp_path / "a.tiff", np.full((*shape, 3), 243, np.uint8), levels=1)
    scene = view(path, tmp_path / "a.png", config=config, max_px=400)
    assert "no H&E tissue" in scene.remarks[0]
    assert max(scene.picture.shape) >= 300
    assert read(tmp_path / "a.png").size


@pytest.mark.parametrize(
    ("out", "options", "reason"),
    [
        ("a.gif", {}, "no name of a PNG or JPEG"),
        ("a", {}, "no name of a PNG or JPEG"),
        ("folder.png", {}, "is a folder"),
        ("link.png", {}, "is the slide itself"),
        ("a.png", {"magnification": "40x"}, "no magnification '40x'"),
        ("file.txt/a.png", {}, "cannot be written"),
    ],
)
def test_pictures_that_cannot_be_written(out, options, reason, slide_path, config, tmp_path):
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "file.txt").touch()
    (tmp_path / "link.png").symlink_to(slide_path)
    before = slide_path.read_bytes()
    with pytest.raises(HistillError, match=reason) as caught:
        view(slide_path, tmp_path / out, config=config, max_px=200, **options)
    assert caught.value.mend
    assert slide_path.read_bytes() == before


def test_a_slide_without_resolution_is_refused_with_its_mend(write_slide, config, tmp_path):
    path = write_slide(tmp_path / "bare.tiff", np.full((300, 300, 3), 243, np.uint8), mpp=None)
    with pytest.raises(SlideError, match="states no resolution"):
        view(path, tmp_path / "a.png", config=config)
    assert not (tmp_path / "a.png").exists()


def test_view_from_the_command_line(slide_path, config, tmp_path):
    out = tmp_path / "a.png"
    done = CliRunner().invoke(app, ["view", str(slide_path), "--out", str(out), "--max-px", "300"])
    assert done.exit_code == 0, done.output
    assert "examined now" in done.stdout
    assert read(out).size
    inspect.run([Slide("s", "p", str(slide_path))], config=config, results=tmp_path / "results")
    arguments = ["view", str(slide_path), "--out", str(out), "--results", str(tmp_path / "results"), "--max-px", "300"]
    done = CliRunner().invoke(app, arguments)
    assert "stored results of slide s" in done.stdout
    assert "note: the stage tiles has not run" in done.stdout
