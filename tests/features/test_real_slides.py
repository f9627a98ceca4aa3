"""Every real slide through the slide stages and extraction."""

from __future__ import annotations

import anndata
import pytest

from histill.cohort.sheets import Slide
from histill.config import complete
from histill.features import extract
from histill.slides import inspect, segment, tile
from histill.slides.scan import scan

pytestmark = pytest.mark.shared_data


@pytest.fixture(scope="module")
def run(shared_data, tmp_path_factory):
    results = tmp_path_factory.mktemp("results")
    slides = [Slide(row["slide_id"], row["patient_id"], row["path"]) for row in scan(shared_data / "wsi")]
    config = complete({"results": str(results), "cohort": {}})
    for stage in (inspect, segment, tile, extract):
        receipts = stage.run(slides, config=config, results=results)
    return results, {receipt.slide: receipt for receipt in receipts}


@pytest.mark.parametrize(
    ("slide", "tiles"),
    [
        ("TCGA-06-0174-01Z-00-DX3", 4),
        ("TCGA-26-1442-01Z-00-DX1", 4),
        ("TCGA-HT-7470-01Z-00-DX4", 4),
        ("cmu-1-small-region", 10),
    ],
)
def test_stained_slides_have_both_magnifications(run, slide, tiles):
    results, receipts = run
    assert receipts[slide].state == "ok"
    coarse, fine = (
        anndata.read_zarr(results / f"features/colour-texture/{slide}.zarr/{name}") for name in ("10x", "20x")
    )
    assert len(coarse) >= tiles
    assert len(fine) == 4 * len(coarse)
    assert fine.X.dtype == "float16"
    assert fine.obs["valid"].all()


@pytest.mark.parametrize(
    ("slide", "state", "reason"),
    [
        ("openslide_unreadable", "quarantined", "openslide says"),
        ("openslide_boxes", "quarantined", "352.8 µm per pixel, outside 0.05 to 10"),
        ("openslide_small", "empty", "no H&E tissue"),
        ("openslide_boxes_0", "empty", "no H&E tissue"),
        ("hamamatsu_test3_TRITC", "empty", "fluorescence"),
    ],
)
def test_odd_slides_end_with_their_reason(run, slide, state, reason):
    _, receipts = run
    assert receipts[slide].state == state
    assert reason in receipts[slide].reason
    assert receipts[slide].mend


def test_an_empty_slide_has_a_bag_of_zero_rows(run):
    results, receipts = run
    table = anndata.read_zarr(results / "features/colour-texture/openslide_small.zarr/20x")
    assert table.shape == (0, 88)
    assert receipts["openslide_small"].counts == {"10x": 0, "20x": 0, "unreadable": 0}
    assert not (results / "features/colour-texture/openslide_unreadable.zarr").exists()
