from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
import tifffile

from histill.cohort.sheets import Slide
from histill.config import complete
from histill.encoders import recipes
from histill.errors import HistillError, SlideError
from histill.features import extract
from histill.features.stain import normaliser
from histill.features.store import read_group, read_recipe
from histill.slides import inspect, segment, stain, tile
from tests.slides.fields import EOSIN, HAEMATOXYLIN, tissue

GLASS = np.full(3, 240.0)
SITES = {  # stain vectors and strength of two laboratories
    "north": np.array([[0.65, 0.70, 0.29], [0.15, 0.95, 0.27]]) * [[1.2], [0.9]],
    "south": np.array([[0.49, 0.77, 0.41], [0.22, 0.83, 0.51]]) * [[0.7], [1.5]],
}


def picture(site: str, seed: int = 0) -> np.ndarray:
    """The same tissue as a laboratory stains it, with a strip of glass, uint8 RGB [400, 400, 3]."""
    amounts = tissue(400, 400, seed) @ np.linalg.pinv(np.array([HAEMATOXYLIN, EOSIN]))
    amounts[:, :40] = 0
    return np.clip(np.rint(GLASS * np.exp(-0.9 * amounts @ SITES[site])), 0, 255).astype(np.uint8)


def fitted(rgb: np.ndarray) -> dict:
    return {"stain": stain.statistics(rgb.reshape(-1, 3), GLASS)}


def lab(rgb: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(rgb.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)[:, 60:]


@pytest.mark.parametrize(("method", "share"), [("macenko", 0.1), ("reinhard", 0.5)])
def test_two_laboratories_come_close(method, share):
    before = {site: picture(site) for site in SITES}
    after = {site: normaliser(method, fitted(rgb), site)(rgb) for site, rgb in before.items()}
    distance = [np.linalg.norm(lab(pair["north"]) - lab(pair["south"]), axis=2).mean() for pair in (before, after)]
    assert distance[1] < share * distance[0]
    assert after["north"].dtype == np.uint8
    for rgb in after.values():
        glass = rgb[:, :40].astype(int)
        assert glass.min() > 230
        assert np.ptp(glass, axis=2).max() <= 3, "a cast of colour"


@pytest.mark.parametrize("method", ["macenko", "reinhard"])
def test_one_transform_for_the_whole_slide(method):
    """Tiles of nuclei and of fibres keep their difference, and any shape of batch gives the same pixels."""
    rgb = picture("south")
    change = normaliser(method, fitted(rgb), "s")
    whole = change(rgb)
    np.testing.assert_array_equal(change(rgb[100:200, 50:150]), whole[100:200, 50:150])
    np.testing.assert_array_equal(change(np.stack([rgb, rgb]))[1], whole)


def test_macenko_reaches_the_published_reference():
    rgb = picture("south")
    found = stain.statistics(normaliser("macenko", fitted(rgb), "s")(rgb).reshape(-1, 3), GLASS)["macenko"]
    for name, vector in zip(("haematoxylin", "eosin"), stain.REFERENCE, strict=True):
        assert np.dot(found[name], vector) > np.cos(np.radians(5))
    np.testing.assert_allclose(found["max_concentration"], stain.REFERENCE_MAX, rtol=0.1)


def test_a_slide_without_a_fit_is_refused():
    blank = fitted(np.full((50, 50, 3), 240, np.uint8))
    for method in ("macenko", "reinhard"):
        with pytest.raises(SlideError, match="stained pixels"):
            normaliser(method, blank, "s")
        with pytest.raises(SlideError, match="not measured"):
            normaliser(method, {}, "s")
    assert normaliser("none", {}, "s") is None


def test_another_normalisation_than_the_recipe_is_off_recipe():
    options = {"tile_size": 224, "mpps": {}, "stain_normalisation": "macenko"}
    with pytest.raises(HistillError, match="made for stain normalisation 'none'"):
        recipes.check("colour-texture", **options, allow_off_recipe=False)
    assert len(recipes.check("colour-texture", **options, allow_off_recipe=True)) == 1
    assert recipes.stain_method("colour-texture", "recipe") == "none"
    assert recipes.check("colour-texture", tile_size=224, mpps={}, allow_off_recipe=False) == []


def test_features_with_and_without(tmp_path):
    path, results = tmp_path / "s.tiff", tmp_path / "r"
    mosaic = np.pad(np.tile(picture("south"), (3, 3, 1)), ((200, 200), (200, 200), (0, 0)), constant_values=240)
    kind = {"tile": (256, 256), "photometric": "rgb", "compression": "zlib"}
    tifffile.imwrite(path, mosaic, resolution=(2e4, 2e4), resolutionunit=3, **kind)
    slides = [Slide("s", "p", str(path))]

    def features(**options):
        config = complete({"results": str(results), "cohort": {}, "features": options})
        receipts = [stage.run(slides, config=config, results=results)[0] for stage in (inspect, segment, tile, extract)]
        assert receipts[-1].state == "ok", receipts[-1].reason
        store = results / "features/colour-texture/s.zarr"
        return read_group(store, "20x").x, read_recipe(store, "20x"), receipts[-1]

    plain, recipe, _ = features()
    assert recipe["stain"] == {"method": "none", "target": {}}
    same, _, _ = features(stain_normalisation="none", allow_off_recipe=True)
    np.testing.assert_array_equal(plain, same)
    changed, recipe, receipt = features(stain_normalisation="macenko", allow_off_recipe=True)
    assert not np.array_equal(plain, changed)
    assert recipe["stain"]["method"] == "macenko"
    assert "features.stain_normalisation is 'macenko'" in receipt.warnings[0]
    quality = json.loads((results / "slides/s/quality.json").read_text())
    assert quality["stain"]["macenko"]
