"""Tiles of a whole demo cohort: four 20x children cover exactly the area of their 10x tile, on slide and in store."""

from __future__ import annotations

from dataclasses import replace

import anndata
import numpy as np
import pytest

from histill.cohort.sheets import load
from histill.config import complete
from histill.demo.make import make
from histill.encoders.colour_texture import ColourTexture
from histill.features import extract
from histill.provenance import read_json
from histill.slides import inspect, segment, table, tile
from histill.slides.readers import open_slide

DEMO = {"patients": 12, "seed": 1, "size_px": 1024}
SIZE = 64
ODD_MPP = 0.4617  # the sheet's word for one slide: no tile edge falls on a multiple of the tile size there
COLOURS = [ColourTexture.names.index(f"{channel}_mean") for channel in ("red", "green", "blue")]


@pytest.fixture(scope="module", params=[0.0, 0.25], ids=["no overlap", "overlap"])
def results(request, tmp_path_factory):
    """The cohort cut into tiles: folder, config and the slides that were cut."""
    folder = tmp_path_factory.mktemp("results")
    config = complete(
        {
            "results": str(folder),
            "demo": DEMO,
            "tiles": {"size": SIZE, "overlap": request.param},
            "features": {"allow_off_recipe": True},
        }
    )
    make(config["demo"], folder / "demo")
    slides = list(load(config).slides.values())
    plain = next(row for row, slide in enumerate(slides) if slide.mpp is None)
    slides[plain] = replace(slides[plain], mpp=ODD_MPP)
    for stage in (inspect, segment, tile):
        receipts = stage.run(slides, config=config, results=folder)
    cut = [slide for slide, receipt in zip(slides, receipts, strict=True) if receipt.state == "ok"]
    assert len(cut) >= len(slides) - 2  # one slide is corrupt; a small one may hold no tile that passes
    return folder, config, cut


def boxes(columns: table.Columns, magnification: str) -> np.ndarray:
    """Left, top, right, bottom [N, 4]."""
    rows = columns["magnification"] == magnification
    x, y, width, height = (columns[name][rows].astype(np.int64) for name in ("x", "y", "width", "height"))
    return np.column_stack([x, y, x + width, y + height])


def test_children_cover_exactly_their_parent(results):
    folder, _, slides = results
    for slide in slides:
        columns = table.read(folder / "slides" / slide.slide_id / "tiles.parquet")
        facts = read_json(folder / "slides" / slide.slide_id / "slide.json")
        parents, children = boxes(columns, "10x"), boxes(columns, "20x")
        parent = columns["parent"][columns["magnification"] == "20x"]
        assert len(parents)
        np.testing.assert_array_equal(np.bincount(parent, minlength=len(parents)), 4)
        np.testing.assert_array_equal(columns["parent"][: len(parents)], -1)
        assert (parents[:, 2:] <= [facts["width"], facts["height"]]).all()
        assert (parents[:, :2] >= 0).all()
        for row, (left, top, right, bottom) in enumerate(parents):
            covered = np.zeros((bottom - top, right - left), np.uint8)
            for x0, y0, x1, y1 in children[parent == row]:
                assert left <= x0 < x1 <= right
                assert top <= y0 < y1 <= bottom
                covered[y0 - top : y1 - top, x0 - left : x1 - left] += 1
            assert (covered == 1).all(), f"{slide.slide_id}: 10x tile {row}"
        keep = columns["keep"]
        np.testing.assert_array_equal(keep[len(parents) :], keep[parent])


@pytest.fixture(scope="module")
def stores(results):
    """Two slides with features: those whose resolution stands in the sheet."""
    folder, config, cut = results
    slides = sorted(cut, key=lambda slide: slide.mpp is None)[:2]
    receipts = extract.run(slides, config=config, results=folder)
    assert [receipt.state for receipt in receipts] == ["ok", "ok"]
    assert sorted(slide.mpp for slide in slides) == [ODD_MPP, 0.5]
    return folder, slides


def test_stores_open_in_anndata_and_link_children_to_parents(stores):
    folder, slides = stores
    for slide in slides:
        store = folder / "features" / "colour-texture" / f"{slide.slide_id}.zarr"
        columns = table.read(folder / "slides" / slide.slide_id / "tiles.parquet")
        coarse, fine = (anndata.read_zarr(store / name) for name in ("10x", "20x"))
        for group, name in ((coarse, "10x"), (fine, "20x")):
            tiles = group.obs["tile"].to_numpy()
            assert group.X.dtype == np.float16
            assert np.isfinite(group.X).all()
            assert "colour-texture" in group.uns["recipe"]
            assert group.obs["valid"].all()
            assert (columns["magnification"][tiles] == name).all()
            assert columns["keep"][tiles].all()
            np.testing.assert_array_equal(
                group.obsm["spatial"], np.column_stack([columns["x"][tiles], columns["y"][tiles]])
            )
        assert fine.n_obs == 4 * coarse.n_obs > 0
        assert coarse.n_obs == np.count_nonzero(columns["keep"] & (columns["magnification"] == "10x"))
        # Through the store and through the tile table, a 20x row has the same 10x tile.
        through_store = coarse.obs["tile"].to_numpy()[fine.obs["parent"].to_numpy()]
        np.testing.assert_array_equal(through_store, columns["parent"][fine.obs["tile"].to_numpy()])


def test_colours_of_the_children_are_those_of_the_parent(stores):
    """In the store, and of the crops as a reader gives them tile by tile."""
    folder, slides = stores
    for slide in slides:
        store = folder / "features" / "colour-texture" / f"{slide.slide_id}.zarr"
        coarse, fine = (anndata.read_zarr(store / name) for name in ("10x", "20x"))
        parent = fine.obs["parent"].to_numpy()
        columns = table.read(folder / "slides" / slide.slide_id / "tiles.parquet")
        box = np.column_stack([columns[name] for name in ("x", "y", "width", "height")])
        with open_slide(slide.path, "openslide") as reader:
            for row in range(0, coarse.n_obs, 5):
                whole, quarters = (
                    [
                        reader.read_region(*map(int, box[number]), SIZE, SIZE).mean(axis=(0, 1)) / 255
                        for number in group.obs["tile"].to_numpy()[chosen]
                    ]
                    for group, chosen in ((coarse, [row]), (fine, parent == row))
                )
                np.testing.assert_allclose(np.mean(quarters, axis=0), whole[0], atol=0.01)
                np.testing.assert_allclose(coarse.X[row, COLOURS].astype(float), whole[0], atol=0.01)
                for child, colour in zip(np.flatnonzero(parent == row), quarters, strict=True):
                    np.testing.assert_allclose(fine.X[child, COLOURS].astype(float), colour, atol=0.01)
