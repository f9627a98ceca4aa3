"""Slides of any size: positions at the far corner, memory, and slides without coarse levels."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile

from histill.slides.grid import make_grid
from histill.slides.overview import read_overview, whole_pixels
from histill.slides.readers import open_slide
from tests.slides import sparse

HUGE = 150_000, 100_000
MEMORY_MB = 500

STAGES = """
import json, resource, sys
from histill.cohort.sheets import Slide
from histill.config import complete
from histill.slides import inspect, segment, tile
slide, results = sys.argv[1:]
config = complete({"results": results, "cohort": {}})
sheet = [Slide("s", "p", slide)]
receipts = [stage.run(sheet, config=config, results=results)[0] for stage in (inspect, segment, tile)]
# Of itself not by getrusage, which counts what pytest had before this program began.
own = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
usage = [int(own.split()[1]) / 1024, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024]
print(json.dumps({"states": [receipt.state for receipt in receipts], "mb": max(usage), "counts": receipts[2].counts,
                  "mm2": receipts[1].counts["tissue_mm2"]}))
"""


@pytest.fixture(scope="module")
def huge(tmp_path_factory):
    """150,000 × 100,000 px with marked cells near the origin and in the far corner."""
    marks = [(1, 1), (583, 386)]
    return sparse.write_sparse(tmp_path_factory.mktemp("sparse") / "huge.svs", HUGE, marks=marks)


def run_stages(path, folder) -> dict:
    done = subprocess.run([sys.executable, "-c", STAGES, str(path), str(folder)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("reader", ["openslide", "tiffslide", "tifffile"])
def test_every_reader_reads_a_sparse_slide(huge, reader):
    with open_slide(huge.path, reader) as slide:
        assert slide.dimensions == HUGE
        assert [level.downsample for level in slide.levels] == [1, 4, 16]
        x, y = 583 * sparse.CELL, 386 * sparse.CELL
        picture = slide.read_region(x, y, sparse.CELL, sparse.CELL, sparse.CELL, sparse.CELL)
        assert np.abs(picture.astype(int) - sparse.mark())[8:-8, 8:-8].max() <= 6


def test_a_sparse_slide_is_small_and_what_its_tags_say(huge):
    assert huge.path.stat().st_size < 20e6
    with tifffile.TiffFile(huge.path) as file:
        assert file.is_svs
        assert [level.shape for level in file.series[0].levels] == [
            (100_000, 150_000, 3),
            (25_000, 37_500, 3),
            (6250, 9375, 3),
        ]


@pytest.mark.parametrize("cell", [(1, 1), (583, 386)])
@pytest.mark.parametrize("scale", [1.0, 2.0, 1.9778, 2.2075, 4.0, 3.9556, 4.415])
def test_pixels_are_where_the_grid_says(huge, cell, scale):
    """A ramp of one grey level a pixel shows a shift of under half a level-0 pixel, near the origin and far away."""
    start = np.array(cell) * sparse.CELL + 30
    side = 196
    out = round(side / scale)
    with open_slide(huge.path) as slide:
        picture = slide.read_region(*start.tolist(), side, side, out, out)
    middles = 30 + (np.arange(out) + 0.5) * side / out - 0.5
    red, green = np.meshgrid(middles, middles)
    inner = slice(3, -3)
    for channel, expected in ((0, red), (1, green)):
        shift = (picture[..., channel] - expected)[inner, inner]
        # Stored levels are whole greys: half a grey more at a coarse one.
        assert abs(shift.mean()) < (0.5 if scale < 4 else 1.0)
        assert np.abs(shift).max() < 4


def test_the_last_tile_of_a_huge_slide_is_read_where_it_lies(huge):
    mpp = 0.2528  # taken as the slide's: nothing falls on whole pixels
    grid = make_grid(HUGE, (mpp, mpp), 224)
    x0, y0 = np.array([583, 386]) * sparse.CELL
    inside = (grid.children[:, 0] < x0 + 200) & (grid.children[:, 0] + grid.children[:, 2] > x0 + 50)
    inside &= (grid.children[:, 1] < y0 + 200) & (grid.children[:, 1] + grid.children[:, 3] > y0 + 50)
    assert inside.any()
    with open_slide(huge.path) as slide:
        for x, y, width, height in grid.children[inside].tolist():
            picture = slide.read_region(x, y, width, height, 224, 224).astype(float)
            columns = x - x0 + (np.arange(224) + 0.5) * width / 224 - 0.5
            rows = y - y0 + (np.arange(224) + 0.5) * height / 224 - 0.5
            on = (rows > 12) & (rows < 243), (columns > 12) & (columns < 243)
            part = picture[np.ix_(*on)]
            assert abs((part[..., 0] - columns[on[1]][None]).mean()) < 0.5
            assert abs((part[..., 1] - rows[on[0]][:, None]).mean()) < 0.5


def test_memory_of_a_huge_slide_is_bounded(huge, tmp_path):
    found = run_stages(huge.path, tmp_path)
    assert found["states"] == ["ok"] * 3
    assert found["mb"] < MEMORY_MB
    true_mm2 = huge.cells.sum() * (sparse.CELL * 0.25e-3) ** 2
    assert found["mm2"] == pytest.approx(true_mm2, rel=0.03)
    assert found["counts"]["kept_10x"] * 0.224**2 == pytest.approx(true_mm2, rel=0.1)


def test_a_slide_without_coarse_levels_gives_the_same_tiles(tmp_path):
    counts = {}
    for name, downsamples in (("pyramid", (1, 4, 16)), ("pair", (1, 2)), ("flat", (1,))):
        slide = sparse.write_sparse(tmp_path / f"{name}.svs", (11_000, 9000), downsamples=downsamples, seed=3)
        found = run_stages(slide.path, tmp_path / name)
        assert found["states"] == ["ok"] * 3
        assert found["mb"] < MEMORY_MB / 2
        counts[name] = found["counts"]["tiles_10x"], found["counts"]["kept_10x"]
    assert counts["flat"] == pytest.approx(counts["pyramid"], rel=0.03)
    assert counts["pair"] == pytest.approx(counts["pyramid"], rel=0.03)


@pytest.mark.parametrize("dimensions", [(11_000, 9000), (9001, 5003), (300, 4999), (17, 5)])
@pytest.mark.parametrize("mpp", [0.25, 0.2528])
def test_blocks_of_an_overview_fit_together(tmp_path, monkeypatch, dimensions, mpp):
    slide = sparse.write_sparse(tmp_path / "a.svs", dimensions, seed=1, blobs=2)
    with open_slide(slide.path) as reader:
        whole = read_overview(reader, (mpp, mpp), 8.0)
        monkeypatch.setattr("histill.slides.overview._BLOCK", (190, 130))
        blocks = read_overview(reader, (mpp, mpp), 8.0)
    assert whole.shape[:2] == (max(1, round(dimensions[1] * mpp / 8)), max(1, round(dimensions[0] * mpp / 8)))
    difference = np.abs(whole.astype(int) - blocks)
    assert difference.mean() < 2.5
    assert (difference.max(2) > 60).mean() < 0.01


@pytest.mark.parametrize(
    ("place", "full", "downsample", "edge"),
    [
        (100.0, 1000, 16.0, 96),
        (1000.0, 1000, 16.0, 992),
        (1000.0, 1000, 16.003, 1000.0),
        (9.0, 10, 1.0, 9),
        (5.0, 5, 16.0, 5.0),
    ],
)
def test_edges_lie_on_whole_pixels_of_the_level(place, full, downsample, edge):
    assert whole_pixels(place, full, downsample) == edge


def test_the_truth_of_a_sparse_slide_is_its_pixels(tmp_path):
    slide = sparse.write_sparse(tmp_path / "a.svs", (6000, 5000), seed=5)
    with open_slide(Path(slide.path)) as reader:
        for downsample in (1, 4, 16):
            size = 23 * sparse.CELL // downsample, 19 * sparse.CELL // downsample
            picture = reader.read_region(0, 0, 23 * sparse.CELL, 19 * sparse.CELL, *size)
            side = sparse.CELL // downsample
            cells = picture.reshape(19, side, 23, side, 3).mean((1, 3))
            assert ((cells[..., 0] - cells[..., 1] > 15) == slide.cells[:19, :23]).all()
