"""Label and macro images show names. They are never read: what is in them changes nothing that is written."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path

import cv2
import numpy as np
import openslide
import pytest
import tifffile
import tiffslide
from PIL import Image
from typer.testing import CliRunner

from histill.batches import write_batch
from histill.cli import app
from histill.cohort.sheets import Slide
from histill.config import complete
from histill.demo.slide_file import LEVELS
from histill.features import extract
from histill.report import stage as report
from histill.slides import inspect, segment, tile
from histill.slides.readers import open_slide
from tests.bundle.slide_bundle import paint
from tests.security.project import written

STAGES = (inspect, segment, tile, extract)
GREEN, BLUE = (0, 255, 0), (0, 0, 255)  # of no stained tissue, and of no colour that the pages draw with
COMMON = {"photometric": "rgb", "metadata": None}
NAME = "Aperio Image Library"


def with_label(source: Path, path: Path, colour: tuple[int, int, int], *, name: str = "Jane Miller") -> Path:
    """A copy of a slide as the scanner's files are: levels, then a label and a macro image of one colour."""
    with openslide.OpenSlide(source) as slide:
        image = np.asarray(slide.read_region((0, 0), 0, slide.dimensions))[..., :3]
    height, width = image.shape[:2]
    with tifffile.TiffWriter(path) as file:
        text = f"{NAME}\r\n{width}x{height} [0,0 {width}x{height}] (256x256)|AppMag = 20|MPP = 0.5|Title = {name}"
        file.write(image, tile=(256, 256), description=text, **COMMON)
        small = cv2.resize(image, (width // 8, height // 8), interpolation=cv2.INTER_AREA)
        file.write(small, rowsperstrip=16, description=f"{NAME}\r\nthumbnail -", **COMMON)
        for factor in LEVELS:
            level = cv2.resize(image, (width // factor, height // factor), interpolation=cv2.INTER_AREA)
            text = (
                f"{NAME}\r\n{width}x{height} [0,0 {width}x{height}] (256x256) -> {width // factor}x{height // factor}"
            )
            file.write(level, tile=(256, 256), description=text, **COMMON)
        for kind, number, size in (("label", 1, (400, 440)), ("macro", 9, (420, 1200))):
            picture = np.full((*size, 3), colour, np.uint8)
            text = f"{NAME}\r\n{kind} {size[1]}x{size[0]}"
            file.write(picture, rowsperstrip=size[0], description=text, subfiletype=number, **COMMON)
    return path


@pytest.fixture(scope="module")
def painted(tmp_path_factory) -> Path:
    return paint(tmp_path_factory.mktemp("painted"))


@pytest.fixture(scope="module")
def slides(painted, tmp_path_factory) -> dict[str, Path]:
    """One slide with labels of two colours, each under one name in a folder of its own."""
    folder = tmp_path_factory.mktemp("labelled")
    made = {}
    for name, colour in (("green", GREEN), ("blue", BLUE)):
        (folder / name).mkdir()
        made[name] = with_label(painted, folder / name / "slide.svs", colour)
    return made


def test_the_files_do_have_label_and_macro(slides):
    with openslide.OpenSlide(slides["green"]) as slide:
        assert {"label", "macro", "thumbnail"} <= set(slide.associated_images)
        assert slide.associated_images["label"].getpixel((5, 5))[:3] == GREEN


@pytest.fixture
def forbidden(monkeypatch):
    """Make every way to a label or macro image an error."""

    def refuse(*_: object, **__: object):
        raise AssertionError("an associated image was asked for")

    for library in (openslide.AbstractSlide, openslide.OpenSlide, tiffslide.TiffSlide):
        monkeypatch.setattr(library, "associated_images", property(refuse), raising=False)
    monkeypatch.setattr(openslide.lowlevel, "read_associated_image", refuse)
    for name in ("asarray", "asrgb", "segments"):
        original = getattr(tifffile.TiffPage, name)

        def guarded(self, *arguments, _original=original, **options):
            assert not re.search("label|macro", self.description), "an associated image was asked for"
            return _original(self, *arguments, **options)

        monkeypatch.setattr(tifffile.TiffPage, name, guarded)


def run_all(slide: Path, folder: Path) -> Path:
    """All that histill says and shows of a slide, below a folder."""
    config = complete({"results": str(folder / "results"), "cohort": {}, "report": {"max_slides": 5}})
    for stage in STAGES:
        (receipt,) = stage.run([Slide("s", "p", str(slide))], config=config, results=folder / "results")
        assert receipt.state == "ok", receipt.reason
        write_batch(folder / "results" / "receipts" / f"{receipt.stage}.json", receipt.stage, [receipt])
    report.run(config=config, results=folder / "results")
    for arguments in (["doctor", str(slide)], ["view", str(slide), "--out", str(folder / "view.png")]):
        told = CliRunner().invoke(app, arguments, catch_exceptions=False)
        assert told.exit_code == 0, told.output
        (folder / f"{arguments[0]}.txt").write_text(told.output)
    return folder


def pictures(folder: Path):
    """(file, RGB) of every picture below a folder, those within pages too."""
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        if path.suffix in (".png", ".jpg"):
            yield path, np.asarray(Image.open(path).convert("RGB"))
        elif path.suffix == ".html":
            for text in re.findall(r"data:image/(?:png|jpeg|webp);base64,([A-Za-z0-9+/=]+)", path.read_text()):
                yield path, np.asarray(Image.open(io.BytesIO(base64.b64decode(text))).convert("RGB"))


def holds(rgb: np.ndarray, colour: tuple[int, int, int]) -> bool:
    """Whether a picture has an area of a colour, give or take what JPEG does to it."""
    near = (np.abs(rgb.astype(int) - colour).max(axis=-1) < 40).astype(np.uint8)
    return bool(cv2.erode(near, np.ones((9, 9), np.uint8)).any())


def test_what_is_in_a_label_changes_nothing_that_is_written(slides, forbidden, tmp_path):
    """Two slides that differ in their labels alone give the same files, but for digests of their files."""
    content = {}
    for name, slide in slides.items():
        folder = run_all(slide, tmp_path / name / "out")
        shown = list(pictures(folder))
        assert len(shown) >= 3  # overview, view, page
        assert not [path for path, rgb in shown if holds(rgb, GREEN) or holds(rgb, BLUE)]
        for path, text in written(folder):
            assert b"Miller" not in text, path
        content[name] = {
            path.relative_to(folder): path.read_bytes()
            for path in folder.rglob("*")
            if path.suffix in (".jpg", ".png", ".geojson", ".parquet", ".txt") or ("c" in path.parts and path.is_file())
        }
    green, blue = (
        {str(path): text.replace(b"/blue/", b"/green/") for path, text in own.items()} for own in content.values()
    )
    assert green.keys() == blue.keys()
    assert [path for path in green if green[path] != blue[path]] == []


@pytest.mark.parametrize("reader", ["openslide", "tiffslide", "tifffile"])
def test_no_reader_takes_a_label_for_a_level(reader, slides, forbidden):
    with open_slide(slides["green"], reader) as slide:
        width, height = slide.dimensions
        sizes = [(level.width, level.height) for level in slide.levels]
        assert sizes == [(width // factor, height // factor) for factor in (1, *LEVELS)]
        whole = slide.read_region(0, 0, width, height, 300, 300)
    assert not holds(whole, GREEN)
